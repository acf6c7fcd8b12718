"""What each step of INT8 quantization is worth, and what others make of the same pictures.

    python benchmarks/int8_accuracy.py BUNDLE CALIB DATA [--images 128] [--threads 2]
                                       [--skip-peers] [--json FILE]

BUNDLE holds fp32.onnx; CALIB calibration pictures; DATA labelled pictures to evaluate on, less
those that were calibrated with. One row a recipe, cumulative down the ladder: top-1, agreement with
float32, SQNR of the logits. int8 computes what the graph says (TensorRT's arithmetic); int8-cpu
runs in ONNX Runtime's integer kernels on this processor. Then onnxruntime's `quantize_static` on
the same pictures, and weights quantized per tensor with and without cross-layer equalization, which
is where MobileNetV2 collapses.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization as peer
from peer_reader import PeerReader
from timing import show, write_json

from resdeploy.calibration.bias_correction import corrected_bias
from resdeploy.calibration.draft import Draft, Rounding, integers_for, rounded
from resdeploy.calibration.equalize import equalize
from resdeploy.calibration.images import choose_pictures, read_batches
from resdeploy.calibration.layers import bias_of, constants, with_biases
from resdeploy.calibration.recipes import VARIANT_OF, Material, Recipe, build
from resdeploy.calibration.repair import worst_padded
from resdeploy.calibration.sensitivity import logits
from resdeploy.calibration.statistics import GRIDS, Statistics, gather
from resdeploy.deploy.bundle import read_bundle
from resdeploy.deploy.compare import agreement, sqnr_db, top1
from resdeploy.deploy.pictures import labelled_pictures
from resdeploy.deploy.specs import Variant
from resdeploy.export.graph import load_graph

_BATCH = 8
_HELD_BATCHES = 4
_FITTING_BATCHES = 8
_ALWAYS_ON: tuple[tuple[str, str, Rounding], ...] = (
    ("min-max ranges, weights to nearest", "minmax", "nearest"),
    ("+ ranges of least squared error", "mse", "nearest"),
    ("+ bias correction", "mse", "corrected"),
    ("+ GPTQ rounding", "mse", "gptq"),
)


@dataclass(frozen=True)
class Setting:
    """One network with its pictures decoded: calibration batches, evaluation batches, truth."""

    model: onnx.ModelProto
    calibrate: list[np.ndarray]
    evaluate: list[np.ndarray]
    truth: np.ndarray
    expected: np.ndarray
    threads: int

    def row(self, name: str, graph: bytes, variant: Variant, seconds: float) -> dict[str, Any]:
        """The figures of one graph on the evaluation pictures."""
        got = logits(graph, variant, self.evaluate, self.threads)
        result = {
            "recipe": name,
            "runs as": variant,
            "top1": round(top1(got, self.truth), 2),
            "agreement": round(agreement(self.expected, got), 2),
            "sqnr_db": round(sqnr_db(self.expected, got), 2),
            "seconds": round(seconds, 1),
        }
        print(*result.values(), sep="  ", flush=True)
        return result


def read_setting(arguments: argparse.Namespace) -> Setting:
    bundle = read_bundle(arguments.bundle)
    preprocess, labels = bundle.manifest.preprocess, bundle.manifest.labels
    model = with_biases(load_graph(bundle.graph("fp32")))
    chosen = choose_pictures(arguments.calib, images=arguments.images).paths
    taken = {path.resolve() for path in chosen}
    labelled = [
        p for p in labelled_pictures(arguments.data, labels) if p.path.resolve() not in taken
    ]
    evaluate = list(read_batches([p.path for p in labelled], preprocess, batch=_BATCH))
    return Setting(
        model,
        list(read_batches(chosen, preprocess, batch=_BATCH)),
        evaluate,
        np.array([p.index for p in labelled]),
        logits(model.SerializeToString(), "fp32", evaluate, arguments.threads),
        arguments.threads,
    )


def material_of(setting: Setting) -> Material:
    """As `quantize` makes it: the last pictures are kept back from calibration."""
    calibrate, held = setting.calibrate[:-_HELD_BATCHES], setting.calibrate[-_HELD_BATCHES:]
    known: dict[bool, Statistics] = {}

    def measure(equalized: bool) -> Statistics:
        if equalized not in known:
            plain = setting.model
            graph = equalize(plain, measure(False).peaks) if equalized else plain
            total = sum(map(len, calibrate))
            known[equalized] = gather(graph, lambda: calibrate, total, threads=setting.threads)
        return known[equalized]

    expected = logits(setting.model.SerializeToString(), "fp32", held, setting.threads)
    fitting = calibrate[:_FITTING_BATCHES]
    return Material(measure, held, expected, fitting, setting.threads)


def ladder(setting: Setting, material: Material) -> Iterator[dict[str, Any]]:
    """Plain rounding, what is always on, then the rungs."""
    statistics = material.measure(False)
    for target in GRIDS:
        variant = VARIANT_OF[target]
        for name, method, rounding in _ALWAYS_ON:
            began = time.perf_counter()
            draft = Draft(setting.model, target, statistics.ranges(method, target))
            draft = rounded(draft, statistics.moments, rounding=rounding)
            seconds = time.perf_counter() - began
            yield setting.row(name, draft.graph().SerializeToString(), variant, seconds)
        for name, recipe in rungs(target, material):
            began = time.perf_counter()
            draft = build(material, target, recipe)
            seconds = time.perf_counter() - began
            yield setting.row(name, draft.graph().SerializeToString(), variant, seconds)


def rungs(target: str, material: Material) -> Iterator[tuple[str, Recipe]]:
    recipe = Recipe()
    if target == "tensorrt":
        recipe = replace(recipe, centre=True)
        yield "+ centred ReLU ranges", recipe
        worst = worst_padded(material, build(material, "tensorrt", recipe))
        if worst:
            recipe = replace(recipe, pad=worst)
            yield f"+ {len(worst)} padded layers centred", recipe
    recipe = replace(recipe, prefix=True)
    yield "+ errors absorbed, layer by layer", recipe
    yield "the same after equalization", replace(recipe, equalize=True)


def per_tensor(setting: Setting, material: Material) -> Iterator[dict[str, Any]]:
    """Weights with one scale per tensor: the case that cross-layer equalization was made for."""
    plain, peaks = setting.model, material.measure(False).peaks
    equal = equalize(plain, peaks, shared="weights", saturation="follow")
    for name, graph in (
        ("float32 with ReLU for ReLU6", without_upper_bounds(plain)),
        ("float32 equalized for weights per tensor", equal),
    ):
        yield setting.row(name, graph.SerializeToString(), "fp32", 0)
    calibrate = setting.calibrate
    total = sum(map(len, calibrate))
    for name, graph in (("weights per tensor", plain), ("weights per tensor, equalized", equal)):
        found = gather(graph, lambda: calibrate, total, threads=setting.threads)
        draft = Draft(graph, "tensorrt", found.ranges("mse", "tensorrt"))
        for what, correct in (("", False), (", + bias correction", True)):
            whole = whole_tensors(draft, found, correct)
            yield setting.row(name + what, whole.graph().SerializeToString(), "int8", 0)


def without_upper_bounds(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every ReLU6 is a ReLU, as Nagel et al. 2019 have it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.op_type == "Clip":
            node.op_type = "Relu"
            del node.input[1:]
    return copy


def whole_tensors(draft: Draft, found: Statistics, correct: bool) -> Draft:
    """The draft with one weight scale for each whole tensor."""
    values = constants(draft.model)
    weights, biases = {}, {}
    for layer in draft.layers:
        weight = values[layer.weight]
        scale = np.full(layer.shape[0], np.abs(weight).max() / 127, np.float32)
        weights[layer.weight] = integers_for(layer, weight, None, "tensorrt", scale)
        biases[layer.name] = corrected_bias(
            bias_of(layer, values),
            layer.rows(weight),
            layer.rows(weights[layer.weight].dequantize()),
            found.moments[layer.name].mean,
        )
    return replace(draft, weights=weights, biases=biases if correct else {})


def peers(setting: Setting) -> Iterator[dict[str, Any]]:
    """onnxruntime's quantize_static: for TensorRT (S8S8 symmetric), and for this CPU (U8S8)."""
    signed = {
        "activation_type": peer.QuantType.QInt8,
        "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True},
    }
    unsigned = {"activation_type": peer.QuantType.QUInt8}
    minmax, entropy = peer.CalibrationMethod.MinMax, peer.CalibrationMethod.Entropy
    percentile = peer.CalibrationMethod.Percentile
    runs: list[tuple[str, dict[str, Any], Variant]] = [
        ("S8S8 MinMax, what the graph says", {**signed, "calibrate_method": minmax}, "int8"),
        ("S8S8 MinMax, as this CPU runs it", {**signed, "calibrate_method": minmax}, "int8-cpu"),
        ("U8S8 MinMax", {**unsigned, "calibrate_method": minmax}, "int8-cpu"),
        (
            "U8S8 MinMax reduce_range",
            {**unsigned, "calibrate_method": minmax, "reduce_range": True},
            "int8-cpu",
        ),
        ("U8S8 Entropy", {**unsigned, "calibrate_method": entropy}, "int8-cpu"),
        ("U8S8 Percentile", {**unsigned, "calibrate_method": percentile}, "int8-cpu"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(setting.model, source)
        for name, options, variant in runs:
            began = time.perf_counter()
            peer.quantize_static(
                source,
                result,
                PeerReader(setting.calibrate),
                quant_format=peer.QuantFormat.QDQ,
                per_channel=True,
                weight_type=peer.QuantType.QInt8,
                **options,
            )
            seconds = time.perf_counter() - began
            yield setting.row(f"quantize_static {name}", result.read_bytes(), variant, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("calib", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-peers", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    setting = read_setting(arguments)
    material = material_of(setting)
    graph = setting.model.SerializeToString()
    rows = [setting.row("float32", graph, "fp32", 0)]
    rows += ladder(setting, material)
    rows += per_tensor(setting, material)
    if not arguments.skip_peers:
        rows += peers(setting)
    title = (
        f"{arguments.bundle.name}: {arguments.images} calibration pictures, "
        f"{len(setting.truth)} to evaluate on"
    )
    columns = list(rows[0])
    show(title, columns, [[str(row[column]) for column in columns] for row in rows])
    write_json(arguments.json, {"title": title, "rows": rows})


if __name__ == "__main__":
    main()
