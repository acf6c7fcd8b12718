"""The closing sentence of a verification: one clear thing."""

from collections.abc import Sequence

from resdeploy.deploy.verification.checks.gate import Gate, Verdict, decide_by

# what explains other failures goes before them
_CAUSES = ("finite", "consistency", "labels", "preprocessing", "calibration-images")
_DROPS = ("baseline", "against", "max-drop", "min-top1")


def closing_sentence(verdict: Verdict, gates: Sequence[Gate]) -> str:
    """E.g. `FAILED 2 of 6 checks: fp32 lost 24.25 points against base.json (limit 2)`."""
    ran = [gate for gate in gates if gate.verdict != "not checked"]
    skipped = len(gates) - len(ran)
    left_out = f", {skipped} not checked" if skipped else ""
    if verdict == "fail":
        failed = [gate for gate in gates if gate.verdict == "fail"]
        first = min(failed, key=_rank)
        return f"FAILED {len(failed)} of {_checks(len(gates))}: {first.brief}"
    if verdict == "inconclusive":
        open_ones = [gate for gate in ran if gate.verdict == "inconclusive"]
        first = min(open_ones, key=_rank)
        start = f"UNDECIDED {len(open_ones)} of {_checks(len(ran))}{left_out}"
        return f"{start}: {first.brief}{decide_by(first)}"
    drops = [gate for gate in ran if gate.name in _DROPS[:3] and gate.value is not None]
    worst = max(drops, key=lambda gate: gate.value or 0.0, default=None)
    largest = "" if worst is None else f": {worst.brief}"
    return f"PASSED {_checks(len(ran))}{left_out}{largest}"


def _rank(gate: Gate) -> tuple[int, float]:
    """Causes first, then drops from the largest, then the rest in their order.

    What fails for want of evidence alone comes after what is shown to fail.
    """
    if gate.strict:
        return len(_CAUSES) + 2, 0.0
    if gate.name in _CAUSES:
        return _CAUSES.index(gate.name), 0.0
    if gate.name in _DROPS:
        return len(_CAUSES), -(gate.value or 0.0) if gate.name != "min-top1" else 0.0
    return len(_CAUSES) + 1, 0.0


def _checks(count: int) -> str:
    return f"{count} check" if count == 1 else f"{count} checks"
