"""A bundle is written whole or not at all, and a changed byte in it is noticed."""

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from resdeploy.deploy.bundle import (
    MANIFEST,
    check_file,
    check_target,
    new_bundle,
    read_bundle,
    replaced_file,
    write_manifest,
)
from resdeploy.deploy.errors import BundleError, InputError


@pytest.fixture
def bundle(flower_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage, alone in its folder."""
    (tmp_path / "home").mkdir()
    return Path(shutil.copytree(flower_bundle, tmp_path / "home" / "net.bundle"))


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _flip(path: Path, position: int, bits: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= bits
    path.write_bytes(content)


# --- reading


def test_reads_what_was_written(bundle: Path) -> None:
    read = read_bundle(bundle)
    assert read.manifest.labels[0] == "daisy"
    assert read.graph("fp32") == bundle / "fp32.onnx"
    write_manifest(bundle, read.manifest)
    assert read_bundle(bundle) == read


def test_one_flipped_byte_in_a_graph(bundle: Path) -> None:
    graph = bundle / "fp32.onnx"
    for position in (0, graph.stat().st_size // 2, graph.stat().st_size - 1):
        _flip(graph, position)
        with pytest.raises(BundleError, match=r"fp32\.onnx: altered since it was written: sha256"):
            read_bundle(bundle).graph("fp32")
        _flip(graph, position)
    assert read_bundle(bundle).graph("fp32")


def test_one_flipped_bit_in_the_manifest_never_passes_as_another_content(bundle: Path) -> None:
    """Each flip is refused in one line, or only changed the layout or the name of the hash."""
    file = bundle / MANIFEST
    before, manifest = file.read_bytes(), read_bundle(bundle).manifest
    passed = 0
    positions = range(0, len(before), 3)
    for position in positions:
        _flip(file, position, bits=1 << position % 7)
        try:
            assert read_bundle(bundle).manifest == manifest
            passed += 1
        except BundleError as error:
            assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
        file.write_bytes(before)
    assert passed < 0.25 * len(positions)  # blanks between the fields


def test_a_manifest_edited_on_purpose_can_be_used_without_its_hash(bundle: Path) -> None:
    fields = json.loads((bundle / MANIFEST).read_text())
    fields["labels"][0] = "oxeye daisy"
    (bundle / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(BundleError, match=r'altered since it was written: .* line "sha256" out'):
        read_bundle(bundle)
    del fields["sha256"]
    (bundle / MANIFEST).write_text(json.dumps(fields))
    assert read_bundle(bundle).manifest.labels[0] == "oxeye daisy"


def test_missing_and_shortened_files(bundle: Path) -> None:
    graph = bundle / "fp32.onnx"
    with pytest.raises(BundleError, match=r"no fp16 variant .* has fp32\): .* --precision fp16"):
        read_bundle(bundle).graph("fp16")
    with pytest.raises(BundleError, match=r"no int8 variant .*: make it with resdeploy quantize"):
        read_bundle(bundle).graph("int8")
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"bytes, expected \d+: export again"):
        read_bundle(bundle).graph("fp32")
    graph.unlink()
    with pytest.raises(BundleError, match="missing, though the manifest lists it"):
        read_bundle(bundle).graph("fp32")
    graph.mkdir()
    with pytest.raises(BundleError, match="missing"):
        check_file(graph, "")


def test_what_is_no_bundle(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle; make a bundle with"):
        read_bundle(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"no manifest\.json in it"):
        read_bundle(tmp_path)
    checkpoint = tmp_path / "net.pth"
    checkpoint.write_bytes(b"PK")
    with pytest.raises(BundleError, match=r"a file, expected .* resdeploy export .*net\.pth"):
        read_bundle(checkpoint)
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        (bundle / MANIFEST).write_bytes(content)
        with pytest.raises(BundleError, match=r"manifest\.json: cannot be read"):
            read_bundle(bundle)


# --- writing


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    for error in (ValueError("in the body"), KeyboardInterrupt()):
        with pytest.raises(type(error)), new_bundle(tmp_path / "a" / "net.bundle") as folder:
            (folder / "fp32.onnx").write_bytes(b"half")
            raise error
        assert not list((tmp_path / "a").iterdir())


def test_a_failure_leaves_the_old_bundle(bundle: Path) -> None:
    before = _content(bundle.parent)
    with pytest.raises(ValueError), new_bundle(bundle, overwrite=True) as folder:
        (folder / MANIFEST).write_text("new")
        raise ValueError
    assert _content(bundle.parent) == before


def test_overwrite_replaces_the_whole_bundle(bundle: Path) -> None:
    (bundle / "left-over.onnx").touch()
    with (
        pytest.raises(InputError, match="exists already: replace it with --overwrite"),
        new_bundle(bundle),
    ):
        pytest.fail("entered")
    with new_bundle(bundle, overwrite=True) as folder:
        (folder / MANIFEST).write_text("new")
        assert (bundle / "left-over.onnx").exists()  # until the very end
    assert _content(bundle.parent) == {"net.bundle/manifest.json": b"new"}


def test_an_interrupt_between_the_two_renames_brings_the_old_bundle_back(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _content(bundle.parent)
    rename = os.rename

    def interrupted(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            monkeypatch.undo()
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), new_bundle(bundle, overwrite=True) as folder:
        (folder / MANIFEST).write_text("new")
    assert _content(bundle.parent) == before


def test_permissions_are_the_users_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    with new_bundle(tmp_path / "net.bundle") as folder:
        (folder / MANIFEST).touch()
    modes = {stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("usual", "net.bundle")}
    assert len(modes) == 1


def test_targets_that_are_taken(bundle: Path, tmp_path: Path) -> None:
    check_target(tmp_path / "free", overwrite=False)
    check_target(bundle, overwrite=True)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").touch()
    file = tmp_path / "file"
    file.touch()
    for target in (photos, file):
        with pytest.raises(InputError, match="exists and is not a bundle"):
            check_target(target, overwrite=True)
    with (
        pytest.raises(InputError, match=r"cannot be written: (Not a directory|File exists)"),
        new_bundle(file / "net.bundle"),
    ):
        pytest.fail("entered")


def test_an_empty_folder_is_a_target_with_overwrite(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        check_target(tmp_path, overwrite=False)
    (tmp_path / "empty").mkdir()
    with new_bundle(tmp_path / "empty", overwrite=True) as folder:
        (folder / MANIFEST).touch()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_an_unreadable_file_of_the_users_is_not_blamed_on_the_bundle(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_bundle(tmp_path / "net.bundle"):
        (tmp_path / "absent.jpg").read_bytes()
    with (
        pytest.raises(InputError, match=r"net\.bundle: cannot be written: Is a directory"),
        new_bundle(tmp_path / "net.bundle") as folder,
    ):
        folder.write_bytes(b"")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file sizes gives EFBIG where a full disk gives ENOSPC."""
    script = textwrap.dedent(
        """
        import signal, sys
        from pathlib import Path
        from resdeploy.deploy.bundle import new_bundle
        from resdeploy.deploy.errors import InputError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            with new_bundle(Path(sys.argv[1])) as folder:
                (folder / "fp32.onnx").write_bytes(bytes(100_000))
        except InputError as error:
            print(error)
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "net.bundle"],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert result.stdout == f"{tmp_path / 'net.bundle'}: cannot be written: File too large\n"
    assert not list(tmp_path.iterdir())


# --- single files


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
