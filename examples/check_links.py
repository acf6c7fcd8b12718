"""Asks every web address in the pages whether it is there: `make links`.

Links between files are checked by the tests and by `make docs`; this needs the network. An address
that answers 404 or 410 is gone. Whatever else goes wrong (no network, a refusal, a time-out) is
told, and not held against the page.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[1]
_TIMEOUT_S = 20
_GONE = (404, 410)
_LINK = re.compile(r"https?://[^\s)<>\"'`|]+")
_OWN = re.compile(r"https?://(127\.0\.0\.1|localhost)\b")


def pages() -> list[Path]:
    """All Markdown pages and llms.txt."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "docs" / "llms.txt"])


def addresses(files: Iterable[Path]) -> dict[str, str]:
    """Every web address with the page that has it first; those of one's own machine left out."""
    found: dict[str, str] = {}
    for file in files:
        for link in _LINK.findall(file.read_text(encoding="utf-8")):
            link = link.rstrip(".,:;")
            if not _OWN.match(link) and "…" not in link:
                found.setdefault(link, file.name)
    return found


def answer(link: str) -> str:
    """Whether it is there: "ok", "gone: CODE" or "not known: REASON"."""
    try:
        with urlopen(Request(link, headers={"User-Agent": "resdeploy"}), timeout=_TIMEOUT_S):
            return "ok"
    except HTTPError as error:
        return f"{'gone' if error.code in _GONE else 'not known'}: {error.code}"
    except (URLError, OSError) as error:
        return f"not known: {error}"


def main() -> int:
    """Print what is not there; 1 if anything is gone."""
    found = addresses(pages())
    answers = {link: answer(link) for link in found}
    for link, page in found.items():
        if answers[link] != "ok":
            print(f"{page}: {link}: {answers[link]}")
    counts = [sum(text.startswith(word) for text in answers.values()) for word in ("ok", "gone")]
    print(f"{len(answers)} addresses: {counts[0]} answered, {counts[1]} are gone")
    return int(counts[1] > 0)


if __name__ == "__main__":
    sys.exit(main())
