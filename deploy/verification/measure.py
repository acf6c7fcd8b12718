"""Measures one variant: its answers and logits against the reference's and the true classes."""

from dataclasses import replace

import numpy as np

from resdeploy.deploy.arrays import Bools, Float32s, Indices
from resdeploy.deploy.metrics.bootstrap import calibration_rise, sqnr_interval
from resdeploy.deploy.metrics.calibrated_drop import (
    DropEstimate,
    PairedLogits,
    calibrated_drop,
)
from resdeploy.deploy.metrics.intervals import (
    agreement_interval,
    drop_interval,
    holm,
    mcnemar_p,
    paired,
    reach,
    wilson_interval,
)
from resdeploy.deploy.metrics.logits import (
    Answers,
    Differences,
    answers,
    calibration_error,
    decibels,
    differences,
)
from resdeploy.deploy.verification.accuracy import (
    Accuracy,
    ClassDrop,
    Flip,
    FlipKind,
    Numbers,
    Truthful,
)
from resdeploy.deploy.verification.evaluation import RECORDED, Evaluation


def measure(evaluation: Evaluation, name: str, *, seed: int = 0) -> Accuracy:
    """All figures of the session called `name`; `seed` is the bootstrap's.

    Of the reference itself there is only how often it is right: it is compared with nothing.
    """
    found = evaluation.answers[name]
    truth = evaluation.truth
    right = None if truth is None else (found.index == truth) & found.finite
    truthful = None if right is None else _truthful(found, right)
    not_finite = tuple(int(i) for i in np.flatnonzero(~found.finite))
    if evaluation.reference in (None, name):
        return Accuracy(len(found.index), not_finite, truthful)
    expected = evaluation.answers[str(evaluation.reference)]
    apart = evaluation.differences.get(name)  # a baseline has classes but no logits
    reached = 1.0 if apart is None else reach(expected, apart)
    same = (expected.index == found.index) & found.finite
    against = Accuracy(
        images=len(found.index),
        not_finite=not_finite,
        truthful=truthful,
        agreement=100 * float(same.mean()),
        agreement_ci95=agreement_interval(int(same.sum()), len(same), reach=reached),
        flips=_flips(expected, found, truth, same),
        numbers=None if apart is None else _numbers(apart, seed),
        reach=reached,
    )
    if truth is None or right is None:
        return against
    logits = paired_logits(evaluation, name)
    calibrated = None if logits is None else calibrated_drop(logits, reach=reached)
    return _with_truth(against, expected, found, truth, right, calibrated, seed)


def paired_logits(evaluation: Evaluation, name: str) -> PairedLogits | None:
    """The logits that were kept of `name` and the reference; None where there are none."""
    kept = evaluation.kept
    if kept is None or evaluation.truth is None or evaluation.reference is None:
        return None
    truth = evaluation.truth[kept.positions]
    return PairedLogits(kept.logits[evaluation.reference], kept.logits[name], truth)


def _with_truth(
    against: Accuracy,
    expected: Answers,
    found: Answers,
    truth: Indices,
    right: Bools,
    calibrated: DropEstimate | None,
    seed: int,
) -> Accuracy:
    """The comparison with what the true classes add to it."""
    expected_right = (expected.index == truth) & expected.finite
    counts = paired(expected_right, right)
    rise, interval = None, None
    if np.isfinite(expected.confidence).all() and np.isfinite(found.confidence).all():
        rise, interval = calibration_rise(
            expected.confidence, expected_right, found.confidence, right, seed=seed
        )
    return replace(
        against,
        reference=_truthful(expected, expected_right),
        counts=counts,
        drop_ci95=drop_interval(counts, reach=against.reach, seed=seed),
        mcnemar_p=mcnemar_p(counts.lost, counts.gained),
        calibrated=calibrated,
        ece_rise=rise,
        ece_rise_ci95=interval,
        classes=_class_drops(truth, expected_right, right),
    )


def _truthful(found: Answers, right: Bools) -> Truthful:
    confidence = np.nan_to_num(found.confidence)
    return Truthful(
        top1=100 * float(right.mean()),
        top1_ci95=wilson_interval(int(right.sum()), len(right)),
        top5=100 * float(found.top5.mean()),
        ece=calibration_error(confidence, right),
    )


def _numbers(apart: Differences, seed: int) -> Numbers | None:
    """None where a logit is not finite: no number describes that."""
    if not np.isfinite(apart.noise).all():
        return None
    return Numbers(
        max_abs=float(apart.max_abs.max()),
        sqnr_db=decibels(float(apart.signal.sum()), float(apart.noise.sum())),
        sqnr_ci95=sqnr_interval(apart.signal, apart.noise, seed=seed),
        cosine=float(apart.cosine.mean()),
        kl=float(apart.kl.mean()),
    )


def _class_drops(truth: Indices, expected_right: Bools, right: Bools) -> tuple[ClassDrop, ...]:
    """Every class that has images, those that lost most first."""
    classes = np.unique(truth)
    counts = [paired(expected_right[truth == c], right[truth == c]) for c in classes]
    adjusted = holm([mcnemar_p(count.lost, count.gained) for count in counts])
    drops = [
        ClassDrop(
            index=int(c),
            images=count.images,
            lost=count.lost,
            gained=count.gained,
            top1_reference=100 * float(expected_right[truth == c].mean()),
            top1=100 * float(right[truth == c].mean()),
            drop=count.drop,
            p_holm=p,
        )
        for c, count, p in zip(classes, counts, adjusted, strict=True)
    ]
    return tuple(sorted(drops, key=lambda drop: -drop.drop))


def _flips(
    expected: Answers, found: Answers, truth: Indices | None, same: Bools
) -> tuple[Flip, ...]:
    flips = []
    for position in map(int, np.flatnonzero(~same)):
        true = None if truth is None else int(truth[position])
        was, now = int(expected.index[position]), int(found.index[position])
        kind: FlipKind = "lost" if was == true else "gained" if now == true else "changed"
        confidences = float(expected.confidence[position]), float(found.confidence[position])
        flips.append(Flip(position, kind, true, was, confidences[0], now, confidences[1]))
    return tuple(flips)


def measure_logits(expected: Float32s, got: Float32s, truth: Indices | None) -> Accuracy:
    """All figures from whole logits (N, K), such as those of an export."""
    evaluation = Evaluation(
        paths=(),
        sha256=(),
        truth=truth,
        answers={RECORDED: answers(expected, truth), "got": answers(got, truth)},
        differences={"got": differences(expected, got)},
        reference=RECORDED,
        unreadable=(),
        seconds={},
    )
    return measure(evaluation, "got")
