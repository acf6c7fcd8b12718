"""Checks of the accuracy that was lost: of all images together, and of each class."""

from collections.abc import Sequence

from resdeploy.deploy.defaults import MAX_CLASS_DROP, MAX_DROP
from resdeploy.deploy.metrics.calibrated_drop import DropEstimate
from resdeploy.deploy.metrics.intervals import (
    Paired,
    images_to_decide,
    images_to_decide_drop,
)
from resdeploy.deploy.metrics.paired_score import beyond_p, score_interval, score_p
from resdeploy.deploy.verification.accuracy import Accuracy, ClassDrop
from resdeploy.deploy.verification.checks.correction import LEVEL
from resdeploy.deploy.verification.checks.gate import Gate, Outcome, outlook, points, span


def drop_gate(
    variant: str,
    accuracy: Accuracy,
    max_drop: float | None,
    *,
    against: str,
    name: str = "max-drop",
) -> Gate:
    """The drop of top-1 against `against` on the same images."""
    counts, found = accuracy.counts, accuracy.estimate
    if counts is None or found is None:
        raise ValueError(f"{variant}: no true classes, so no drop")
    limit = MAX_DROP if max_drop is None else max_drop
    verdict: Outcome = "fail"
    if found.interval.low <= limit:
        verdict = "pass" if found.interval.high <= limit else "inconclusive"
    needed = None
    if verdict == "inconclusive":
        needed = _images_needed(counts, found, limit, accuracy.reach)
    lost = f"lost {found.drop:.2f}" if found.drop > -0.005 else f"gained {-found.drop:.2f}"
    return Gate(
        name=name,
        variant=variant,
        verdict=verdict,
        sentence=f"{_sentence(counts, found)}, limit: {limit:g}{outlook(verdict, needed)}",
        value=found.drop,
        interval=found.interval,
        limit=limit,
        brief=f"{variant} {lost} points against {against} (limit {limit:g})",
        images=counts.images,
        images_needed=needed,
        p=beyond_p(found.drop, found.interval, limit),
    )


def class_drop_gate(
    variant: str,
    accuracy: Accuracy,
    labels: Sequence[str],
    max_class_drop: float | None,
    *,
    against: str,
    name: str = "max-class-drop",
) -> Gate | None:
    """Fail where a class lost more than the limit beyond doubt (Tango's score test, Holm's first
    step over the classes); None where there are no classes.
    """
    if not accuracy.classes:
        return None
    limit = MAX_CLASS_DROP if max_class_drop is None else max_class_drop
    p_values = [score_p(_paired(drop), limit) for drop in accuracy.classes]
    place = min(range(len(p_values)), key=lambda k: (p_values[k], -accuracy.classes[k].drop))
    p = min(1.0, len(p_values) * p_values[place])
    shown = accuracy.classes[place]
    interval = score_interval(_paired(shown))
    label = labels[shown.index]
    sentence = (
        f"class {label!r} lost {shown.drop:.1f} points {span(interval)} on its {shown.images} "
        f"images, the clearest loss of {len(p_values)} classes, limit: {limit:g}"
    )
    return Gate(
        name=name,
        variant=variant,
        verdict="fail" if p < LEVEL else "pass",
        sentence=sentence,
        value=shown.drop,
        interval=interval,
        limit=limit,
        brief=(
            f"{variant} lost {shown.drop:.1f} points of class {label!r} against {against} "
            f"(limit {limit:g})"
        ),
        p=p,
        guard=True,
    )


def _paired(drop: ClassDrop) -> Paired:
    return Paired(drop.images, drop.lost, drop.gained)


def _sentence(counts: Paired, found: DropEstimate) -> str:
    flips = f"{counts.lost} lost, {counts.gained} gained"
    start = f"top-1 drop is {points(found.drop)} points {span(found.interval)}"
    if found.estimator == "calibrated":
        counted = f"counted: {points(counts.drop)}, {flips}"
        return f"{start} by the logits of {counts.images} images ({counted})"
    remark = "" if found.remark is None else f"; {found.remark}"
    return f"{start} on {counts.images} images ({flips}){remark}"


def _images_needed(counts: Paired, found: DropEstimate, limit: float, reach: float) -> int | None:
    """The fewest by any way: with many images the count is the sharper one again."""
    by_interval = images_to_decide(
        found.drop, found.interval, counts.images, limit, floor=found.floor
    )
    plain = found.remark is None  # where count and logits contradict each other, rates say nothing
    by_count = images_to_decide_drop(counts, limit, reach=reach) if plain else None
    if found.estimator == "count" and plain:
        return by_count
    return min((n for n in (by_interval, by_count) if n is not None), default=None)
