"""Whether a session gives the bundle's reference logits: asked before a GPU backend is trusted.

A provider that is listed may still lack a library, a kernel for this GPU, or give nonsense. The
first pictures of `reference.npz` decide; the bounds only tell a working backend from a broken one,
for accuracy is `verify`'s business. SQNR = 10 log10(Σ z² / Σ (y − z)²) over logits z (PyTorch) and
y (the session), in dB.
"""

from dataclasses import dataclass

import numpy as np

from resdeploy.deploy.bundle import REFERENCE
from resdeploy.deploy.compare import agreement, sqnr_db
from resdeploy.deploy.recording import Reference, read_reference
from resdeploy.deploy.session import Model, Session, sizes_of
from resdeploy.deploy.specs import Precision

_PICTURES = 4

# dB; TensorFloat-32 leaves 60, half 45, int8 18 to 25
_LEAST_SQNR_DB: dict[Precision, float] = {"fp32": 40.0, "fp16": 25.0, "int8": 8.0}


@dataclass(frozen=True)
class WarmUp:
    """What came of it; the figures are None where there is no reference to compare with."""

    passed: bool
    pictures: int
    sqnr_db: float | None
    agreement_percent: float | None

    def __str__(self) -> str:
        if self.sqnr_db is None:
            return f"{self.pictures} made-up pictures, answers finite: {self.passed}"
        return f"SQNR {self.sqnr_db:.1f} dB on {self.pictures} reference pictures"


def reference_pictures(model: Model) -> Reference | None:
    """The first pictures of a bundle's reference; None for a lone ONNX file, which has none."""
    path = model.path / REFERENCE
    if model.bundle is None or not path.is_file():
        return None
    whole = read_reference(path)
    return Reference(whole.inputs[:_PICTURES], whole.logits[:_PICTURES])


def warm_up(session: Session, precision: Precision, reference: Reference | None) -> WarmUp:
    """Run the reference pictures (zeros without them) and judge the logits.

    Raises:
        BackendError: the session cannot run at all.
    """
    if reference is None:
        logits = session.run(np.zeros((1, *sizes_of(session.input)), np.float32))
        return WarmUp(bool(np.isfinite(logits).all()), 1, None, None)
    logits = session.run(reference.inputs)
    if logits.shape != reference.logits.shape or not np.isfinite(logits).all():
        return WarmUp(False, len(logits), None, None)
    quality = sqnr_db(reference.logits, logits)
    return WarmUp(
        quality >= _LEAST_SQNR_DB[precision],
        len(logits),
        quality,
        agreement(reference.logits, logits),
    )
