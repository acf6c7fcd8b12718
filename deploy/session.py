"""Opens whatever runs a classifier: a bundle or a lone ONNX file, on the backend asked for.

A session takes (N, 3, H, W) float32 and gives (N, classes) float32. It is safe to call from
several threads. PyTorch (export/torch_session.py) and a recorded reference are sessions too.
"""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from resdeploy.deploy.bundle import Bundle, read_bundle
from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import BackendError, InputError
from resdeploy.deploy.manifest import Manifest
from resdeploy.deploy.optional import needs
from resdeploy.deploy.specs import BACKENDS, PRECISIONS, Backend, Precision, TensorSpec, Variant

# The variants of a precision a backend can run, best first.
_CPU_VARIANTS: dict[Precision, tuple[Variant, ...]] = {
    "fp32": ("fp32",),
    "fp16": ("fp16",),
    "int8": ("int8-cpu", "int8"),
}
_GPU_VARIANTS: dict[Precision, tuple[Variant, ...]] = {
    "fp32": ("fp32",),
    "fp16": ("fp16",),
    "int8": ("int8",),
}


class Session(Protocol):
    """Anything that turns a batch into logits; a context manager that releases on exit."""

    @property
    def input(self) -> TensorSpec: ...

    @property
    def output(self) -> TensorSpec: ...

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3, H, W) float32 to (N, classes) float32; the result belongs to the caller.

        Raises:
            InputError: wrong shape or dtype.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> "Session": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@dataclass(frozen=True)
class Model:
    """What a path given as BUNDLE stands for: a bundle, or one self-describing ONNX file."""

    path: Path
    manifest: Manifest
    bundle: Bundle | None

    def graph(self, variant: Variant) -> Path:
        """The checked path of a variant's ONNX file."""
        if self.bundle is not None:
            return self.bundle.graph(variant)
        if variant not in self.manifest.variants:
            (only,) = self.manifest.variants
            raise InputError(f"{self.path}: an ONNX file holding the {only} variant, not {variant}")
        return self.path

    @property
    def precision(self) -> Precision:
        """What is meant when no precision is named: fp32, or what a lone ONNX file holds."""
        if self.bundle is not None:
            return "fp32"
        (only,) = self.manifest.variants
        return next(name for name in PRECISIONS if only.startswith(name))

    def variant_for(self, precision: Precision, backend: Backend) -> Variant:
        """The file of `precision` that `backend` runs best; int8 has several."""
        if precision not in PRECISIONS:
            raise InputError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
        if self.bundle is None and precision == self.precision:
            (only,) = self.manifest.variants
            return only
        table = _CPU_VARIANTS if backend == "ort-cpu" else _GPU_VARIANTS
        choices = table[precision]
        return next((name for name in choices if name in self.manifest.variants), choices[-1])


def open_model(path: str | Path) -> Model:
    """Read the manifest of a bundle or of a lone ONNX file written by resdeploy.

    Raises:
        BundleError: neither, or damaged.
        MissingDependencyError: a lone ONNX file without onnxruntime to read it.
    """
    path = Path(path)
    if path.is_file() and path.suffix.lower() == ".onnx":
        with needs("reading an ONNX file"):
            from resdeploy.deploy.ort import read_graph_manifest
        return Model(path, read_graph_manifest(path), None)
    bundle = read_bundle(path)
    return Model(path, bundle.manifest, bundle)


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
        precision: default fp32, or what a lone ONNX file holds.
        backend: "auto" is the fastest here that gives the reference's answers (see `choice`).
        threads: bounds the CPU threads of one run; default all cores.

    Raises:
        BackendError: the backend is not usable on this machine.
        BundleError, InputError: the precision is not there, or its file was altered.
    """
    precision = precision or model.precision
    if threads is not None and threads < 1:
        raise InputError(f"threads {threads} is not at least 1")
    if backend == "auto":
        return _open_auto(model, precision, threads)
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is not one of auto, {', '.join(BACKENDS)}")
    if backend in ("tensorrt", "tensorrt-rtx"):
        from resdeploy.deploy.trt import open_engine

        return open_engine(model, precision, backend)
    variant = model.variant_for(precision, backend)
    if backend != "ort-cpu":
        return _open_on_gpu(model, precision, backend, variant)
    graph = model.graph(variant)
    with needs(f"backend {backend}"):
        from resdeploy.deploy.ort import OrtSession
    return OrtSession(graph, backend=backend, variant=variant, threads=threads)


def _open_on_gpu(model: Model, precision: Precision, backend: Backend, variant: Variant) -> Session:
    """A provider counts as present only after it gave the reference's logits."""
    if problem := cuda_problem():
        raise BackendError(f"backend {backend} needs an NVIDIA GPU: {problem}; use ort-cpu")
    from resdeploy.deploy.engine_store import engines_folder
    from resdeploy.deploy.warm_up import reference_pictures, warm_up

    graph = model.graph(variant)
    cache = engines_folder(model) / backend if backend == "ort-tensorrt" else None
    with needs(f"backend {backend}"):
        from resdeploy.deploy.ort import OrtSession
    session = OrtSession(graph, backend=backend, variant=variant, cache=cache)
    try:
        outcome = warm_up(session, precision, reference_pictures(model))
        if not outcome.passed:
            raise BackendError(
                f"backend {backend} gives other logits than PyTorch here ({outcome}): use ort-cpu"
            )
    except BaseException:
        session.close()
        raise
    return session


def _open_auto(model: Model, precision: Precision, threads: int | None) -> Session:
    if cuda_problem() is not None:  # nothing to choose from: spare the start what choosing imports
        return open_session(model, precision=precision, backend="ort-cpu", threads=threads)
    from resdeploy.deploy.choice import choose

    backend = choose(model, (precision,), threads=threads).backend
    return open_session(model, precision=precision, backend=backend, threads=threads)


def sizes_of(spec: TensorSpec) -> tuple[int, ...]:
    """The sizes of a tensor without its batch axis, e.g. (3, 224, 224)."""
    return tuple(int(size) for size in spec.shape[1:])


def check_batch(batch: NDArray[np.float32], spec: TensorSpec) -> None:
    """Raise InputError unless `batch` is (N >= 1, *sizes of the spec) float32."""
    expected = sizes_of(spec)
    if batch.dtype == np.float32 and batch.shape[1:] == expected and len(batch):
        return
    raise InputError(
        f"input {spec.name}: got {batch.dtype} of shape {batch.shape}, expected float32 of shape "
        f"(N, {', '.join(map(str, expected))}) with N >= 1"
    )
