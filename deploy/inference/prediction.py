"""Turns logits into the most probable classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import GraphError, InputError


@dataclass(frozen=True)
class Prediction:
    """One class of an answer; `probability` is the softmax over all classes."""

    label: str
    index: int
    probability: float


def top_predictions(logits: Float32s, labels: Sequence[str], top: int) -> list[Prediction]:
    """The `top` classes of (classes,) logits with softmax probabilities, ties by class index.

    Raises:
        InputError: top < 1.
        GraphError: a logit is not finite, so there is no answer.
    """
    if top < 1:
        raise InputError(f"top {top} is not at least 1")
    if not np.isfinite(logits).all():
        raise GraphError(
            f"the network answered {logits[~np.isfinite(logits)][0]} for class "
            f"{labels[int(np.argmin(np.isfinite(logits)))]!r}, expected finite logits: "
            "try --precision fp32, or export again"
        )
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = shifted / shifted.sum()
    order = best_classes(logits, top)
    return [Prediction(labels[i], i, float(probabilities[i])) for i in order]


def best_classes(logits: Float32s, top: int) -> list[int]:
    """Indices of the `top` largest of (classes,) finite logits, ties by index; sorts only those."""
    if top >= len(logits):
        every: list[int] = np.argsort(-logits, kind="stable").tolist()
        return every
    place = len(logits) - top
    best = np.flatnonzero(logits >= np.partition(logits, place)[place])
    found: list[int] = best[np.argsort(-logits[best], kind="stable")][:top].tolist()
    return found
