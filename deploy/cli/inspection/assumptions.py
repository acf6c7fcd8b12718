"""What weights cannot tell, in few lines."""

import re
from collections.abc import Sequence

_BY_KEY = re.compile(r"(?P<what>.*) \(change with --assume (?P<key>\w+)=\S+\)", re.DOTALL)


def in_short(assumptions: Sequence[str]) -> list[str]:
    """The sentences of a manifest, those that --assume changes as one."""
    found = [_BY_KEY.fullmatch(sentence) for sentence in assumptions]
    by_key = [match for match in found if match]
    if len(by_key) < 2:
        return list(assumptions)
    what = "; ".join(match["what"] for match in by_key)
    keys = ", ".join(match["key"] for match in by_key)
    others = [text for text, match in zip(assumptions, found, strict=True) if not match]
    return [*others, f"{what} (change with --assume KEY=VALUE; keys, in this order: {keys})"]
