"""Several checks at once: Holm's step-down correction (Holm 1979) of all that are tests.

A check fails where its interval lies beyond the limit, which chance does in 2.5 % of all runs of a
deployment exactly at the limit. Of m tests together one would fail too often, so a failure stands
only if Holm's adjusted p is below 2.5 % as well. So one of many checks can lie just beyond its
limit and stay undecided. The report then says how many images decide it:

    N = n (z(1 − 2.5 % / m) s / (drop − limit))²        s the standard error on n images
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

from resdeploy.deploy.metrics.intervals import Z95, Interval, holm, images_to_decide
from resdeploy.deploy.verification.checks.gate import Gate

LEVEL = 0.025


def corrected(gates: Sequence[Gate]) -> list[Gate]:
    """The checks with failures taken back that chance explains, given how many tests there were."""
    places = [place for place, gate in enumerate(gates) if gate.p is not None]
    adjusted = holm([gates[place].p or 0.0 for place in places])
    found = list(gates)
    for place, p in zip(places, adjusted, strict=True):
        gate = gates[place]
        if gate.verdict != "fail" or p < LEVEL:
            continue
        found[place] = _taken_back(gate, p, len(places))
    return found


def _taken_back(gate: Gate, p: float, tests: int) -> Gate:
    """Beyond its limit alone, but not among so many tests: a guard passes, a limit is open."""
    why = f"; beyond the limit, but one of {tests} tests may be by chance (Holm's p = {p:.2g})"
    if gate.guard:
        return replace(gate, verdict="pass", sentence=gate.sentence + why)
    needed = _images_needed(gate, tests)
    advice = "run again" if needed is None else f"use about {needed:,} images to decide"
    return replace(
        gate,
        verdict="inconclusive",
        sentence=f"{gate.sentence}{why}: {advice}",
        images_needed=needed,
    )


def _images_needed(gate: Gate, tests: int) -> int | None:
    """Images until the failure would stand among all tests; None where images do not help."""
    if gate.images is None or gate.value is None or gate.interval is None or gate.limit is None:
        return None
    wider = NormalDist().inv_cdf(1 - LEVEL / tests) / Z95
    low, high = (
        gate.value + wider * (end - gate.value) for end in (gate.interval.low, gate.interval.high)
    )
    return images_to_decide(gate.value, Interval(low, high), gate.images, gate.limit)
