"""Writes docs/licences.md from the metadata of what is installed here.

    python examples/dependency_licences.py

Run it where all extras are installed, with Python 3.11 or newer. Nothing of these libraries is
copied into the wheel.
"""

import re
from importlib.metadata import (
    PackageMetadata,
    PackageNotFoundError,
    distribution,
    metadata,
    requires,
)
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ROOT = Path(__file__).resolve().parents[1]
PAGE = _ROOT / "docs" / "licences.md"
_EXTRAS = (
    *("cpu", "runtime", "export", "serve", "report", "sign", "heic", "hub", "ray"),
    *("tensorrt-rtx", "tensorrt"),
)
_LONGEST = 60
# what their makers' pages say, where the metadata is not installed here
_NOT_INSTALLED = {
    "onnxruntime": "MIT",
    "tensorrt": "NVIDIA's, proprietary",
    "ray": "Apache-2.0",
    "fsspec": "BSD-3-Clause",
}
_HEAD = """# Licences of the dependencies

resdeploy is under the Apache License 2.0. The wheel holds no code of others; what `pip` brings
beside it, by the extra that brings it first (with all that it needs in turn), is under these
licences, as the packages' own metadata says. Written by `examples/dependency_licences.py`; a
release also has an SBOM (CycloneDX) with the exact versions.

| package | extra | licence |
|---|---|---|
"""


def licence_of(found: PackageMetadata) -> str:
    """The licence as an SPDX expression, else by classifiers, else a short text of its own."""
    if "License-Expression" in found:
        return str(found["License-Expression"])
    classified = [
        text.rpartition("::")[2].strip().replace(" License", "")
        for text in found.get_all("Classifier") or ()
        if text.startswith("License ::") and text.rpartition("::")[2].strip() != "OSI Approved"
    ]
    if classified:
        return ", ".join(sorted(set(classified)))
    words = " ".join(" ".join(found.get_all("License") or ()).split())
    return words if 0 < len(words) <= _LONGEST else "see its metadata"


def rows() -> list[tuple[str, str, str]]:
    """Package, extra and licence, each package once."""
    found: dict[str, tuple[str, str, str]] = {}
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    brought = {"base": project["dependencies"], **{name: extras[name] for name in _EXTRAS}}
    for extra, texts in brought.items():
        for name in sorted(_closure(texts, extras)):
            found.setdefault(name, (name, extra, _licence(name)))
    return list(found.values())


def _licence(name: str) -> str:
    try:
        return licence_of(metadata(name))
    except PackageNotFoundError:
        return _NOT_INSTALLED[name]


def _closure(texts: list[str], extras: dict[str, list[str]]) -> set[str]:
    """The names of all that is needed here in turn; `extras` are resdeploy's own."""
    waiting, names = [*map(Requirement, texts)], set[str]()
    seen = set[tuple[str, str]]()
    while waiting:
        each = waiting.pop()
        name = canonicalize_name(each.name)
        for extra in ("", *sorted(each.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == "resdeploy":
                waiting += map(Requirement, extras.get(extra, []))
            else:
                names.add(name)
                waiting += _needed(each.name, extra)
    return {name for name in names if _is_known(name)}


def _needed(name: str, extra: str) -> list[Requirement]:
    try:
        texts = requires(name) or []
    except PackageNotFoundError:
        return []
    found = map(Requirement, texts)
    return [r for r in found if r.marker is None or r.marker.evaluate({"extra": extra})]


def _is_known(name: str) -> bool:
    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return name in _NOT_INSTALLED


def main() -> None:
    """Write the page."""
    table = "".join(f"| {' | '.join(re.sub('[|]', '/', c) for c in row)} |\n" for row in rows())
    PAGE.write_text(_HEAD + table, encoding="utf-8")


if __name__ == "__main__":
    main()
