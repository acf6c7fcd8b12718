"""`assert_accuracy` in a test of one's own: silent when it passes, telling when it fails."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.verification.assertions import assert_accuracy

WriteBundle = Callable[..., Path]

_STEP = 2 / 255


@pytest.fixture
def bundle(tmp_path: Path, write_bundle: WriteBundle, identity: Float32s) -> Path:
    """Six of 300 images flip: a drop of 2 points."""
    bias = {"int8": np.array([-6.5 * _STEP, 0, 0], np.float32)}
    return write_bundle(tmp_path / "b", {"fp32": identity, "int8": identity}, bias=bias)


def test_a_pass_and_an_undecided_gate_return_the_report(bundle: Path, colours: Path) -> None:
    assert assert_accuracy(bundle, data=colours, max_drop=5).verdict == "pass"
    assert assert_accuracy(bundle, data=colours, max_drop=2).verdict == "inconclusive"


def test_a_failure_names_every_failed_gate_and_all_figures(bundle: Path, colours: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_accuracy(bundle, data=colours, max_drop=2, min_top1=98.5, strict=True)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{bundle} compared with fp32.onnx on ort-cpu")
    assert [line.strip().partition(" is ")[0] for line in lines[:2]] == [
        "int8: top-1 drop",
        "int8: top-1",
    ]
    assert "variant fp32, backend ort-cpu, verdict pass" in lines[-2]
    assert "drop (95 % interval) +2.00" in lines[-1]


def test_a_missing_bundle_is_not_an_accuracy(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        assert_accuracy(tmp_path / "absent.bundle")
