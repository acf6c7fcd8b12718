"""The table of float variants names what they were compared with."""

from dataclasses import replace
from pathlib import Path

import pytest

from resdeploy.deploy.bundle.bundle import ADOPTION, read_bundle
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.cli.conversion.float_report import print_float_report


@pytest.fixture
def manifest(flower_bundle: Path) -> Manifest:
    parity = {"images": 9, "image_source": "data", "max_abs": 2e-5, "top1_agreement": 100.0}
    proofs = {"batchnorm_fold": {"folded": 3, "left": 1}, "parity": parity}
    return replace(read_bundle(flower_bundle).manifest, proofs=proofs, assumptions=("it is so",))


def test_pytorch_and_its_accuracy(manifest: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    print_float_report(Path("a.bundle"), manifest, {"pytorch": 86.1, "fp32": 86.1})
    output, errors = capsys.readouterr()
    for words in ("PyTorch top-1", "86.10 %", "max |Δ| to PyTorch", "3 folded, 1 left",
                  "your 9 images", "2e-05"):  # fmt: skip
        assert words in output
    assert errors == "assumed: it is so\n"


def test_an_adopted_graph(manifest: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    adopted = replace(manifest, proofs={**manifest.proofs, ADOPTION: {}})
    print_float_report(Path("a.bundle"), adopted, {"original": 50.0, "fp32": 50.0})
    output = capsys.readouterr().out
    assert "the adopted graph top-1" in output and "PyTorch" not in output
