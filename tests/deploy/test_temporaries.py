"""What is being made has an owner; what nobody owns any more is swept, and nothing else."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resdeploy.deploy.temporaries import (
    aside,
    has_owner,
    left_aside,
    one_at_a_time,
    sweep,
    temporary_file,
    temporary_folder,
)


@pytest.fixture(scope="module")
def dead_process() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_temporary_stands_beside_its_place_and_is_owned(tmp_path: Path) -> None:
    place = tmp_path / "flowers.bundle"
    with temporary_folder(place) as folder, temporary_file(place) as file:
        assert folder.is_dir() and file.is_file() and folder.parent == file.parent == tmp_path
        assert has_owner(folder) and has_owner(file)
        sweep(tmp_path)
        assert folder.is_dir() and file.is_file()
    assert list(tmp_path.iterdir()) == []


def test_what_was_renamed_stays_and_what_was_left_by_an_error_goes(tmp_path: Path) -> None:
    place = tmp_path / "report.json"
    with temporary_file(place) as file:
        file.write_text("kept")
        file.rename(place)
    assert place.read_text() == "kept"
    with pytest.raises(ZeroDivisionError), temporary_folder(tmp_path / "b") as folder:
        (folder / "half").write_text("done")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [place]


def test_only_what_has_lost_its_owner_is_swept(tmp_path: Path, dead_process: int) -> None:
    old = time.time() - 3600
    names = (f".a.new.{dead_process}.0f", f".b.old.{dead_process}.1e", ".a.new.note", "a")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("content")
        os.utime(tmp_path / name, (old, old))
    sweep(tmp_path, "a")
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names[2:])
    sweep(tmp_path / "missing")


def test_a_running_process_may_be_about_to_lock_what_it_made(tmp_path: Path) -> None:
    (tmp_path / f".a.new.{os.getpid()}.0f").mkdir()
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))  # it had more than enough time
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_steps_aside_is_found_by_its_place(tmp_path: Path) -> None:
    place = tmp_path / "flowers.bundle"
    with temporary_folder(place) as folder:
        old = aside(folder)
        old.mkdir()
        assert left_aside(place) == [old] and left_aside(tmp_path / "other") == []
        assert has_owner(old)  # its owner works on the new one
        folder.rename(place)
    assert list(tmp_path.iterdir()) == [place]


def test_processes_take_turns_in_a_folder(tmp_path: Path) -> None:
    program = (
        "import fcntl, os, sys\n"
        "lock = os.open(sys.argv[1], os.O_RDONLY)\n"
        "try: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')\n"
        "except BlockingIOError: print('held')"
    )

    def other() -> str:
        words = [sys.executable, "-c", program, str(tmp_path)]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    with one_at_a_time(tmp_path):
        assert other() == "held"
    assert other() == "free"
