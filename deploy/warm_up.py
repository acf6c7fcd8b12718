"""Whether a session gives the bundle's reference logits: asked before a GPU backend is trusted.

A provider that is listed may still lack a library, a kernel for this GPU, or give nonsense. The
first pictures of `reference.npz` decide. SQNR = 10 log10(Σ z² / Σ (y − z)²) over logits z (PyTorch)
and y (the session), in dB, has the floor that `verify` sets, and at least half of the answers (the
largest logit's class) are the same. That tells what works from what is broken; how much accuracy
is lost takes more pictures to say.
"""

from dataclasses import dataclass

import numpy as np

from resdeploy.deploy.anchor import recorded_answers
from resdeploy.deploy.bundle import REFERENCE
from resdeploy.deploy.compare import agreement, sqnr_db
from resdeploy.deploy.gate import MIN_SQNR_DB
from resdeploy.deploy.recording import Reference
from resdeploy.deploy.session import Model, Session, sizes_of
from resdeploy.deploy.specs import Precision

_PICTURES = 4

# working int8 graphs keep 75 to 100, damaged ones 12 to 25
_LEAST_AGREEMENT_PERCENT = 50.0


@dataclass(frozen=True)
class WarmUp:
    """What came of it; the figures are None where there is no reference to compare with."""

    passed: bool
    pictures: int
    sqnr_db: float | None
    agreement_percent: float | None

    def __str__(self) -> str:
        if self.sqnr_db is None or self.agreement_percent is None:
            what = "finite" if self.passed else "not finite, or of another shape,"
            return f"logits {what} ({self.pictures} tried)"
        return (
            f"SQNR {self.sqnr_db:.1f} dB and {self.agreement_percent:.0f} % the same answers on "
            f"{self.pictures} reference pictures"
        )


def has_reference(model: Model) -> bool:
    """Whether there are recorded logits to judge by; a lone ONNX file has none."""
    return model.bundle is not None and (model.path / REFERENCE).is_file()


def reference_pictures(model: Model, *, most: int = _PICTURES) -> Reference | None:
    """The first pictures of a bundle's reference; None where there is none.

    Raises:
        BundleError: damaged, empty, or of another network.
    """
    whole = recorded_answers(model)
    return None if whole is None else Reference(whole.inputs[:most], whole.logits[:most])


def warm_up(session: Session, precision: Precision, reference: Reference | None) -> WarmUp:
    """Run the reference pictures (zeros without them) and judge the logits.

    Raises:
        BackendError: the session cannot run at all.
    """
    if reference is None:
        logits = session.run(np.zeros((1, *sizes_of(session.input)), np.float32))
        return WarmUp(bool(np.isfinite(logits).all()), 1, None, None)
    starts = range(0, len(reference.inputs), _PICTURES)  # few at once: memory is bounded
    logits = np.concatenate([session.run(reference.inputs[i : i + _PICTURES]) for i in starts])
    if logits.shape != reference.logits.shape or not np.isfinite(logits).all():
        return WarmUp(False, len(logits), None, None)
    quality = sqnr_db(reference.logits, logits)
    same = agreement(reference.logits, logits)
    passed = quality >= MIN_SQNR_DB[precision] and same >= _LEAST_AGREEMENT_PERCENT
    return WarmUp(passed, len(logits), quality, same)
