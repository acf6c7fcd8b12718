"""Compares written graphs with their original on the same inputs, in one pass over the images.

The original is PyTorch, or the graph that was adopted. With z its logits and y those of a written
graph, over all images and classes:

    max_abs = max |y - z|          top1_agreement = share of images with argmax y = argmax z
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from resdeploy.deploy.arrays import Float32s, Indices
from resdeploy.deploy.bundle.reference import Reference, write_reference
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.images.dataset import Images, evenly_spaced
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.metrics.logits import agreement, max_abs, top1
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.session import Session
from resdeploy.deploy.verification.checks.promise import ON_IMAGES, ON_RECORDED, promise_of
from resdeploy.deploy.verification.forward_pass import Batch, forward_images, forward_inputs
from resdeploy.deploy.verification.measure import measure_logits
from resdeploy.export.proof.images import builtin_inputs

# the session that the others are compared with
TORCH = "pytorch"
ADOPTED = "original"
_IN_WORDS = {TORCH: "PyTorch", ADOPTED: "the adopted graph"}

_RECORDED_IMAGES = 32
_TOLERANCE = 1e-4  # float32 round-off through a hundred layers stays an order below


@dataclass(frozen=True)
class Parity:
    """Logits (N, classes) of every session by name, the original's among them.

    Attributes:
        truth: (N,) true classes, or None.
        recorded: some of the inputs with the original's logits, to be replayed on other machines.
        recorded_logits: what every session answered to those inputs.
        original: the name of the original's session.
    """

    logits: Mapping[str, Float32s]
    truth: Indices | None
    recorded: Reference
    recorded_logits: Mapping[str, Float32s] = field(default_factory=dict)
    original: str = TORCH

    def figures(self, name: str) -> dict[str, Any]:
        """How far `name` is from the original; agreement in percent."""
        expected, got = self.logits[self.original], self.logits[name]
        return {
            "images": len(expected),
            "max_abs": rounded(max_abs(expected, got)),
            "top1_agreement": round(agreement(expected, got), 3),
        }

    def promised(self, names: Iterable[str], *, own_images: bool) -> dict[str, Any]:
        """What a later run is held to (`deploy.verification.checks.promise`), by variant.

        `own_images` are the user's, so that others of theirs are like them.
        """
        found: dict[str, Any] = {}
        for name in names:
            expected, got = self.logits[self.original], self.logits[name]
            of = f"{len(expected)} images at export"
            found[name] = {
                ON_IMAGES: promise_of(measure_logits(expected, got, self.truth), of)
                if own_images
                else None,
                ON_RECORDED: promise_of(
                    measure_logits(self.recorded.logits, self.recorded_logits[name], None),
                    "the recorded inputs",
                ),
            }
        return found

    def accuracy(self) -> dict[str, float]:
        """Top-1 of every session in percent; empty where the true classes are not known."""
        if self.truth is None:
            return {}
        return {name: round(top1(logits, self.truth), 3) for name, logits in self.logits.items()}

    def write_recorded(self, path: Path) -> None:
        """Write `reference.npz`."""
        write_reference(path, self.recorded)

    def check(self, name: str) -> None:
        """Raise GraphError unless max_abs <= 1e-4 * max(1, max |z|), or anything is not finite."""
        expected, got = self.logits[self.original], self.logits[name]
        for source, logits in ((self.original, expected), (name, got)):
            bad = ~np.isfinite(logits).all(axis=1)
            if bad.any():
                raise GraphError(
                    f"{name}.onnx: {source} answers image {int(bad.argmax())} with NaN or "
                    "infinity: look at the network's weights"
                )
        limit = _TOLERANCE * max(1.0, float(np.abs(expected).max()))
        difference = max_abs(expected, got)
        if difference > limit:
            raise GraphError(
                f"{name}.onnx: logits differ from {_IN_WORDS[self.original]} by {difference:.3g}, "
                f"limit: {limit:.3g}; nothing was written: please report the architecture"
            )


@dataclass(frozen=True)
class _Kept:
    """Of a batch: all logits, and those inputs that are recorded with the original's logits."""

    logits: Mapping[str, Float32s]
    recorded: Reference
    recorded_logits: Mapping[str, Float32s]


def compare_with_original(
    sessions: Mapping[str, Session],
    images: Images | None,
    preprocess: Preprocess,
    progress: Progress = silent,
    *,
    original: str = TORCH,
) -> Parity:
    """Run every session, that called `original` among them, on every image, or the built-in ones.

    The images are decoded once and not kept, but for 32 evenly spaced ones that are recorded.

    Raises:
        InputError: more than 5 % of the images cannot be read.
    """
    total = _RECORDED_IMAGES if images is None else len(images.paths)
    recorded = set(evenly_spaced(total, _RECORDED_IMAGES))

    def keep(batch: Batch) -> _Kept:
        rows = [row for row, position in enumerate(batch.positions) if position in recorded]
        chosen = {name: logits[rows] for name, logits in batch.logits.items()}
        return _Kept(batch.logits, Reference(batch.inputs[rows], chosen[original]), chosen)

    step = f"comparing with {_IN_WORDS[original]}"
    if images is None:
        inputs = builtin_inputs(preprocess)
        done = forward_inputs(inputs, sessions, keep, step=step, progress=progress)
    else:
        done = forward_images(images, preprocess, sessions, keep, step=step, progress=progress)
    truth = None if images is None or images.truth is None else images.truth[list(done.positions)]
    return _joined(done.kept, truth, original)


def _joined(batches: Sequence[_Kept], truth: Indices | None, original: str) -> Parity:
    names = batches[0].logits
    return Parity(
        logits={name: np.concatenate([batch.logits[name] for batch in batches]) for name in names},
        truth=truth,
        recorded=Reference(
            np.concatenate([batch.recorded.inputs for batch in batches]),
            np.concatenate([batch.recorded.logits for batch in batches]),
        ),
        recorded_logits={
            name: np.concatenate([batch.recorded_logits[name] for batch in batches])
            for name in names
        },
        original=original,
    )


def rounded(value: float) -> float:
    """Three significant digits: a proof is a magnitude, and its last bits change with threads."""
    return float(f"{value:.3g}")
