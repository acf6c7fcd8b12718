"""Bundles to build engines of: three real families with random weights, and a tiny network."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.images.preprocess import Preprocess, named
from resdeploy.deploy.specs import Variant
from tests import builders

WriteBundle = Callable[..., Path]

# Small images: a builder does not care, and exporting three families takes a third of the time.
_SIDE_PX = 96

# Three channels summed per image: the weights are such that logits are easy to say in numpy.
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
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 3, 1, 1)).astype(np.float32)
    fc = rng.standard_normal((3, 3)).astype(np.float32)
    inputs = rng.standard_normal((4, 3, 16, 16)).astype(np.float32)
    mixed = np.einsum("nchw,oc->nohw", inputs, weight[:, :, 0, 0])
    return builders.write_bundle(
        tmp_path / "tiny.bundle",
        {"fp32": builders.graph_of(_TINY, {"weight": weight, "fc": fc})},
        Preprocess("tiny", (16, 16), None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        labels=("red", "green", "blue"),
        reference=Reference(inputs, builders.pooled(np.maximum(mixed, 0)) @ fc.T),
    )


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
    builders.measure_batch_norms(module, torch.randn(8, 3, _SIDE_PX, _SIDE_PX))
    checkpoint = folder / f"{name}.pth"
    torch.save(module.state_dict(), checkpoint)
    options = ExportOptions(output=folder / f"{name}.bundle", input_size_px=_SIDE_PX)
    return export_checkpoint(checkpoint, options).bundle


def _quantize(folder: Path) -> None:
    from resdeploy.calibration.graph.placement import plan
    from resdeploy.calibration.graph.qdq import insert_qdq
    from resdeploy.calibration.ranges.ranges import Range

    model = onnx.load(read_bundle(folder).graph("fp32"))
    where = plan(model)
    ranges = {tensor: Range(-4.0, 4.0) for tensor in where.activations}
    variants: tuple[Variant, ...] = ("int8", "int8-fp16")
    for variant in variants:
        graph = insert_qdq(model, where, ranges, {}, {}, half=variant == "int8-fp16")
        builders.add_variant(folder, variant, graph)


# A network that tells colours apart, so that every flip in a test is meant and can be counted:
# logits = W · mean(image) + b over the three channels. With W the identity the answer is the
# strongest channel, and a change of W or b flips exactly the images whose margin it exceeds.
LABELS = ("red", "green", "blue")
SIZE_PX = 8

_GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
colours (float[batch, 3, 8, 8] input) => (float[batch, 3] logits)
{
    p = GlobalAveragePool (input)
    f = Flatten (p)
    logits = Gemm <transB = 1> (f, w, b)
}
"""


@pytest.fixture(scope="session")
def write_bundle() -> WriteBundle:
    """write_bundle(path, {"fp32": W, "int8": W2}, bias={…}, labels=…, reference=True) -> path."""
    return _write_bundle


@pytest.fixture(scope="session")
def identity() -> Float32s:
    """The weights of a network that is always right."""
    return np.eye(3, dtype=np.float32)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images, 100 of each class; the margin of number k of a class is k + 1 of 255."""
    folder = tmp_path_factory.mktemp("colours")
    for index, label in enumerate(LABELS):
        (folder / label).mkdir()
        for number in range(100):
            pixels = np.full((SIZE_PX, SIZE_PX, 3), 100, np.uint8)
            pixels[:, :, index] += number + 1
            Image.fromarray(pixels).save(folder / label / f"{number:03d}.png")
    return folder


def _write_bundle(
    path: Path,
    weights: Mapping[Variant, Float32s],
    *,
    bias: Mapping[Variant, Float32s] | None = None,
    labels: tuple[str, ...] = LABELS,
    reference: bool = True,
) -> Path:
    offsets = bias or {}
    graphs: dict[Variant, onnx.ModelProto] = {}
    for name, matrix in weights.items():
        offset = offsets.get(name, np.zeros(3, np.float32))
        graphs[name] = builders.graph_of(_GRAPH, {"w": matrix, "b": offset})
    recorded = None
    if reference:
        inputs = np.random.default_rng(0).random((8, 3, SIZE_PX, SIZE_PX), np.float32)
        logits = builders.pooled(inputs) @ weights.get("fp32", np.eye(3)).T
        logits += offsets.get("fp32", np.zeros(3))
        recorded = Reference(inputs, logits.astype(np.float32))
    return builders.write_bundle(
        path, graphs, named("half", SIZE_PX), labels=labels, reference=recorded
    )
