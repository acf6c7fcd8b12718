"""What the page advises: the fastest of those that passed, and never one that failed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.verification.reports.recommendation import recommendation, tiles
from resdeploy.deploy.verification.verify import verify

WriteBundle = Callable[..., Path]

_BROKEN = np.array([-0.5, 0, 0], np.float32)


def _timed(**milliseconds: float) -> dict[str, list[dict[str, object]]]:
    return {
        "results": [
            {"variant": name.replace("_", "-"), "backend": "ort-cpu", "batch": 1, "p50_ms": ms}
            for name, ms in milliseconds.items()
        ]
    }


def test_the_fastest_that_passed_is_shipped(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    weights = dict.fromkeys(("fp32", "int8", "int8-cpu"), identity)
    bundle = write_bundle(tmp_path / "b", weights, bias={"int8": _BROKEN})
    report = verify(bundle, data=colours)
    found = recommendation(report, _timed(fp32=8.0, int8=1.0, int8_cpu=4.0))
    assert found.startswith("Ship int8-cpu: 2.0× faster, ")
    assert found.endswith("0.00 points against fp32.onnx. Do not ship int8.")
    shown = {tile.name: tile for tile in tiles(report, _timed(fp32=8.0, int8_cpu=4.0))}
    assert shown["int8-cpu"].faster == pytest.approx(2) and shown["int8"].milliseconds is None
    assert (shown["fp32"].drop, shown["int8"].verdict) == ("reference", "fail")


def test_where_all_failed_nothing_is_shipped(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity}, bias={"fp32": _BROKEN})
    report = verify(bundle, data=colours, min_top1=90)
    assert recommendation(report, None) == "Do not ship: every variant failed a check."
