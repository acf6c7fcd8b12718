"""INT8 graphs of whole networks, built by TensorRT-RTX without a GPU: what runs in int8?

    python benchmarks/rtx_int8.py [--networks alexnet,…] [--json FILE]

Networks of torchvision in full size with random weights, whose batch norms have the statistics of
noise; ranges are the extremes of noise, weights are rounded to nearest: neither changes what is
built. A row a network: convolutions and Gemms that the placement quantizes, of all there are; the
engine's layers by the type they compute in; size and seconds of the build for compute capability
8.6.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorrt_rtx as trt
import torch
import torchvision
from timing import show, write_json

from resdeploy.calibration.graph.layers import layers
from resdeploy.calibration.graph.placement import plan
from resdeploy.calibration.graph.qdq import insert_qdq
from resdeploy.calibration.observe.collect import collect
from resdeploy.calibration.ranges.methods import min_max
from resdeploy.calibration.ranges.observers import Extremes
from resdeploy.deploy.engine.layer_table import Layer, LayerCounts
from resdeploy.deploy.engine.log import BuildLog
from resdeploy.deploy.machine import cores
from resdeploy.export.graph.fold_batchnorm import fold_batchnorm
from resdeploy.export.graph.simplify import simplify
from resdeploy.export.graph.trace import trace

_NETWORKS = (
    "squeezenet1_1", "shufflenet_v2_x1_0", "mnasnet1_0", "mobilenet_v2", "mobilenet_v3_large",
    "efficientnet_b0", "regnet_y_400mf", "regnet_x_400mf", "googlenet", "resnet18", "resnet50",
    "resnext50_32x4d", "densenet121", "inception_v3", "alexnet", "vgg16_bn", "vgg16",
)  # fmt: skip
_SIZE_PX = {"inception_v3": 299}
_AUXILIARY = {"googlenet", "inception_v3"}


def float_graph(name: str, images: np.ndarray) -> onnx.ModelProto:
    extra = {"aux_logits": False, "init_weights": True} if name in _AUXILIARY else {}
    module = torchvision.models.get_model(name, weights=None, **extra)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        module.train()(torch.from_numpy(images))
    traced = trace(module.eval(), input_size_px=images.shape[-1])
    return simplify(fold_batchnorm(traced).model)


def quantized(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    placed = plan(model)
    extremes = {tensor: Extremes() for tensor in placed.activations}
    collect(model, np.split(images, len(images)), {t: [e] for t, e in extremes.items()})
    return insert_qdq(model, placed, {t: min_max(e) for t, e in extremes.items()}, {}, {})


def built(model: onnx.ModelProto) -> tuple[tuple[Layer, ...], int]:
    """The engine's layers and its size in bytes."""
    log = BuildLog()
    logger = log.logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        raise SystemExit("; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    sizes = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:])
    profile.set_shape("input", (1, *sizes), (1, *sizes), (8, *sizes))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise SystemExit(f"TensorRT-RTX does not build it: {log.errors[-1:]}")
    return log.layers, engine.nbytes


def row(name: str) -> dict[str, Any]:
    size = _SIZE_PX.get(name, 224)
    images = np.random.default_rng(0).standard_normal((4, 3, size, size)).astype(np.float32)
    torch.manual_seed(0)
    model = float_graph(name, images)
    placed = set(plan(model).weights.values())
    graph = quantized(model, images[:2])
    began = time.perf_counter()
    table, engine_bytes = built(graph)
    seconds = time.perf_counter() - began
    counts = LayerCounts.of(table)
    convolutions = [layer.type for layer in table if layer.is_convolution]
    found = {
        "network": name,
        "quantized": f"{len(placed)} of {len(layers(model))}",
        "engine's convolutions in int8": f"{convolutions.count('int8')} of {len(convolutions)}",
        "layers": counts.total,
        "int8": counts.int8,
        "half": counts.half,
        "float": counts.float,
        "MB": round(engine_bytes / 1e6, 1),
        "seconds": round(seconds, 1),
    }
    print(*found.values(), sep="  ", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=",".join(_NETWORKS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(cores())
    rows = [row(name) for name in arguments.networks.split(",")]
    columns = list(rows[0])
    show(f"TensorRT-RTX {trt.__version__}", columns, [[str(r[c]) for c in columns] for r in rows])
    write_json(arguments.json, {"rows": rows})


if __name__ == "__main__":
    main()
