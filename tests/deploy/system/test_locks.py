"""A lock on a file or folder keeps others out until it is released; without locks nobody knows."""

from pathlib import Path

import pytest

from resdeploy.deploy.system import locks
from resdeploy.deploy.system.locks import hold, is_held, release, take


def test_what_is_taken_is_held_until_it_is_released(tmp_path: Path) -> None:
    assert is_held(tmp_path) is False and is_held(tmp_path / "missing") is False
    handle = take(tmp_path)
    assert is_held(tmp_path) is True
    release(handle)
    assert is_held(tmp_path) is False


def test_readers_share_and_a_writer_does_not(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with path.open("w") as one, path.open() as other:
        hold(one.fileno(), shared=True)
        hold(other.fileno(), shared=True)  # would wait for ever
        assert is_held(path) is True
    assert is_held(path) is False


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    handle = take(tmp_path)
    assert is_held(tmp_path / "link") is False
    release(handle)


def test_without_locks_it_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    assert take(tmp_path) is None and is_held(tmp_path) is None
    assert is_held(tmp_path / "missing") is False
    with (tmp_path / "file").open("w") as file:
        hold(file.fileno())
    release(None)
