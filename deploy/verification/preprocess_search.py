"""Looks for a preprocessing that fits labelled images better than the one at hand.

A wrong preprocessing costs accuracy on every variant alike, so no comparison of variants sees it.
Each alternative runs on the same images as the preprocessing at hand. It counts as better when it
is right significantly more often (exact McNemar test with Holm's correction, p < 0.05), and by at
least 2 points: with many images even a slightly smaller crop is significant, without being wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.images.normalizations import NORMALIZATIONS
from resdeploy.deploy.images.preprocess import Preprocess, named
from resdeploy.deploy.metrics.intervals import holm, mcnemar_p, paired
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.session import ClosesOnExit, Session
from resdeploy.deploy.verification.evaluation import evaluate

_SIGNIFICANT = 0.05
_LEAST_GAIN = 2.0  # percentage points
_NAMES = ("imagenet", "half", "cifar")


@dataclass(frozen=True)
class Alternative:
    """A preprocessing worth trying; `bgr`: the network is given its channels in reverse order."""

    name: str
    preprocess: Preprocess
    bgr: bool = False


@dataclass(frozen=True)
class PreprocessTrial:
    """One alternative: top-1 in percent with it, and McNemar's p after Holm's correction."""

    alternative: Alternative
    top1: float
    p_holm: float

    @property
    def name(self) -> str:
        """The alternative's name."""
        return self.alternative.name


@dataclass(frozen=True)
class PreprocessSearch:
    """Every trial, and top-1 in percent with the preprocessing at hand, on `images` images."""

    images: int
    top1: float
    trials: tuple[PreprocessTrial, ...]

    def better(self) -> PreprocessTrial | None:
        """The best of those that fit better by the standard above, or None."""
        better = [
            trial
            for trial in self.trials
            if trial.p_holm < _SIGNIFICANT and trial.top1 >= self.top1 + _LEAST_GAIN
        ]
        return max(better, key=lambda trial: trial.top1, default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain values; accuracies in percent."""
        trials = [
            {"name": t.name, "top1": round(t.top1, 3), "p_holm": float(f"{t.p_holm:.3g}")}
            for t in self.trials
        ]
        return {"top1": round(self.top1, 3), "trials": trials}


def search_preprocessing(
    images: Images,
    own: Preprocess,
    alternatives: Sequence[Alternative],
    session: Session,
    *,
    progress: Progress = silent,
) -> PreprocessSearch:
    """Try every alternative on labelled images, next to `own`.

    Images that one of the preprocessings cannot take are left out of all trials.

    Raises:
        InputError: more than 5 % of the images cannot be read.
    """
    tried = [Alternative(own.name, own), *alternatives]
    right = [_right_answers(images, one, session, progress) for one in tried]
    common = [path for path in right[0] if all(path in answers for answers in right)]
    hits = [np.array([answers[path] for path in common], np.bool_) for answers in right]
    counts = [paired(hits[0], other) for other in hits[1:]]
    adjusted = holm([mcnemar_p(count.lost, count.gained) for count in counts])
    trials = tuple(
        PreprocessTrial(alternative, 100 * float(other.mean()), p)
        for alternative, other, p in zip(alternatives, hits[1:], adjusted, strict=True)
    )
    return PreprocessSearch(len(common), 100 * float(hits[0].mean()), trials)


def named_alternatives(own: Preprocess) -> tuple[Alternative, ...]:
    """The preprocessings that have a name, for inputs of the same size, without `own`."""
    height_px, width_px = own.input_size_px
    candidates = [named(name, height_px) for name in _NAMES] if height_px == width_px else []
    return tuple(
        Alternative(found.name, found)
        for found in candidates
        if replace(found, name=own.name) != own
    )


def usual_mistakes(own: Preprocess) -> tuple[Alternative, ...]:
    """What deployments usually get wrong: channel order, scale, mean and std, resize and crop."""
    size = own.input_size_px
    cropped = replace(own, resize_px=round(min(size) * 256 / 224), crop_px=size)
    whole = replace(own, resize_px=size, crop_px=None)
    scaled = replace(own, mean=_scaled(own.mean), std=_scaled(own.std))
    # with mean and std in the opposite order too, each value keeps its channel's statistics
    swapped = replace(own, mean=own.mean[::-1], std=own.std[::-1])
    candidates = (
        Alternative("BGR instead of RGB", swapped, bgr=True),
        Alternative("pixels not divided by 255", scaled),
        Alternative("no mean and std", _normalized(own, "0..1")),
        Alternative("mean and std 0.5", _normalized(own, "-1..1")),
        Alternative("ImageNet's mean and std", _normalized(own, "imagenet")),
        Alternative("shorter side resized, then cropped", cropped),
        Alternative("resized without a crop", whole),
        Alternative("'imagenet'", _normalized(cropped, "imagenet")),
        Alternative("'half'", _normalized(whole, "-1..1")),
    )
    kept: dict[tuple[Preprocess, bool], Alternative] = {}
    for candidate in candidates:
        kept.setdefault((candidate.preprocess, candidate.bgr), candidate)
    return tuple(found for key, found in kept.items() if key != (own, False))


class _ReversedChannels(ClosesOnExit):
    """A session that is given its channels in the opposite order."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.input, self.output = session.input, session.output
        self.outputs = session.outputs
        self.backend, self.variant = session.backend, session.variant
        self.threads = session.threads

    def run(self, batch: Float32s) -> Float32s:
        return self._session.run(np.ascontiguousarray(batch[:, ::-1]))

    def run_all(self, batch: Float32s) -> dict[str, Float32s]:
        return self._session.run_all(np.ascontiguousarray(batch[:, ::-1]))

    def close(self) -> None:
        """The session belongs to somebody else."""


def _right_answers(
    images: Images, alternative: Alternative, session: Session, progress: Progress
) -> dict[Path, bool]:
    """Whether the answer to each image that could be read is right."""
    evaluation = evaluate(
        images,
        alternative.preprocess,
        {"fp32": _ReversedChannels(session) if alternative.bgr else session},
        reference=None,
        step=f"trying preprocessing {alternative.name}",
        progress=progress,
    )
    right = evaluation.answers["fp32"].index == evaluation.truth
    return dict(zip(evaluation.paths, np.asarray(right).tolist(), strict=True))


def _normalized(own: Preprocess, name: str) -> Preprocess:
    mean, std = NORMALIZATIONS[name]
    return replace(own, mean=mean, std=std)


def _scaled(values: tuple[float, float, float]) -> tuple[float, float, float]:
    red, green, blue = (value / 255 for value in values)
    return red, green, blue
