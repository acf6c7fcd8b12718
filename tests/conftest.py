"""Fixtures shared by the whole suite: where the real data is, and tiny real pictures."""

from pathlib import Path

import pytest

_SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real checkpoints and photographs; tests marked `realdata` skip without it."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("real checkpoints and photographs (../shared/data) are not on this machine")
    return _SHARED_DATA
