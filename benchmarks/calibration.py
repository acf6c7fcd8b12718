"""What collecting activation ranges costs, over a plain float pass and beside onnxruntime.

    python benchmarks/calibration.py BUNDLE PICTURES [--images 256] [--peer-images 128]
                                     [--rounds 3] [--threads 2] [--json FILE]

The same decoded pictures at the same batch, in turns: a plain pass of fp32.onnx, and for every
method a pass that ends with the ranges of all tensors of both plans (TensorRT and CPU). Then
onnxruntime's own calibrators over `--peer-images` pictures next to ours, decoding left out for
both. Last, the peak memory of `resdeploy`'s collecting at 64 and at 1024 pictures, decoding
included, each in a process of its own.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from peer_reader import PeerReader
from timing import interleaved, medians, parsed_and_pinned, show, write_json

from resdeploy.calibration.collect import collect
from resdeploy.calibration.images import choose_pictures, read_batches
from resdeploy.calibration.observers import Extremes, Histogram
from resdeploy.calibration.plan import plan
from resdeploy.calibration.range_choice import METHODS, choose_range, min_max, moving_min_max
from resdeploy.calibration.ranges import Grid, Range
from resdeploy.deploy.bundle import read_bundle
from resdeploy.deploy.machine import peak_memory_bytes
from resdeploy.deploy.ort import session_options
from resdeploy.deploy.pictures import find_pictures

_BATCH = 8  # as `resdeploy quantize` has it
_EXTREMES_ONLY: dict[str, Callable[[Extremes], Range]] = {
    "minmax": min_max,
    "moving": moving_min_max,
}

Batches = list[np.ndarray]


def tensors_of(model: onnx.ModelProto) -> list[str]:
    """Every tensor that the TensorRT or the CPU graph quantizes."""
    both = (*plan(model).activations, *plan(model, target="cpu").activations)
    return list(dict.fromkeys(both))


def calibrate(
    model: onnx.ModelProto, batches: Any, method: str, threads: int
) -> dict[str, tuple[Range, ...]]:
    """Ranges of every tensor by one method, for both grids, from one pass."""
    if method in _EXTREMES_ONLY:
        extremes = {tensor: Extremes() for tensor in tensors_of(model)}
        collect(model, batches, {t: [e] for t, e in extremes.items()}, threads=threads)
        return {tensor: (_EXTREMES_ONLY[method](e),) for tensor, e in extremes.items()}
    histograms = {tensor: Histogram() for tensor in tensors_of(model)}
    collect(model, batches, {t: [h] for t, h in histograms.items()}, threads=threads)
    # the other methods give both grids the same range
    grids: tuple[Grid, ...] = ("int8", "uint8") if method == "mse" else ("int8",)
    return {
        tensor: tuple(choose_range(method, histogram, grid) for grid in grids)
        for tensor, histogram in histograms.items()
    }


def plain_pass(model: onnx.ModelProto, batches: Batches, threads: int) -> None:
    session = ort.InferenceSession(
        model.SerializeToString(), session_options(threads=threads), ["CPUExecutionProvider"]
    )
    for batch in batches:
        session.run(None, {"input": batch})


def peer_calibrate(graph: Path, batches: Batches, method: str) -> None:
    """onnxruntime's calibrator over the operators that `quantize_static` quantizes."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    # It prints its steps; only seconds are wanted here.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        calibrator = create_calibrator(
            graph,
            ["Conv", "Relu", "Clip", "MaxPool", "Add", "GlobalAveragePool", "Gemm"],
            augmented_model_path=str(Path(folder, "augmented.onnx")),
            calibrate_method=CalibrationMethod[method],
        )
        calibrator.collect_data(PeerReader(batches))
        calibrator.compute_data()


def peak_mib(bundle: Path, pictures: Path, images: int, threads: int) -> float:
    """Peak resident memory of collecting histograms over `images` pictures, decoding included."""
    manifest = read_bundle(bundle).manifest
    paths = list(islice(cycle(find_pictures([pictures])), images))
    batches: Iterator[np.ndarray] = read_batches(paths, manifest.preprocess, batch=_BATCH)
    calibrate(onnx.load(bundle / "fp32.onnx"), batches, "mse", threads)
    return peak_memory_bytes() / 2**20


def peaks(bundle: Path, pictures: Path, threads: int) -> dict[str, float]:
    found = {}
    for images in (64, 1024):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found[str(images)] = pool.submit(peak_mib, bundle, pictures, images, threads).result()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--peer-images", type=int, default=128)
    options = parsed_and_pinned(parser, rounds=3)
    threads = options.threads

    graph = options.bundle / "fp32.onnx"
    model = onnx.load(graph)
    found = choose_pictures(options.pictures, images=options.images).paths
    paths = list(islice(cycle(found), options.images))
    preprocess = read_bundle(options.bundle).manifest.preprocess
    batches = list(read_batches(paths, preprocess, batch=_BATCH))

    actions: dict[str, Callable[[], object]] = {
        "plain": partial(plain_pass, model, batches, threads),
        **{method: partial(calibrate, model, batches, method, threads) for method in METHODS},
    }
    taken = interleaved(actions, options.rounds)
    middle = medians(taken)
    ratios = {method: middle[method] / middle["plain"] for method in METHODS}

    few = batches[: -(-options.peer_images // _BATCH)]
    peers: dict[str, float] = {}
    runs: dict[str, Callable[[], object]] = {
        "resdeploy entropy": partial(calibrate, model, few, "entropy", threads),
        "resdeploy percentile": partial(calibrate, model, few, "percentile", threads),
        "onnxruntime Entropy": partial(peer_calibrate, graph, few, "Entropy"),
        "onnxruntime Percentile": partial(peer_calibrate, graph, few, "Percentile"),
    }
    for name, run in runs.items():
        began = time.perf_counter()
        run()
        peers[name] = time.perf_counter() - began
    memory = peaks(options.bundle, options.pictures, threads)

    show(
        f"{options.images} pictures ({len(set(paths))} different), batch {_BATCH}, "
        f"{threads} threads, {len(tensors_of(model))} tensors, medians of {options.rounds}",
        ("collecting", "seconds", "over plain"),
        [[n, f"{s:.2f}", f"{s / middle['plain']:.2f}"] for n, s in middle.items()],
    )
    show(
        f"{options.peer_images} pictures, decoding left out",
        ("calibrator", "seconds"),
        [[name, f"{seconds:.2f}"] for name, seconds in peers.items()],
    )
    show(
        "collecting with decoding, a process each",
        ("pictures", "peak MiB"),
        [[images, f"{mib:.0f}"] for images, mib in memory.items()],
    )
    write_json(
        options.json,
        {
            "images": options.images,
            "batch": _BATCH,
            "threads": threads,
            "seconds": taken,
            "over_plain": ratios,
            "peer_images": options.peer_images,
            "peer_seconds": peers,
            "peak_mib": memory,
        },
    )


if __name__ == "__main__":
    main()
