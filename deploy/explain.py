"""`verify --explain`: where the numbers part, and whether the preprocessing is the right one.

* Layers: on the pictures that flipped, the layer that errs most from exact input
  (`calibration.layer_errors`), for every INT8 variant.
* Preprocessing: a wrong one costs accuracy on every variant alike. The usual suspects are tried on
  the labelled pictures with the float graph. One is accused when it is right significantly more
  often than the bundle's own on the same pictures (McNemar, Holm's correction, p < 0.05), and by
  at least 2 points: with many pictures even a crop less is significant, without being the error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resdeploy.deploy.accuracy import Accuracy
from resdeploy.deploy.anchor import recorded_answers
from resdeploy.deploy.candidates import Candidate
from resdeploy.deploy.evaluation import Evaluation, Pictures, evaluate
from resdeploy.deploy.gate import Gate
from resdeploy.deploy.optional import needs
from resdeploy.deploy.output import Progress
from resdeploy.deploy.pictures import read_input
from resdeploy.deploy.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resdeploy.deploy.recording import Reference
from resdeploy.deploy.session import Model, Session
from resdeploy.deploy.statistics import holm, mcnemar_p, paired

_SURE = 0.05
_MATERIAL = 2.0
_FLIPS = 8
_INT8 = ("int8", "int8-cpu")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LayerError:
    """One layer's errors in dB (larger is better), as `calibration.layer_errors` measures them.

    `excused`: it looks unsound alone, but the graph is sound there or behind. `share`: of the own
    noise-to-signal ratios of all layers that are not excused.
    """

    name: str
    op_type: str
    whole_db: float
    own_db: float
    share: float
    excused: bool


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
class PreprocessTrial:
    """One suspect: top-1 in percent with it, and McNemar's p against the bundle's own (Holm)."""

    name: str
    top1: float
    p_holm: float


@dataclass(frozen=True)
class Explanation:
    """What `--explain` found; `trials` is empty without labelled pictures."""

    layers: tuple[LayerExplanation, ...]
    trials: tuple[PreprocessTrial, ...]
    top1: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        trials = [
            {"name": t.name, "top1": round(t.top1, 3), "p_holm": float(f"{t.p_holm:.3g}")}
            for t in self.trials
        ]
        return {
            "layers": {found.variant: found.to_json() for found in self.layers},
            "preprocessing": {"top1": self.top1 and round(self.top1, 3), "trials": trials},
        }

    def gates(self) -> tuple[Gate, ...]:
        """One failure where another preprocessing fits significantly better, else none."""
        least = _MATERIAL + (self.top1 or 0)
        better = [t for t in self.trials if t.p_holm < _SURE and t.top1 >= least]
        if not better:
            return ()
        best = max(better, key=lambda trial: trial.top1)
        sentence = (
            f"another preprocessing fits the pictures better: {best.name} gives top-1 "
            f"{best.top1:.1f} %, the bundle's own {self.top1:.1f} % (p = {best.p_holm:.1g})"
        )
        return (Gate("preprocessing", "fp32", "fail", sentence),)


class _Reversed:
    """A session that is given its channels in the opposite order."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.input, self.output = session.input, session.output

    def run(self, batch: Floats) -> Floats:
        return self._session.run(np.ascontiguousarray(batch[:, ::-1]))

    def close(self) -> None:
        """The session belongs to somebody else."""

    def __enter__(self) -> "_Reversed":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def explain_all(
    model: Model,
    candidates: Sequence[Candidate],
    accuracies: Sequence[Accuracy],
    evaluation: Evaluation | None,
    pictures: Pictures | None,
    reference: Candidate | None,
    progress: Progress,
) -> Explanation:
    """Look into every INT8 variant, and try preprocessings where the true classes are known.

    Args:
        reference: the float graph on the CPU, or None where the bundle has none.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    progress("looking into the layers", 0, 0)
    recorded = recorded_answers(model)
    layers = [
        explain_layers(model, candidate, accuracy, evaluation, recorded)
        for candidate, accuracy in zip(candidates, accuracies, strict=True)
    ]
    trials: tuple[PreprocessTrial, ...] = ()
    top1 = None
    if pictures is not None and pictures.truth is not None and reference is not None:
        preprocess = model.manifest.preprocess
        trials, top1 = try_preprocessings(pictures, preprocess, reference.session, progress)
    return Explanation(tuple(found for found in layers if found is not None), trials, top1)


def explain_layers(
    model: Model,
    candidate: Candidate,
    accuracy: Accuracy,
    evaluation: Evaluation | None,
    recorded: Reference | None,
) -> LayerExplanation | None:
    """Which layer an INT8 variant errs in; None for other variants and without a float graph.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    held = model.manifest.variants
    if candidate.variant not in _INT8 or "fp32" not in held or model.bundle is None:
        return None
    inputs = _inputs(model.manifest.preprocess, accuracy, evaluation, recorded)
    # onnx lives above this package: named as text, not imported
    with needs("verify --explain"):
        module = import_module("resdeploy.calibration.layer_errors")
    errors = module.layer_errors(model.graph("fp32"), model.graph(candidate.variant), inputs)
    worst = module.culprit(errors)
    place = errors.index(worst)
    before = f"{errors[place - 1].whole_db:.1f} dB before it and " if place else ""
    sentence = (
        f"look at layer {place + 1} of {len(errors)}, {worst.op_type} {worst.name}: from exact "
        f"input it reaches {worst.own_db:.1f} dB ({worst.share:.0%} of all own errors); "
        f"the whole graph has {before}{worst.whole_db:.1f} dB behind it"
    )
    return LayerExplanation(candidate.name, tuple(errors), sentence)


def try_preprocessings(
    pictures: Pictures, preprocess: Preprocess, session: Session, progress: Progress
) -> tuple[tuple[PreprocessTrial, ...], float]:
    """Every suspect on labelled pictures, and the top-1 with the bundle's own preprocessing."""
    right = _right(pictures, preprocess, session, progress)
    found = []
    for name, suspect, swapped in _suspects(preprocess):
        runner = _Reversed(session) if swapped else session
        found.append((name, _right(pictures, suspect, runner, progress)))
    counts = [paired(right, other) for _, other in found]
    adjusted = holm([mcnemar_p(count.lost, count.gained) for count in counts])
    trials = tuple(
        PreprocessTrial(name, 100 * float(other.mean()), p)
        for (name, other), p in zip(found, adjusted, strict=True)
    )
    return trials, 100 * float(right.mean())


def _suspects(own: Preprocess) -> list[tuple[str, Preprocess, bool]]:
    """(name, preprocessing, channels in the opposite order) of everything worth trying."""
    size = own.input_size_px
    zero, one, half = (0.0,) * 3, (1.0,) * 3, (0.5,) * 3
    cropped = replace(own, resize_px=round(min(size) * 256 / 224), crop_px=size)
    whole = replace(own, resize_px=size, crop_px=None)
    scaled = replace(own, mean=_scaled(own.mean), std=_scaled(own.std))
    # with mean and std in the opposite order too, each value keeps its channel's statistics
    swapped = replace(own, mean=own.mean[::-1], std=own.std[::-1])
    imagenet = (IMAGENET_MEAN, IMAGENET_STD)
    tried: list[tuple[str, Preprocess, bool]] = [
        ("BGR instead of RGB", swapped, True),
        ("pixels not divided by 255", scaled, False),
        ("no mean and std", replace(own, mean=zero, std=one), False),
        ("mean and std 0.5", replace(own, mean=half, std=half), False),
        ("ImageNet's mean and std", replace(own, mean=imagenet[0], std=imagenet[1]), False),
        ("shorter side resized, then cropped", cropped, False),
        ("resized without a crop", whole, False),
        ("'imagenet'", replace(cropped, mean=imagenet[0], std=imagenet[1]), False),
        ("'half'", replace(whole, mean=half, std=half), False),
    ]
    kept: list[tuple[str, Preprocess, bool]] = []
    for name, suspect, opposite in tried:
        known = [(own, False), *((other, swap) for _, other, swap in kept)]
        if (suspect, opposite) not in known:
            kept.append((name, suspect, opposite))
    return kept


def _right(
    pictures: Pictures, preprocess: Preprocess, session: Session, progress: Progress
) -> NDArray[np.bool_]:
    evaluation = evaluate(
        pictures, preprocess, {"fp32": session}, reference=None, progress=progress
    )
    return np.asarray(evaluation.answers["fp32"].index == evaluation.truth)


def _inputs(
    preprocess: Preprocess,
    accuracy: Accuracy,
    evaluation: Evaluation | None,
    recorded: Reference | None,
) -> Floats:
    """The flipped pictures, else the first ones, else the recorded inputs; at most eight."""
    if evaluation is None:
        return (
            recorded.inputs[:_FLIPS]
            if recorded is not None
            else np.zeros((0, 3, *preprocess.input_size_px), np.float32)
        )
    positions: Sequence[int] = [flip.position for flip in accuracy.flips][:_FLIPS]
    chosen: list[Path] = [evaluation.paths[i] for i in positions or range(len(evaluation.paths))]
    return np.stack([read_input(path, preprocess) for path in chosen[:_FLIPS]])


def _scaled(values: tuple[float, float, float]) -> tuple[float, float, float]:
    red, green, blue = (value / 255 for value in values)
    return red, green, blue
