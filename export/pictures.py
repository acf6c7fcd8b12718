"""The pictures an export is proven on: the user's own with `--data`, else the built-in ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.evaluation import UNREADABLE_SHARE, read_data
from resdeploy.deploy.machine import cores
from resdeploy.deploy.output import Progress, silent
from resdeploy.deploy.pictures import in_order, read_input
from resdeploy.deploy.preprocess import Preprocess, named
from resdeploy.deploy.session import Session
from resdeploy.deploy.statistics import mcnemar_p
from resdeploy.export.reference_inputs import builtin_inputs

_BATCH = 16
_FIT_PICTURES = 200
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Pictures:
    """Picture files, and their true classes where the user's folders name them.

    `paths` empty means the built-in pictures.
    """

    paths: tuple[Path, ...] = ()
    truth: tuple[int, ...] | None = None

    @property
    def described(self) -> str:
        """For a sentence: which pictures these are."""
        if self.paths:
            return f"{len(self.paths)} pictures of yours"
        return "4 built-in pictures (they prove arithmetic, not accuracy: see --data)"

    def spread(self, count: int) -> "Pictures":
        """At most `count` of them, evenly spaced, so that sorted class folders all take part."""
        if len(self.paths) <= count:
            return self
        chosen = [round(i) for i in np.linspace(0, len(self.paths) - 1, count)]
        truth = None if self.truth is None else tuple(self.truth[i] for i in chosen)
        return Pictures(tuple(self.paths[i] for i in chosen), truth)

    def inputs(self, preprocess: Preprocess) -> Iterator[tuple[NDArray[np.float32], list[int]]]:
        """Batches of (n, 3, H, W) float32 with the positions of their pictures in `paths`.

        Raises:
            InputError: more than 5 % of the pictures cannot be read (fewer are left out).
        """
        if not self.paths:
            built_in = builtin_inputs(preprocess)
            yield built_in, list(range(len(built_in)))
            return

        def decode(path: Path) -> NDArray[np.float32] | InputError:
            try:
                return read_input(path, preprocess)
            except InputError as error:
                return error

        batch: list[NDArray[np.float32]] = []
        positions: list[int] = []
        unreadable = 0
        for position, picture in enumerate(in_order(decode, self.paths, threads=cores())):
            if isinstance(picture, InputError):
                unreadable += 1
                if unreadable > UNREADABLE_SHARE * len(self.paths):
                    raise InputError(
                        f"{unreadable} of {len(self.paths)} pictures cannot be read, over 5 %; "
                        f"the last one: {picture}"
                    ) from picture
                continue
            batch.append(picture)
            positions.append(position)
            if len(batch) == _BATCH:
                yield np.stack(batch), positions
                batch, positions = [], []
        if batch:
            yield np.stack(batch), positions


def read_pictures(data: Path | None, labels: Sequence[str]) -> Pictures:
    """The pictures of `--data`: labelled when it has class folders or is a list, else plain.

    Raises:
        InputError: no pictures there, or class folders that are not in the labels.
    """
    if data is None:
        return Pictures()
    found = read_data(data, labels)
    return Pictures(found.paths, None if found.truth is None else tuple(found.truth.tolist()))


def fit_preprocess(
    assumed: Preprocess, pictures: Pictures, session: Session, progress: Progress = silent
) -> tuple[Preprocess, str]:
    """Try the usual preprocessings on labelled pictures; the one that fits, and why.

    The assumed one is replaced only where another is significantly better on the same pictures
    (exact McNemar test, p < 0.05).
    """
    sample = pictures.spread(_FIT_PICTURES)
    height, width = assumed.input_size_px
    candidates = [assumed, *(named(name, height) for name in ("imagenet", "half", "cifar"))]
    right: dict[str, NDArray[np.bool_]] = {}
    for step, candidate in enumerate(candidates):
        progress("trying preprocessings", step, len(candidates))
        if candidate.name not in right and candidate.input_size_px == (height, width):
            right[candidate.name] = _right_answers(candidate, sample, session)
    fits = {name: 100 * float(answers.mean()) for name, answers in right.items()}
    figures = ", ".join(f"{name} {fit:.1f} %" for name, fit in fits.items())
    best = max(fits, key=lambda name: fits[name])
    ahead, behind = right[best] & ~right[assumed.name], right[assumed.name] & ~right[best]
    p_value = mcnemar_p(int(behind.sum()), int(ahead.sum()))
    if best == assumed.name or p_value >= _SIGNIFICANT:
        why = "fits best" if best == assumed.name else "none fits significantly better"
        chosen = assumed
    else:
        chosen = next(c for c in candidates if c.name == best)
        why = f"it fits significantly better than {assumed.name} (p = {p_value:.2g})"
    count = len(right[assumed.name])
    return chosen, (
        f"preprocessing is {chosen.name!r}: {why} on {count} of your labelled pictures "
        f"(top-1: {figures}); change with --preprocess"
    )


def _right_answers(
    preprocess: Preprocess, pictures: Pictures, session: Session
) -> NDArray[np.bool_]:
    truth = np.array(pictures.truth)
    right = [
        session.run(inputs).argmax(axis=1) == truth[positions]
        for inputs, positions in pictures.inputs(preprocess)
    ]
    return np.concatenate(right)
