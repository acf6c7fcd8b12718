"""Per-image answers kept in a file, so that CI compares today's answers with earlier ones.

    {"format_version": 1, "labels": {…}, "preprocess": {…}, "columns": ["truth", "fp32", "int8"],
     "images": {
      "00d1a7c4e6f0b918": [3, 3, 3],
      …

An image is known by the first 16 hexadecimal digits of its file's SHA-256: a renamed image is
found again, a changed one is not. Each image has one line, in sorted order, so a diff shows the
images whose answer changed.

The comparison is paired, on the images that both have; added and removed ones are counted.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from resdeploy.deploy.arrays import Float64s, Indices
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.errors import InputError, first_line
from resdeploy.deploy.metrics.logits import Answers
from resdeploy.deploy.reading import read_json
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.checks.comparison import earlier_gates
from resdeploy.deploy.verification.checks.gate import Gate
from resdeploy.deploy.verification.checks.limits import Limits
from resdeploy.deploy.verification.evaluation import Evaluation, KeptLogits
from resdeploy.deploy.verification.measure import measure

FORMAT_VERSION = 1

_DIGITS = 16
_TRUTH = "truth"
_THEN = "baseline"


@dataclass(frozen=True)
class Baseline:
    """Answers by image: `images` maps a digest to one class index per column."""

    source: Path
    columns: tuple[str, ...]
    images: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class EarlierComparison:
    """Today against earlier answers, on `shared` images; accuracies by variant.

    `kind` says where they come from: a "baseline" file, or another release (`--against`).
    `remarks` say of a release in what its classes differ.
    """

    source: Path
    shared: int
    added: int
    removed: int
    variants: dict[str, Accuracy]
    missing: tuple[str, ...]
    kind: Literal["baseline", "against"] = "baseline"
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; `top1_baseline`, `drop` and the rest on the shared images."""
        keys = ("top1", "drop", "drop_ci95", "mcnemar_p", "agreement", "flips")
        variants = {}
        for name, accuracy in self.variants.items():
            whole = accuracy.to_json()
            before = {"top1_baseline": whole["top1_reference"]}
            variants[name] = before | {key: whole[key] for key in keys}
        return {
            "file": str(self.source),
            "shared": self.shared,
            "added": self.added,
            "removed": self.removed,
            "variants": variants,
        }

    def gates(self, variant: str, limits: Limits, labels: Sequence[str]) -> list[Gate]:
        """The checks of one variant against its own earlier answers; none without them."""
        if variant not in self.variants:
            return []
        return earlier_gates(
            variant,
            self.variants[variant],
            limits,
            labels,
            against=self.source.name,
            kind=self.kind,
        )

    def better(self) -> bool:
        """No variant has fewer right answers on the shared images, and one has more."""
        counts = [accuracy.counts for accuracy in self.variants.values()]
        gains = [c.gained - c.lost for c in counts if c is not None]
        return bool(gains) and min(gains) >= 0 and max(gains) > 0


def baseline_text(manifest: Manifest, evaluation: Evaluation, variants: Sequence[str]) -> str:
    """The content of a baseline file for what the variants answered."""
    columns = ([] if evaluation.truth is None else [_TRUTH]) + list(variants)
    rows = [evaluation.answers[name].index for name in variants]
    if evaluation.truth is not None:
        rows = [evaluation.truth, *rows]
    lines = {
        digest[:_DIGITS]: [int(row[position]) for row in rows]
        for position, digest in enumerate(evaluation.sha256)
    }
    head = {
        "format_version": FORMAT_VERSION,
        **_identity(manifest),
        "architecture": manifest.model.architecture,
        "checkpoint_sha256": manifest.model.checkpoint_sha256,
        "columns": columns,
    }
    opening = json.dumps(head, indent=1, ensure_ascii=False)[:-2]  # without the last newline and }
    images = ",\n".join(f'  "{digest}": {lines[digest]}' for digest in sorted(lines))
    return f'{opening},\n "images": {{\n{images}\n }}\n}}\n'


def read_baseline(path: Path, manifest: Manifest) -> Baseline:
    """Read a baseline that was saved for the same labels and the same preprocessing.

    Raises:
        InputError: no such file, damaged, or of another label set or preprocessing.
    """
    try:
        fields = read_json(path)
        version, columns, images = (fields[key] for key in ("format_version", "columns", "images"))
        if version > FORMAT_VERSION:
            raise ValueError(
                f"format version {version}, this resdeploy reads up to {FORMAT_VERSION}"
            )
        rows = {str(digest): _row(row, len(columns)) for digest, row in images.items()}
        own = {key: fields[key] for key in _identity(manifest)}
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such baseline: save one with --save-baseline {path}"
        ) from error
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable baseline ({first_line(error)}): restore the file "
            "or save it anew with --save-baseline"
        ) from error
    for key, expected in _identity(manifest).items():
        if own[key] != expected:
            raise InputError(
                f"{path}: saved with other {key}: got {_short(own[key])}, the bundle has "
                f"{_short(expected)}: save a baseline for this bundle with --save-baseline"
            )
    return Baseline(path, tuple(map(str, columns)), rows)


def compare_with_baseline(
    baseline: Baseline, evaluation: Evaluation, variants: Sequence[str], *, seed: int = 0
) -> EarlierComparison:
    """Pair today's answers with the baseline's; the truth is today's.

    Raises:
        InputError: they have no image or no variant in common.
    """
    digests = [digest[:_DIGITS] for digest in evaluation.sha256]
    positions = [i for i, digest in enumerate(digests) if digest in baseline.images]
    names = [name for name in variants if name in baseline.columns]
    if not positions:
        raise InputError(
            f"{baseline.source}: none of the {len(digests)} images is among its "
            f"{len(baseline.images)}: give the images it was saved with"
        )
    if not names:
        raise InputError(
            f"{baseline.source}: got the variants {', '.join(baseline.columns)}, expected one of "
            f"{', '.join(variants)}: save one with --save-baseline"
        )
    rows = [baseline.images[digests[i]] for i in positions]
    return EarlierComparison(
        source=baseline.source,
        shared=len(positions),
        added=len(digests) - len(positions),
        removed=len(set(baseline.images) - set(digests)),
        variants={
            name: paired_with(
                evaluation, name, _answers_then(baseline, rows, name), positions, seed
            )
            for name in names
        },
        missing=tuple(name for name in variants if name not in baseline.columns),
    )


def paired_with(
    evaluation: Evaluation,
    name: str,
    then: Answers,
    positions: list[int],
    seed: int,
    *,
    kept: KeptLogits | None = None,
) -> Accuracy:
    """The figures of one variant on the images at `positions`, with `then` as the reference.

    `kept` holds logits "now" and "then" of some of these images, counted among them.
    """
    now = evaluation.answers[name]
    logits = None
    if kept is not None:
        logits = KeptLogits(kept.positions, {name: kept.logits["now"], _THEN: kept.logits["then"]})
    pair = Evaluation(
        paths=tuple(evaluation.paths[i] for i in positions),
        sha256=(),
        truth=None if evaluation.truth is None else evaluation.truth[positions],
        answers={name: Answers(*(v[positions] for v in vars(now).values())), _THEN: then},
        differences={},
        reference=_THEN,
        unreadable=(),
        seconds={},
        kept=logits,
    )
    found = measure(pair, name, seed=seed)
    # flips are told by their place among all images
    flips = tuple(replace(flip, position=positions[flip.position]) for flip in found.flips)
    return replace(found, flips=flips)


def _answers_then(baseline: Baseline, rows: list[tuple[int, ...]], name: str) -> Answers:
    column = baseline.columns.index(name)
    return _bare(np.array([row[column] for row in rows], np.int64))


def _bare(index: Indices) -> Answers:
    """Answers of which only the class is known."""
    unknown: Float64s = np.full(len(index), np.nan)
    known = np.ones(len(index), np.bool_)
    return Answers(index, unknown, np.zeros(len(index), np.bool_), unknown, known)


def _identity(manifest: Manifest) -> dict[str, Any]:
    """What must be the same for class indices and images to mean the same."""
    labels = json.dumps(manifest.labels, ensure_ascii=False).encode()
    return {
        "labels": {
            "count": len(manifest.labels),
            "sha256": hashlib.sha256(labels).hexdigest()[:_DIGITS],
        },
        # through JSON and back, where tuples become lists
        "preprocess": manifest.preprocess.to_json(),
    }


def _row(row: Any, columns: int) -> tuple[int, ...]:
    if len(row) != columns or not all(type(index) is int for index in row):
        raise ValueError(f"an image has {row!r} for {columns} columns")
    return tuple(row)


def _short(fields: Any) -> str:
    return json.dumps(fields)
