"""Per-picture answers kept in a file, so that CI compares today's with those of a good day.

    {"format_version": 1, "labels": {…}, "preprocess": {…}, "columns": ["truth", "fp32", "int8"],
     "pictures": {
      "00d1a7c4e6f0b918": [3, 3, 3],
      …

A picture is known by the first 16 hexadecimal digits of its file's SHA-256, so renamed pictures
are found again, and changed ones are not. One line a picture, sorted: a change shows in a diff as
the pictures whose answer changed.

The comparison is paired, on the pictures that both have; added and removed ones are counted.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resdeploy.deploy.accuracy import Accuracy, measure
from resdeploy.deploy.compare import Answers, Floats, Indices
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.evaluation import Evaluation
from resdeploy.deploy.gate import Gate, Limits, agreement_gate, drop_gate
from resdeploy.deploy.manifest import Manifest

FORMAT_VERSION = 1

_DIGITS = 16
_TRUTH = "truth"
_THEN = "baseline"


@dataclass(frozen=True)
class Baseline:
    """Answers by picture: `pictures` maps a digest to one class index (or None) per column."""

    source: Path
    columns: tuple[str, ...]
    pictures: dict[str, tuple[int | None, ...]]


@dataclass(frozen=True)
class BaselineComparison:
    """Today against the baseline, on `shared` pictures; accuracies by variant."""

    source: Path
    shared: int
    added: int
    removed: int
    variants: dict[str, Accuracy]
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; `top1_baseline`, `drop` and the rest on the shared pictures."""
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

    def gates(self, limits: Limits) -> list[Gate]:
        """The drop since the baseline against its limit; agreement where nothing is labelled."""
        found = []
        for name, accuracy in self.variants.items():
            if accuracy.counts is not None:
                gate = drop_gate(name, accuracy, limits.max_drop)
            elif limits.min_agreement is not None:
                gate = agreement_gate(name, accuracy, limits.min_agreement)
            else:
                continue
            sentence = f"against {self.source.name}: {gate.sentence}"
            found.append(Gate(**{**vars(gate), "name": "baseline", "sentence": sentence}))
        return found

    def better(self) -> bool:
        """No variant has fewer right answers on the shared pictures, and one has more."""
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
    pictures = ",\n".join(f'  "{digest}": {lines[digest]}' for digest in sorted(lines))
    return f'{opening},\n "pictures": {{\n{pictures}\n }}\n}}\n'


def read_baseline(path: Path, manifest: Manifest) -> Baseline:
    """Read a baseline that was saved for the same labels and the same preprocessing.

    Raises:
        InputError: no such file, damaged, or of another label set or preprocessing.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version, columns, pictures = (
            fields[key] for key in ("format_version", "columns", "pictures")
        )
        if version > FORMAT_VERSION:
            raise ValueError(f"format version {version}, this resdeploy reads {FORMAT_VERSION}")
        rows = {str(digest): _row(row, len(columns)) for digest, row in pictures.items()}
        own = {key: fields[key] for key in _identity(manifest)}
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such baseline: save one with --save-baseline {path}"
        ) from error
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable baseline ({' '.join(str(error).split())}): restore the file "
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
) -> BaselineComparison:
    """Pair today's answers with the baseline's; the truth is today's.

    Raises:
        InputError: they have no picture or no variant in common.
    """
    digests = [digest[:_DIGITS] for digest in evaluation.sha256]
    positions = [i for i, digest in enumerate(digests) if digest in baseline.pictures]
    names = [name for name in variants if name in baseline.columns]
    if not positions:
        raise InputError(
            f"{baseline.source}: none of the {len(digests)} pictures is among its "
            f"{len(baseline.pictures)}: give the pictures it was saved with"
        )
    if not names:
        raise InputError(
            f"{baseline.source}: has the variants {', '.join(baseline.columns)}, not "
            f"{', '.join(variants)}: save one with --save-baseline"
        )
    rows = [baseline.pictures[digests[i]] for i in positions]
    return BaselineComparison(
        source=baseline.source,
        shared=len(positions),
        added=len(digests) - len(positions),
        removed=len(set(baseline.pictures) - set(digests)),
        variants={
            name: _paired_with(baseline, rows, evaluation, positions, name, seed) for name in names
        },
        missing=tuple(name for name in variants if name not in baseline.columns),
    )


def _paired_with(
    baseline: Baseline,
    rows: list[tuple[int | None, ...]],
    evaluation: Evaluation,
    positions: list[int],
    name: str,
    seed: int,
) -> Accuracy:
    """The figures of one variant with the baseline's answers standing for the reference's."""
    column = baseline.columns.index(name)
    then = np.array([-1 if row[column] is None else row[column] for row in rows], np.int64)
    now = evaluation.answers[name]
    kept = Answers(*(values[positions] for values in vars(now).values()))
    pair = Evaluation(
        paths=tuple(evaluation.paths[i] for i in positions),
        sha256=(),
        truth=None if evaluation.truth is None else evaluation.truth[positions],
        answers={name: kept, _THEN: _bare(then)},
        differences={},
        reference=_THEN,
        unreadable=(),
        seconds={},
    )
    return measure(pair, name, seed=seed)


def _bare(index: Indices) -> Answers:
    """Answers of which only the class is known."""
    unknown: Floats = np.full(len(index), np.nan)
    known = np.ones(len(index), np.bool_)
    return Answers(index, unknown, np.zeros(len(index), np.bool_), unknown, known)


def _identity(manifest: Manifest) -> dict[str, Any]:
    """What must be the same for class indices and pictures to mean the same."""
    labels = json.dumps(manifest.labels, ensure_ascii=False).encode()
    return {
        "labels": {
            "count": len(manifest.labels),
            "sha256": hashlib.sha256(labels).hexdigest()[:_DIGITS],
        },
        # through JSON and back, where tuples become lists
        "preprocess": json.loads(json.dumps(manifest.preprocess.to_json())),
    }


def _row(row: Any, columns: int) -> tuple[int | None, ...]:
    if len(row) != columns or not all(type(index) is int for index in row):
        raise ValueError(f"a picture with {row!r} for {columns} columns")
    return tuple(row)


def _short(fields: Any) -> str:
    return json.dumps(fields)
