"""`verify --explain`: which layer of an INT8 graph errs, and whether the preprocessing is right.

* Layers: on the images whose prediction changed, the layer that errs most from exact input, for
  every INT8 variant.
* Preprocessing: the usual mistakes are tried on the labelled images with the float graph
  (`preprocess_search`, which also says when another one counts as better).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.model import Model, recorded_reference
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.metrics.layer_error import LayerError, culprit
from resdeploy.deploy.progress import Progress
from resdeploy.deploy.targets import INT8_VARIANTS
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.checks.gate import Gate
from resdeploy.deploy.verification.evaluation import Evaluation
from resdeploy.deploy.verification.preprocess_search import (
    PreprocessSearch,
    search_preprocessing,
    usual_mistakes,
)

_IMAGES = 8

# float graph, INT8 graph, inputs -> the layers' errors; it needs onnx, so the caller hands it in
MeasureLayers = Callable[[Path, Path, Float32s], Sequence[LayerError]]


@dataclass(frozen=True)
class LayerExplanation:
    """The layers of one variant in graph order, and one sentence on the worst."""

    variant: str
    layers: tuple[LayerError, ...]
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, decibels and shares rounded."""
        layers = [
            {
                "name": layer.name,
                "operator": layer.op_type,
                "sqnr_db": round(layer.whole_db, 2),
                "own_sqnr_db": round(layer.own_db, 2),
                "share": round(layer.share, 4),
                "excused": layer.excused,
            }
            for layer in self.layers
        ]
        return {"sentence": self.sentence, "layers": layers}


@dataclass(frozen=True)
class Explanation:
    """What `--explain` found; `search` is None without labelled images or a float graph."""

    layers: tuple[LayerExplanation, ...]
    search: PreprocessSearch | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = {"top1": None, "trials": []} if self.search is None else self.search.to_json()
        layers = {found.variant: found.to_json() for found in self.layers}
        return {"layers": layers, "preprocessing": found}

    def gates(self) -> tuple[Gate, ...]:
        """One failure where another preprocessing fits better, else none."""
        best = None if self.search is None else self.search.better()
        if self.search is None or best is None:
            return ()
        sentence = (
            f"another preprocessing fits the images better: top-1 is {best.top1:.1f} % with "
            f"{best.name}, {self.search.top1:.1f} % with the bundle's own (p = {best.p_holm:.1g})"
        )
        brief = f"another preprocessing fits the images better: {best.name}"
        return (Gate("preprocessing", "fp32", "fail", sentence, brief=brief),)


def explain_all(
    model: Model,
    candidates: Sequence[Candidate],
    accuracies: Sequence[Accuracy],
    evaluation: Evaluation | None,
    images: Images | None,
    float_graph: Candidate | None,
    measure_layers: MeasureLayers,
    progress: Progress,
) -> Explanation:
    """Look into every INT8 variant, and try preprocessings where the true classes are known.

    `float_graph` is fp32 on the CPU, or None where the bundle has none.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    progress("looking into the layers", 0, 0)
    recorded = recorded_reference(model)
    layers = [
        explain_layers(model, candidate, accuracy, evaluation, recorded, measure_layers)
        for candidate, accuracy in zip(candidates, accuracies, strict=True)
    ]
    search = None
    if images is not None and images.truth is not None and float_graph is not None:
        own = model.manifest.preprocess
        search = search_preprocessing(
            images, own, usual_mistakes(own), float_graph.session, progress=progress
        )
    return Explanation(tuple(found for found in layers if found is not None), search)


def explain_layers(
    model: Model,
    candidate: Candidate,
    accuracy: Accuracy,
    evaluation: Evaluation | None,
    recorded: Reference | None,
    measure_layers: MeasureLayers,
) -> LayerExplanation | None:
    """Which layer an INT8 variant errs in; None for other variants and without a float graph.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    held = model.manifest.variants
    if candidate.variant not in INT8_VARIANTS or "fp32" not in held or model.bundle is None:
        return None
    inputs = _inputs(model.manifest.preprocess, accuracy, evaluation, recorded)
    errors = measure_layers(model.graph("fp32"), model.graph(candidate.variant), inputs)
    worst = culprit(errors)
    place = errors.index(worst)
    before = f"{errors[place - 1].whole_db:.1f} dB before this layer and " if place else ""
    sentence = (
        f"look at layer {place + 1} of {len(errors)}, {worst.op_type} {worst.name}: given exact "
        f"input it reaches {worst.own_db:.1f} dB ({worst.share:.0%} of the noise that all layers "
        f"add); the graph reaches {before}{worst.whole_db:.1f} dB after it"
    )
    return LayerExplanation(candidate.name, tuple(errors), sentence)


def _inputs(
    preprocess: Preprocess,
    accuracy: Accuracy,
    evaluation: Evaluation | None,
    recorded: Reference | None,
) -> Float32s:
    """Images whose prediction changed, else the first ones, else recorded inputs; at most eight."""
    if evaluation is None:
        return (
            recorded.inputs[:_IMAGES]
            if recorded is not None
            else np.zeros((0, 3, *preprocess.input_size_px), np.float32)
        )
    positions: Sequence[int] = [flip.position for flip in accuracy.flips][:_IMAGES]
    chosen: list[Path] = [evaluation.paths[i] for i in positions or range(len(evaluation.paths))]
    return np.stack([read_input(path, preprocess) for path in chosen[:_IMAGES]])
