"""One network with its images, and the figures of one INT8 graph on them."""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from resdeploy.calibration.graph.layers import with_biases
from resdeploy.calibration.observe.images import choose_images, read_batches
from resdeploy.calibration.repair.run import logits
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.images.files import labelled_images
from resdeploy.deploy.metrics.bootstrap import sqnr_interval
from resdeploy.deploy.metrics.intervals import wilson_interval
from resdeploy.deploy.metrics.logits import agreement, sqnr_db, top1
from resdeploy.deploy.specs import Variant
from resdeploy.export.graph.onnx_file import load_graph

_BATCH = 8


@dataclass(frozen=True)
class Setting:
    """One network with its images decoded: calibration batches, evaluation batches, truth."""

    model: onnx.ModelProto
    calibrate: list[np.ndarray]
    evaluate: list[np.ndarray]
    truth: np.ndarray
    expected: np.ndarray
    threads: int

    def row(self, name: str, graph: bytes, variant: Variant, seconds: float) -> dict[str, Any]:
        """The figures of one graph on the evaluation images."""
        return self.judged(
            name, variant, logits(graph, variant, self.evaluate, self.threads), seconds
        )

    def judged(self, name: str, variant: str, got: np.ndarray, seconds: float) -> dict[str, Any]:
        """The figures of logits, with intervals."""
        same = agreement(self.expected, got)
        few = wilson_interval(round(same * len(got) / 100), len(got))
        signal = (self.expected.astype(np.float64) ** 2).sum(axis=1)
        noise = ((got.astype(np.float64) - self.expected) ** 2).sum(axis=1)
        spread = sqnr_interval(signal, noise)
        result = {
            "recipe": name,
            "runs as": variant,
            "top1": round(top1(got, self.truth), 2),
            "agreement": round(same, 2),
            "agreement_ci95": f"{few.low:.2f} to {few.high:.2f}",
            "sqnr_db": round(sqnr_db(self.expected, got), 2),
            "sqnr_ci95": f"{spread.low:.2f} to {spread.high:.2f}",
            "seconds": round(seconds, 1),
        }
        print(*result.values(), sep="  ", flush=True)
        return result


def read_setting(arguments: argparse.Namespace) -> Setting:
    bundle = read_bundle(arguments.bundle)
    preprocess, labels = bundle.manifest.preprocess, bundle.manifest.labels
    model = with_biases(load_graph(bundle.graph("fp32")))
    chosen = choose_images(arguments.calib, images=arguments.images).paths
    shown = {path.resolve() for path in chosen}
    labelled = [p for p in labelled_images(arguments.data, labels) if p.path.resolve() not in shown]
    evaluate = list(read_batches([p.path for p in labelled], preprocess, batch=_BATCH))
    return Setting(
        model,
        list(read_batches(chosen, preprocess, batch=_BATCH)),
        evaluate,
        np.array([p.index for p in labelled]),
        logits(model.SerializeToString(), "fp32", evaluate, arguments.threads),
        arguments.threads,
    )
