"""`export_checkpoint`: a PyTorch checkpoint in, a proven bundle of ONNX files out.

    checkpoint -> architecture -> module -> trace -> fold -> simplify -> fp32.onnx -> fp16.onnx
                                    |                                        |           |
                                    +------- PyTorch's logits ---------------+-- proofs -+

Every proof is computed from the written file, as ONNX Runtime runs it.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from resdeploy.deploy.bundle.bundle import write_manifest
from resdeploy.deploy.bundle.manifest import Manifest, ModelFacts, input_spec, output_spec
from resdeploy.deploy.bundle.trained_ranges import write_trained_ranges
from resdeploy.deploy.bundle.update import check_target, new_bundle
from resdeploy.deploy.defaults import EXPORTED_PRECISIONS, OPSET
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import Images, plain_images, read_data
from resdeploy.deploy.images.preprocess import (
    Preprocess,
    named,
    names_file,
    override,
    read_preprocess,
)
from resdeploy.deploy.optional import installed_versions, needs
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.reading import StrPath, keep_as_paths
from resdeploy.deploy.specs import Precision
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.labels import class_names
from resdeploy.export.checkpoint.read import read_checkpoint
from resdeploy.export.proof.preprocessing import in_words, with_fitted_preprocess
from resdeploy.export.report import ExportReport

if TYPE_CHECKING:
    from resdeploy.export.checkpoint.architecture import Architecture
    from resdeploy.export.checkpoint.read import Checkpoint
    from resdeploy.export.folded import FoldedGraph

_TOOLS = ("resdeploy", "torch", "torchvision", "onnx", "onnxsim", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True)
class ExportOptions:
    """What a user may decide; None and empty mean: find out, or the default. Paths may be text.

    Attributes:
        output: the bundle's folder; default `<checkpoint stem>.bundle` in the working directory.
        arch: an architecture's name, or `module:factory` for the user's own network.
        assume: answers to what weights cannot tell, e.g. (("stride", "1x1"),).
        classes: a file of class names.
        preprocess: a name or a JSON file.
        input_size_px: side of the square input.
        mean, std, resize_px: change single values of the preprocessing.
        precisions: "fp32" is always written; "fp16" when listed.
        features: names of feature maps, e.g. ("C4", "C5"), to give instead of logits.
        data: images, with or without class folders, for the parity proof and accuracy.
        calib: images to calibrate with afterwards; here their class folders are looked at, and
            where there is no `data`, the batch-norm statistics are compared on them.
    """

    output: Path | None = None
    arch: str | None = None
    assume: tuple[tuple[str, str], ...] = ()
    classes: Path | None = None
    preprocess: str | None = None
    input_size_px: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    resize_px: int | None = None
    precisions: tuple[Precision, ...] = EXPORTED_PRECISIONS
    features: tuple[str, ...] = ()
    data: Path | None = None
    calib: Path | None = None
    opset: int = OPSET
    overwrite: bool = False

    def __post_init__(self) -> None:
        keep_as_paths(self, "output", "classes", "data", "calib")


def export_checkpoint(
    checkpoint: StrPath, options: ExportOptions | None = None, *, progress: Progress = silent
) -> ExportReport:
    """Turn a checkpoint into a bundle; see the module's docstring.

    Raises:
        CheckpointError: the file is no checkpoint, or no architecture fits it.
        InputError: an option, the labels, the images or the output folder are wrong.
        GraphError: the written graph does not give PyTorch's answers.
        MissingDependencyError: torch or another library of the export extra is missing.
    """
    checkpoint, options = Path(checkpoint), options or ExportOptions()
    output = _checked_output(checkpoint, options)
    progress("reading the checkpoint", 0, 0)
    loaded = read_checkpoint(checkpoint)
    architecture = identify(loaded, arch=options.arch, assume=dict(options.assume))
    _check_logits(checkpoint, architecture, options)
    manifest = _describe(loaded, architecture, options)
    images = None if options.data is None else read_data(options.data, manifest.labels)
    progress("loading PyTorch", 0, 0)
    with needs("export"):
        from resdeploy.export import trace_network as network
        from resdeploy.export.checkpoint.build import build_module
        from resdeploy.export.write_variants import write_variants
    architecture, manifest = _settled(loaded, architecture, manifest, images, options, progress)
    module = build_module(loaded, architecture)
    if options.features:
        module, manifest = network.as_backbone(module, manifest, options.features)
    progress("tracing and folding", 0, 0)
    traced = network.trace_folded(module, manifest, opset=options.opset)
    if images is not None and images.truth is not None and options.preprocess is None:
        manifest = _fitted(manifest, images, traced, progress)
    original, half = network.original_of(module), "fp16" in options.precisions
    with new_bundle(output, overwrite=options.overwrite) as folder:
        manifest, accuracy = write_variants(
            folder, manifest, traced, original, images, half=half, progress=progress
        )
        if loaded.trained_ranges:
            manifest = _with_trained_ranges(folder, manifest, loaded, architecture)
    return ExportReport(output, manifest, accuracy)


def _checked_output(checkpoint: Path, options: ExportOptions) -> Path:
    """The bundle's folder, after what would be a pity to find out in minutes."""
    if not checkpoint.name:
        raise InputError(f"{checkpoint}: no checkpoint's name: give a file or a model's folder")
    output = options.output or Path(checkpoint.name.removesuffix(".tar")).with_suffix(".bundle")
    check_target(output, overwrite=options.overwrite)
    if options.data is not None and not options.data.exists():  # before the checkpoint is read
        raise InputError(f"{options.data}: no such file or folder of images")
    if options.calib is not None:
        plain_images(options.calib)  # before anything is written
    return output


def _check_logits(checkpoint: Path, architecture: "Architecture", options: ExportOptions) -> None:
    if architecture.maps_only and not options.features:
        raise InputError(
            f"{checkpoint} holds the encoder of {architecture.name} without its last layers, "
            "which has no logits to give: export its feature maps with --features C2,C3,C4,C5"
        )


def _describe(
    checkpoint: "Checkpoint", architecture: "Architecture", options: ExportOptions
) -> Manifest:
    """The manifest before any file is written: model, labels, preprocessing, assumptions."""
    classes = None if options.features else architecture.classes
    folders = tuple(filter(None, (options.data, options.calib)))
    labels, about_labels = class_names(
        checkpoint.path, classes, options.classes, folders, stored=checkpoint.labels or ()
    )
    preprocess, about_preprocess = _preprocess(checkpoint, architecture, options)
    height, width = preprocess.input_size_px
    return Manifest(
        model=ModelFacts(
            architecture=architecture.name,
            parameters=architecture.parameters,
            classes=classes,
            checkpoint_sha256=checkpoint.sha256,
            settings=dict(architecture.settings),
            arch=options.arch,
        ),
        input=input_spec(height, width),
        output=output_spec(classes or architecture.features),
        preprocess=preprocess,
        labels=labels,
        variants={},
        assumptions=(
            *checkpoint.choices,
            *architecture.assumptions,
            *about_preprocess,
            *about_labels,
        ),
        tools=installed_versions(_TOOLS),
    )


def _preprocess(
    checkpoint: "Checkpoint", architecture: "Architecture", options: ExportOptions
) -> tuple[Preprocess, tuple[str, ...]]:
    """The preprocessing, and what to say of what had to be assumed."""
    changed = options.mean or options.std or options.resize_px

    def with_changes(preprocess: Preprocess) -> Preprocess:
        return override(preprocess, mean=options.mean, std=options.std, resize_px=options.resize_px)

    asked = options.preprocess
    if asked is not None and names_file(asked):
        return with_changes(read_preprocess(Path(asked), options.input_size_px)), ()
    told = checkpoint.sidecar if asked is None else None
    if told is not None and told.preprocess is not None and options.input_size_px is None:
        preprocess = with_changes(told.preprocess)
        return preprocess, (
            f"preprocessing is that of {told.source} ({in_words(preprocess)}); "
            "change with --preprocess",
        )
    size_px = options.input_size_px or architecture.input_size_px
    preprocess = named(asked or architecture.preprocess, size_px)
    said = []
    if told is not None and told.normalization is not None:
        preprocess = override(preprocess, mean=told.normalization[0], std=told.normalization[1])
        said.append(f"mean and std are those of {told.source}; change with --mean and --std")
    preprocess = with_changes(preprocess)
    if options.input_size_px is None:
        said.append(
            f"input size is {size_px}x{size_px}, usual for {architecture.family}; "
            "change with --input-size"
        )
    if asked is None and not changed:
        said.append(
            f"preprocessing is {preprocess.name!r} ({in_words(preprocess)}), which weights do not "
            "tell; change with --preprocess, or give labelled images with --data to find out"
        )
    return preprocess, tuple(said)


def _settled(
    checkpoint: "Checkpoint",
    architecture: "Architecture",
    manifest: Manifest,
    images: Images | None,
    options: ExportOptions,
    progress: Progress,
) -> tuple["Architecture", Manifest]:
    """Both with what the batch-norm statistics decide on the user's images, if there are any."""
    from resdeploy.export.proof.settle import keys_given, settle

    paths = () if images is None else images.paths
    if images is None and options.calib is not None:
        paths = plain_images(options.calib)
    given = keys_given(
        dict(options.assume),
        preprocess=options.preprocess is not None,
        normalization=options.mean is not None or options.std is not None,
        resize=options.resize_px is not None,
        size=options.input_size_px is not None,
    )
    found = settle(
        checkpoint, architecture, manifest.preprocess, paths, given=given, progress=progress
    )
    return found.architecture, found.applied_to(manifest, architecture)


def _fitted(
    manifest: Manifest, images: Images, traced: "FoldedGraph", progress: Progress
) -> Manifest:
    """The manifest with the preprocessing that labelled images speak for."""
    with traced.float_session() as session:
        return with_fitted_preprocess(manifest, images, session, progress)


def _with_trained_ranges(
    folder: Path, manifest: Manifest, checkpoint: "Checkpoint", architecture: "Architecture"
) -> Manifest:
    """The manifest with the ranges of quantization-aware training, which become a file."""
    from resdeploy.export.checkpoint.place_ranges import place_ranges, without_input
    from resdeploy.export.graph.onnx_file import load_graph

    model = load_graph(folder / manifest.variants["fp32"].file)
    ranges = place_ranges(model, checkpoint, architecture)
    if "scale" in manifest.proofs.get("input_fold", {}):
        ranges = without_input(ranges, model)
    if not (ranges.activations or ranges.weights):
        sentence = (
            f"none of the checkpoint's {len(ranges.unplaced)} trained ranges has a place here"
        )
    else:
        manifest = write_trained_ranges(folder, manifest, ranges)
        sentence = (
            f"the checkpoint has trained ranges of {len(ranges.activations)} activations and "
            f"{len(ranges.weights)} weights, which quantize takes; change with its --ranges"
        )
    manifest = replace(manifest, assumptions=(*manifest.assumptions, sentence))
    write_manifest(folder, manifest)
    return manifest
