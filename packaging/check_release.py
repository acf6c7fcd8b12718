"""Says whether everything names the version that a tag is to release, and takes its notes.

    python packaging/check_release.py v0.2.0 [--notes FILE]

Ends with 1 and a line for each place that names another version, or when the changelog has no
dated section of it. With --notes the section's text is written to FILE.
"""

import argparse
import re
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_PLACES = {
    "pyproject.toml": r'^version = "([^"]+)"$',
    "CITATION.cff": r"^version: (\S+)$",
    "CHANGELOG.md": r"^## \[(\d[^\]]*)\] - \d{4}-\d{2}-\d{2}$",
    "packaging/conda-forge/recipe.yaml": r'^  version: "([^"]+)"$',
}


def differences(version: str, root: Path = _ROOT) -> list[str]:
    """A line for each place whose (newest) version is another."""
    found = []
    for place, pattern in _PLACES.items():
        named = re.search(pattern, (root / place).read_text(encoding="utf-8"), re.MULTILINE)
        if named is None or named[1] != version:
            found.append(f"{place}: names {named and named[1]}, expected {version}")
    return found


def notes(version: str, root: Path = _ROOT) -> str:
    """The text of a version's section in the changelog."""
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(
        rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.M | re.DOTALL
    )
    return "" if section is None else section[1].strip() + "\n"


def main() -> None:
    """Check, and write the notes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tag")
    parser.add_argument("--notes", type=Path)
    options = parser.parse_args()
    version = options.tag.removeprefix("v")
    wrong = differences(version)
    if wrong:
        sys.exit("\n".join(wrong))
    if options.notes is not None:
        options.notes.write_text(notes(version), encoding="utf-8")


if __name__ == "__main__":
    main()
