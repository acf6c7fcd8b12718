"""Reads how each layer of a bundle's INT8 graphs came out, as `resdeploy quantize` measured it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle import REPORTS, read_bundle
from resdeploy.deploy.errors import BundleError

REPORT = "int8.json"

# What `table_row` gives after the layer's name; ">" aligns to the right (see `print_table`).
COLUMNS = ("operator", ">range", ">scale", ">own dB", ">so far dB", ">share")


def read_int8_layers(path: Path) -> dict[str, Any]:
    """`layers`: variant → rows; `repairs`: what was tried against the error, one line each.

    A row has name, op_type, low, high, scale, zero_point (None for a layer left float),
    weight_peak, own_db and whole_db (the layer's SQNR by itself and with all before it) and share
    (its part, 0 to 1, of all layers' own noise).

    Raises:
        BundleError: no bundle, or one without INT8 graphs.
    """
    read_bundle(path)
    file = path / REPORTS / REPORT
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        steps = content["calibration"]["repairs"]
        return {"layers": content["layers"], "repairs": [_line(step) for step in steps]}
    except FileNotFoundError as error:
        raise BundleError(
            f"{path}: has no INT8 graphs: add them with resdeploy quantize {path} --calib DIR"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{file}: cannot be read ({error!r}): run resdeploy quantize again"
        ) from error


def table_row(row: Mapping[str, Any]) -> list[str]:
    """The cells of one layer: its name, then `COLUMNS`."""
    quantized = row["scale"] is not None
    return [
        row["name"],
        row["op_type"],
        f"{row['low']:.4g} to {row['high']:.4g}" if quantized else "float",
        f"{row['scale']:.4g}" if quantized else "",
        f"{row['own_db']:.1f}" if quantized else "",
        f"{row['whole_db']:.1f}",
        f"{row['share']:.1%}",
    ]


def _line(step: Mapping[str, Any]) -> str:
    kept = "kept" if step["accepted"] else "not kept"
    before, after = step["before"]["sqnr_db"], step["after"]["sqnr_db"]
    return (
        f"{step['variant']}: {step['rung']} {step['detail']} ({before:.1f} to {after:.1f} dB, "
        f"{kept})"
    )
