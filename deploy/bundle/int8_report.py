"""Reads how each layer of a bundle's INT8 graphs came out, as `resdeploy quantize` measured it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.bundle import INT8_REPORT, read_bundle
from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.metrics.layer_error import UNSOUND_DB
from resdeploy.deploy.reading import read_json
from resdeploy.deploy.specs import REPAIRS_IN_WORDS

# What `table_row` gives after the layer's name; ">" aligns to the right (see `print_table`).
COLUMNS = ("operator", ">range", ">own dB", ">so far dB", ">share")
EXPLAINED = (
    "range: of the values that the layer's quantized input can hold, in 255 or 256 steps",
    "own dB: how far the layer's output is above the error that it adds itself (20 dB: a tenth)",
    "so far dB: the same with the errors of all layers before it, which later layers may mend",
    "share: its part of the errors that all layers add themselves: where accuracy goes",
    "moved: repairs scaled its channels on purpose, and the next layer undoes it",
)


def read_int8_layers(path: Path) -> dict[str, Any]:
    """`layers`: variant → rows; `repairs`: what was tried against the error, one line each.

    A row has name, op_type, low, high, scale, zero_point (None for a layer left float),
    weight_peak, own_db and whole_db (the layer's SQNR by itself and with all before it) and share
    (its part, 0 to 1, of all layers' own noise).

    Raises:
        BundleError: no bundle, or one without INT8 graphs.
    """
    file = read_bundle(path).file(INT8_REPORT) or path / INT8_REPORT
    try:
        content = read_json(file)
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
    # an error that no share is given for is none (see `calibration.layerwise`)
    moved = quantized and not row["share"] and row["own_db"] < UNSOUND_DB
    return [
        row["name"],
        row["op_type"],
        f"{row['low']:.4g} to {row['high']:.4g}" if quantized else "float",
        "moved" if moved else f"{row['own_db']:.1f}" if quantized else "",
        "" if moved else f"{row['whole_db']:.1f}",
        "" if moved else f"{row['share']:.1%}",
    ]


def kept_repairs(calibration: Mapping[str, Any]) -> str:
    """What repairs that were kept did, in words, as the manifest tells; "" for none."""
    rungs = [step["rung"] for step in calibration.get("repairs", ()) if step.get("accepted")]
    return ", ".join(REPAIRS_IN_WORDS.get(rung, rung) for rung in dict.fromkeys(map(str, rungs)))


def _line(step: Mapping[str, Any]) -> str:
    kept = "kept" if step["accepted"] else "not kept"
    before, after = step["before"]["sqnr_db"], step["after"]["sqnr_db"]
    return (
        f"{step['variant']}: {step['rung']} {step['detail']} ({before:.1f} to {after:.1f} dB, "
        f"{kept})"
    )
