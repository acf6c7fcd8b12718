"""Opens what `verify` compares: the variants of a bundle on the backends asked for.

On the CPU, INT8 means two files: `int8`, computed as the graph says (what TensorRT computes up to
rounding), and `int8-cpu`, run as it will run here. Both are opened.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import BackendError, InputError
from resdeploy.deploy.optional import needs
from resdeploy.deploy.session import Model, Session, open_session
from resdeploy.deploy.specs import PRECISIONS, Backend, Precision, Variant

_CPU_INT8: tuple[Variant, ...] = ("int8", "int8-cpu")


@dataclass(frozen=True)
class Candidate:
    """One variant on one backend; `name` is unique among those opened together."""

    name: str
    precision: Precision
    variant: Variant
    backend: Backend
    session: Session


def precisions_of(model: Model, asked: Sequence[Precision]) -> tuple[Precision, ...]:
    """The precisions to verify: those asked for, else all that the bundle holds.

    Raises:
        InputError: a precision that does not exist.
    """
    for precision in asked:
        if precision not in PRECISIONS:
            raise InputError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    held = {name.partition("-")[0] for name in model.manifest.variants}
    return tuple(name for name in PRECISIONS if name in (asked or held))


def open_candidates(
    model: Model,
    precisions: Sequence[Precision],
    backends: Sequence[Backend | Literal["auto"]],
    stack: ExitStack,
) -> list[Candidate]:
    """Open every precision on every backend; `stack` closes them.

    A candidate is called by its variant's name, followed by @backend where there are several.

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
                    session = stack.enter_context(_open(model, precision, variant, backend))
                    found[name] = Candidate(name, precision, variant, backend, session)
    return list(found.values())


def open_float(model: Model, opened: Sequence[Candidate], stack: ExitStack) -> Candidate | None:
    """fp32 on the CPU, which export proved equal to PyTorch; None where a bundle has no fp32."""
    if "fp32" not in model.manifest.variants:
        return None
    for candidate in opened:
        if candidate.variant == "fp32" and candidate.backend == "ort-cpu":
            return candidate
    session = stack.enter_context(_open(model, "fp32", "fp32", "ort-cpu"))
    return Candidate("reference", "fp32", "fp32", "ort-cpu", session)


def _resolved(
    model: Model, precisions: Sequence[Precision], backend: Backend | Literal["auto"]
) -> Backend:
    """What `auto` stands for on this machine, found by one warm-up."""
    if backend != "auto":
        return backend
    if cuda_problem() is not None:
        return "ort-cpu"
    try:
        with open_session(model, precision=precisions[0]) as session:
            found: Backend = getattr(session, "backend", "ort-cpu")
    except BackendError:
        return "ort-cpu"
    return found


def _variants(model: Model, precision: Precision, backend: Backend) -> tuple[Variant, ...]:
    if backend == "ort-cpu" and precision == "int8":
        held = tuple(name for name in _CPU_INT8 if name in model.manifest.variants)
        if held:
            return held
    return (model.variant_for(precision, backend),)


def _open(model: Model, precision: Precision, variant: Variant, backend: Backend) -> Session:
    if backend != "ort-cpu":
        return open_session(model, precision=precision, backend=backend)
    graph = model.graph(variant)
    with needs("backend ort-cpu"):
        from resdeploy.deploy.ort import OrtSession
    return OrtSession(graph, variant=variant, threads=1)
