"""`resdeploy history` as a user sees it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.cli.history import history
from resdeploy.deploy.cli.verify import verify

WriteBundle = Callable[..., Path]

_STEP = 2 / 255


def test_a_table_a_chart_and_the_first_loss(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    file = tmp_path / "history.jsonl"
    for wrong in (3, 40):
        bias = {"fp32": np.array([-(wrong + 0.5) * _STEP, 0, 0], np.float32)}
        bundle = write_bundle(tmp_path / f"{wrong}.bundle", {"fp32": identity}, bias=bias)
        done = CliRunner().invoke(
            verify, [str(bundle), "--data", str(colours), "--record", str(file)]
        )
        assert done.exit_code == 0, done.output
    result = CliRunner().invoke(history, [str(file)])
    shown = result.output
    assert result.stderr.startswith("read 2 results in ")
    assert result.stderr.splitlines()[1:] == [
        f"next: resdeploy verify BUNDLE --data DIR --record {file}",
        "  or: resdeploy verify BUNDLE --data DIR --explain",
    ]
    first, second = (line for line in shown.splitlines() if "●" in line)
    assert "99.00" in first and "worse" not in first and first.index("●") > second.index("●")
    assert "86.67" in second and second.endswith("◀ worse")
    assert "fp32: run 2 is the first that was worse beyond noise: 12.33 points below run 1" in shown
    told = json.loads(CliRunner().invoke(history, [str(file), "--json"]).stdout)["fp32"]
    assert [run["top1"] for run in told["runs"]] == pytest.approx([99.0, 86.67], abs=0.01)
    low, high = told["runs"][0]["top1_ci95"]
    assert low < 99 < high and told["first_worse"]["place"] == 1
