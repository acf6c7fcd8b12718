"""What each step of INT8 quantization is worth, and what others make of the same images.

    python benchmarks/int8_accuracy.py BUNDLE CALIB DATA [--images 128] [--threads 2]
                                       [--nncf-python PYTHON] [--modelopt-python PYTHON]
                                       [--skip-peers] [--skip-slow-peers] [--skip-recipes]
                                       [--skip-ours] [--json FILE]

BUNDLE holds fp32.onnx; CALIB calibration images; DATA labelled images to evaluate on, less
those that were calibrated with. One row a recipe, cumulative down the ladder: top-1, agreement with
float32, SQNR of the logits. int8 computes what the graph says (TensorRT's arithmetic); int8-cpu
runs in ONNX Runtime's integer kernels on this processor. Then onnxruntime's `quantize_static` on
the same images, and weights quantized per tensor with and without cross-layer equalization, which
is where MobileNetV2 collapses. OpenVINO's NNCF and NVIDIA's Model Optimizer run in environments of
their own (`int8_peers.py`), whose interpreters are named by options. Intervals are of 95 %:
Wilson's of the agreement, bootstrap over images of the SQNR. `--skip-recipes` leaves the ladder's
single steps out and runs `quantize` once, repairs included, as a user does; `--skip-ours` leaves
that out, too. `--skip-slow-peers` leaves out onnxruntime's entropy and percentile ranges.
"""

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from int8_setting import Setting, read_setting
from onnxruntime import quantization as peer
from peer_reader import PeerReader
from timing import show, write_json
from weight_equalization import equalize_weights

from resdeploy.calibration.graph.layers import bias_of, constants
from resdeploy.calibration.observe.gather import Observations, gather
from resdeploy.calibration.pipeline import quantize
from resdeploy.calibration.repair.ladder import worst_padded
from resdeploy.calibration.repair.recipes import DraftCache, Measurements, Recipe, build
from resdeploy.calibration.repair.run import logits
from resdeploy.calibration.weights.bias_correction import corrected_bias
from resdeploy.calibration.weights.draft import Draft, Rounding, integers_for, rounded
from resdeploy.calibration.weights.equalize import equalize
from resdeploy.deploy.specs import Variant
from resdeploy.deploy.targets import TARGETS, TENSORRT, Target

# Peers in environments of their own, and what they give: logits or a graph.
_PEERS = (
    ("nncf", "npy"),
    ("nncf-fast", "npy"),
    ("modelopt-max", "onnx"),
    ("modelopt-entropy", "onnx"),
)
_HELD_BATCHES = 4
_FITTING_BATCHES = 8
_ALWAYS_ON: tuple[tuple[str, str, Rounding], ...] = (
    ("min-max ranges, weights to nearest", "minmax", "nearest"),
    ("+ ranges of least squared error", "mse", "nearest"),
    ("+ bias correction", "mse", "corrected"),
    ("+ GPTQ rounding", "mse", "gptq"),
)


def measurements_of(setting: Setting) -> Measurements:
    """As `quantize` makes it: the last images are kept back from calibration."""
    calibrate, held = setting.calibrate[:-_HELD_BATCHES], setting.calibrate[-_HELD_BATCHES:]

    def observed(graph: onnx.ModelProto) -> Observations:
        return gather(graph, lambda: calibrate, sum(map(len, calibrate)), threads=setting.threads)

    plain = observed(setting.model)
    return Measurements(
        observed=plain,
        observe_equalized=lambda: observed(equalize(setting.model, plain.peaks)),
        held=held,
        expected=logits(setting.model.SerializeToString(), "fp32", held, setting.threads),
        fitting=calibrate[:_FITTING_BATCHES],
        threads=setting.threads,
    )


def ladder(setting: Setting, measurements: Measurements) -> Iterator[dict[str, Any]]:
    """Plain rounding, what is always on, then the rungs."""
    observed, cache = measurements.observed, DraftCache()
    for target in TARGETS:
        for name, method, rounding in _ALWAYS_ON:
            began = time.perf_counter()
            draft = Draft(setting.model, target, observed.ranges(method, target))
            draft = rounded(draft, observed.moments, rounding=rounding)
            seconds = time.perf_counter() - began
            yield setting.row(name, draft.graph().SerializeToString(), target.variant, seconds)
        for name, recipe in rungs(target, measurements, cache):
            began = time.perf_counter()
            draft = build(measurements, cache, target, recipe)
            seconds = time.perf_counter() - began
            yield setting.row(name, draft.graph().SerializeToString(), target.variant, seconds)


def rungs(
    target: Target, measurements: Measurements, cache: DraftCache
) -> Iterator[tuple[str, Recipe]]:
    recipe = Recipe()
    if target == TENSORRT:
        recipe = replace(recipe, centre=True)
        yield "+ centred ReLU ranges", recipe
        worst = worst_padded(measurements, build(measurements, cache, target, recipe))
        if worst:
            recipe = replace(recipe, pad=worst)
            yield f"+ {len(worst)} padded layers centred", recipe
    recipe = replace(recipe, sequential_fit=True)
    yield "+ sequential fit", recipe
    yield "the same after equalization", replace(recipe, equalize=True)


def per_tensor(setting: Setting, measurements: Measurements) -> Iterator[dict[str, Any]]:
    """Weights with one scale per tensor: the case that cross-layer equalization was made for."""
    plain, peaks = setting.model, measurements.observed.peaks
    equal = equalize_weights(plain, peaks)
    for name, graph in (
        ("float32 with ReLU for ReLU6", without_upper_bounds(plain)),
        ("float32 equalized for weights per tensor", equal),
    ):
        yield setting.row(name, graph.SerializeToString(), "fp32", 0)
    calibrate = setting.calibrate
    total = sum(map(len, calibrate))
    for name, graph in (("weights per tensor", plain), ("weights per tensor, equalized", equal)):
        found = gather(graph, lambda: calibrate, total, threads=setting.threads)
        draft = Draft(graph, TENSORRT, found.ranges("mse", TENSORRT))
        for what, correct in (("", False), (", + bias correction", True)):
            whole = whole_tensors(draft, found, corrected=correct)
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


def whole_tensors(draft: Draft, found: Observations, *, corrected: bool) -> Draft:
    """The draft with one weight scale for each whole tensor."""
    values = constants(draft.model)
    weights, biases = {}, {}
    for layer in draft.layers:
        weight = values[layer.weight]
        scale = np.full(layer.shape[0], np.abs(weight).max() / 127, np.float32)
        weights[layer.weight] = integers_for(layer, weight, None, TENSORRT, scale)
        biases[layer.name] = corrected_bias(
            bias_of(layer, values),
            layer.rows(weight),
            layer.rows(weights[layer.weight].dequantize()),
            found.moments[layer.name].mean,
        )
    return replace(draft, weights=weights, biases=biases if corrected else {})


def peers(setting: Setting, *, slow: bool) -> Iterator[dict[str, Any]]:
    """onnxruntime's quantize_static: for TensorRT (S8S8 symmetric), and for this CPU (U8S8)."""
    signed = {
        "activation_type": peer.QuantType.QInt8,
        "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True},
    }
    unsigned = {"activation_type": peer.QuantType.QUInt8}
    minmax = peer.CalibrationMethod.MinMax
    runs: list[tuple[str, dict[str, Any], Variant]] = [
        ("S8S8 MinMax, what the graph says", {**signed, "calibrate_method": minmax}, "int8"),
        ("S8S8 MinMax, as this CPU runs it", {**signed, "calibrate_method": minmax}, "int8-cpu"),
        ("U8S8 MinMax", {**unsigned, "calibrate_method": minmax}, "int8-cpu"),
        (
            "U8S8 MinMax reduce_range",
            {**unsigned, "calibrate_method": minmax, "reduce_range": True},
            "int8-cpu",
        ),
    ]
    if slow:
        for method in (peer.CalibrationMethod.Entropy, peer.CalibrationMethod.Percentile):
            options = {**unsigned, "calibrate_method": method}
            runs.append((f"U8S8 {method.name}", options, "int8-cpu"))
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


def other_environments(
    setting: Setting, pythons: Mapping[str, Path | None]
) -> Iterator[dict[str, Any]]:
    """NNCF and Model Optimizer, each where its interpreter was named."""
    script = Path(__file__).with_name("int8_peers.py")
    with tempfile.TemporaryDirectory() as folder:
        source, images = Path(folder, "float.onnx"), Path(folder, "images.npz")
        onnx.save(setting.model, source)
        calibrate, evaluate = map(np.concatenate, (setting.calibrate, setting.evaluate))
        np.savez(images, calibrate=calibrate, evaluate=evaluate)
        for name, kind in _PEERS:
            python = pythons[name.split("-")[0]]
            if python is None:
                continue
            result = Path(folder, f"{name}.{kind}")
            began = time.perf_counter()
            subprocess.run([python, script, name, source, images, result], check=True)
            seconds = time.perf_counter() - began
            if kind == "npy":
                yield setting.judged(name, "OpenVINO", np.load(result), seconds)
            else:
                yield setting.row(name, result.read_bytes(), "int8", seconds)


def as_users_do(setting: Setting, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """`quantize` on a copy of the bundle, repairs included."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(shutil.copytree(arguments.bundle, Path(folder) / "copy.bundle"))
        report = quantize(bundle, arguments.calib, images=arguments.images, force=True)
        seconds = report.calibration["seconds"]
        for target in TARGETS:
            graph = (bundle / f"{target.variant}.onnx").read_bytes()
            yield setting.row("resdeploy quantize", graph, target.variant, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("calib", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-peers", action="store_true")
    parser.add_argument("--skip-slow-peers", action="store_true")
    parser.add_argument("--skip-recipes", action="store_true")
    parser.add_argument("--skip-ours", action="store_true")
    parser.add_argument("--nncf-python", type=Path)
    parser.add_argument("--modelopt-python", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    setting = read_setting(arguments)
    graph = setting.model.SerializeToString()
    rows = [setting.row("float32", graph, "fp32", 0)]
    if arguments.skip_recipes and not arguments.skip_ours:
        rows += as_users_do(setting, arguments)
    elif not arguments.skip_ours:
        measurements = measurements_of(setting)
        rows += ladder(setting, measurements)
        rows += per_tensor(setting, measurements)
    if not arguments.skip_peers:
        rows += peers(setting, slow=not arguments.skip_slow_peers)
    pythons = {"nncf": arguments.nncf_python, "modelopt": arguments.modelopt_python}
    rows += other_environments(setting, pythons)
    title = (
        f"{arguments.bundle.name}: {arguments.images} calibration images, "
        f"{len(setting.truth)} to evaluate on"
    )
    columns = list(rows[0])
    show(title, columns, [[str(row[column]) for column in columns] for row in rows])
    write_json(arguments.json, {"title": title, "rows": rows})


if __name__ == "__main__":
    main()
