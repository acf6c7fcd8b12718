"""`export_checkpoint`: a PyTorch checkpoint in, a proven bundle of ONNX files out.

    checkpoint -> architecture -> module -> trace -> fold -> simplify -> fp32.onnx -> fp16.onnx
                                    |                                        |           |
                                    +------- PyTorch's logits ---------------+-- proofs -+

Every proof is computed from the written file, as ONNX Runtime runs it.
"""

from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resdeploy.deploy.bundle import check_target, new_bundle
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.labels import find_labels_file, numbered, read_labels
from resdeploy.deploy.manifest import Manifest, ModelFacts, input_spec, output_spec
from resdeploy.deploy.optional import needs
from resdeploy.deploy.output import Progress, silent
from resdeploy.deploy.preprocess import Preprocess, named, override, resolve
from resdeploy.deploy.specs import Precision
from resdeploy.export.pictures import Pictures, fit_preprocess, read_pictures

if TYPE_CHECKING:
    from resdeploy.export.checkpoint import Checkpoint
    from resdeploy.export.identify import Architecture
    from resdeploy.export.variants import Traced

_TOOLS = ("resdeploy", "torch", "torchvision", "onnx", "onnxsim", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True)
class ExportOptions:
    """What a user may decide; None and empty mean: find out, or the default.

    Attributes:
        output: the bundle's folder; default `<checkpoint stem>.bundle` in the working directory.
        arch: an architecture's name, or `module:factory` for the user's own network.
        assume: answers to what weights cannot tell, e.g. (("stride", "1x1"),).
        classes: a file of class names.
        preprocess: a name or a JSON file.
        input_size_px: side of the square input.
        mean, std, resize_px: change single values of the preprocessing.
        precisions: "fp32" is always written; "fp16" when listed.
        data: pictures, with or without class folders, for the parity proof and accuracy.
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
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    data: Path | None = None
    opset: int = 17
    overwrite: bool = False


@dataclass(frozen=True)
class ExportReport:
    """The finished bundle, and top-1 accuracies in percent where labelled pictures were given."""

    bundle: Path
    manifest: Manifest
    accuracy: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """What `resdeploy export --json` prints."""
        manifest = self.manifest.to_json()
        return {
            "bundle": str(self.bundle),
            **manifest["model"],
            **{key: manifest[key] for key in ("labels", "preprocess", "assumptions")},
            **{key: manifest[key] for key in ("variants", "proofs")},
            "accuracy": self.accuracy,
        }


def export_checkpoint(
    checkpoint: Path, options: ExportOptions | None = None, *, progress: Progress = silent
) -> ExportReport:
    """Turn a checkpoint into a bundle; see the module's docstring.

    Raises:
        CheckpointError: the file is no checkpoint, or no architecture fits it.
        InputError: an option, the labels, the pictures or the output folder are wrong.
        GraphError: the written graph does not give PyTorch's answers.
        MissingDependencyError: torch or another library of the export extra is missing.
    """
    options = options or ExportOptions()
    output = options.output or Path(checkpoint.name.removesuffix(".tar")).with_suffix(".bundle")
    check_target(output, overwrite=options.overwrite)
    if options.data is not None and not options.data.exists():
        raise InputError(f"{options.data}: no such file or folder of pictures")
    progress("loading PyTorch", 0, 0)
    with needs("export"):
        from resdeploy.export.checkpoint import read_checkpoint
        from resdeploy.export.identify import build_module, identify
        from resdeploy.export.variants import trace_folded, write_variants
    progress("reading the checkpoint", 0, 0)
    loaded = read_checkpoint(checkpoint)
    architecture = identify(loaded, arch=options.arch, assume=dict(options.assume))
    manifest = _describe(loaded, architecture, options)
    module = build_module(loaded, architecture)
    progress("tracing and folding", 0, 0)
    traced = trace_folded(module, manifest, opset=options.opset)
    pictures = read_pictures(options.data, manifest.labels)
    if pictures.truth is not None and options.preprocess is None:
        manifest = _fitted(manifest, pictures, traced, progress)
    with new_bundle(output, overwrite=options.overwrite) as folder:
        manifest, accuracy = write_variants(
            folder, manifest, traced, pictures, half="fp16" in options.precisions, progress=progress
        )
    return ExportReport(output, manifest, accuracy)


def _describe(
    checkpoint: "Checkpoint", architecture: "Architecture", options: ExportOptions
) -> Manifest:
    """The manifest before any file is written: model, labels, preprocessing, assumptions."""
    labels, about_labels = _labels(checkpoint, architecture.classes, options.classes)
    preprocess, about_preprocess = _preprocess(architecture, options)
    height, width = preprocess.input_size_px
    return Manifest(
        model=ModelFacts(
            architecture=architecture.name,
            parameters=architecture.parameters,
            classes=architecture.classes,
            checkpoint_sha256=checkpoint.sha256,
        ),
        input=input_spec(height, width),
        output=output_spec(architecture.classes or architecture.features),
        preprocess=preprocess,
        labels=labels,
        variants={},
        assumptions=(*architecture.assumptions, *about_preprocess, *about_labels),
        tools=_tools(),
    )


def _labels(
    checkpoint: "Checkpoint", classes: int | None, file: Path | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class names, and what to say when they had to be assumed."""
    if classes is None:
        if file is not None:
            raise InputError(
                f"{file}: class names given, but the checkpoint has no classification head: "
                "leave --classes out"
            )
        return (), ()
    source = file or find_labels_file(checkpoint.path)
    if source is None and checkpoint.labels is not None and len(checkpoint.labels) == classes:
        return checkpoint.labels, ("class names are those stored in the checkpoint",)
    if source is None:
        return numbered(classes), (
            "class names are not known, classes are numbered class_0, class_1, …; "
            "name them with --classes class_indices.json",
        )
    labels = read_labels(source)
    if len(labels) != classes:
        raise InputError(
            f"{source}: {len(labels)} class names, but the checkpoint's head has {classes} "
            "classes: give the right file with --classes"
        )
    if file is not None:
        return labels, ()
    return labels, (
        f"class names are those of {source.name} beside the checkpoint; give others with --classes",
    )


def _preprocess(
    architecture: "Architecture", options: ExportOptions
) -> tuple[Preprocess, tuple[str, ...]]:
    """The preprocessing, and what to say when it had to be assumed."""
    changed = options.mean or options.std or options.resize_px

    def with_changes(preprocess: Preprocess) -> Preprocess:
        return override(preprocess, mean=options.mean, std=options.std, resize_px=options.resize_px)

    if options.preprocess is not None:
        return with_changes(resolve(options.preprocess, options.input_size_px)), ()
    size_px = options.input_size_px or architecture.input_size_px
    preprocess = with_changes(named(architecture.preprocess, size_px))
    said = []
    if options.input_size_px is None:
        said.append(
            f"input size is {size_px}x{size_px}, usual for {architecture.family}; "
            "change with --input-size"
        )
    if not changed:
        said.append(
            f"preprocessing is {preprocess.name!r} ({_in_words(preprocess)}), which weights do not "
            "tell; change with --preprocess, or give labelled pictures with --data to find out"
        )
    return preprocess, tuple(said)


def _fitted(
    manifest: Manifest, pictures: Pictures, traced: "Traced", progress: Progress
) -> Manifest:
    """The manifest with the preprocessing that labelled pictures speak for."""
    assumed = manifest.preprocess
    with traced.float_session() as session:
        chosen, sentence = fit_preprocess(assumed, pictures, session, progress)
    others = (text for text in manifest.assumptions if not text.startswith("preprocessing is "))
    return replace(manifest, preprocess=chosen, assumptions=(*others, sentence))


def _in_words(preprocess: Preprocess) -> str:
    resize = preprocess.resize_px
    parts = []
    if isinstance(resize, tuple):
        parts.append(f"resize to {resize[1]}x{resize[0]}")
    elif resize is not None:
        parts.append(f"shorter side to {resize}")
    if preprocess.crop_px is not None:
        parts.append(f"centre crop {preprocess.crop_px[1]}x{preprocess.crop_px[0]}")
    mean, std = (
        ", ".join(f"{v:g}" for v in values) for values in (preprocess.mean, preprocess.std)
    )
    return ", ".join([*parts, f"mean {mean}", f"std {std}"])


def _tools() -> dict[str, str]:
    """Versions of the libraries that take part; onnxruntime under either of its names."""
    found = {}
    for name in _TOOLS:
        for distribution in (name, f"{name}-gpu"):
            try:
                found[name] = version(distribution)
                break
            except PackageNotFoundError:
                continue
    return found
