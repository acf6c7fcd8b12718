"""A bundle that a test may change, and everything that lies in a folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def bundle(flower_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage, alone in its folder."""
    (tmp_path / "home").mkdir()
    return Path(shutil.copytree(flower_bundle, tmp_path / "home" / "net.bundle"))


@pytest.fixture
def content() -> Callable[[Path], dict[str, bytes]]:
    """A function: folder → the bytes of every file in it, by its path from there."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return read
