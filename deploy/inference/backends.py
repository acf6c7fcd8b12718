"""Opens a session on one backend, chosen by name; `open` adds the choice of the fastest."""

from resdeploy.deploy.bundle.model import Model
from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import BackendError, InputError
from resdeploy.deploy.optional import needs
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import BACKENDS, PLUGIN_BACKENDS, Backend, Precision, Variant


def open_backend(
    model: Model, precision: Precision, backend: Backend, *, threads: int | None = None
) -> Session:
    """Open a session on `backend`.

    Args:
        threads: bounds the CPU threads of one run; default all cores.

    Raises:
        BackendError: the backend is not usable on this machine.
        BundleError, InputError: the precision is not there, or its file was altered.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads {threads} is not at least 1")
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is not one of auto, {', '.join(BACKENDS)}")
    if backend in ("tensorrt", "tensorrt-rtx"):
        from resdeploy.deploy.engine.session import open_engine

        return open_engine(model, precision, backend)
    if backend in PLUGIN_BACKENDS:
        from resdeploy.deploy.inference.plugin import open_plugin

        return open_plugin(model, precision, backend)
    variant = model.variant_for(precision, backend)
    if backend != "ort-cpu":
        return _open_on_gpu(model, precision, backend, variant)
    with needs(f"backend {backend}"):
        from resdeploy.deploy.inference.ort_session import OrtSession
    with model.held_graph(variant) as graph:
        return OrtSession(graph, backend=backend, variant=variant, threads=threads)


def _open_on_gpu(model: Model, precision: Precision, backend: Backend, variant: Variant) -> Session:
    """A provider counts as present only after it gave the reference's logits."""
    if problem := cuda_problem():
        raise BackendError(f"backend {backend} needs an NVIDIA GPU: {problem}; use ort-cpu")
    from resdeploy.deploy.engine.store import engines_folder
    from resdeploy.deploy.inference.self_check import first_references, self_check

    graph = model.graph(variant)
    cache = engines_folder(model) / backend if backend == "ort-tensorrt" else None
    with needs(f"backend {backend}"):
        from resdeploy.deploy.inference.ort_session import OrtSession
    session = OrtSession(graph, backend=backend, variant=variant, cache=cache)
    try:
        outcome = self_check(session, precision, first_references(model))
        if not outcome.passed:
            raise BackendError(
                f"backend {backend} does not give the recorded logits here ({outcome}): use ort-cpu"
            )
    except BaseException:
        session.close()
        raise
    return session
