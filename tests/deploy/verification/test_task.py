"""What cannot be verified is refused before any image is decoded."""

from collections.abc import Callable
from pathlib import Path

import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.progress import silent
from resdeploy.deploy.verification.checks.limits import Limits
from resdeploy.deploy.verification.device.address import Device
from resdeploy.deploy.verification.task import Task, read_task

WriteBundle = Callable[..., Path]


def _task(
    bundle: Path,
    *,
    data: Path | None = None,
    baseline: Path | None = None,
    against: Path | None = None,
    limits: Limits | None = None,
    device: Device | None = None,
) -> Task:
    return read_task(bundle, data, baseline, against, limits or Limits(), device, 7, silent)


@pytest.fixture
def bundle(tmp_path: Path, write_bundle: WriteBundle, identity: Float32s) -> Path:
    return write_bundle(tmp_path / "b.bundle", {"fp32": identity})


def test_what_is_named_is_read(
    bundle: Path, tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    other = write_bundle(tmp_path / "old.bundle", {"fp32": identity})
    found = _task(bundle, data=colours, against=other)
    assert found.images is not None and len(found.images.paths) == 300
    assert found.images.truth is not None and found.images.truth.tolist().count(2) == 100
    assert (found.path, found.seed, found.baseline) == (bundle, 7, None)
    assert found.release is not None
    assert _task(bundle).images is None


def test_earlier_answers_need_images(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"old\.json: a baseline needs .*add --data"):
        _task(bundle, baseline=tmp_path / "old.json")
    with pytest.raises(InputError, match=r"old\.bundle: comparing releases needs .*add --data"):
        _task(bundle, against=tmp_path / "old.bundle")


def test_limits_without_what_they_are_about_are_refused(bundle: Path) -> None:
    with pytest.raises(InputError, match="--max-drop"):
        _task(bundle, limits=Limits(max_drop=1))
    device = Device("jetson")
    with pytest.raises(InputError, match="would time the line to jetson"):
        _task(bundle, limits=Limits(max_slower=10), device=device)


def test_a_bundle_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        _task(tmp_path / "missing.bundle")
