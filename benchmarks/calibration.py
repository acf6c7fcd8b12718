"""What collecting activation ranges costs, over a plain float pass and beside onnxruntime.

    python benchmarks/calibration.py BUNDLE FOLDER [--images 256] [--peer-images 128]
                                     [--rounds 3] [--threads 2] [--json FILE]

The same decoded images at the same batch, in turns: a plain pass of fp32.onnx, and for every
method a pass that ends with the ranges of all tensors of both plans (TensorRT and CPU). Then
onnxruntime's own calibrators over `--peer-images` images next to ours, decoding left out for
both. Last, the peak memory of `resdeploy`'s collecting at 64 and at 1024 images, decoding
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
from peer_reader import PeerReader
from timing import interleaved, medians, parsed_and_pinned, show, write_json

from resdeploy.calibration.graph.placement import plan
from resdeploy.calibration.observe.collect import collect
from resdeploy.calibration.observe.images import choose_images, read_batches
from resdeploy.calibration.ranges.methods import METHODS, choose_range, min_max, moving_min_max
from resdeploy.calibration.ranges.observers import Extremes, Histogram
from resdeploy.calibration.ranges.ranges import Range
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.images.files import find_images
from resdeploy.deploy.machine import peak_memory_bytes
from resdeploy.deploy.ort import open_graph, session_options
from resdeploy.deploy.targets import TARGETS, Grid

_BATCH = 8  # as `resdeploy quantize` has it
_EXTREMES_ONLY: dict[str, Callable[[Extremes], Range]] = {
    "minmax": min_max,
    "moving": moving_min_max,
}

Batches = list[np.ndarray]


def tensors_of(model: onnx.ModelProto) -> list[str]:
    """Every tensor that the TensorRT or the CPU graph quantizes."""
    plans = [plan(model, target=target) for target in TARGETS]
    return list(dict.fromkeys(tensor for p in plans for tensor in p.activations))


def calibrate(
    model: onnx.ModelProto, batches: Any, method: str, threads: int
) -> dict[str, tuple[Range, ...]]:
    """Ranges of every tensor by one method, for both grids, from one pass."""
    if method in _EXTREMES_ONLY:
        extremes = {tensor: Extremes() for tensor in tensors_of(model)}
        collect(model, batches, {t: [e] for t, e in extremes.items()}, threads=threads)
        return {tensor: (_EXTREMES_ONLY[method](e),) for tensor, e in extremes.items()}
    histograms = {tensor: Histogram() for tensor in tensors_of(model)}
    collect(model, batches, {t: h.parts for t, h in histograms.items()}, threads=threads)
    # the other methods give both grids the same range
    grids: tuple[Grid, ...] = ("int8", "uint8") if method == "mse" else ("int8",)
    return {
        tensor: tuple(choose_range(method, histogram, grid) for grid in grids)
        for tensor, histogram in histograms.items()
    }


def plain_pass(model: onnx.ModelProto, batches: Batches, threads: int) -> None:
    session = open_graph(model.SerializeToString(), "ort-cpu", session_options(threads=threads))
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


def peak_mib(bundle: Path, images: Path, count: int, threads: int) -> float:
    """Peak resident memory of collecting histograms over `count` images, decoding included."""
    manifest = read_bundle(bundle).manifest
    paths = list(islice(cycle(find_images([images])), count))
    batches: Iterator[np.ndarray] = read_batches(paths, manifest.preprocess, batch=_BATCH)
    calibrate(onnx.load(bundle / "fp32.onnx"), batches, "mse", threads)
    return peak_memory_bytes() / 2**20


def peaks(bundle: Path, images: Path, threads: int) -> dict[str, float]:
    found = {}
    for count in (64, 1024):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found[str(count)] = pool.submit(peak_mib, bundle, images, count, threads).result()
    return found


def collecting(
    model: onnx.ModelProto, batches: Batches, rounds: int, threads: int
) -> dict[str, list[float]]:
    """Seconds of every round: "plain" for the float pass, and each method by its name."""
    actions: dict[str, Callable[[], object]] = {
        "plain": partial(plain_pass, model, batches, threads),
        **{method: partial(calibrate, model, batches, method, threads) for method in METHODS},
    }
    return interleaved(actions, rounds)


def beside_peers(graph: Path, batches: Batches, threads: int) -> dict[str, float]:
    """Seconds of one run of each calibrator, ours and onnxruntime's."""
    model = onnx.load(graph)
    runs: dict[str, Callable[[], object]] = {
        "resdeploy entropy": partial(calibrate, model, batches, "entropy", threads),
        "resdeploy percentile": partial(calibrate, model, batches, "percentile", threads),
        "onnxruntime Entropy": partial(peer_calibrate, graph, batches, "Entropy"),
        "onnxruntime Percentile": partial(peer_calibrate, graph, batches, "Percentile"),
    }
    seconds = {}
    for name, run in runs.items():
        began = time.perf_counter()
        run()
        seconds[name] = time.perf_counter() - began
    return seconds


def show_tables(figures: dict[str, Any], different: int, tensors: int, rounds: int) -> None:
    middle = medians(figures["seconds"])
    show(
        f"{figures['images']} images ({different} different), batch {_BATCH}, "
        f"{figures['threads']} threads, {tensors} tensors, medians of {rounds}",
        ("collecting", "seconds", "over plain"),
        [[n, f"{s:.2f}", f"{s / middle['plain']:.2f}"] for n, s in middle.items()],
    )
    show(
        f"{figures['peer_images']} images, decoding left out",
        ("calibrator", "seconds"),
        [[name, f"{seconds:.2f}"] for name, seconds in figures["peer_seconds"].items()],
    )
    show(
        "collecting with decoding, a process each",
        ("images", "peak MiB"),
        [[images, f"{mib:.0f}"] for images, mib in figures["peak_mib"].items()],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--peer-images", type=int, default=128)
    options = parsed_and_pinned(parser, rounds=3)

    graph = options.bundle / "fp32.onnx"
    model = onnx.load(graph)
    paths = list(
        islice(cycle(choose_images(options.folder, images=options.images).paths), options.images)
    )
    preprocess = read_bundle(options.bundle).manifest.preprocess
    batches = list(read_batches(paths, preprocess, batch=_BATCH))
    few = batches[: -(-options.peer_images // _BATCH)]
    seconds = collecting(model, batches, options.rounds, options.threads)
    middle = medians(seconds)
    figures = {
        "images": options.images,
        "batch": _BATCH,
        "threads": options.threads,
        "seconds": seconds,
        "over_plain": {method: middle[method] / middle["plain"] for method in METHODS},
        "peer_images": options.peer_images,
        "peer_seconds": beside_peers(graph, few, options.threads),
        "peak_mib": peaks(options.bundle, options.folder, options.threads),
    }
    show_tables(figures, len(set(paths)), len(tensors_of(model)), options.rounds)
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
