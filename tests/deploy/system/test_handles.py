"""Files without a name, in memory or not, hold what is written and leave nothing."""

import os
import tempfile
from pathlib import Path

import pytest

from resdeploy.deploy.system.handles import READ_FLAGS, file_in_memory, flush


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_is_written_to_the_path_is_read_from_the_stream(
    in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create")
    with file_in_memory() as (path, content):
        path.write_bytes(b"answers")
        assert content.read() == b"answers"
        assert bool(list(tmp_path.iterdir())) != in_memory
    assert list(tmp_path.iterdir()) == []


def test_files_and_folders_can_be_flushed_and_a_missing_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    flush(tmp_path / "file")
    flush(tmp_path)
    with pytest.raises(FileNotFoundError):
        flush(tmp_path / "missing")


def test_a_pipe_without_a_writer_is_opened_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.close(os.open(tmp_path / "pipe", READ_FLAGS))
