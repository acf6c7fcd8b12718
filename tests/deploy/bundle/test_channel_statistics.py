"""What channels were like in training lies in the bundle under a hash."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.bundle.bundle import read_bundle, write_manifest
from resdeploy.deploy.bundle.channel_statistics import (
    CHANNEL_STATISTICS,
    ChannelStatistics,
    read_channel_statistics,
    write_channel_statistics,
)
from resdeploy.deploy.errors import BundleError

_STATISTICS = {"conv1": ChannelStatistics(np.array([0.5, -1.25]), np.array([1.0, 0.0]))}


@pytest.fixture
def folder(flower_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle with `_STATISTICS` in it."""
    folder = Path(shutil.copytree(flower_bundle, tmp_path / "flowers.bundle"))
    manifest = read_bundle(folder).manifest
    write_manifest(folder, write_channel_statistics(folder, manifest, _STATISTICS))
    return folder


def test_what_is_written_is_read(folder: Path) -> None:
    (found,) = read_channel_statistics(read_bundle(folder)).items()
    assert found[0] == "conv1"
    np.testing.assert_array_equal(found[1].mean, [0.5, -1.25])
    np.testing.assert_array_equal(found[1].std, [1.0, 0.0])


def test_a_network_without_batch_norms_has_no_file(flower_bundle: Path, tmp_path: Path) -> None:
    manifest = read_bundle(flower_bundle).manifest
    assert write_channel_statistics(tmp_path, manifest, {}) is manifest
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_another_file_is_refused(folder: Path, damage: str) -> None:
    path = folder / CHANNEL_STATISTICS
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=CHANNEL_STATISTICS):
        read_channel_statistics(read_bundle(folder))
