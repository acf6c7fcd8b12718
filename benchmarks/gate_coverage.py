"""How often the gate's intervals are right where its model of the truth is wrong.

    python benchmarks/gate_power.py --save logits/cifar.npz --bundle BUNDLE --data DIR
    python benchmarks/gate_coverage.py logits/cifar.npz [--draws 80] [--images 100 400]

The drop by the logits (`metrics.calibrated_drop`) takes p(class | image) for a softmax of the
reference's logits with one scale. Real labels are not so: here they are drawn anew for every draw
from a softmax that has a scale and a bias for each class, fitted to the file's true classes,

    p(k | i) ∝ exp(a_k r_ik + b_k)

so that the true drop is known for every error, also for those of damaged graphs: the INT8 errors
of the file once, two and three times, and biases of the head. Printed is the share of draws whose
interval holds the true drop: by the logits, the same as if the model were true, as the gate
chooses, and by counting; and how often count and logits contradicted each other.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from resdeploy.deploy.arrays import Float32s, Float64s, Indices
from resdeploy.deploy.metrics import calibrated_drop as calibrated_drop_module
from resdeploy.deploy.metrics.calibrated_drop import (
    PairedLogits,
    calibrated_drop,
    choose_estimate,
)
from resdeploy.deploy.metrics.intervals import drop_interval, paired

_STEPS, _RATE = 1500, 2.0
_RESAMPLES = 400
_TRUSTED: dict[str, Any] = {"_LEAST_CHANGE": 0.0, "_MISFIT_OF_ONE": 0.0, "_MISFIT": 0.0}


def fitted_chances(reference: Float64s, truth: Indices) -> Float64s:
    """p (N, K) by maximum likelihood with a light ridge, by gradient steps."""
    scaled = (reference - reference.mean(axis=1, keepdims=True)) / reference.std()
    classes = reference.shape[1]
    scales, biases, known = np.ones(classes), np.zeros(classes), np.eye(classes)[truth]
    for _ in range(_STEPS):
        exponents = np.exp(scaled * scales + biases)
        rest = known - exponents / exponents.sum(axis=1, keepdims=True)
        scales += _RATE * ((rest * scaled).mean(axis=0) - 0.002 * (scales - scales.mean()))
        biases += _RATE * (rest.mean(axis=0) - 0.001 * biases)
    exponents = np.exp(scaled * scales + biases)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def graphs(file: Path) -> tuple[Float32s, dict[str, Float32s], Indices]:
    """The reference's logits, those of sound and of damaged graphs, and the true classes."""
    stored = np.load(file)
    reference = stored["fp32"]
    found: dict[str, Float32s] = {}
    for name in (name for name in stored.files if name.startswith("int8")):
        error = stored[name] - reference
        found |= {f"{name} x{k}": reference + k * error for k in (1, 2, 3)}
    random = np.random.default_rng(1)
    for size in (0.1, 0.2):
        for number in range(3):
            bias = size * reference.std() * random.normal(size=reference.shape[1])
            found[f"head bias {number} {size:g}"] = (reference + bias).astype(np.float32)
    return reference, found, stored["truth"].astype(np.int64)


def coverage(
    reference: Float32s, got: Float32s, chances: Float64s, images: int, draws: int
) -> tuple[float, ...]:
    """The true drop, and five shares in percent."""
    rows, was, now = np.arange(len(got)), reference.argmax(axis=1), got.argmax(axis=1)
    true = 100 * float((chances[rows, was] - chances[rows, now]).mean())
    sums, held = chances.cumsum(axis=1), np.zeros((draws, 5))
    for draw in range(draws):
        random = np.random.default_rng(1000 * images + draw)
        chosen = random.integers(0, len(got), images)
        truth = (random.random((images, 1)) > sums[chosen]).sum(axis=1).clip(0, got.shape[1] - 1)
        logits = PairedLogits(reference[chosen], got[chosen], truth)
        found = calibrated_drop(logits)
        with patch.multiple(calibrated_drop_module, **_TRUSTED):
            trusting = calibrated_drop(logits)
        assert found is not None and trusting is not None
        counts = paired(was[chosen] == truth, now[chosen] == truth)
        counted = drop_interval(counts, seed=draw, resamples=_RESAMPLES)
        gate = choose_estimate(counts, counted, found)
        intervals = [found.interval, trusting.interval, gate.interval, counted]
        held[draw] = *(i.low <= true <= i.high for i in intervals), gate.remark is not None
    return true, *map(float, 100 * held.mean(axis=0))


def study(file: Path, sizes: Sequence[int], draws: int) -> None:
    """Print a row for every graph and number of images, then means and lowest."""
    reference, found, truth = graphs(file)
    chances = fitted_chances(reference.astype(np.float64), truth)
    for images in sizes:
        rows = []
        for name, got in found.items():
            true, *shares = coverage(reference, got, chances, images, draws)
            rows.append(shares)
            print(f"{file.stem} {name:18} {images:4} images, drop {true:6.2f}:", shares, flush=True)
        mean, least = np.mean(rows, axis=0).round(1), np.min(rows, axis=0).round(1)
        told = (f"{m} ({low})" for m, low in zip(mean[:4], least[:4], strict=True))
        words = "logits {}, as if the model were true {}, gate {}, count {}".format(*told)
        print(f"{file.stem} {images} images: {words}, contradicted {mean[4]}")


def main() -> None:
    """Print the tables of the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--draws", type=int, default=80)
    parser.add_argument("--images", type=int, nargs="*", default=[100, 400])
    options = parser.parse_args()
    for file in options.files:
        study(file, options.images, options.draws)


if __name__ == "__main__":
    main()
