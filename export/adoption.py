"""`adopt`: an ONNX classifier that another tool exported in, a bundle out.

    graph -> standard form -> fold -> simplify -> fp32.onnx -> fp16.onnx
      |                                              |           |
      +--- the graph's own logits -------------------+-- proofs -+

There is no checkpoint, so that nothing vouches for the graph itself: its own answers are the
reference, and all proofs say how near the bundle's files are to them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resdeploy.deploy.bundle.bundle import ADOPTION
from resdeploy.deploy.bundle.manifest import Manifest, ModelFacts, input_spec, output_spec
from resdeploy.deploy.bundle.update import check_target, new_bundle
from resdeploy.deploy.defaults import EXPORTED_PRECISIONS
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import Images, read_data
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
from resdeploy.export.checkpoint.labels import class_names
from resdeploy.export.proof.preprocessing import in_words, with_fitted_preprocess
from resdeploy.export.report import ExportReport

if TYPE_CHECKING:
    from resdeploy.export.folded import FoldedGraph
    from resdeploy.export.foreign.read import ForeignGraph
    from resdeploy.export.write_variants import Original

_TOOLS = ("resdeploy", "onnx", "onnxsim", "onnxruntime", "numpy", "pillow")
_USUAL_PREPROCESS = "imagenet"


@dataclass(frozen=True)
class AdoptOptions:
    """What a user may decide; None means: find out, or the default. Paths may be text.

    Attributes:
        output: the bundle's folder; default `<graph's stem>.bundle` in the working directory.
        logits: the output that has the logits, where there are several.
        classes: a file of class names.
        preprocess: a name or a JSON file.
        input_size_px: side of the square input, where the graph leaves it open.
        mean, std, resize_px: change single values of the preprocessing.
        precisions: "fp32" is always written; "fp16" when listed.
        data: images, with or without class folders, for the proof and the accuracy.
    """

    output: Path | None = None
    logits: str | None = None
    classes: Path | None = None
    preprocess: str | None = None
    input_size_px: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    resize_px: int | None = None
    precisions: tuple[Precision, ...] = EXPORTED_PRECISIONS
    data: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        keep_as_paths(self, "output", "classes", "data")


def adopt(
    graph: StrPath, options: AdoptOptions | None = None, *, progress: Progress = silent
) -> ExportReport:
    """Turn an ONNX classifier into a bundle; see the module's docstring.

    Raises:
        GraphError: the graph cannot be read or converted, or the written one differs from it.
        InputError: an option, the labels, the images or the output folder are wrong.
        MissingDependencyError: onnx or another library of the export extra is missing.
    """
    graph, options = Path(graph), options or AdoptOptions()
    output = options.output or Path(graph.name).with_suffix(".bundle")
    check_target(output, overwrite=options.overwrite)
    if options.data is not None and not options.data.exists():
        raise InputError(f"{options.data}: no such file or folder of images")
    progress("reading the graph", 0, 0)
    with needs("adopting an ONNX graph"):
        from resdeploy.export.foreign.read import read_foreign
        from resdeploy.export.write_variants import write_variants
    foreign = read_foreign(graph, size_px=_asked_size(options), logits=options.logits)
    manifest = _describe(foreign, options)
    images = None if options.data is None else read_data(options.data, manifest.labels)
    progress("folding", 0, 0)
    folded = _folded(foreign)
    if images is not None and images.truth is not None and options.preprocess is None:
        manifest = _fitted(manifest, images, folded, progress)
    with new_bundle(output, overwrite=options.overwrite) as folder:
        manifest, accuracy = write_variants(
            folder, manifest, folded, _original(foreign), images,
            half="fp16" in options.precisions, progress=progress,
        )  # fmt: skip
    return ExportReport(output, manifest, accuracy)


def _asked_size(options: AdoptOptions) -> tuple[int, int] | None:
    """Height and width that the user names, by a number or by a preprocessing of his own."""
    if options.input_size_px is not None:
        return options.input_size_px, options.input_size_px
    if options.preprocess is not None and names_file(options.preprocess):
        return read_preprocess(Path(options.preprocess)).input_size_px
    return None


def _folded(foreign: "ForeignGraph") -> "FoldedGraph":
    """Simplified first: another tool's exchanges of axes and constants are in the folds' way."""
    from resdeploy.export.folded import fold_and_simplify
    from resdeploy.export.foreign.standard_form import standard_form
    from resdeploy.export.graph.onnx_file import opset
    from resdeploy.export.graph.simplify import simplify

    model = simplify(standard_form(foreign))
    return fold_and_simplify(model, opset=opset(model))


def _original(foreign: "ForeignGraph") -> "Original":
    """The file as it was, as what the written graphs are compared with."""
    from resdeploy.export.foreign.original import OriginalGraph
    from resdeploy.export.proof.parity import ADOPTED
    from resdeploy.export.write_variants import Original

    return Original(ADOPTED, lambda _, affine: OriginalGraph(foreign, affine))


def _fitted(
    manifest: Manifest, images: Images, folded: "FoldedGraph", progress: Progress
) -> Manifest:
    """The manifest with the preprocessing that labelled images speak for."""
    with folded.float_session() as session:
        return with_fitted_preprocess(manifest, images, session, progress)


def _describe(foreign: "ForeignGraph", options: AdoptOptions) -> Manifest:
    """The manifest before any file is written: model, labels, preprocessing, assumptions."""
    from resdeploy.export.graph.onnx_file import parameters

    folders = () if options.data is None else (options.data,)
    labels, about_labels = class_names(foreign.path, foreign.classes, options.classes, folders)
    preprocess, about_preprocess = _preprocess(foreign, options)
    height, width = preprocess.input_size_px
    return Manifest(
        model=ModelFacts(
            architecture=foreign.path.stem,
            parameters=parameters(foreign.model),
            classes=foreign.classes,
            checkpoint_sha256=foreign.sha256,
        ),
        input=input_spec(height, width),
        output=output_spec(foreign.classes),
        preprocess=preprocess,
        labels=labels,
        variants={},
        assumptions=(*_about_graph(foreign), *about_preprocess, *about_labels),
        proofs={ADOPTION: _adoption(foreign)},
        tools=installed_versions(_TOOLS),
    )


def _adoption(foreign: "ForeignGraph") -> dict[str, Any]:
    """What the graph was, for whoever reads the bundle later."""
    return {
        "file": foreign.path.name,
        "sha256": foreign.sha256,
        "opset": foreign.opset,
        "producer": foreign.model.producer_name,
        "layout": foreign.layout,
        "batch": foreign.batch,
        "logits": foreign.logits,
        "taken_off": foreign.end,
    }


def _about_graph(foreign: "ForeignGraph") -> tuple[str, ...]:
    """The reference said plainly, and what was changed at both ends."""
    name = foreign.path.name
    said = [f"{name} is right: its own answers are the reference, no checkpoint vouches for them"]
    if foreign.end:
        said.append(f"the {foreign.end} at the end of {name} is taken off: logits are before it")
    if foreign.batch is not None:
        said.append(f"{name} takes batches of {foreign.batch} only; the bundle takes any")
    return tuple(said)


def _preprocess(
    foreign: "ForeignGraph", options: AdoptOptions
) -> tuple[Preprocess, tuple[str, ...]]:
    """The preprocessing, and what to say of what had to be assumed."""
    height, width = foreign.size_px
    asked = options.preprocess or _USUAL_PREPROCESS
    if names_file(asked):
        preprocess = read_preprocess(Path(asked), options.input_size_px)
    elif height == width:
        preprocess = named(asked, height)
    else:
        raise InputError(
            f"{foreign.path}: takes images of {width}x{height} pixels, but {asked!r} makes square "
            f"ones: describe the preprocessing in a file and give it with --preprocess FILE.json"
        )
    changed = options.mean or options.std or options.resize_px
    preprocess = override(
        preprocess, mean=options.mean, std=options.std, resize_px=options.resize_px
    )
    said = []
    if foreign.assumed_size:
        said.append(f"input size is {width}x{height}, since the graph takes any; change with "
                    "--input-size")  # fmt: skip
    if options.preprocess is None and not changed:
        said.append(
            f"preprocessing is {preprocess.name!r} ({in_words(preprocess)}), which a graph does "
            "not tell; change with --preprocess, or give labelled images with --data to find out"
        )
    return preprocess, tuple(said)
