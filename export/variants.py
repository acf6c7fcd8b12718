"""Writes the float variants of a bundle, and the proofs that they answer as PyTorch does."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch

from resdeploy.deploy.bundle import REFERENCE, describe_file, write_manifest
from resdeploy.deploy.manifest import Manifest, graph_metadata
from resdeploy.deploy.ort import OrtSession
from resdeploy.deploy.output import Progress
from resdeploy.deploy.recording import write_reference
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import Variant
from resdeploy.export.embed import append_metadata
from resdeploy.export.fold_batchnorm import FoldResult, fold_batchnorm
from resdeploy.export.graph import load_graph, operators, save_graph
from resdeploy.export.half import to_half
from resdeploy.export.pictures import Pictures
from resdeploy.export.prove import TORCH, Answers, answer_all, rounded
from resdeploy.export.simplify import simplify
from resdeploy.export.torch_session import TorchSession
from resdeploy.export.trace import trace

# Enough to see an activation that FP16 cannot hold, little enough to be instant.
_SCANNED_PICTURES = 4


@dataclass(frozen=True)
class Traced:
    """The network three ways: the PyTorch module, the simplified graph, and what was folded."""

    module: torch.nn.Module
    graph: onnx.ModelProto
    fold: FoldResult
    opset: int

    def float_session(self) -> Session:
        """The float graph in ONNX Runtime, from memory."""
        return OrtSession(self.graph.SerializeToString())


def trace_folded(module: torch.nn.Module, manifest: Manifest, *, opset: int) -> Traced:
    """Trace, fold and simplify.

    Raises:
        GraphError: the exporter refused the module, or simplifying changed the function.
    """
    _, _, height, width = manifest.input.shape
    fold = fold_batchnorm(trace(module, input_size_px=(int(height), int(width)), opset=opset))
    return Traced(module, simplify(fold.model), fold, opset)


def write_variants(
    folder: Path,
    manifest: Manifest,
    traced: Traced,
    pictures: Pictures,
    *,
    half: bool,
    progress: Progress,
) -> tuple[Manifest, dict[str, float]]:
    """Fill a new bundle; returns its manifest and the accuracies (empty without labels).

    Raises:
        GraphError: fp32.onnx as written does not give PyTorch's logits.
    """
    files: dict[Variant, Path] = {"fp32": folder / "fp32.onnx"}
    progress("writing fp32.onnx", 0, 0)
    save_graph(traced.graph, files["fp32"])
    kept_float: Mapping[str, str] | None = None
    if half:
        progress("writing fp16.onnx", 0, 0)
        samples, _ = next(pictures.spread(_SCANNED_PICTURES).inputs(manifest.preprocess))
        result = to_half(traced.graph, samples)
        kept_float = result.kept_float
        files["fp16"] = folder / "fp16.onnx"
        save_graph(result.model, files["fp16"])
    answers = _answers(files, manifest, traced, pictures, progress)
    answers.check("fp32")
    manifest = replace(
        manifest, proofs=_proofs(files["fp32"], traced, answers, pictures, kept_float)
    )
    manifest = _embed(files, manifest, traced.opset)
    write_reference(folder / REFERENCE, answers.reference)
    write_manifest(folder, manifest)
    return manifest, answers.accuracy()


def _answers(
    files: Mapping[Variant, Path],
    manifest: Manifest,
    traced: Traced,
    pictures: Pictures,
    progress: Progress,
) -> Answers:
    height, width = manifest.preprocess.input_size_px
    classes = int(manifest.output.shape[1])
    with ExitStack() as stack:
        sessions: dict[str, Session] = {
            TORCH: TorchSession(traced.module, size_px=(height, width), width=classes)
        }
        for name, path in files.items():
            sessions[name] = stack.enter_context(OrtSession(path, variant=name))
        return answer_all(sessions, pictures, manifest.preprocess, progress)


def _proofs(
    fp32: Path,
    traced: Traced,
    answers: Answers,
    pictures: Pictures,
    kept_float: Mapping[str, str] | None,
) -> dict[str, Any]:
    """`batchnorm_fold` and `parity` of fp32.onnx, and the same figures for fp16.onnx."""
    parity = {**answers.parity("fp32"), "pictures": pictures.described}
    left = operators(load_graph(fp32)).get("BatchNormalization", 0)
    fold = {
        "folded": len(traced.fold.folded),
        "left": left,
        "declined": dict(traced.fold.skipped),
        # per convolution, on random patches in float64; end to end, from the file as written
        "max_relative": rounded(max(traced.fold.folded.values(), default=0.0)),
        "max_abs": parity["max_abs"],
        "images": parity["images"],
    }
    proofs = {"batchnorm_fold": fold, "parity": parity}
    if kept_float is not None:
        proofs["fp16"] = {**answers.parity("fp16"), "kept_float": dict(kept_float)}
    return proofs


def _embed(files: Mapping[Variant, Path], manifest: Manifest, opset: int) -> Manifest:
    """Put metadata into each file, then describe it; a child names its parent's final hash."""
    parent = manifest.model.checkpoint_sha256
    made_from = "checkpoint"
    for name, path in files.items():
        entries = graph_metadata(manifest, name, opset=opset, parent_sha256=parent)
        append_metadata(path, entries)
        file = describe_file(path, opset=opset, made_from=made_from)
        manifest = manifest.with_variant(name, file)
        parent, made_from = file.sha256, name
    return manifest
