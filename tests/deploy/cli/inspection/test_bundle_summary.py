"""A bundle in words: figures where they were promised, nothing where there are none."""

from dataclasses import replace
from pathlib import Path

import pytest

from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.cli.inspection.bundle_summary import print_bundle
from resdeploy.deploy.cli.inspection.describe import describe


def test_figures_assumptions_and_repairs(
    flower_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repairs = [{"rung": "centre", "accepted": True}, {"rung": "float", "accepted": False}]
    manifest = replace(
        read_bundle(flower_bundle).manifest,
        proofs={
            "parity": {"images": 9, "max_abs": 2e-5},
            "batchnorm_fold": {"folded": 3, "left": 1},
            "promised": {"fp32": {"images": None, "recorded": {"sqnr_db": 60, "agreement": 99.5}}},
        },
        calibration={"method": "mse", "images": 72, "repairs": repairs},
        assumptions=tuple(f"it is {number}" for number in range(7)),
    )
    print_bundle(flower_bundle, manifest, describe(flower_bundle))
    output, errors = capsys.readouterr()
    proof = "PyTorch: logits within 2e-05 on 9 images, 3 batch norms folded, 1 left"
    int8 = "ranges by mse from 72 images; repaired by moving the middle of activations to zero"
    for words in (proof, int8, "over 60", "99.5 %"):
        assert words in output
    assert errors.count("assumed: ") == 5 and "and 2 more assumptions" in errors
