"""A network that tells colours apart, so that every flip in a test is meant and can be counted.

logits = W · mean(picture) + b over the three channels: with W the identity the answer is the
strongest channel, and a change of W or b flips exactly the pictures whose margin it exceeds.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

LABELS = ("red", "green", "blue")
SIZE_PX = 8

Weights = NDArray[np.float32]
WriteBundle = Callable[..., Path]

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
def identity() -> Weights:
    """The weights of a network that is always right."""
    return np.eye(3, dtype=np.float32)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 pictures, 100 of each class; the margin of number k of a class is k + 1 of 255."""
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
    weights: Mapping[str, Weights],
    *,
    bias: Mapping[str, Weights] | None = None,
    labels: tuple[str, ...] = LABELS,
    reference: bool = True,
) -> Path:
    import onnx.parser

    from resdeploy.deploy.bundle import describe_file, new_bundle, write_manifest
    from resdeploy.deploy.manifest import (
        Manifest,
        ModelFacts,
        graph_metadata,
        input_spec,
        output_spec,
    )
    from resdeploy.deploy.preprocess import named
    from resdeploy.deploy.recording import Reference, write_reference

    facts = ModelFacts("colours", 12, 3, "c0ffee" + "0" * 58)
    spec = input_spec(SIZE_PX, SIZE_PX)
    manifest = Manifest(facts, spec, output_spec(3), named("half", SIZE_PX), labels, {})
    with new_bundle(path) as folder:
        for name, matrix in weights.items():
            model = onnx.parser.parse_model(_GRAPH)
            offset = (bias or {}).get(name, np.zeros(3, np.float32))
            for key, values in (("w", matrix), ("b", offset)):
                tensor = onnx.numpy_helper.from_array(values.astype(np.float32), key)
                model.graph.initializer.append(tensor)
            entries = graph_metadata(manifest, name, opset=17, parent_sha256="checkpoint")  # type: ignore[arg-type]
            onnx.helper.set_model_props(model, entries)
            onnx.save(model, folder / f"{name}.onnx")
            file = describe_file(folder / f"{name}.onnx", opset=17, made_from="checkpoint")
            manifest = manifest.with_variant(name, file)  # type: ignore[arg-type]
        if reference:
            inputs = np.random.default_rng(0).random((8, 3, SIZE_PX, SIZE_PX), np.float32)
            logits = inputs.mean(axis=(2, 3)) @ weights.get("fp32", np.eye(3)).T
            logits += (bias or {}).get("fp32", np.zeros(3))
            write_reference(folder / "reference.npz", Reference(inputs, logits.astype(np.float32)))
        write_manifest(folder, manifest)
    return path
