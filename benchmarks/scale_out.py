"""How predicting on a Ray cluster grows with its workers.

    python benchmarks/scale_out.py BUNDLE FOLDER [--workers 1 2] [--images 2000] [--json FILE]

Each number of workers classifies the same images, those of FOLDER over and over, on a cluster that
this script starts: a core and a session of one thread for each worker. "start" is the time to the
first answer; it belongs to the cluster and the sessions and does not grow with the images. The rate
is of what comes after it. "cores had" is the CPU time of all workers by the length of that time: on
a machine that others use too, it says how much of it there was to have, and "per CPU s" what a core
of one's own would do.
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

from timing import show, write_json

from resdeploy.deploy.images.files import find_images
from resdeploy.deploy.machine import cores
from resdeploy.deploy.scale_out.pool import RayPool, cluster
from resdeploy.deploy.scale_out.predict import predict_spread

_BATCH = 8


def cpu_seconds() -> float:
    """CPU time so far of all actors on this machine."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = file.read_text().rpartition(")")
        except OSError:
            continue  # ended meanwhile
        if "(ray::MapWorker" in name:
            fields = rest.split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def measure(bundle: Path, places: list[str], workers: int) -> dict[str, float]:
    began = time.perf_counter()
    pool = RayPool(bundle, places, workers)
    answers = predict_spread(
        pool, places, precision=None, backend="ort-cpu", top=1, batch=_BATCH,
        progress=lambda step, done, total: None,
    )  # fmt: skip
    next(answers)
    first, cpu = time.perf_counter(), cpu_seconds()
    busy_s = cpu
    done = 1
    for _ in answers:
        done += 1
        if done % 64 == 0:  # the actors end with the last answer, and their figures with them
            busy_s, last, counted = cpu_seconds(), time.perf_counter(), done
    return {
        "workers": workers,
        "start_s": first - began,
        "images_per_second": (counted - 1) / (last - first),
        "cores": (busy_s - cpu) / (last - first),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = itertools.cycle(map(str, find_images([options.folder])))
    places = list(itertools.islice(found, options.images))
    rows: list[dict[str, Any]] = []
    with cluster():
        for workers in options.workers:
            rows.append(measure(options.bundle, places, workers))
    base = rows[0]["images_per_second"] / rows[0]["workers"]
    show(
        f"{options.images} images, {cores()} cores",
        ("workers", "start s", "images/s", "of linear", "cores had", "per CPU s"),
        [
            (
                str(row["workers"]),
                f"{row['start_s']:.1f}",
                f"{row['images_per_second']:.1f}",
                f"{row['images_per_second'] / (base * row['workers']):.2f}",
                f"{row['cores']:.2f}",
                f"{row['images_per_second'] / row['cores']:.1f}",
            )
            for row in rows
        ],
    )
    write_json(options.json, {"runs": rows})


if __name__ == "__main__":
    main()
