"""Two releases: paired on the same images, with other labels, other networks, saved answers."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.cli.verify import verify as command
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.verification.release import find_release
from resdeploy.deploy.verification.reports.report import VerifyReport
from resdeploy.deploy.verification.verify import verify

WriteBundle = Callable[..., Path]

_STEP = 2 / 255


def _wrong(images: int) -> dict[str, Float32s]:
    return {"fp32": np.array([-(images + 0.5) * _STEP if images else 0, 0, 0], np.float32)}


@pytest.fixture
def old(tmp_path: Path, write_bundle: WriteBundle, identity: Float32s) -> Path:
    return write_bundle(tmp_path / "v1.bundle", {"fp32": identity}, bias=_wrong(2))


@pytest.fixture
def new(tmp_path: Path, write_bundle: WriteBundle, identity: Float32s) -> Path:
    return write_bundle(tmp_path / "v2.bundle", {"fp32": identity}, bias=_wrong(40))


def _against(report: VerifyReport) -> dict[str, str]:
    return {g.name: g.verdict for g in report.gates if g.name.startswith("against")}


def test_a_worse_release_fails_against_the_old_one_and_its_flips_are_listed(
    old: Path, new: Path, colours: Path
) -> None:
    report = verify(new, data=colours, against=old)
    assert _against(report)["against"] == "fail"
    assert re.search(r": fp32 lost 1[12]\.\d\d points against v1.bundle \(limit 1\)", report.reason)
    (row,) = report.variants
    assert (row.compared_with, len(row.flips)) == ("v1.bundle", 38)
    assert report.evaluation is not None
    assert {report.evaluation.paths[f.position].parent.name for f in row.flips} == {"red"}
    found = report.to_json()["against"]
    assert found["shared"] == 300 and found["variants"]["fp32"]["drop"] == pytest.approx(12.6667)
    # the other way round it is a gain (of a network whose confidence is a third for all images)
    assert _against(verify(old, data=colours, against=new))["against"] == "pass"


def test_a_lone_graph_and_saved_answers_stand_for_their_release(
    old: Path, new: Path, colours: Path, tmp_path: Path
) -> None:
    from click.testing import CliRunner

    lone = Path(shutil.copy(old / "fp32.onnx", tmp_path / "v1.onnx"))
    assert verify(new, data=colours, against=lone).reason.endswith("v1.onnx (limit 1)")
    saved = tmp_path / "v1.json"
    CliRunner().invoke(command, [str(old), "--data", str(colours), "--save-baseline", str(saved)])
    assert verify(new, data=colours, against=saved).reason.endswith("v1.json (limit 1)")


def test_classes_are_found_by_name_in_any_order(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, new: Path, colours: Path
) -> None:
    order = [2, 0, 1]
    labels = ("blue", "red", "green")
    turned = write_bundle(tmp_path / "t.bundle", {"fp32": identity[order]}, labels=labels)
    report = verify(new, data=colours, against=turned)
    found = report.to_json()["against"]["variants"]["fp32"]
    assert found["top1_baseline"] == 100 and found["flips"]["lost"] == 40


def test_images_of_classes_that_the_old_release_lacks_are_left_out(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, new: Path, colours: Path
) -> None:
    labels = ("red", "green", "violet")
    other = write_bundle(tmp_path / "o.bundle", {"fp32": identity}, labels=labels)
    report = verify(new, data=colours, against=other)
    assert report.to_json()["against"]["shared"] == 200
    assert (
        "o.bundle: compared on 200 images; its classes lack blue, so 100 images were left out; "
        "an answer of violet, which the bundle lacks, counts as wrong"
    ) in report.notes


def test_a_release_of_something_else_is_refused(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, new: Path, colours: Path
) -> None:
    other = write_bundle(tmp_path / "o.bundle", {"fp32": identity}, labels=("a", "b", "c"))
    with pytest.raises(InputError, match=r"none of its classes \(a, b, c, …\) is among"):
        find_release(other, read_bundle(new).manifest)
    with pytest.raises(InputError, match="comparing releases needs images: add --data"):
        verify(new, against=other)
