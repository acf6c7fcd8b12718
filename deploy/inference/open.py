"""Opens what runs a classifier: a bundle, an ONNX file or an engine, on the backend asked for."""

from typing import Literal

from resdeploy.deploy.bundle.model import Model
from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.inference.backends import open_backend
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import Backend, Precision


def open_session(
    model: Model,
    *,
    precision: Precision | None = None,
    backend: Backend | Literal["auto"] = "auto",
    threads: int | None = None,
) -> Session:
    """Open a session.

    Args:
        model: what `open_model` gives.
        precision: default fp32, or what a lone file holds.
        backend: "auto" is the fastest here that gives the reference's answers (see `auto`).
        threads: bounds the CPU threads of one run; default all cores.

    Raises:
        BackendError: the backend is not usable on this machine.
        BundleError, InputError: the precision is not there, or its file was altered.
    """
    precision = precision or model.precision
    if backend == "auto":
        backend = _fastest(model, precision, threads)
    return open_backend(model, precision, backend, threads=threads)


def _fastest(model: Model, precision: Precision, threads: int | None) -> Backend:
    if (
        cuda_problem() is not None and not model.is_engine
    ):  # nothing to choose from: spare the start what choosing imports
        return "ort-cpu"
    from resdeploy.deploy.inference.auto import choose

    return choose(model, (precision,), threads=threads).backend
