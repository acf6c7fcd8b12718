"""The model card of a bundle, as the Hugging Face Hub shows it: what it is, and how sure that is.

It is made of the manifest and of what `verify` wrote last. Figures of a file that is no longer the
bundle's own, since it was quantized again, are left out, and the card says so.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.bundle import REPORTS
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.files import read_sealed
from resdeploy.deploy.verification.reports.facts import manifest_facts

_LICENSE = re.compile(r"[a-z0-9.-]+")
_COLUMNS = ("variant", "ran on", "images", "top-1 % (95 %)", "drop in points (95 %)", "agreement %")
_LABELS_SHOWN = 100
# what markdown or HTML would obey
_OBEYED = re.compile(r"([\\`*_{}\[\]<>#|&])")


def read_verified(bundle: Path) -> dict[str, Any] | None:
    """What `verify` wrote last; None where it has not run, or wrote what is damaged."""
    try:
        return read_sealed(bundle / REPORTS / "verify.json")
    except (OSError, ValueError):
        return None


def model_card(
    manifest: Manifest, verified: Mapping[str, Any] | None, repository: str, *, license_id: str = ""
) -> str:
    """Markdown with a YAML head.

    Args:
        verified: the content of the bundle's reports/verify.json; None where there is none.
        license_id: of the weights, as the Hub writes it, e.g. "apache-2.0"; "" leaves it open.

    Raises:
        InputError: no licence is written like this.
    """
    if license_id and not _LICENSE.fullmatch(license_id):
        raise InputError(f"{license_id!r} is no licence as the Hub writes them, e.g. apache-2.0")
    name = repository.rpartition("/")[2]
    return "\n\n".join(
        (
            _head(manifest, license_id),
            f"# {_plain(name)}",
            "An image classifier as ONNX files, exported and checked by resdeploy."
            if manifest.labels
            else "A network as ONNX files, exported and checked by resdeploy.",
            _use(repository),
            "## Accuracy\n\n" + _accuracy(manifest, verified),
            "## How it was made\n\n" + _table(("", ""), manifest_facts(manifest)),
            *_list("Assumptions", manifest.assumptions),
            *_list("Classes", _labels(manifest)),
        )
    ) + "\n"  # fmt: skip


def _head(manifest: Manifest, license_id: str) -> str:
    task = "image-classification" if manifest.labels else "image-feature-extraction"
    lines = ["library_name: resdeploy", f"pipeline_tag: {task}", "tags: [onnx, resdeploy]"]
    return "\n".join(("---", *lines, *([f"license: {license_id}"] if license_id else ()), "---"))


def _use(repository: str) -> str:
    return (
        f"```console\n$ resdeploy predict hf://{repository} photo.jpg\n"
        f"$ resdeploy verify hf://{repository} --data photos/val\n```\n\n"
        "```python\nfrom resdeploy.deploy import load\n\n"
        f'with load("hf://{repository}") as classifier:\n    classifier.predict("photo.jpg")\n```'
    )


def _accuracy(manifest: Manifest, verified: Mapping[str, Any] | None) -> str:
    """The table of what was verified, and the sentence that closed it."""
    if verified is None:
        return "Not measured on labelled images: `resdeploy verify` has not run."
    hashes = {file.sha256 for file in manifest.variants.values()}
    found = verified["variants"]
    rows = [_row(name, row) for name, row in found.items() if row.get("sha256") in hashes]
    parts = [f"{_plain(verified['reason'])}. Compared with {_plain(verified['reference'])}."]
    if rows:
        parts.append(_table(_COLUMNS, rows))
    if len(rows) < len(found):
        left = len(found) - len(rows)
        parts.append(f"{left} of {len(found)} results are of earlier files and left out.")
    return "\n\n".join(parts if rows else parts[1:])


def _row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    right, lost = (_with_interval(row, key) for key in ("top1", "drop"))
    same = row.get("agreement")
    shared = "" if same is None else f"{same:.2f}"
    return name, row["backend"], str(row["images"]), right, lost, shared


def _with_interval(row: Mapping[str, Any], key: str) -> str:
    """A figure and its 95 % interval, as far as they were measured."""
    value, ends = row.get(key), row.get(f"{key}_ci95")
    if value is None:
        return ""
    return f"{value:.2f}" + (f" ({ends[0]:.2f} … {ends[1]:.2f})" if ends else "")


def _labels(manifest: Manifest) -> list[str]:
    shown = list(manifest.labels[:_LABELS_SHOWN])
    left = len(manifest.labels) - len(shown)
    return [*shown, *([f"and {left} more"] if left else [])]


def _list(title: str, items: Sequence[str]) -> tuple[str, ...]:
    return (f"## {title}\n\n" + "\n".join(f"- {_plain(item)}" for item in items),) if items else ()


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """A text that stays a text: on one line, nothing in it obeyed."""
    return _OBEYED.sub(r"\\\1", " ".join(str(text).split()))
