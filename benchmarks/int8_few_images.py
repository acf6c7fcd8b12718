"""How good INT8 is with few calibration images: a curve over their number.

    python benchmarks/int8_few_images.py BUNDLE CALIB DATA [--sizes 16,32,64,100,128]
                                         [--draws 5] [--every 1] [--json FILE]

BUNDLE holds fp32.onnx; CALIB calibration images, of which every draw (a seed) takes others; DATA
images to judge by, none of CALIB, of which each `--every`th is used. Each draw is one run of
`quantize`, repairs included. A row a size and variant: mean and spread (lowest to highest draw) of
the SQNR of the logits and of agreement with float32, and the mean seconds of a run.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from timing import show, write_json

from resdeploy.calibration.observe.images import read_batches
from resdeploy.calibration.pipeline import quantize
from resdeploy.calibration.repair.run import logits
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.images.files import find_images
from resdeploy.deploy.machine import cores
from resdeploy.deploy.metrics.logits import agreement, sqnr_db
from resdeploy.deploy.specs import Variant

_BATCH = 8
_VARIANTS: tuple[Variant, ...] = ("int8", "int8-cpu")


def draw(
    arguments: argparse.Namespace,
    images: int,
    seed: int,
    evaluate: Sequence[Float32s],
    expected: Float32s,
) -> list[dict[str, Any]]:
    """One run of `quantize` on a copy of the bundle, each variant judged."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(shutil.copytree(arguments.bundle, Path(folder) / "copy.bundle"))
        report = quantize(bundle, arguments.calib, images=images, seed=seed, force=True)
        for variant in _VARIANTS:
            graph = read_bundle(bundle).graph(variant).read_bytes()
            got = logits(graph, variant, evaluate, cores())
            rows.append(
                {
                    "images": images,
                    "draw": seed,
                    "variant": variant,
                    "sqnr_db": round(sqnr_db(expected, got), 2),
                    "agreement": round(agreement(expected, got), 2),
                    "seconds": report.calibration["seconds"],
                }
            )
            print(*rows[-1].values(), sep="  ", flush=True)
    return rows


def summary(draws: Sequence[dict[str, Any]], images: int, variant: str) -> list[str]:
    """One row of the table."""
    chosen = [row for row in draws if (row["images"], row["variant"]) == (images, variant)]
    cells = [str(images), variant, str(len(chosen))]
    for name in ("sqnr_db", "agreement"):
        values = [row[name] for row in chosen]
        cells.append(f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    return [*cells, f"{np.mean([row['seconds'] for row in chosen]):.0f}"]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("calib", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sizes", default="16,32,64,100,128")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    bundle = read_bundle(arguments.bundle)
    paths = find_images([arguments.data])[:: arguments.every]
    evaluate = list(read_batches(paths, bundle.manifest.preprocess, batch=_BATCH))
    expected = logits(bundle.graph("fp32").read_bytes(), "fp32", evaluate, cores())
    sizes = [int(size) for size in arguments.sizes.split(",")]
    draws = [
        row
        for seed in range(arguments.draws)
        for images in sizes
        for row in draw(arguments, images, seed, evaluate, expected)
    ]
    columns = ["images", "variant", "draws", "SQNR dB", "agreement %", "seconds"]
    rows = [summary(draws, images, variant) for images in sizes for variant in _VARIANTS]
    title = f"{arguments.bundle.name}: judged on {len(paths)} images not calibrated with"
    show(title, columns, rows)
    write_json(arguments.json, {"title": title, "draws": draws})


if __name__ == "__main__":
    main()
