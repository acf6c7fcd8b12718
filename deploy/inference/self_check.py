"""Whether a session gives the bundle's reference logits: asked before a GPU backend is trusted.

A provider that is listed may still lack a library, a kernel for this GPU, or give nonsense. The
first images of `reference.npz` decide. SQNR = 10 log10(Σ z² / Σ (y − z)²) over logits z (PyTorch)
and y (the session), in dB, has the floor that `verify` sets, and at least half of the answers (the
largest logit's class) are the same. That tells what works from what is broken; how much accuracy
is lost takes more images to say. Of a backbone its last feature map is judged, by SQNR alone.
"""

from dataclasses import dataclass

import numpy as np

from resdeploy.deploy.bundle.bundle import REFERENCE
from resdeploy.deploy.bundle.model import Model, recorded_reference
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.metrics.logits import MIN_SQNR_DB, agreement, sqnr_db
from resdeploy.deploy.session import Session, gives_maps, sizes_of
from resdeploy.deploy.specs import Precision

_IMAGES = 4

# working int8 graphs keep 75 to 100, damaged ones 12 to 25
_LEAST_AGREEMENT_PERCENT = 50.0


@dataclass(frozen=True)
class SelfCheck:
    """The outcome; figures are None where there is nothing to compare, or no class to agree on."""

    passed: bool
    images: int
    sqnr_db: float | None
    agreement_percent: float | None

    def __str__(self) -> str:
        if self.sqnr_db is None:
            what = "are finite" if self.passed else "are not finite, or have the wrong shape"
            return f"the logits {what} (images tried: {self.images})"
        same = ""
        if self.agreement_percent is not None:
            same = f" and {self.agreement_percent:.0f} % agreement"
        return f"SQNR {self.sqnr_db:.1f} dB{same} on {self.images} reference images"


def has_reference(model: Model) -> bool:
    """Whether there are recorded logits to judge by; a lone ONNX file has none."""
    return model.bundle is not None and model.bundle.file(REFERENCE) is not None


def first_references(model: Model, *, most: int = _IMAGES) -> Reference | None:
    """The first images of a bundle's reference; None where there is none.

    Raises:
        BundleError: damaged, empty, or of another network.
    """
    whole = recorded_reference(model)
    return None if whole is None else Reference(whole.inputs[:most], whole.logits[:most])


def self_check(session: Session, precision: Precision, reference: Reference | None) -> SelfCheck:
    """Run the reference images (zeros without them) and judge the logits.

    Raises:
        BackendError: the session cannot run at all.
    """
    if reference is None:
        logits = session.run(np.zeros((1, *sizes_of(session.input)), np.float32))
        return SelfCheck(bool(np.isfinite(logits).all()), 1, None, None)
    starts = range(0, len(reference.inputs), _IMAGES)  # few at once: memory is bounded
    logits = np.concatenate([session.run(reference.inputs[i : i + _IMAGES]) for i in starts])
    if gives_maps(session):
        logits = logits.reshape(len(logits), -1)
    if logits.shape != reference.logits.shape or not np.isfinite(logits).all():
        return SelfCheck(False, len(logits), None, None)
    quality = sqnr_db(reference.logits, logits)
    if gives_maps(session):
        return SelfCheck(quality >= MIN_SQNR_DB[precision], len(logits), quality, None)
    same = agreement(reference.logits, logits)
    passed = quality >= MIN_SQNR_DB[precision] and same >= _LEAST_AGREEMENT_PERCENT
    return SelfCheck(passed, len(logits), quality, same)
