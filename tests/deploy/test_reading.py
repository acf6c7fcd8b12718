"""Only regular files are opened, and JSON is refused before it costs time or memory."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resdeploy.calibration.observe.images import choose_images, read_batches
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.errors import InputError, ResdeployError
from resdeploy.deploy.files import sha256_file
from resdeploy.deploy.images.files import find_images, open_image
from resdeploy.deploy.images.labels import read_labels
from resdeploy.deploy.images.lists import read_image_list
from resdeploy.deploy.images.preprocess import named, read_preprocess
from resdeploy.deploy.reading import open_regular, parse_json, read_json
from resdeploy.export.checkpoint.read import read_checkpoint


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """A named pipe that nobody writes to; who waits for it is interrupted."""

    def late(*_: object) -> None:
        raise AssertionError("waited for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    yield path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_what_is_no_regular_file_is_refused_at_once(pipe: Path, tmp_path: Path) -> None:
    for path, words in [
        (pipe, "a named pipe, expected a regular file"),
        (Path("/dev/zero"), "a device, expected a regular file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "absent", "No such file"),
    ]:
        with pytest.raises(OSError, match=words):
            open_regular(path)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"x")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"x"


@pytest.mark.parametrize(
    "read",
    [
        read_checkpoint,
        open_image,
        read_labels,
        read_image_list,
        read_preprocess,
        choose_images,
    ],
)
def test_no_reader_waits_for_a_pipe(read: Callable[[Path], object], pipe: Path) -> None:
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(ResdeployError, match="expected a regular file"):
            read(path)


def test_a_pipe_and_a_dangling_link_in_a_folder_are_one_row_each(
    pipe: Path, image_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(sorted(image_folder.iterdir())[:22]):
        for copy in range(2):
            (folder / f"{number}_{copy}.jpg").symlink_to(image)
    pipe.rename(folder / "pipe.jpg")
    (folder / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    reasons = []
    for path in find_images([folder]):
        try:
            open_image(path)
        except InputError as error:
            reasons.append(str(error).partition("images/")[2])
    assert reasons == [
        "dangling.jpg: no such file",
        "pipe.jpg: cannot be read: a named pipe, expected a regular file",
    ]
    chosen = choose_images(folder)
    assert sum(map(len, read_batches(chosen.paths, named("imagenet", 32)))) == 44


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested more than 64 deep"),
        ("[" * 70 + "]" * 70, "nested more than 64 deep"),
        ('{"a":' * 70 + "1" + "}" * 70, "nested more than 64 deep"),
        ("9" * 5000, "an integer of 5000 digits"),
        ("{", "Expecting property name"),
    ],
)
def test_json_that_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_json(tmp_path / "manifest.json")
    with pytest.raises(ResdeployError, match=words):
        read_bundle(tmp_path)
    for read in (read_labels, read_preprocess):
        with pytest.raises(InputError, match=words):
            read(tmp_path / "manifest.json")


def test_json_that_is_read(tmp_path: Path) -> None:
    text = "[" * 64 + "]" * 64
    assert str(parse_json(text)) == text
    values = {"a": [1, -2, 3.5, None, True, {"b": "]"}], "c": int("9" * 99)}
    (tmp_path / "a.json").write_text(json.dumps(values))
    assert read_json(tmp_path / "a.json") == values
    (tmp_path / "a.json").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        read_json(tmp_path / "a.json")


def test_hashing_a_device_does_not_go_on_for_ever() -> None:
    with pytest.raises(OSError, match="a device"):
        sha256_file(Path("/dev/zero"))
