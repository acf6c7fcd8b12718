"""One network with its images, and the figures of one INT8 graph on them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from timing import show, write_json

from resdeploy.calibration.graph.layers import with_biases
from resdeploy.calibration.observe.images import choose_images, read_batches
from resdeploy.calibration.repair.run import logits
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.images.files import labelled_images
from resdeploy.deploy.machine import cpu_name, has_exact_int8
from resdeploy.deploy.metrics.bootstrap import sqnr_interval
from resdeploy.deploy.metrics.calibrated_drop import (
    DropEstimate,
    PairedLogits,
    calibrated_drop,
    choose_estimate,
)
from resdeploy.deploy.metrics.intervals import (
    Interval,
    drop_interval,
    paired,
    reach,
    wilson_interval,
)
from resdeploy.deploy.metrics.logits import agreement, answers, differences, sqnr_db, top1
from resdeploy.deploy.specs import Variant
from resdeploy.export.graph.onnx_file import load_graph

_BATCH = 8
# Who computes a session of each variant: for `int8`, OrtSession keeps the Q/DQ nodes as they are.
_COMPUTED: dict[Variant, str] = {
    "fp32": "float",
    "int8": "as the graph says",
    "int8-cpu": "ONNX Runtime's kernels",
}


@dataclass(frozen=True)
class Setting:
    """One network with its images decoded: calibration batches, evaluation batches, truth."""

    title: str
    model: onnx.ModelProto
    calibrate: list[np.ndarray]
    evaluate: list[np.ndarray]
    truth: np.ndarray
    expected: np.ndarray
    threads: int

    def row(self, name: str, graph: bytes, variant: Variant, seconds: float) -> dict[str, Any]:
        """The figures of one graph on the evaluation images."""
        got = logits(graph, variant, self.evaluate, self.threads)
        return self.judged(name, _COMPUTED[variant], got, seconds)

    def judged(self, name: str, computed: str, got: np.ndarray, seconds: float) -> dict[str, Any]:
        """The figures of logits, with intervals of 95 %."""
        same = agreement(self.expected, got)
        few = wilson_interval(round(same * len(got) / 100), len(got))
        signal = (self.expected.astype(np.float64) ** 2).sum(axis=1)
        noise = ((got.astype(np.float64) - self.expected) ** 2).sum(axis=1)
        spread = sqnr_interval(signal, noise)
        counted, sharpest = self._drops(got)
        result = {
            "recipe": name,
            "computed": computed,
            "top1": round(top1(got, self.truth), 2),
            "drop": _with_interval(counted.drop, counted.interval),
            "sharpest": _with_interval(sharpest.drop, sharpest.interval),
            "agreement": _with_interval(same, few),
            "sqnr_db": _with_interval(sqnr_db(self.expected, got), spread),
            "seconds": round(seconds, 1),
        }
        print(*result.values(), sep="  ", flush=True)
        return result

    def _drops(self, got: np.ndarray) -> tuple[DropEstimate, DropEstimate]:
        """By the count of lost and gained answers, and as `resdeploy verify` decides by."""
        was, now = answers(self.expected, self.truth), answers(got, self.truth)
        counts = paired(was.index == self.truth, now.index == self.truth)
        reached = reach(was, differences(self.expected, got))
        counted = DropEstimate(counts.drop, drop_interval(counts, reach=reached), "count")
        by_logits = calibrated_drop(PairedLogits(self.expected, got, self.truth), reach=reached)
        return counted, choose_estimate(counts, counted.interval, by_logits)


def _with_interval(value: float, interval: Interval) -> str:
    # Adding 0 turns -0.0 into 0.0.
    middle, low, high = (round(v, 2) + 0 for v in (value, interval.low, interval.high))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def read_setting(arguments: argparse.Namespace) -> Setting:
    bundle = read_bundle(arguments.bundle)
    preprocess, labels = bundle.manifest.preprocess, bundle.manifest.labels
    model = with_biases(load_graph(bundle.graph("fp32")))
    chosen = choose_images(arguments.calib, images=arguments.images).paths
    shown = {path.resolve() for path in chosen}
    labelled = [p for p in labelled_images(arguments.data, labels) if p.path.resolve() not in shown]
    evaluate = list(read_batches([p.path for p in labelled], preprocess, batch=_BATCH))
    return Setting(
        f"{arguments.bundle.name}: {len(chosen)} calibration images, {len(labelled)} to judge on",
        model,
        list(read_batches(chosen, preprocess, batch=_BATCH)),
        evaluate,
        np.array([p.index for p in labelled]),
        logits(model.SerializeToString(), "fp32", evaluate, arguments.threads),
        arguments.threads,
    )


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that `read_setting` and `report` read."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("calib", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    return parser


def report(setting: Setting, rows: Sequence[dict[str, Any]], file: Path | None) -> None:
    """The table on stdout, with what this CPU does to INT8; the rows into a file, if wanted."""
    if has_exact_int8():
        kernels = "has VNNI: ONNX Runtime's kernels do not saturate, and OpenVINO computes in INT8"
    else:
        kernels = "has no VNNI: ONNX Runtime's kernels saturate with weights of 8 bits"
    title = f"{setting.title}\n{cpu_name()} {kernels}"
    columns = list(rows[0])
    show(title, columns, [[str(row[column]) for column in columns] for row in rows], width=170)
    write_json(file, {"title": title, "rows": rows})
