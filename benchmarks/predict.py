"""How near `predict_many` comes to what the cores allow, and to what people do without it.

    python benchmarks/predict.py BUNDLE CHECKPOINT IMAGES [--threads 2] [--rounds 5] [--json FILE]

BUNDLE is the export of CHECKPOINT, a torchvision MobileNetV2's state_dict. Three ways take turns
over all images below IMAGES, each in a process of its own with its network already open:

    predict_many   resdeploy, batch 8
    plain loop     torchvision's transforms, ONNX Runtime, batch 1
    PyTorch        eager, DataLoader with as many workers as threads, batch 8

The limit: one process per thread, all at once so that the cores share memory and power as they do
in real work, decodes, preprocesses and infers its part of the images with one thread. The
core-seconds of the three stages divided by the cores are what no scheduling can beat.

Every image's pixels are compared bit by bit with torchvision's first.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from timing import interleaved, medians, parsed_and_pinned, show, write_json

from resdeploy.deploy import Classifier, load
from resdeploy.deploy.images.files import find_images, open_image

_BATCH = 8

Run = Callable[[list[Path]], list[int]]
Way = Callable[[Path, int], Run]


def torchvision_transforms() -> Any:
    """The preprocessing most people write: resize 256, crop 224, ImageNet's mean and std."""
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )


class ImageDataset:
    """A torch Dataset (any object with a length and items) of one folder's images."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.transforms = torchvision_transforms()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Any:
        return self.transforms(open_image(self.paths[number]))


def predict_many(bundle: Path, threads: int) -> Run:
    """resdeploy, batch 8."""
    # `threads` is what main() left of the cores: predict_many uses all there are
    classifier = load(bundle, precision="fp32", backend="ort-cpu")

    def run(paths: list[Path]) -> list[int]:
        rows = classifier.predict_many(paths, batch=_BATCH, top=1)
        return [first.index for (first, *_) in rows]

    return run


def plain_loop(bundle: Path, threads: int) -> Run:
    """ONNX Runtime behind torchvision's transforms, batch 1."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        bundle / "fp32.onnx", options, providers=["CPUExecutionProvider"]
    )
    transforms = torchvision_transforms()

    def run(paths: list[Path]) -> list[int]:
        tensors = (transforms(open_image(path)).numpy()[None] for path in paths)
        return [int(session.run(None, {"input": tensor})[0].argmax()) for tensor in tensors]

    return run


def pytorch(checkpoint: Path, threads: int) -> Run:
    """Eager PyTorch behind a DataLoader, batch 8."""
    import torch
    from torchvision.models import mobilenet_v2

    torch.set_num_threads(threads)
    weights = torch.load(checkpoint, weights_only=True)
    model = mobilenet_v2(num_classes=len(weights["classifier.1.bias"]))
    model.load_state_dict(weights)
    model.eval()

    def run(paths: list[Path]) -> list[int]:
        images: Any = ImageDataset(paths)
        loader: Any = torch.utils.data.DataLoader(
            images, batch_size=_BATCH, num_workers=threads, multiprocessing_context="fork"
        )
        with torch.inference_mode():
            return [int(index) for batch in loader for index in model(batch).argmax(1)]

    return run


def timed(way: Way, model: Path, paths: list[Path], threads: int) -> tuple[float, list[int]]:
    """Seconds and answers of one way.

    Opening the network and the first images, which allocate, come before the clock starts: the
    limit leaves them out too.
    """
    run = way(model, threads)
    run(paths[: 2 * _BATCH])
    began = time.perf_counter()
    answers = run(paths)
    return time.perf_counter() - began, answers


def alone(way: Way, model: Path, paths: list[Path], threads: int) -> tuple[float, list[int]]:
    """`timed` in a process of its own, as its users run it.

    In one process the thread pools and the heap of one way would slow the next.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(timed, way, model, paths, threads).result()


def stage_seconds(bundle: Path, paths: list[Path]) -> dict[str, float]:
    """Seconds one thread needs for each stage; runs in a process of its own."""
    spent = {"decode": 0.0, "preprocess": 0.0, "infer": 0.0}
    with load(bundle, backend="ort-cpu", threads=1) as classifier:
        preprocess = classifier.manifest.preprocess
        batch = np.empty((_BATCH, 3, *preprocess.input_size_px), np.float32)
        classifier.logits(batch)  # the first run allocates
        for start in range(0, len(paths), _BATCH):
            chosen = paths[start : start + _BATCH]
            began = time.perf_counter()
            images = [open_image(path) for path in chosen]
            decoded = time.perf_counter()
            for image, row in zip(images, batch, strict=False):
                preprocess.apply(image, out=row)
            ready = time.perf_counter()
            classifier.logits(batch[: len(chosen)])
            spent["decode"] += decoded - began
            spent["preprocess"] += ready - decoded
            spent["infer"] += time.perf_counter() - ready
    return spent


def core_seconds(bundle: Path, paths: list[Path], threads: int) -> dict[str, float]:
    """Core-seconds of each stage over all images, with all cores at work."""
    parts = [paths[number::threads] for number in range(threads)]
    with ProcessPoolExecutor(threads, mp_context=get_context("spawn")) as pool:
        shares = list(pool.map(stage_seconds, [bundle] * threads, parts))
    return {stage: sum(share[stage] for share in shares) for stage in shares[0]}


def different_pixels(classifier: Classifier, paths: list[Path]) -> int:
    """Images whose tensor is not, bit for bit, the one torchvision's transforms give."""
    transforms = torchvision_transforms()
    preprocess = classifier.manifest.preprocess
    images = (open_image(path) for path in paths)
    return sum(
        not np.array_equal(preprocess.apply(image), transforms(image).numpy()) for image in images
    )


def wrapper_overhead(classifier: Classifier, rounds: int = 300) -> dict[str, float]:
    """Milliseconds of `classifier.logits` and of a bare `run` at batch 1.

    Both use the same ONNX Runtime session: two would differ in their memory and thread pools.
    """
    batch = np.zeros((1, 3, *classifier.manifest.preprocess.input_size_px), np.float32)
    # the one place outside that looks inside: no public name should lead there
    bare: ort.InferenceSession = classifier.session._session  # type: ignore[attr-defined]  # see above
    taken = interleaved(
        {
            "session.run": lambda: bare.run(None, {"input": batch}),
            "classifier.logits": lambda: classifier.logits(batch),
        },
        rounds,
    )
    return {name: 1000 * value for name, value in medians(taken).items()}


def main() -> None:
    """Time all ways in turns, print the result, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path)
    options = parsed_and_pinned(parser, rounds=5)
    threads = options.threads
    paths = find_images([options.images])

    with load(options.bundle, backend="ort-cpu", threads=threads) as classifier:
        changed = different_pixels(classifier, paths)
        overhead = wrapper_overhead(classifier)
    taken, stages, answers = run_in_turns(options, paths)
    spent = medians({stage: [one[stage] for one in stages] for stage in stages[0]})
    middle = {"limit": sum(spent.values()) / threads, **medians(taken)}
    rates = {name: len(paths) / value for name, value in middle.items()}
    reference = answers["PyTorch"]
    same = {n: sum(map(int.__eq__, found, reference)) for n, found in answers.items()}
    report(rates, same, spent, overhead, changed, len(paths), threads)
    result = {
        "images": len(paths),
        "threads": threads,
        "seconds": taken,
        "core_seconds": stages,
        "images_per_second": rates,
        "same_class_as_pytorch": same,
        "different_pixels": changed,
        "overhead_ms": overhead,
    }
    write_json(options.json, result)


def run_in_turns(
    options: argparse.Namespace, paths: list[Path]
) -> tuple[dict[str, list[float]], list[dict[str, float]], dict[str, list[int]]]:
    """Seconds of each way, core-seconds of each stage, and answers; the first round is left out."""
    answers: dict[str, list[int]] = {}
    taken: dict[str, list[float]] = {}
    stages: list[dict[str, float]] = []

    def turn(name: str, way: Way, model: Path) -> Callable[[], None]:
        def run() -> None:
            seconds, answers[name] = alone(way, model, paths, options.threads)
            taken.setdefault(name, []).append(seconds)

        return run

    actions = {
        "limit": lambda: stages.append(core_seconds(options.bundle, paths, options.threads)),
        "predict_many": turn("predict_many", predict_many, options.bundle),
        "plain loop": turn("plain loop", plain_loop, options.bundle),
        "PyTorch": turn("PyTorch", pytorch, options.checkpoint),
    }
    interleaved(actions, options.rounds)
    return {name: values[1:] for name, values in taken.items()}, stages[1:], answers


def report(
    rates: dict[str, float],
    same: dict[str, int],
    spent: dict[str, float],
    overhead: dict[str, float],
    changed: int,
    images: int,
    threads: int,
) -> None:
    """Print the table and what stands behind it."""
    show(
        f"{images} images, {threads} threads, medians",
        ("", "images/s", "of the limit", "predict_many is", "same class as PyTorch"),
        [
            (
                name,
                f"{rate:.1f}",
                f"{rate / rates['limit']:.2f}",
                f"{rates['predict_many'] / rate:.2f}×",
                f"{same[name]} of {images}" if name in same else "",
            )
            for name, rate in rates.items()
        ],
    )
    each = ", ".join(f"{stage} {1000 * s / images:.2f}" for stage, s in spent.items())
    print(f"core-milliseconds an image: {each}")
    print(f"images whose pixels differ from torchvision's: {changed}")
    ratio = overhead["classifier.logits"] / overhead["session.run"] - 1
    print(f"classifier.logits over session.run at batch 1: {ratio:+.1%} {overhead}")


if __name__ == "__main__":
    main()
