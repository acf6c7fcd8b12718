"""A history of verifications: one line of JSON per run, read by `resdeploy history`.

Each line keeps the figures, their intervals, the hashes of graphs and images, versions and commit,
and, as hexadecimal digits, which images were answered rightly, so that two runs on the same images
are compared image by image. A run is worse beyond noise if Tango's score test (`metrics.
paired_score`) against the best run before it on the same images gives p < 0.025 divided by the
number of runs compared with a best one.

A line that cannot be read (a file cut in half, a newer format) is left out and told.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from resdeploy.deploy.arrays import Bools
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.installation import upgrade_advice
from resdeploy.deploy.metrics.intervals import Interval, paired
from resdeploy.deploy.metrics.paired_score import score_p
from resdeploy.deploy.reading import parse_json, read_text
from resdeploy.deploy.verification.reports.report import VariantReport, VerifyReport

FORMAT_VERSION = 1

_LEVEL = 0.025


@dataclass(frozen=True)
class Run:
    """One variant in one run; top-1 in percent, None without true classes."""

    time: str
    commit: str
    verdict: str
    variant: str
    images: int
    images_sha256: str
    top1: float | None
    top1_ci95: Interval | None
    right: Bools | None


@dataclass(frozen=True)
class History:
    """All runs in the order of the file, and what could not be read."""

    runs: tuple[Run, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Worse:
    """A run that was worse than the best before it: places among the runs of a variant, and p."""

    place: int
    best: int
    drop: float
    p: float


def history_line(report: VerifyReport) -> str:
    """One run as a line, without the line's end."""
    evaluation = report.evaluation
    order = [] if evaluation is None else np.argsort(np.array(evaluation.sha256)).tolist()
    digests = "" if evaluation is None else "".join(evaluation.sha256[k] for k in order)
    line = {
        "format_version": FORMAT_VERSION,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "bundle": report.bundle.name,
        "device": None if report.device is None else report.device.name,
        "checkpoint_sha256": report.manifest.model.checkpoint_sha256,
        "tools": dict(report.manifest.tools),
        "verdict": report.verdict,
        "reason": report.reason,
        "images": 0 if evaluation is None else len(evaluation.paths),
        "images_sha256": hashlib.sha256(digests.encode()).hexdigest()[:16],
        "variants": {v.name: _figures(report, v, order) for v in report.variants},
    }
    return json.dumps(line, ensure_ascii=False)


def check_history(path: Path) -> None:
    """Refuse, before a run, a file that a line could not be added to.

    Raises:
        InputError: it cannot be written, or something is in it and not one line can be read.
    """
    if not path.is_file():
        return  # `check_writable` has seen its folder
    try:
        with path.open("ab") as file:
            empty = file.tell() == 0
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    if not empty:
        read_history(path)  # a line must not be added to a file of another kind


def append_line(path: Path, line: str) -> None:
    """Add a line at the end; a line before it that was cut off stays a line of its own.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = f"\n{line}"
            file.write(f"{line}\n".encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def read_history(path: Path) -> History:
    """Read what `append_line` wrote.

    Raises:
        InputError: no such file, or not one line of it can be read.
    """
    try:
        lines = read_text(path, errors="replace").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: no readable history: record one with resdeploy verify BUNDLE --data DIR "
            f"--record {path}"
        ) from error
    runs: list[Run] = []
    remarks, newer = [], False
    for number, line in enumerate(lines, start=1):
        try:
            runs += _runs(parse_json(line))
        except _NewerError as error:
            remarks.append(f"line {number}: {error}")
            newer = True
        except (AttributeError, KeyError, TypeError, ValueError):
            remarks.append(f"line {number}: cannot be read and was left out")
    if not runs:
        why = remarks[0] if remarks else "it is empty"
        if newer:
            raise InputError(f"{path}: {why}")
        raise InputError(
            f"{path}: not a history of verifications: {why}: restore it, or name another file"
        )
    return History(tuple(runs), tuple(remarks))


def first_worse(runs: Sequence[Run]) -> Worse | None:
    """The first run of one variant that is worse than the best before it beyond noise."""
    best: dict[str, int] = {}
    compared = max(1, len(runs) - 1)
    for place, run in enumerate(runs):
        if run.right is None or run.top1 is None:
            continue
        earlier = best.get(run.images_sha256)
        if earlier is not None:
            then = runs[earlier]
            if then.right is not None and len(then.right) == len(run.right):
                counts = paired(then.right, run.right)
                p = score_p(counts, 0.0)
                if counts.drop > 0 and p < _LEVEL / compared:
                    return Worse(place, earlier, counts.drop, p)
        if earlier is None or run.top1 > (runs[earlier].top1 or 0.0):
            best[run.images_sha256] = place
    return None


class _NewerError(ValueError):
    """A line of a format that this version does not know."""


def _runs(fields: Any) -> list[Run]:
    """The runs in one line, one for each variant."""
    version = fields["format_version"]
    if version > FORMAT_VERSION:
        raise _NewerError(
            f"format version {version}, this resdeploy reads up to {FORMAT_VERSION}: "
            + upgrade_advice()
        )
    found = []
    for name, figures in fields["variants"].items():
        interval, right = figures["top1_ci95"], figures["right"]
        found.append(
            Run(
                time=str(fields["time"]),
                commit=str(fields["commit"] or ""),
                verdict=str(figures["verdict"]),
                variant=str(name),
                images=int(figures["images"]),
                images_sha256=str(fields["images_sha256"]),
                top1=None if figures["top1"] is None else float(figures["top1"]),
                top1_ci95=None if interval is None else Interval(*map(float, interval)),
                right=None if right is None else _bits(right, int(figures["images"])),
            )
        )
    return found


def _figures(report: VerifyReport, variant: VariantReport, order: list[int]) -> dict[str, Any]:
    """What is kept of a variant; the images in the order of their hashes."""
    keys = (
        "verdict", "images", "top1", "top1_ci95", "drop", "drop_ci95", "drop_against", "agreement",
        "sqnr_db", "ece",
    )  # fmt: skip
    content = variant.to_json()
    file = report.manifest.variants.get(variant.variant)
    right = None
    evaluation = report.evaluation
    if evaluation is not None and evaluation.truth is not None:
        hits = evaluation.answers[variant.name].index == evaluation.truth
        right = np.packbits(hits[order]).tobytes().hex()
    return {
        **{key: content[key] for key in keys},
        "sha256": None if file is None else file.sha256,
        "right": right,
    }


def _bits(digits: str, count: int) -> Bools:
    found = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[:count]
    if len(found) != count:
        raise ValueError(f"{len(found)} answers for {count} images")
    return found.astype(np.bool_)


def _commit() -> str | None:
    """The commit that CI names, else that of the working directory; None where there is none."""
    for name in ("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT"):
        if os.environ.get(name):
            return os.environ[name]
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
