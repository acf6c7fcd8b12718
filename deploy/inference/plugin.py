"""Opens a plugin provider of ONNX Runtime, admitted only by the bundle's reference.

Another runtime may compute an INT8 graph otherwise than its makers meant: without VNNI, OpenVINO
adds pairs of products in 16 bits, which saturates. So each of a bundle's files for the precision is
tried in turn, and the first one runs that gives the recorded logits as well as it did when it was
made: no more than 3 dB below its own recorded figure, and above the floor of its precision.
"""

from collections.abc import Callable

from resdeploy.deploy.bundle.model import Model
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.defaults import MAX_SQNR_SHORTFALL_DB
from resdeploy.deploy.errors import BackendError, ResdeployError
from resdeploy.deploy.inference.self_check import SelfCheck, first_references, self_check
from resdeploy.deploy.metrics.logits import MIN_SQNR_DB
from resdeploy.deploy.optional import needs
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import Backend, Precision, Variant
from resdeploy.deploy.targets import variants_for

_JUDGED_IMAGES = 32

Open = Callable[[Variant], Session]


def open_plugin(model: Model, precision: Precision, backend: Backend) -> Session:
    """A session of the first file of `precision` that gives the recorded logits on `backend`.

    Raises:
        BackendError: the provider is not here, or none of the files gives them; says how far off.
        BundleError, InputError: the precision is not there, or its file was altered.
    """
    with needs(f"backend {backend}"):
        from resdeploy.deploy.inference.ort_session import OrtSession

    def open_file(variant: Variant) -> Session:
        return OrtSession(model.graph(variant), backend=backend, variant=variant)

    return first_that_passes(model, precision, backend, open_file)


def first_that_passes(
    model: Model, precision: Precision, backend: Backend, open_file: Open
) -> Session:
    """As `open_plugin`, whatever opens a file."""
    reference = first_references(model, most=_JUDGED_IMAGES)
    if reference is None:
        raise BackendError(
            f"backend {backend}: {model.path} has no recorded logits to admit it by: use the "
            "bundle, or ort-cpu"
        )
    choices = [name for name in variants_for(precision, backend) if name in model.manifest.variants]
    refused = []
    for variant in choices or [model.variant_for(precision, backend)]:
        session = open_file(variant)
        try:
            outcome, least_db = _judged(model, session, precision, variant, reference)
        except ResdeployError as error:
            session.close()
            refused.append(f"{variant}: {error}")
            continue
        if outcome.passed and outcome.sqnr_db is not None and outcome.sqnr_db >= least_db:
            return session
        session.close()
        refused.append(f"{variant}: {outcome}, expected {least_db:.1f} dB or more")
    raise BackendError(
        f"backend {backend} does not give the recorded logits here ({'; '.join(refused)}): "
        "use ort-cpu"
    )


def _judged(
    model: Model, session: Session, precision: Precision, variant: Variant, reference: Reference
) -> tuple[SelfCheck, float]:
    """The outcome, and the least dB of this file: what it had when it was made, less 3."""
    outcome = self_check(session, precision, reference)
    promised = model.manifest.proofs.get("promised", {}).get(variant, {}).get("recorded") or {}
    known = promised.get("sqnr_db")
    least_db = MIN_SQNR_DB[precision]
    # float files are promised at most float32's round-off, of which other hardware has more
    if precision == "int8" and isinstance(known, int | float):
        least_db = max(least_db, known - MAX_SQNR_SHORTFALL_DB)
    return outcome, least_db
