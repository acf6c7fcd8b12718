"""What a path given as BUNDLE stands for: a bundle's folder, or one file that describes itself.

That is an ONNX file written by resdeploy, or an engine with its sidecar.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from resdeploy.deploy.bundle.bundle import REFERENCE, Bundle, read_bundle
from resdeploy.deploy.bundle.hub import fetch, is_address
from resdeploy.deploy.bundle.lone_file import SUFFIX, read_engine_manifest, read_graph_manifest
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.reference import (
    FeatureReference,
    Reference,
    read_feature_reference,
    read_reference,
)
from resdeploy.deploy.errors import BundleError, GraphError, InputError
from resdeploy.deploy.reading import StrPath
from resdeploy.deploy.session import sizes_of
from resdeploy.deploy.specs import PRECISIONS, Backend, Precision, Variant
from resdeploy.deploy.targets import variants_for


@dataclass(frozen=True)
class Model:
    """What a path given as BUNDLE stands for; `bundle` is None for an ONNX file or an engine."""

    path: Path
    manifest: Manifest
    bundle: Bundle | None

    def graph(self, variant: Variant) -> Path:
        """The checked path of a variant's ONNX file."""
        if self.bundle is not None:
            return self.bundle.graph(variant)
        if self.is_engine:
            raise InputError(
                f"{self.path}: an engine, which TensorRT alone runs, and no ONNX graph: give the "
                "bundle it was built from"
            )
        if variant not in self.manifest.variants:
            (only,) = self.manifest.variants
            raise InputError(f"{self.path}: an ONNX file holding the {only} variant, not {variant}")
        return self.path

    @contextmanager
    def held_graph(self, variant: Variant) -> Iterator[Path]:
        """The same file under a path that leads to nothing else until the block ends.

        Raises:
            BundleError, InputError: as `graph`; the file was altered before the block ended.
            GraphError: that of the block, with the file's own name.
        """
        if self.bundle is None:
            yield self.graph(variant)
            return
        with self.bundle.held_graph(variant) as held:
            try:
                yield held.same
            except GraphError as error:
                raise GraphError(str(error).replace(str(held.same), str(held.path))) from error

    @property
    def is_engine(self) -> bool:
        """Whether this is a lone engine, which runs on its own kind of GPU only."""
        return self.bundle is None and self.path.suffix.lower() == SUFFIX

    @property
    def precision(self) -> Precision:
        """What is meant when no precision is named: fp32, or what a lone file holds."""
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
        choices = variants_for(precision, backend)
        return next((name for name in choices if name in self.manifest.variants), choices[-1])


def open_model(path: StrPath) -> Model:
    """Read the manifest of a bundle, of a lone ONNX file written by resdeploy or of an engine.

    A bundle may also be an address, hf://OWNER/NAME[@REVISION] (`hub`).

    Raises:
        BundleError: none of these, or damaged.
        MissingDependencyError: a lone ONNX file without onnxruntime to read it.
    """
    path = fetch(path) if is_address(path) else Path(path)
    if path.is_file() and path.suffix.lower() == ".onnx":
        return Model(path, read_graph_manifest(path), None)
    if path.is_file() and path.suffix.lower() == SUFFIX:
        return Model(path, read_engine_manifest(path), None)
    bundle = read_bundle(path)
    return Model(path, bundle.manifest, bundle)


def recorded_reference(model: Model) -> Reference | None:
    """The inputs and PyTorch's logits recorded at export; None where there are none.

    Of a backbone, the logits are its last feature map as one row for each image.

    Raises:
        BundleError: damaged, empty, or of another network.
    """
    maps = recorded_maps(model)
    if maps is not None:
        last = maps.maps[model.manifest.output.name]
        return Reference(maps.inputs, last.reshape(len(last), -1))
    file = None if model.bundle is None else model.bundle.file(REFERENCE)
    if file is None:
        return None
    recorded = read_reference(file)
    got = (recorded.inputs.shape[1:], recorded.logits.shape[1:])
    expected = (sizes_of(model.manifest.input), (model.manifest.output.shape[1],))
    if got != expected or not len(recorded.inputs):
        raise BundleError(
            f"{model.path / REFERENCE}: of another bundle: {len(recorded.inputs)} inputs of shape "
            f"{got[0]} and {got[1][0]} logits, expected {expected[0]} and {expected[1][0]}: "
            "export again"
        )
    return recorded


def recorded_maps(model: Model) -> FeatureReference | None:
    """The inputs and PyTorch's feature maps recorded at export; None for no backbone, or none.

    Raises:
        BundleError: damaged, empty, or of another network.
    """
    features = model.manifest.features
    file = None if model.bundle is None or not features else model.bundle.file(REFERENCE)
    if file is None:
        return None
    recorded = read_feature_reference(file, features)
    expected = sizes_of(model.manifest.input)
    if recorded.inputs.shape[1:] != expected or not len(recorded.inputs):
        raise BundleError(
            f"{model.path / REFERENCE}: {len(recorded.inputs)} inputs of shape "
            f"{recorded.inputs.shape[1:]}, expected {expected}: export again"
        )
    return recorded


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
