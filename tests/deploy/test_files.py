"""Files appear whole or not at all, and what cannot be written is refused early."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.files import check_writable, replaced_file, sha256_file, write_text


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_replaced_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "report.csv"
    file.write_text("old")
    with pytest.raises(ValueError), replaced_file(file) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert _content(tmp_path) == {"report.csv": b"old"}
    with replaced_file(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert _content(tmp_path) == {"report.csv": b"new"}


def test_replaced_file_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for target, words in [
        (tmp_path / "file" / "x.csv", "Not a directory"),
        (tmp_path / "absent" / "x.csv", "No such file or directory"),
        (tmp_path / "folder", "Is a directory"),
    ]:
        with (
            pytest.raises(InputError, match=f"{target}: cannot be written: {words}"),
            replaced_file(target) as temporary,
        ):
            temporary.write_text("new")
    assert sorted(_content(tmp_path)) == ["file"]


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with replaced_file(pipe) as temporary:
            temporary.write_text("row")
        assert os.read(reader, 10) == b"row"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_write_text_replaces_a_file_and_feeds_a_device(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("old")
    write_text(tmp_path / "report.md", "grün")
    assert _content(tmp_path) == {"report.md": "grün".encode()}
    write_text(Path("/dev/null"), "gone")
    assert not Path("/dev/null").is_file()


def test_hashes_are_of_the_whole_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one piece
    (tmp_path / "x").write_bytes(content)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_what_cannot_be_written_is_refused_early(tmp_path: Path) -> None:
    check_writable(None, tmp_path / "a.xml", tmp_path / "b.md")
    for paths, words in [
        ((tmp_path / "absent" / "a.xml",), "no folder .*absent: make it first"),
        ((tmp_path,), "it is a folder"),
        ((tmp_path / "a", tmp_path / "a"), "named for two reports"),
        ((tmp_path / ("a" * 250),), "File name too long"),  # that of the temporary file beside it
    ]:
        with pytest.raises(InputError, match=words):
            check_writable(*paths)
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_and_the_file_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    link = tmp_path / "latest.csv"
    for target in (tmp_path / "kept" / "a.csv", Path("kept/a.csv"), Path("kept/new.csv")):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with replaced_file(link) as temporary:
            temporary.write_text("new")
        assert link.is_symlink() and link.read_text() == "new"
    assert _content(tmp_path / "kept") == {"a.csv": b"new", "new.csv": b"new"}


def test_our_own_stdout_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """`--csv /dev/stdout > file`: link and file stay, and nothing that was printed is lost."""
    program = (
        "from pathlib import Path\n"
        "from resdeploy.deploy.files import write_text\n"
        "print('before', flush=True)\n"
        f"for path in ('/dev/stdout', '{tmp_path}/link', '{tmp_path}/out'):\n"
        "    write_text(Path(path), 'report\\n')\n"
        "print('after')\n"
    )
    (tmp_path / "link").symlink_to("/dev/stdout")
    out = tmp_path / "out"
    with out.open("w") as stdout:
        inode = out.stat().st_ino
        subprocess.run([sys.executable, "-c", program], stdout=stdout, check=True)
    assert out.read_text() == "before\nreport\nreport\nreport\nafter\n"
    assert out.stat().st_ino == inode
    assert os.readlink("/dev/stdout") == "/proc/self/fd/1"
    assert os.readlink(tmp_path / "link") == "/dev/stdout"


def test_names_that_are_no_file(tmp_path: Path) -> None:
    for path in ("", "/", ".", str(tmp_path)):
        with pytest.raises(InputError, match=r"cannot be written: Is a directory"):
            write_text(Path(path), "x")
    with pytest.raises(InputError, match=r"/dev/full: cannot be written: No space left"):
        write_text(Path("/dev/full"), "x")


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".report.csv.new.{dead.pid}.00ff").write_text("half")
    kept = tmp_path / f".other.csv.new.{dead.pid}.00ff"
    kept.write_text("somebody else's")
    write_text(tmp_path / "report.csv", "whole")
    assert sorted(_content(tmp_path)) == sorted((kept.name, "report.csv"))


def test_two_writers_do_not_sweep_each_other(tmp_path: Path) -> None:
    with replaced_file(tmp_path / "a") as one:
        one.write_text("1")
        with replaced_file(tmp_path / "a") as other:
            other.write_text("2")
        assert one.read_text() == "1"
    assert _content(tmp_path) == {"a": b"1"}
