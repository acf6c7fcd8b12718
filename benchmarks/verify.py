"""What `verify` costs over the work it cannot avoid.

    python benchmarks/verify.py BUNDLE DATA [--threads 2] [--rounds 3] [--json FILE]

BUNDLE holds fp32, fp16 and int8 graphs; DATA labelled images. In turns: the whole of `verify`
(four variants and the reference on the images, recorded answers, bootstrap intervals, tests,
gates), and its parts in the same order of scheduling: every image decoded and preprocessed once,
and every variant run over the tensors, one batch to a thread. The parts are timed one after the
other, each with all cores at work, and summed.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from timing import interleaved, medians, parsed_and_pinned, show, write_json

from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.images.dataset import read_data
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import Precision
from resdeploy.deploy.verification.candidates import open_candidates
from resdeploy.deploy.verification.verify import verify

_BATCH = 8
_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def parts(bundle: Path, data: Path, threads: int) -> dict[str, float]:
    """Seconds of decoding all images, and of every variant's inference, on all cores."""
    model = open_model(bundle)
    paths = read_data(data, model.manifest.labels).paths
    preprocess = model.manifest.preprocess
    tensors = np.empty((len(paths), 3, *preprocess.input_size_px), np.float32)
    starts = range(0, len(paths), _BATCH)
    spent = {}

    def decode(start: int) -> None:
        for number, path in enumerate(paths[start : start + _BATCH], start):
            read_input(path, preprocess, out=tensors[number])

    def timed(work: Callable[[int], object]) -> float:
        began = time.perf_counter()
        list(pool.map(work, starts))
        return time.perf_counter() - began

    with ExitStack() as stack, ThreadPoolExecutor(threads) as pool:
        spent["decode"] = timed(decode)
        for candidate in open_candidates(model, _PRECISIONS, ["ort-cpu"], stack):
            infer = partial(_infer, candidate.session, tensors)
            spent[candidate.name] = timed(infer)
    return spent


def _infer(session: Session, tensors: np.ndarray, start: int) -> None:
    session.run(tensors[start : start + _BATCH])


def main() -> None:
    """Time `verify` and its parts in turns, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    options = parsed_and_pinned(parser, rounds=3)
    threads = options.threads

    every: list[dict[str, float]] = []
    taken = interleaved(
        {
            "verify": lambda: verify(
                options.bundle, data=options.data, precisions=_PRECISIONS, backends=["ort-cpu"]
            ),
            "parts": lambda: every.append(parts(options.bundle, options.data, threads)),
        },
        options.rounds,
    )
    spent = medians({name: [one[name] for one in every[1:]] for name in every[0]})
    whole, least = medians(taken)["verify"], sum(spent.values())
    show(
        f"{threads} threads, medians of {options.rounds}",
        ("", "seconds"),
        [
            *((name, f"{seconds:.2f}") for name, seconds in spent.items()),
            ("their sum", f"{least:.2f}"),
            ("verify", f"{whole:.2f}"),
            ("verify over the sum", f"{whole / least:.2f}"),
        ],
    )
    write_json(
        options.json,
        {"threads": threads, "verify_s": taken["verify"], "parts_s": every[1:]},
    )


if __name__ == "__main__":
    main()
