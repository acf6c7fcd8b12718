"""Bundles to build engines of: three real families with random weights, and a tiny network."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from resdeploy.deploy.bundle import REFERENCE, describe_file, read_bundle, write_manifest
from resdeploy.deploy.manifest import Manifest, ModelFacts, graph_metadata, input_spec, output_spec
from resdeploy.deploy.preprocess import Preprocess
from resdeploy.deploy.recording import Reference, write_reference

# Small pictures: a builder does not care, and exporting three families takes a third of the time.
_SIDE_PX = 96

# Three channels summed per picture: the weights are such that logits are easy to say in numpy.
_TINY = """
<ir_version: 8, opset_import: ["" : 17]>
tiny (float[batch, 3, 16, 16] input) => (float[batch, 3] logits)
<float[3, 3, 1, 1] weight, float[3, 3] fc>
{
    mixed = Conv (input, weight)
    positive = Relu (mixed)
    pooled = GlobalAveragePool (positive)
    flat = Flatten (pooled)
    logits = Gemm <transB = 1> (flat, fc)
}
"""


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """A bundle with one fp32 graph of a few weights, written as an export writes it."""
    folder = tmp_path / "tiny.bundle"
    folder.mkdir()
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 3, 1, 1)).astype(np.float32)
    fc = rng.standard_normal((3, 3)).astype(np.float32)
    model = onnx.parser.parse_model(_TINY)
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    model.graph.initializer.append(numpy_helper.from_array(fc, "fc"))
    preprocess = Preprocess("tiny", (16, 16), None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    manifest = Manifest(
        model=ModelFacts("tiny", 18, 3, "0" * 64),
        input=input_spec(16, 16),
        output=output_spec(3),
        preprocess=preprocess,
        labels=("red", "green", "blue"),
        variants={},
    )
    metadata = graph_metadata(manifest, "fp32", opset=17, parent_sha256="0" * 64)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, folder / "fp32.onnx")
    inputs = rng.standard_normal((4, 3, 16, 16)).astype(np.float32)
    pooled = np.maximum(np.einsum("nchw,oc->nohw", inputs, weight[:, :, 0, 0]), 0).mean((2, 3))
    write_reference(folder / REFERENCE, Reference(inputs, pooled @ fc.T))
    file = describe_file(folder / "fp32.onnx", opset=17, made_from="checkpoint")
    write_manifest(folder, manifest.with_variant("fp32", file))
    return folder


@pytest.fixture(scope="session")
def family_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function: torchvision's name → a bundle with fp32, fp16, int8 and int8-fp16 of it.

    Weights are random, but batch norm has seen data, so that activations neither vanish nor grow;
    int8 ranges are made up, which is enough for a builder. Do not write into what it gives.
    """
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = _export(name, tmp_path_factory.mktemp(name))
            _quantize(made[name])
        return made[name]

    return make


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """A function: a bundle → a copy of it that may be written into, in no time and space."""

    def copy(bundle: Path) -> Path:
        return Path(shutil.copytree(bundle, tmp_path / bundle.name, copy_function=os.link))

    return copy


def _export(name: str, folder: Path) -> Path:
    import torch
    import torchvision

    from resdeploy.export.pipeline import ExportOptions, export_checkpoint

    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(num_classes=10)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
        module(torch.randn(8, 3, _SIDE_PX, _SIDE_PX))
    checkpoint = folder / f"{name}.pth"
    torch.save(module.state_dict(), checkpoint)
    options = ExportOptions(output=folder / f"{name}.bundle", input_size_px=_SIDE_PX)
    return export_checkpoint(checkpoint, options).bundle


def _quantize(folder: Path) -> None:
    from resdeploy.calibration.plan import plan
    from resdeploy.calibration.qdq import QdqTarget, insert_qdq
    from resdeploy.calibration.ranges import Range

    bundle = read_bundle(folder)
    model = onnx.load(bundle.graph("fp32"))
    where = plan(model)
    ranges = {tensor: Range(-4.0, 4.0) for tensor in where.activations}
    manifest = bundle.manifest
    targets: tuple[tuple[str, QdqTarget], ...] = (
        ("int8", "tensorrt"),
        ("int8-fp16", "tensorrt-fp16"),
    )
    for variant, target in targets:
        graph = insert_qdq(model, where, ranges, {}, {}, target=target)
        onnx.save(graph, folder / f"{variant}.onnx")
        file = describe_file(
            folder / f"{variant}.onnx", opset=graph.opset_import[0].version, made_from="fp32"
        )
        manifest = manifest.with_variant(variant, file)  # type: ignore[arg-type]
    write_manifest(folder, manifest)
