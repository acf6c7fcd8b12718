"""From a PyTorch module to the folded graph, and the module as the original of the proofs."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.specs import OUTPUT_NAME
from resdeploy.export.architectures.modules.backbone import backbone
from resdeploy.export.folded import FoldedGraph, fold_and_simplify
from resdeploy.export.graph.fold_input import InputAffine
from resdeploy.export.graph.trace import trace
from resdeploy.export.proof.parity import TORCH
from resdeploy.export.proof.torch_session import BeforeInputFold, TorchSession, torch_session
from resdeploy.export.write_variants import Original


def as_backbone(
    module: torch.nn.Module, manifest: Manifest, names: Sequence[str]
) -> tuple[torch.nn.Module, Manifest]:
    """The network that gives the feature maps called `names`, and the manifest that says so.

    Raises:
        InputError: the network has no such map; says which it has.
    """
    size_px = manifest.preprocess.input_size_px
    network, features = backbone(module, names, size_px)
    model = replace(manifest.model, parameters=network.parameters_read(size_px))
    output = features[-1].tensor
    return network, replace(manifest, model=model, features=features, output=output)


def trace_folded(module: torch.nn.Module, manifest: Manifest, *, opset: int) -> FoldedGraph:
    """Trace, fold and simplify.

    Raises:
        GraphError: the exporter refused the module, or simplifying changed the function.
    """
    _, _, height, width = manifest.input.shape
    outputs = [feature.name for feature in manifest.features] or [OUTPUT_NAME]
    size_px = (int(height), int(width))
    traced = trace(module, input_size_px=size_px, opset=opset, outputs=outputs)
    return fold_and_simplify(traced, opset=opset)


def original_of(module: torch.nn.Module) -> Original:
    """The module as what the written graphs are compared with."""

    def session(manifest: Manifest, affine: InputAffine | None) -> TorchSession:
        network = module if affine is None else BeforeInputFold(module, affine)
        return torch_session(network, manifest)

    return Original(TORCH, session)
