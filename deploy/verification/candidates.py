"""Opens what `verify` compares: the variants of a bundle on the chosen backends.

On the CPU, INT8 means two files, and both are opened: `int8`, computed as the graph says (as
TensorRT computes it, up to rounding), and `int8-cpu`, as it runs on this CPU.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from resdeploy.deploy.bundle.model import Model
from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import BackendError
from resdeploy.deploy.inference.open import open_session
from resdeploy.deploy.optional import needs
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import Backend, Precision, Variant
from resdeploy.deploy.targets import INT8_VARIANTS


@dataclass(frozen=True)
class Candidate:
    """One variant on one backend; `name` is unique among those opened together.

    `host` is the device that runs it; None for this machine.
    """

    name: str
    precision: Precision
    variant: Variant
    backend: Backend
    session: Session
    host: str | None = None


def open_candidates(
    model: Model,
    precisions: Sequence[Precision],
    backends: Sequence[Backend | Literal["auto"]],
    stack: ExitStack,
    *,
    threads: int | None = 1,
) -> list[Candidate]:
    """Open every precision on every backend; `stack` closes them.

    A candidate is named after its variant, followed by @backend if there are several backends. On
    the CPU each runs with so many `threads`: one where batches are shared among the cores, None for
    all cores.

    Raises:
        BackendError: a backend is not usable on this machine.
        BundleError, InputError: a precision is not there, or its file was altered.
    """
    found: dict[str, Candidate] = {}
    for asked in backends:
        backend = _resolved(model, precisions, asked)
        for precision in precisions:
            for variant in _variants(model, precision, backend):
                name = variant if len(set(backends)) == 1 else f"{variant}@{backend}"
                if name not in found:
                    session = stack.enter_context(
                        _open(model, precision, variant, backend, threads)
                    )
                    found[name] = Candidate(name, precision, variant, backend, session)
    return list(found.values())


def open_float(model: Model, opened: Sequence[Candidate], stack: ExitStack) -> Candidate | None:
    """fp32 on this CPU, which export proved equal to PyTorch; None where a bundle has no fp32."""
    if "fp32" not in model.manifest.variants:
        return None
    for candidate in opened:
        here = candidate.host is None and candidate.backend == "ort-cpu"
        if here and candidate.variant == "fp32":
            return candidate
    session = stack.enter_context(_open(model, "fp32", "fp32", "ort-cpu", 1))
    return Candidate("reference", "fp32", "fp32", "ort-cpu", session)


def _resolved(
    model: Model, precisions: Sequence[Precision], backend: Backend | Literal["auto"]
) -> Backend:
    """What `auto` stands for on this machine, found by opening one session."""
    if backend != "auto":
        return backend
    if cuda_problem() is not None:
        return "ort-cpu"
    try:
        with open_session(model, precision=precisions[0]) as session:
            found = session.backend
    except BackendError:
        return "ort-cpu"
    return "ort-cpu" if found == "pytorch" else found


def _variants(model: Model, precision: Precision, backend: Backend) -> tuple[Variant, ...]:
    if backend == "ort-cpu" and precision == "int8":
        held = tuple(name for name in INT8_VARIANTS if name in model.manifest.variants)
        if held:
            return held
    return (model.variant_for(precision, backend),)


def _open(
    model: Model, precision: Precision, variant: Variant, backend: Backend, threads: int | None
) -> Session:
    if backend != "ort-cpu":
        return open_session(model, precision=precision, backend=backend)
    graph = model.graph(variant)
    with needs("backend ort-cpu"):
        from resdeploy.deploy.inference.ort_session import OrtSession
    return OrtSession(graph, variant=variant, threads=threads)
