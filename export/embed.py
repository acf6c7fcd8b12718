"""Writes what a lone ONNX file must know of itself into it: labels, preprocessing, proofs.

A proof is computed from the file that was written, and then belongs inside that same file. A
serialized protobuf message may be continued: parsers merge what follows, and repeated fields such
as `metadata_props` grow (protobuf encoding, "Last One Wins" and concatenation). So the metadata is
appended, and the graph that was proven stays untouched, byte for byte.
"""

from collections.abc import Mapping
from pathlib import Path

import onnx


def append_metadata(path: Path, entries: Mapping[str, str]) -> None:
    """Append `entries` to the `metadata_props` of the ONNX file at `path`, sorted by key."""
    tail = onnx.ModelProto()
    for key in sorted(entries):
        tail.metadata_props.add(key=key, value=entries[key])
    with path.open("ab") as file:
        file.write(tail.SerializeToString(deterministic=True))
