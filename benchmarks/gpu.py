"""Latency on an NVIDIA GPU: PyTorch, torch.compile, and every backend of resdeploy that is here.

    python benchmarks/gpu.py [--families resnet18,…] [--batches 1,8,32] [--seconds 1] [--json FILE]

Host to host: a float32 batch in the CPU's memory to logits in the CPU's memory, the median of runs
that take turns between the backends. Random weights: they do not change how long it takes.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
import torchvision
from timing import interleaved, medians, show, write_json

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.cuda import cuda_problem, device
from resdeploy.deploy.engine.build import build_engine
from resdeploy.deploy.engine.flavor import FLAVORS, is_installed
from resdeploy.deploy.errors import ResdeployError
from resdeploy.deploy.inference.open import open_session
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.export.pipeline import ExportOptions, export_checkpoint

Run = Callable[[Float32s], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", default="resnet18,resnext50_32x4d,mobilenet_v2")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each batch of each family")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if problem := cuda_problem():
        raise SystemExit(f"error: needs an NVIDIA GPU: {problem}")
    gpu = device()
    assert gpu is not None
    print(f"{gpu.name}, compute capability {gpu.compute_capability}, torch {torch.__version__}")
    batches = [int(batch) for batch in options.batches.split(",")]
    results: dict[str, object] = {"gpu": gpu.name}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for family in options.families.split(","):
            runs = dict(_runs(family, Path(folder), stack))
            for batch in batches:
                results[f"{family} batch {batch}"] = _measure(family, runs, batch, options.seconds)
    write_json(options.json, results)


def _measure(family: str, runs: dict[str, Run], batch: int, seconds: float) -> dict[str, float]:
    images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224)).astype(np.float32)
    actions = {name: _repeat(run, images) for name, run in runs.items()}
    for action in actions.values():
        action()
        action()  # compiles, records graphs, chooses algorithms
    began = time.perf_counter()
    for action in actions.values():
        action()
    rounds = max(5, round(seconds / (time.perf_counter() - began)))
    figures = {name: 1e3 * s for name, s in medians(interleaved(actions, rounds)).items()}
    rows = [
        (name, f"{ms:.2f}", f"{1e3 * batch / ms:.0f}", f"{figures['torch eager'] / ms:.2f}")
        for name, ms in figures.items()
    ]
    show(f"{family}, batch {batch}", ("", "ms", "images/s", "× eager"), rows)
    return figures


def _repeat(run: Run, images: Float32s) -> Callable[[], object]:
    return lambda: run(images)


def _runs(family: str, folder: Path, stack: ExitStack) -> Iterator[tuple[str, Run]]:
    torch.manual_seed(0)
    module = getattr(torchvision.models, family)(num_classes=1000).eval()
    checkpoint = folder / f"{family}.pth"
    torch.save(module.state_dict(), checkpoint)
    bundle = folder / f"{family}.bundle"
    export_checkpoint(checkpoint, ExportOptions(output=bundle))
    yield "torch eager", _torch_run(module.cuda())
    yield "torch eager fp16", _torch_run(module.cuda(), half=True)
    yield "torch.compile", _torch_run(torch.compile(module.cuda()))
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    for precision in precisions:
        backends: list[Backend] = ["ort-cuda", "ort-tensorrt"]
        backends += [flavor for flavor in FLAVORS if is_installed(flavor)]
        for backend in backends:
            try:
                session = stack.enter_context(_open(bundle, precision, backend))
            except ResdeployError as error:
                print(f"{family}: no {backend} {precision}: {error}")
                continue
            yield f"{backend} {precision}", session.run


def _open(bundle: Path, precision: Precision, backend: Backend) -> Session:
    if backend in ("tensorrt", "tensorrt-rtx"):
        build_engine(bundle, precision=precision, flavor=backend)
    return open_session(open_model(bundle), precision=precision, backend=backend)


def _torch_run(module: Callable[[torch.Tensor], torch.Tensor], *, half: bool = False) -> Run:
    def run(images: Float32s) -> object:
        with torch.inference_mode(), torch.autocast("cuda", enabled=half):
            return module(torch.from_numpy(images).cuda()).float().cpu().numpy()

    return run


if __name__ == "__main__":
    main()
