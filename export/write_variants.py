"""Writes the float variants of a bundle, and the proofs that they answer as the original does.

The original is the PyTorch module of a checkpoint, or the ONNX graph that was adopted.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.bundle import REFERENCE, describe_file, is_adopted, write_manifest
from resdeploy.deploy.bundle.channel_statistics import write_channel_statistics
from resdeploy.deploy.bundle.manifest import Manifest, graph_metadata
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.images.preprocess import Preprocess, override
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.progress import Progress
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import Variant
from resdeploy.deploy.verification.checks.promise import PROMISED
from resdeploy.export.folded import FoldedGraph
from resdeploy.export.graph.fold_input import InputAffine, InputFold, fold_input
from resdeploy.export.graph.half import to_half
from resdeploy.export.graph.onnx_file import append_metadata, load_graph, operators, save_graph
from resdeploy.export.proof.feature_parity import FeatureParity, compare_features_with_pytorch
from resdeploy.export.proof.images import sample_inputs
from resdeploy.export.proof.parity import Parity, compare_with_original, rounded

# Enough to see an activation that FP16 cannot hold, little enough to be instant.
_SCANNED_IMAGES = 4


@dataclass(frozen=True)
class Original:
    """What the written graphs are compared with.

    Attributes:
        key: `parity.TORCH` or `parity.ADOPTED`.
        open: the session for a manifest. Its inputs are those of the written graph, so that a
            scale and shift taken off the graph's input (None: there is none) is its to undo.
    """

    key: str
    open: Callable[[Manifest, InputAffine | None], Session]


def write_variants(
    folder: Path,
    manifest: Manifest,
    graph: FoldedGraph,
    original: Original,
    images: Images | None,
    *,
    half: bool,
    progress: Progress,
) -> tuple[Manifest, dict[str, float]]:
    """Fill a new bundle; returns its manifest and the accuracies (empty without labels).

    Raises:
        GraphError: fp32.onnx as written does not give the original's logits.
    """
    manifest, graph, on_input = _without_input_normalization(manifest, graph)
    files: dict[Variant, Path] = {"fp32": folder / "fp32.onnx"}
    progress("writing fp32.onnx", 0, 0)
    save_graph(graph.model, files["fp32"])
    kept_float: Mapping[str, str] | None = None
    if half:
        progress("writing fp16.onnx", 0, 0)
        samples = sample_inputs(images, manifest.preprocess, _SCANNED_IMAGES)
        result = to_half(graph.model, samples)
        kept_float = result.kept_float
        files["fp16"] = folder / "fp16.onnx"
        save_graph(result.model, files["fp16"])
    parity = _parity(files, manifest, original, on_input.affine, images, progress)
    parity.check("fp32")
    source = "built-in" if images is None else "data"
    proofs = _proofs(files["fp32"], graph, parity, source, kept_float)
    promised = parity.promised(files, own_images=images is not None)
    proofs |= {PROMISED: promised, **manifest.proofs}
    proofs |= _input_proof(on_input, manifest.preprocess)
    manifest = replace(manifest, proofs=proofs)
    manifest = _embed(files, manifest, graph.opset)
    parity.write_recorded(folder / REFERENCE)
    manifest = write_channel_statistics(folder, manifest, graph.fold.statistics)
    write_manifest(folder, manifest)
    return manifest, parity.accuracy()


def _without_input_normalization(
    manifest: Manifest, graph: FoldedGraph
) -> tuple[Manifest, FoldedGraph, InputFold]:
    """Let the preprocessing do what the network does to its own input, exactly.

    The original stays as it is; it is asked through the inverse, so that the proof compares the
    old network on the old input with the new graph on the new input.
    """
    fold = fold_input(graph.model)
    if fold.affine is None:
        return manifest, graph, fold
    mean, std = fold.affine.mean_and_std(manifest.preprocess.mean, manifest.preprocess.std)
    manifest = replace(manifest, preprocess=override(manifest.preprocess, mean=mean, std=std))
    return manifest, replace(graph, model=fold.model), fold


def _input_proof(fold: InputFold, preprocess: Preprocess) -> dict[str, Any]:
    """What was taken off the input, for whoever opens the checkpoint again; {} for nothing."""
    if fold.affine is None and not fold.declined:
        return {}
    entry: dict[str, Any] = {"declined": fold.declined}
    if fold.affine is not None:
        entry |= {"scale": list(fold.affine.scale), "shift": list(fold.affine.shift)}
        entry |= {"mean": list(preprocess.mean), "std": list(preprocess.std)}
    return {"input_fold": entry}


def _parity(
    files: Mapping[Variant, Path],
    manifest: Manifest,
    original: Original,
    affine: InputAffine | None,
    images: Images | None,
    progress: Progress,
) -> Parity | FeatureParity:
    with ExitStack() as stack:
        session = stack.enter_context(original.open(manifest, affine))
        sessions: dict[str, Session] = {original.key: session}
        for name, path in files.items():
            sessions[name] = stack.enter_context(OrtSession(path, variant=name, threads=1))
        if manifest.features:
            return compare_features_with_pytorch(sessions, images, manifest.preprocess, progress)
        return compare_with_original(
            sessions, images, manifest.preprocess, progress, original=original.key
        )


def _proofs(
    fp32: Path,
    graph: FoldedGraph,
    parity: Parity | FeatureParity,
    image_source: str,
    kept_float: Mapping[str, str] | None,
) -> dict[str, Any]:
    """`batchnorm_fold` and `parity` of fp32.onnx, and the same figures for fp16.onnx."""
    figures = {**parity.figures("fp32"), "image_source": image_source}
    left = operators(load_graph(fp32)).get("BatchNormalization", 0)
    fold = {
        "folded": len(graph.fold.folded),
        "left": left,
        "declined": dict(graph.fold.skipped),
        "passes": {
            name: {"rewritten": done.count, "declined": dict(done.declined)}
            for name, done in graph.rewrites.items()
        },
        # per convolution, on random patches in float64; end to end, from the file as written
        "max_relative": rounded(max(graph.fold.folded.values(), default=0.0)),
        "max_abs": figures["max_abs"],
        "images": figures["images"],
        "image_source": image_source,
    }
    proofs = {"batchnorm_fold": fold, "parity": figures}
    if kept_float is not None:
        proofs["fp16"] = {**parity.figures("fp16"), "kept_float": dict(kept_float)}
    return proofs


def _embed(files: Mapping[Variant, Path], manifest: Manifest, opset: int) -> Manifest:
    """Put metadata into each file, then describe it; a child names its parent's final hash."""
    parent = manifest.model.checkpoint_sha256
    made_from = "graph" if is_adopted(manifest) else "checkpoint"
    for name, path in files.items():
        entries = graph_metadata(manifest, name, opset=opset, parent_sha256=parent)
        append_metadata(path, entries)
        file = describe_file(path, opset=opset, made_from=made_from)
        manifest = manifest.with_variant(name, file)
        parent, made_from = file.sha256, name
    return manifest
