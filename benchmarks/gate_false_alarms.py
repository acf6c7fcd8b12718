"""How often the gate fails what is sound: whole verifications of resampled images.

    python benchmarks/gate_power.py --save logits/flowers.npz --bundle BUNDLE --data DIR
    python benchmarks/gate_false_alarms.py logits/flowers.npz --bundle BUNDLE [--runs 200]

Nothing is inferred again: each run draws images with replacement, takes their logits from the file,
measures all variants as `verify` does and judges them together, Holm's correction included. The
images of the file are then all images there are, so what is true of a variant is known.

* `default`: the limits that `verify` has. Sound variants are well within them.
* `boundary`: every limit is the very figure that the variant has on all images (0 where that is
  negative, since no limit is), so that the hypothesis "within the limit" holds just so and chance
  alone breaks it: at most 2.5 % of the runs for each check where its interval is right, and 2.5 %
  for all checks together where the correction is.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from resdeploy.deploy.arrays import Float32s, Indices
from resdeploy.deploy.bundle.model import Model, open_model, precisions_of
from resdeploy.deploy.defaults import MAX_SQNR_SHORTFALL_DB
from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.metrics.logits import answers, differences
from resdeploy.deploy.metrics.paired_score import beyond_p
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.candidates import Candidate, open_candidates
from resdeploy.deploy.verification.checks.calibration import calibration_gate
from resdeploy.deploy.verification.checks.correction import corrected
from resdeploy.deploy.verification.checks.drop import class_drop_gate, drop_gate
from resdeploy.deploy.verification.checks.gate import Gate, Outcome
from resdeploy.deploy.verification.checks.limits import Limits
from resdeploy.deploy.verification.checks.promise import Promise, promise_gate
from resdeploy.deploy.verification.evaluation import Evaluation, KeptLogits
from resdeploy.deploy.verification.judge import Answered, judge_variants
from resdeploy.deploy.verification.measure import measure

REFERENCE = "fp32"


@dataclass(frozen=True)
class Population:
    """All images of a file: true classes (N,) and logits (N, K) of every variant."""

    model: Model
    candidates: tuple[Candidate, ...]
    truth: Indices
    logits: dict[str, Float32s]


@dataclass(frozen=True)
class Alarms:
    """How often a check failed of so many times it was judged, by its name; and the runs in which
    any failed, after the correction and before, or was undecided."""

    runs: int
    checks: int
    failed: Counter[str]
    judged: Counter[str]
    any_failed: int
    any_failed_alone: int
    undecided: int


def read_population(file: Path, bundle: Path, stack: ExitStack) -> Population:
    """The logits of a file with the bundle that they are of; the checks ask it what it promised."""
    stored = np.load(file)
    model = open_model(bundle)
    opened = open_candidates(model, precisions_of(model, ()), ("ort-cpu",), stack)
    held = [candidate for candidate in opened if candidate.name in stored.files]
    # without its files: their metadata is the same in every run
    return Population(
        replace(model, bundle=None),
        tuple(held),
        stored["truth"].astype(np.int64),
        {candidate.name: stored[candidate.name] for candidate in held},
    )


def evaluation_of(whole: Population, chosen: Indices) -> Evaluation:
    """What `verify` would have after running all variants on the chosen images."""
    logits = {name: values[chosen] for name, values in whole.logits.items()}
    truth = whole.truth[chosen]
    reference = logits[REFERENCE]
    return Evaluation(
        paths=tuple(Path(str(number)) for number in chosen),
        sha256=(),
        truth=truth,
        answers={name: answers(values, truth) for name, values in logits.items()},
        differences={name: differences(reference, values) for name, values in logits.items()},
        reference=REFERENCE,
        unreadable=(),
        seconds={},
        kept=KeptLogits(np.arange(len(chosen)), logits),
    )


def default_gates(whole: Population, evaluation: Evaluation, seed: int) -> list[Gate]:
    """All checks of a run with the limits that `verify` has."""
    answered = Answered(evaluation, None)
    return list(judge_variants(whole.model, whole.candidates, answered, Limits(), seed=seed).gates)


def boundary_gates(
    whole: Population, evaluation: Evaluation, true: dict[str, Accuracy], seed: int
) -> list[Gate]:
    """The checks of a run with the limits that are just met; before the correction."""
    found: list[Gate | None] = []
    labels = whole.model.manifest.labels
    for candidate in whole.candidates:
        name = candidate.name
        if name == REFERENCE:
            continue
        accuracy, all_images = measure(evaluation, name, seed=seed), true[name]
        assert all_images.estimate is not None and all_images.ece_rise is not None
        worst = max(drop.drop for drop in all_images.classes)
        found += [
            drop_gate(name, accuracy, max(0.0, all_images.estimate.drop), against=REFERENCE),
            class_drop_gate(name, accuracy, labels, max(0.0, worst), against=REFERENCE),
            _calibration(name, accuracy, max(0.0, all_images.ece_rise)),
            promise_gate(name, candidate.precision, accuracy, _just_kept(all_images)),
        ]
    return [gate for gate in found if gate is not None]


def _calibration(name: str, accuracy: Accuracy, limit: float) -> Gate | None:
    gate = calibration_gate(name, accuracy, against=REFERENCE)
    if gate is None or gate.value is None or gate.interval is None:
        return None
    verdict: Outcome = "fail" if gate.interval.low > limit else "pass"
    return replace(gate, verdict=verdict, p=beyond_p(gate.value, gate.interval, limit))


def _just_kept(true: Accuracy) -> Promise:
    """A promise without doubt that what is true falls short of by as much as is allowed."""
    assert true.numbers is not None and true.agreement is not None and true.truthful is not None
    figures = true.numbers.sqnr_db + MAX_SQNR_SHORTFALL_DB, true.agreement, true.truthful.top1
    sqnr, agreement, top1 = figures
    exact = [Interval(value, value) for value in figures]
    return Promise("all", true.images, sqnr, exact[0], agreement, exact[1], top1, exact[2])


def count_alarms(whole: Population, images: int, runs: int, *, boundary: bool) -> Alarms:
    """Judge so many runs of so many images each; run k is drawn with seed k."""
    everything = evaluation_of(whole, np.arange(len(whole.truth)))
    true = {c.name: measure(everything, c.name) for c in whole.candidates}
    failed: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    overall = alone = undecided = checks = 0
    for run in range(runs):
        random = np.random.default_rng(run)
        drawn = evaluation_of(whole, random.integers(0, len(whole.truth), images))
        if boundary:
            single = boundary_gates(whole, drawn, true, run)
            gates = corrected(single)
        else:
            gates = default_gates(whole, drawn, run)
            single = gates
        failed.update(gate.name for gate in single if gate.verdict == "fail")
        judged.update(gate.name for gate in single)
        overall += _fails(gates)
        alone += _fails(single)
        undecided += any(gate.verdict == "inconclusive" for gate in gates)
        checks = len(gates)
    return Alarms(runs, checks, failed, judged, overall, alone, undecided)


def _fails(gates: Sequence[Gate]) -> bool:
    return any(gate.verdict == "fail" for gate in gates)


def rows_of(file: Path, bundle: Path, runs: int, sizes: Sequence[int]) -> list[dict[str, object]]:
    """One row for every kind of limit and number of images."""
    rows: list[dict[str, object]] = []
    with ExitStack() as stack:
        whole = read_population(file, bundle, stack)
        for images in (*(n for n in sizes if n < len(whole.truth)), len(whole.truth)):
            for limits in ("default", "boundary"):
                found = count_alarms(whole, images, runs, boundary=limits == "boundary")
                variants = ", ".join(whole.logits)
                rows.append(
                    {
                        "file": file.stem,
                        "variants": variants,
                        "images": images,
                        "limits": limits,
                        "checks": found.checks,
                        "runs": runs,
                        "failed": {n: f"{found.failed[n]}/{of}" for n, of in found.judged.items()},
                        "any_alone": found.any_failed_alone,
                        "any": found.any_failed,
                        "undecided": found.undecided,
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Print one line of JSON for every row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--images", type=int, nargs="*", default=[100])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = rows_of(options.file, options.bundle, options.runs, options.images)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
