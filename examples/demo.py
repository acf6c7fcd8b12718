"""The main job from start to finish, on a trained network small enough to carry along.

    make demo

Writes handwritten digits as image files, exports the checkpoint that train_digits.py trained,
predicts a folder, and compares PyTorch with every variant in the bundle on the 360 images that
the network was not trained on. Everything it writes is under demo-output/.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from digits import write_images
from PIL import Image
from rich.console import Console
from rich.table import Table
from train_digits import CHECKPOINT, PREPROCESS, make_model

from resdeploy.deploy import load, read_bundle
from resdeploy.deploy.specs import PRECISIONS

OUTPUT = Path("demo-output")
BUNDLE = OUTPUT / "digits.bundle"
TRAIN, TEST, SAMPLE = (OUTPUT / "images" / part for part in ("train", "test", "sample"))

console = Console(highlight=False)


def resdeploy(*arguments: str | Path) -> None:
    """Run the command as a user would, showing the line to type."""
    words = [str(argument) for argument in arguments]
    console.print(f"\n[bold]$ resdeploy {shlex.join(words)}[/bold]", soft_wrap=True)
    command = [str(Path(sys.executable).with_name("resdeploy")), *words]
    if (status := subprocess.run(command).returncode) != 0:
        sys.exit(status)


def torch_answers(paths: list[Path]) -> list[int]:
    """The classes that PyTorch itself finds, with torchvision's transforms."""
    model = make_model()
    model.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    model.eval()
    with torch.inference_mode():
        batch = torch.stack([PREPROCESS(Image.open(path)) for path in paths])
        return [int(index) for index in model(batch).argmax(1)]


def bundle_answers(paths: list[Path]) -> Iterator[tuple[str, list[int]]]:
    """The classes that each precision in the bundle finds."""
    held = {variant.partition("-")[0] for variant in read_bundle(BUNDLE).manifest.variants}
    for precision in PRECISIONS:
        if precision in held:
            with load(BUNDLE, precision=precision, backend="ort-cpu") as classifier:
                answers = classifier.predict_many(paths, top=1)
                yield precision, [first.index for (first, *_) in answers]


def share(answers: list[int], truth: list[int]) -> str:
    same = sum(a == b for a, b in zip(answers, truth, strict=True))
    return f"{100 * same / len(truth):.2f} %"


def main() -> None:
    began = time.perf_counter()
    os.chdir(Path(__file__).resolve().parents[1])
    shutil.rmtree(OUTPUT, ignore_errors=True)
    write_images("train", TRAIN)
    truth_of = write_images("test", TEST)
    SAMPLE.mkdir()
    for folder in sorted(TEST.iterdir()):
        shutil.copy(min(folder.iterdir()), SAMPLE / f"{folder.name}.png")

    resdeploy("export", CHECKPOINT.resolve().relative_to(Path.cwd()), "-o", BUNDLE,
              "--input-size", "64", "--resize", "64", "--calib", TRAIN)  # fmt: skip
    resdeploy("predict", BUNDLE, SAMPLE, "--top", "3")

    paths, truth = list(truth_of), list(truth_of.values())
    reference = torch_answers(paths)
    table = Table(title=f"{len(paths)} digits that the network was not trained on")
    for column in ("", "accuracy", "same class as PyTorch"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("PyTorch", share(reference, truth), "")
    for precision, answers in bundle_answers(paths):
        table.add_row(f"resdeploy {precision}", share(answers, truth), share(answers, reference))
    console.print()
    console.print(table)
    console.print(f"{time.perf_counter() - began:.0f} s; the bundle is {BUNDLE}")
    activate = Path(sys.prefix, "bin", "activate")
    if shutil.which("resdeploy") is None and activate.is_file():
        command = f"source {os.path.relpath(activate)}"
        console.print(f"to go on: {command}; resdeploy verify {BUNDLE}", soft_wrap=True)


if __name__ == "__main__":
    main()
