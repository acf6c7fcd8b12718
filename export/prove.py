"""Compares written graphs with PyTorch on the same inputs, in one pass over the pictures.

With z the logits of PyTorch and y those of a graph, over all pictures and classes:

    max_abs = max |y - z|          top1_agreement = share of pictures with argmax y = argmax z
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.output import Progress, silent
from resdeploy.deploy.preprocess import Preprocess
from resdeploy.deploy.recording import Reference
from resdeploy.deploy.session import Session
from resdeploy.export.pictures import Pictures

TORCH = "pytorch"

_REFERENCE_PICTURES = 32
_TOLERANCE = 1e-4  # float32 round-off through a hundred layers stays an order below


@dataclass(frozen=True)
class Answers:
    """Logits (N, classes) of every session by name, PyTorch's among them, and the true classes."""

    logits: Mapping[str, NDArray[np.float32]]
    truth: NDArray[np.int64] | None
    reference: Reference

    def parity(self, name: str) -> dict[str, Any]:
        """How far `name` is from PyTorch; agreement in percent."""
        expected, got = self.logits[TORCH], self.logits[name]
        agreement = (expected.argmax(axis=1) == got.argmax(axis=1)).mean()
        return {
            "images": len(expected),
            "max_abs": rounded(float(np.abs(got - expected).max())),
            "top1_agreement": round(100 * float(agreement), 3),
        }

    def accuracy(self) -> dict[str, float]:
        """Top-1 of every session in percent; empty where the true classes are not known."""
        if self.truth is None:
            return {}
        return {
            name: round(100 * float((logits.argmax(axis=1) == self.truth).mean()), 3)
            for name, logits in self.logits.items()
        }

    def check(self, name: str) -> None:
        """Raise GraphError unless max_abs <= 1e-4 * max(1, max |z|), or anything is not finite."""
        expected, got = self.logits[TORCH], self.logits[name]
        for source, logits in ((TORCH, expected), (name, got)):
            bad = ~np.isfinite(logits).all(axis=1)
            if bad.any():
                raise GraphError(
                    f"{name}.onnx: {source} answers picture {int(bad.argmax())} with NaN or "
                    "infinity: look at the checkpoint's weights"
                )
        limit = _TOLERANCE * max(1.0, float(np.abs(expected).max()))
        difference = float(np.abs(got - expected).max())
        if difference > limit:
            raise GraphError(
                f"{name}.onnx: logits differ from PyTorch by {difference:.3g}, allowed are "
                f"{limit:.3g}: nothing was written; please report the architecture"
            )


def answer_all(
    sessions: Mapping[str, Session],
    pictures: Pictures,
    preprocess: Preprocess,
    progress: Progress = silent,
) -> Answers:
    """Run every session on every picture; the pictures are decoded once and not kept.

    The reference keeps at most 32 of them, evenly spaced.
    """
    logits: dict[str, list[NDArray[np.float32]]] = {name: [] for name in sessions}
    used: list[int] = []
    wanted = _evenly_spaced(max(1, len(pictures.paths)))
    kept: list[NDArray[np.float32]] = []
    kept_rows: list[int] = []
    total = len(pictures.paths)
    for inputs, positions in pictures.inputs(preprocess):
        for row, position in enumerate(positions):
            if not pictures.paths or position in wanted:
                kept.append(inputs[row])
                kept_rows.append(len(used) + row)
        for name, session in sessions.items():
            logits[name].append(session.run(inputs))
        used += positions
        progress("comparing with PyTorch", len(used), total or len(used))
    joined = {name: np.concatenate(parts) for name, parts in logits.items()}
    truth = None if pictures.truth is None else np.array(pictures.truth, np.int64)[used]
    reference = Reference(np.stack(kept), joined[TORCH][kept_rows])
    return Answers(joined, truth, reference)


def rounded(value: float) -> float:
    """Three significant digits: a proof is a magnitude, and its last bits change with threads."""
    return float(f"{value:.3g}")


def _evenly_spaced(total: int) -> set[int]:
    return {round(i) for i in np.linspace(0, total - 1, min(total, _REFERENCE_PICTURES))}
