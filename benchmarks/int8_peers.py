"""Quantizes a float graph with a peer, in the peer's own environment; see `int8_accuracy.py`.

    PEER_PYTHON benchmarks/int8_peers.py PEER FLOAT.onnx IMAGES.npz RESULT.npz

PEER is one of OpenVINO's NNCF or of NVIDIA's Model Optimizer:

    nncf-fast         as it is by default, with its fast bias correction
    nncf              with its full bias correction
    nncf-mixed        that with asymmetric activations, and eight bits in the first layer, too
    modelopt-max      extremes
    modelopt-entropy  ranges of least Kullback-Leibler divergence

IMAGES.npz has `calibrate` and `evaluate`, inputs (N, 3, H, W) float32. RESULT.npz has `seconds` of
the quantization; of NNCF `logits` (N, classes) for `evaluate`, computed by OpenVINO on this CPU;
of Model Optimizer `graph`, the bytes of an ONNX file.

This file imports nothing of resdeploy, which the peers' environments need not have.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_BATCH = 8


def nncf(
    source: Path, images: dict[str, npt.NDArray[np.float32]], options: str
) -> tuple[npt.NDArray[np.float32], float]:
    """Logits (N, classes) of the quantized model, and the seconds of quantizing."""
    import nncf as peer
    import openvino

    calibrate = images["calibrate"]
    # Core.read_model would leave the biases of ONNX convolutions behind a computed shape, where
    # NNCF does not find them: neither bias correction would then do anything, without a word.
    model = openvino.convert_model(source)
    chosen: dict[str, Any] = {"fast_bias_correction": options == "fast"}
    if options == "mixed":
        chosen["preset"] = peer.QuantizationPreset.MIXED
        chosen["advanced_parameters"] = peer.AdvancedQuantizationParameters(
            overflow_fix=peer.OverflowFix.DISABLE
        )
    began = time.perf_counter()
    dataset = peer.Dataset([image[None] for image in calibrate])
    quantized = peer.quantize(model, dataset, subset_size=len(calibrate), **chosen)
    seconds = time.perf_counter() - began
    # On a CPU with AVX-512 BF16, OpenVINO would compute in bfloat16 what is left in float.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(quantized, "CPU", exact)
    evaluate = images["evaluate"]
    parts = [compiled(evaluate[k : k + _BATCH])[0] for k in range(0, len(evaluate), _BATCH)]
    return np.concatenate(parts).astype(np.float32), seconds


def modelopt(
    source: Path, images: dict[str, npt.NDArray[np.float32]], method: str
) -> tuple[npt.NDArray[np.uint8], float]:
    """The bytes of an ONNX graph with Q/DQ nodes, float32 elsewhere; seconds of quantizing."""
    from modelopt.onnx.quantization import quantize

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "int8.onnx")
        began = time.perf_counter()
        quantize(
            onnx_path=str(source),
            quantize_mode="int8",
            calibration_data={"input": images["calibrate"]},
            calibration_method=method,
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=str(result),
        )
        seconds = time.perf_counter() - began
        return np.frombuffer(result.read_bytes(), np.uint8), seconds


def main() -> None:
    peer, source, images, result = sys.argv[1], *map(Path, sys.argv[2:5])
    name, _, options = peer.partition("-")
    with np.load(images) as archive:
        arrays = dict(archive)
    if name == "nncf":
        logits, seconds = nncf(source, arrays, options)
        np.savez(result, logits=logits, seconds=seconds)
    else:
        graph, seconds = modelopt(source, arrays, options)
        np.savez(result, graph=graph, seconds=seconds)


if __name__ == "__main__":
    main()
