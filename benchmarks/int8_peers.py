"""Quantizes a float graph with a peer, in the peer's own environment; see `int8_accuracy.py`.

    PEER_PYTHON benchmarks/int8_peers.py PEER FLOAT.onnx IMAGES.npz RESULT

PEER is `nncf`, `nncf-fast` (OpenVINO's NNCF with its full and its fast bias correction) or
`modelopt-max`, `modelopt-entropy` (NVIDIA's Model Optimizer). IMAGES.npz has `calibrate` and
`evaluate`, inputs (N, 3, H, W) float32. NNCF's RESULT is a .npy of logits for `evaluate`, computed
by OpenVINO on this CPU; Model Optimizer's is an ONNX graph.

This file imports nothing of resdeploy, which the peers' environments need not have.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_BATCH = 8


def nncf(source: Path, images: Path, result: Path, *, fast: bool) -> None:
    """Logits (N, classes) of the quantized model."""
    import nncf as peer
    import openvino

    arrays = np.load(images)
    calibrate = arrays["calibrate"]
    # Core.read_model would leave the biases of ONNX convolutions behind a computed shape, where
    # NNCF does not find them: neither bias correction would then do anything, without a word.
    model = openvino.convert_model(source)
    quantized = peer.quantize(
        model,
        peer.Dataset([image[None] for image in calibrate]),
        subset_size=len(calibrate),
        fast_bias_correction=fast,
    )
    compiled = openvino.compile_model(quantized, "CPU")
    np.save(result, _answers(compiled, arrays["evaluate"]))


def _answers(compiled: Any, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    batches = range(0, len(images), _BATCH)
    parts = [compiled(images[k : k + _BATCH])[0] for k in batches]
    return np.concatenate(parts).astype(np.float32)


def modelopt(source: Path, images: Path, result: Path, *, method: str) -> None:
    """An ONNX graph with Q/DQ nodes."""
    from modelopt.onnx.quantization import quantize

    name = "input"
    quantize(
        onnx_path=str(source),
        quantize_mode="int8",
        calibration_data={name: np.load(images)["calibrate"]},
        calibration_method=method,
        output_path=str(result),
    )


def main() -> None:
    peer, source, images, result = sys.argv[1], *map(Path, sys.argv[2:5])
    if peer.startswith("nncf"):
        nncf(source, images, result, fast=peer == "nncf-fast")
    else:
        modelopt(source, images, result, method=peer.removeprefix("modelopt-"))


if __name__ == "__main__":
    main()
