"""What tests build: graphs from text, bundles as an export writes them, batch-norm statistics."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import onnx
import onnx.parser

from resdeploy.calibration.graph.layers import layers
from resdeploy.calibration.observe.channel_peaks import ChannelPeaks
from resdeploy.calibration.observe.collect import collect
from resdeploy.deploy.arrays import Float32s, Floats
from resdeploy.deploy.bundle.bundle import (
    REFERENCE,
    describe_file,
    read_bundle,
    write_manifest,
)
from resdeploy.deploy.bundle.manifest import (
    Manifest,
    ModelFacts,
    graph_metadata,
    input_spec,
    output_spec,
)
from resdeploy.deploy.bundle.reference import (
    FeatureReference,
    Reference,
    write_feature_reference,
    write_reference,
)
from resdeploy.deploy.bundle.update import new_bundle
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.specs import FeatureSpec, Variant

if TYPE_CHECKING:
    import torch

Module = TypeVar("Module", bound="torch.nn.Module")

_CHECKPOINT_SHA256 = "c0ffee" + "0" * 58


def graph_of(text: str, weights: Mapping[str, Floats]) -> onnx.ModelProto:
    """The graph that `text` draws (`onnx.parser`), its weights stored as float32."""
    model = onnx.parser.parse_model(text)
    for name, values in weights.items():
        tensor = onnx.numpy_helper.from_array(values.astype(np.float32), name)
        model.graph.initializer.append(tensor)
    return model


TWO_LAYERS = """
<ir_version: 8, opset_import: ["" : 17]>
two (float[batch, 3, 16, 16] input) => (float[batch, 8] logits)
{
    [conv1] c1 = Conv (input, w1, b1)
    [relu1] r1 = Relu (c1)
    [conv2] c2 = Conv (r1, w2, b2)
    [pool] g = GlobalAveragePool (c2)
    [flatten] logits = Flatten (g)
}
"""


def noise_for(model: onnx.ModelProto) -> Float32s:
    """Eight inputs of a graph (8, 3, H, W), standard normal, always the same."""
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    return np.random.default_rng(5).standard_normal((8, 3, size, size), np.float32)


def channel_peaks(model: onnx.ModelProto, images: Float32s) -> dict[str, Float32s]:
    """The largest magnitude of every channel that a layer reads, (C,), by tensor."""
    found = {layer.input: ChannelPeaks() for layer in layers(model)}
    collect(model, [images], {tensor: [peak] for tensor, peak in found.items()})
    return {tensor: peak.peaks for tensor, peak in found.items()}


def logits_of(model: onnx.ModelProto, images: Float32s) -> Float32s:
    """What a float graph gives for a batch, (N, classes)."""
    with OrtSession(model.SerializeToString(), threads=1) as session:
        return session.run(images)


def write_bundle(
    path: Path,
    graphs: Mapping[Variant, onnx.ModelProto],
    preprocess: Preprocess,
    *,
    labels: tuple[str, ...] = (),
    features: tuple[FeatureSpec, ...] = (),
    reference: Reference | FeatureReference | None = None,
) -> Path:
    """Write a bundle as an export does: metadata in each graph, the manifest last; returns `path`.

    Without labels the network has no classes, so that the bundle yields features, or with
    `features` these maps. Each graph's input has the size of `preprocess`, and its output the
    width that the graph declares.
    """
    first = next(iter(graphs.values())).graph
    parameters = sum(int(np.prod(tensor.dims)) for tensor in first.initializer)
    manifest = Manifest(
        ModelFacts("tiny", parameters, len(labels) or None, _CHECKPOINT_SHA256),
        input_spec(*preprocess.input_size_px),
        features[-1].tensor
        if features
        else output_spec(first.output[0].type.tensor_type.shape.dim[1].dim_value),
        preprocess,
        labels,
        {},
        features=features,
    )
    with new_bundle(path) as folder:
        for variant, graph in graphs.items():
            manifest = _with_graph(folder, manifest, variant, graph, "checkpoint")
        if isinstance(reference, FeatureReference):
            write_feature_reference(folder / REFERENCE, reference)
        elif reference is not None:
            write_reference(folder / REFERENCE, reference)
        write_manifest(folder, manifest)
    return path


def add_variant(bundle: Path, variant: Variant, graph: onnx.ModelProto) -> None:
    """Write one more graph into a bundle, made from its fp32 graph, and name it in the manifest."""
    manifest = read_bundle(bundle).manifest
    write_manifest(bundle, _with_graph(bundle, manifest, variant, graph, "fp32"))


def _with_graph(
    folder: Path, manifest: Manifest, variant: Variant, graph: onnx.ModelProto, made_from: str
) -> Manifest:
    opset = graph.opset_import[0].version
    entries = graph_metadata(manifest, variant, opset=opset, parent_sha256=made_from)
    onnx.helper.set_model_props(graph, entries)
    onnx.save(graph, folder / f"{variant}.onnx")
    file = describe_file(folder / f"{variant}.onnx", opset=opset, made_from=made_from)
    return manifest.with_variant(variant, file)


def randomize_batch_norms(module: Module) -> Module:
    """Give every batch norm statistics as training leaves them, and end training mode.

    No mean is 0, no variance or gain 1; the gain is below 1 on average, so that the activations
    of a deep network do not grow. The same network always gets the same statistics.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                assert part.running_mean is not None and part.running_var is not None
                part.running_mean.normal_(0, 0.1, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
                part.weight.uniform_(0.5, 1.2, generator=generator)
                part.bias.normal_(0, 0.1, generator=generator)
    return module.eval()


def measure_batch_norms(module: Module, images: "torch.Tensor") -> Module:
    """Give every batch norm the statistics of `images` (N, C, H, W), and end training mode.

    Activations then neither vanish nor grow, whatever the depth.
    """
    import torch

    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # a plain average over the batches seen
    with torch.no_grad():
        module.train()(images)
    return module.eval()


def pooled(inputs: Float32s) -> Float32s:
    """The mean over height and width: (N, C, H, W) → (N, C)."""
    means: Float32s = inputs.mean(axis=(2, 3))
    return means
