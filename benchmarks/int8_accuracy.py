"""INT8 of resdeploy beside what other tools make of the same network and the same images.

    python benchmarks/int8_accuracy.py BUNDLE CALIB DATA [--images 128] [--threads 2]
                                       [--peers PYTHON…] [--only TOOL…] [--quick]
                                       [--json FILE]

BUNDLE holds fp32.onnx; CALIB calibration images; DATA labelled images to judge on, less those that
were calibrated with, which may be in the same folder. resdeploy runs as a user runs `quantize`,
repairs included; onnxruntime's `quantize_static` with each of its range methods, weights per
channel. OpenVINO's NNCF and NVIDIA's Model Optimizer run in environments of their own
(`int8_peers.py`), whose interpreters `--peers` names:

    pip install openvino nncf            # one environment
    pip install 'nvidia-modelopt[onnx]'  # another

A row says how it was computed: float; as the graph says, which is TensorRT's arithmetic; in ONNX
Runtime's integer kernels on this CPU; by OpenVINO on this CPU. Intervals are of 95 %: of the drop
of top-1 by the count of lost and gained answers, of the same drop by the sharpest estimate, which
`resdeploy verify` decides by (docs/gate.md), Wilson's of the agreement with float, and the
bootstrap's over images of the SQNR of the logits. Seconds are those of quantizing. `--only` runs
the tools named: ours, quantize_static, nncf, modelopt; `--quick` leaves out entropy and
percentile ranges, which take longest.
"""

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from int8_setting import Setting, options, read_setting, report
from onnxruntime import quantization as peer
from peer_reader import PeerReader

from resdeploy.calibration.pipeline import quantize
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.machine import has_exact_int8
from resdeploy.deploy.specs import Variant
from resdeploy.deploy.targets import TARGETS

# Peers by the module that an environment of theirs has.
_PEERS = {
    "nncf": ("nncf-fast", "nncf", "nncf-mixed"),
    "modelopt": ("modelopt-max", "modelopt-entropy"),
}
_SLOW = ("modelopt-entropy",)
_OURS, _STATIC = "ours", "quantize_static"


def ours(setting: Setting, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """`quantize` on a copy of the bundle, repairs included."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(shutil.copytree(arguments.bundle, Path(folder) / "copy.bundle"))
        found = quantize(bundle, arguments.calib, images=arguments.images, force=True)
        for target in TARGETS:
            graph = read_bundle(bundle).graph(target.variant).read_bytes()
            left = len(found.calibration["recipes"][target.variant]["float"])
            name = f"resdeploy {target.variant}" + (f", {left} layers float" if left else "")
            yield setting.row(name, graph, target.variant, found.calibration["seconds"])


def quantize_static(setting: Setting, *, quick: bool) -> Iterator[dict[str, Any]]:
    """For TensorRT (S8S8 symmetric), as the graph says; for this CPU (U8S8), in its kernels."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(setting.model, source)
        for name, chosen, variant in _static_runs(quick=quick):
            began = time.perf_counter()
            peer.quantize_static(
                source,
                result,
                PeerReader(setting.calibrate),
                quant_format=peer.QuantFormat.QDQ,
                per_channel=True,
                weight_type=peer.QuantType.QInt8,
                **chosen,
            )
            seconds = time.perf_counter() - began
            yield setting.row(f"quantize_static {name}", result.read_bytes(), variant, seconds)


def _static_runs(*, quick: bool) -> Iterator[tuple[str, dict[str, Any], Variant]]:
    known = peer.CalibrationMethod
    methods = (known.MinMax,) if quick else (known.MinMax, known.Entropy, known.Percentile)
    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True}
    for method in methods:
        signed = {"activation_type": peer.QuantType.QInt8, "extra_options": symmetric}
        unsigned = {"activation_type": peer.QuantType.QUInt8}
        yield f"S8S8 {method.name}", {**signed, "calibrate_method": method}, "int8"
        yield f"U8S8 {method.name}", {**unsigned, "calibrate_method": method}, "int8-cpu"
        if not has_exact_int8():
            reduced = {**unsigned, "calibrate_method": method, "reduce_range": True}
            yield f"U8S8 {method.name} reduce_range", reduced, "int8-cpu"


def others(setting: Setting, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """NNCF and Model Optimizer, each where an interpreter has it."""
    script = Path(__file__).with_name("int8_peers.py")
    with tempfile.TemporaryDirectory() as folder:
        source, images = Path(folder, "float.onnx"), Path(folder, "images.npz")
        result = Path(folder, "result.npz")
        onnx.save(setting.model, source)
        calibrate, evaluate = map(np.concatenate, (setting.calibrate, setting.evaluate))
        np.savez(images, calibrate=calibrate, evaluate=evaluate)
        for python, name in _hosted(arguments):
            subprocess.run([str(python), script, name, source, images, result], check=True)
            with np.load(result) as found:
                seconds = float(found["seconds"])
                if "logits" in found:
                    yield setting.judged(name, "OpenVINO", found["logits"], seconds)
                else:
                    yield setting.row(name, found["graph"].tobytes(), "int8", seconds)


def _hosted(arguments: argparse.Namespace) -> Iterator[tuple[Path, str]]:
    """Each run that was asked for, with the first interpreter that has the peer."""
    for module, names in _PEERS.items():
        python = next((p for p in arguments.peers if _has(p, module)), None)
        if python is not None and module in arguments.only:
            yield from ((python, n) for n in names if not (arguments.quick and n in _SLOW))


def _has(python: Path, module: str) -> bool:
    found = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return not subprocess.run([python, "-c", found]).returncode


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--peers", nargs="*", type=Path, default=[], metavar="PYTHON")
    tools = (_OURS, _STATIC, *_PEERS)
    parser.add_argument("--only", nargs="+", choices=tools, default=tools)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    setting = read_setting(arguments)
    rows = [setting.row("float", setting.model.SerializeToString(), "fp32", 0)]
    if _OURS in arguments.only:
        rows += ours(setting, arguments)
    if _STATIC in arguments.only:
        rows += quantize_static(setting, quick=arguments.quick)
    rows += others(setting, arguments)
    report(setting, rows, arguments.json)


if __name__ == "__main__":
    main()
