"""Pictures are found, opened or refused with one line, and decoded ahead in order."""

import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, features

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.pictures import (
    LabelledPicture,
    find_pictures,
    in_order,
    labelled_pictures,
    open_picture,
)


def _picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2)).save(path)
    return path


def _refused(path: Path) -> str:
    with pytest.raises(InputError) as info:
        open_picture(path)
    message = str(info.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def _bomb(path: Path, side_px: int) -> None:
    """A PNG that says it is huge; what decoding it takes is never written."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


# --- opening


def test_bad_pictures_say_why_in_one_line(tmp_path: Path, photographs: list[Image.Image]) -> None:
    def file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    photographs[0].save(tmp_path / "whole.jpg")
    photographs[0].save(tmp_path / "whole.png")
    jpeg, png = ((tmp_path / name).read_bytes() for name in ("whole.jpg", "whole.png"))
    assert _refused(file("empty.jpg", b"")) == "the file is empty"
    assert _refused(file("text.jpg", b"hello\n" * 99)).startswith("not a picture")
    assert "truncated" in _refused(file("cut.jpg", jpeg[: len(jpeg) // 2]))
    assert "cannot be decoded" in _refused(file("cut.png", png[: len(png) // 2]))
    assert _refused(tmp_path / "absent.jpg") == "no such file"
    (tmp_path / "dead.jpg").symlink_to("nowhere.jpg")
    assert _refused(tmp_path / "dead.jpg") == "no such file"
    (tmp_path / "folder.jpg").mkdir()
    assert _refused(tmp_path / "folder.jpg") == "cannot be read: Is a directory"
    assert _refused(tmp_path / "whole.jpg" / "x.jpg") == "cannot be read: Not a directory"
    _bomb(tmp_path / "bomb.png", 30_000)
    assert "too many pixels" in _refused(tmp_path / "bomb.png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read it all")
def test_a_picture_without_permission(tmp_path: Path) -> None:
    path = _picture(tmp_path / "secret.png")
    path.chmod(0)
    assert _refused(path) == "cannot be read: Permission denied"


def test_odd_but_whole_pictures_open(tmp_path: Path) -> None:
    for size in [(1, 1), (1, 60_000), (60_000, 1)]:
        path = tmp_path / f"{size[0]}.png"
        Image.new("L", size, 7).save(path)
        image = open_picture(path)
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", size, (7, 7, 7))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "AVIF"])
def test_damaged_pictures_never_raise_anything_else(
    kind: str, tmp_path: Path, photographs: list[Image.Image]
) -> None:
    """Every ninth byte flipped in turn, and cut there: an image or an InputError."""
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / "picture"
    photographs[1].resize((24, 16)).save(path, kind)
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), max(9, len(whole) // 120)):
        flipped = bytes([whole[position] ^ 0xFF])
        for content in (
            whole[:position] + flipped + whole[position + 1 :],
            whole[:position],
        ):
            path.write_bytes(content)
            try:
                assert open_picture(path).mode == "RGB"
            except InputError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused


# --- finding


def test_folders_are_searched_in_order_without_hidden_files(tmp_path: Path) -> None:
    wanted = [
        _picture(tmp_path / "B.JPG"),
        _picture(tmp_path / "a.png"),
        _picture(tmp_path / "sub" / "deep" / "c.webp"),
        _picture(tmp_path / "sub.d" / "d.TIFF"),
    ]
    _picture(tmp_path / ".hidden.png")
    _picture(tmp_path / "._a.png")
    _picture(tmp_path / ".ipynb_checkpoints" / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.jpg").mkdir()
    assert find_pictures([tmp_path]) == sorted(wanted)


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    _picture(tmp_path / "elsewhere" / "a.png")
    data = tmp_path / "data"
    data.mkdir()
    (data / "roses").symlink_to(tmp_path / "elsewhere")
    (data / "circle").symlink_to(data)
    (data / "dead.jpg").symlink_to("nowhere")
    assert find_pictures([data]) == [data / "dead.jpg", data / "roses" / "a.png"]


def test_globs_files_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x/1.png", "x/2.jpg", "y/3.png", "y/z/4.png", "[odd].png"):
        _picture(tmp_path / name)
    (tmp_path / "x" / "notes.txt").write_text("")

    def found(*sources: str) -> list[str]:
        return [str(path) for path in find_pictures(sources)]

    assert found("x/*") == ["x/1.png", "x/2.jpg"]
    assert found("?") == ["x/1.png", "x/2.jpg", "y/3.png", "y/z/4.png"]
    assert sorted(found("**")) == sorted(found("."))
    assert found("y/**/*.png") == ["y/3.png", "y/z/4.png"]
    assert found("[odd].png") == ["[odd].png"]  # a file of that name goes before the glob
    assert found("missing.png", "x/notes.txt", "x/1.png") == [
        "missing.png",
        "x/notes.txt",
        "x/1.png",
    ]
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "*.webp", "empty/*"):
        with pytest.raises(InputError, match="no pictures there"):
            find_pictures(["x/1.png", nothing])


# --- labels

_LABELS = ("daisy", "crane", "10", "crane", "tulips")


def _indices(source: Path, labels: tuple[str, ...] = _LABELS) -> list[int]:
    return [picture.index for picture in labelled_pictures(source, labels)]


def test_class_folders_by_label_or_index(tmp_path: Path) -> None:
    by_label, by_index = tmp_path / "by_label", tmp_path / "by_index"
    first = _picture(by_label / "daisy" / "sub" / "a.png")
    _picture(by_label / "tulips" / "b.png")
    _picture(by_label / "loose.png")
    _picture(by_label / ".cache" / "c.png")
    assert labelled_pictures(by_label, _LABELS)[0] == LabelledPicture(first, 0)
    assert _indices(by_label) == [0, 4]
    for name in ("0000", "1", "003"):
        _picture(by_index / name / "a.png")
    assert _indices(by_index) == [0, 3, 1]


def test_a_label_that_is_a_number_goes_before_an_index(tmp_path: Path) -> None:
    _picture(tmp_path / "10" / "a.png")
    assert _indices(tmp_path) == [2]


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("crane", "'crane' has several indices in the labels: name its folders by class index"),
        ("rose", r"class 'rose' is not among the 5 labels of the bundle \(daisy, crane"),
        ("5", "class '5' is not among"),
        ("-1", "class '-1' is not among"),
    ],
)
def test_class_folders_that_name_no_class(folder: str, words: str, tmp_path: Path) -> None:
    _picture(tmp_path / folder / "a.png")
    _picture(tmp_path / "daisy" / "a.png")
    with pytest.raises(InputError, match=words):
        _indices(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.png,daisy\nsub/b.png,tulips\n",
        "a.png,0\r\n\r\nsub/b.png,04\r\n",
        '\ufeffPath,Label\n"a.png", "daisy"\n sub/b.png , tulips \n',
    ],
)
def test_lists_of_path_and_label(text: str, tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_bytes(text.encode())
    assert labelled_pictures(source, _LABELS) == [
        LabelledPicture(tmp_path / "a.png", 0),
        LabelledPicture(tmp_path / "sub" / "b.png", 4),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no lines in it"),
        (b"path,label\n", "no lines in it"),
        (b"a.png,daisy\nb.png\n", "got 'b.png', expected lines of the form path,label"),
        (b"\xff\xd8\xff\xe0 a jpeg", "cannot be read as a list"),
        (b"a.png,rose\n", "'rose' is not among"),
    ],
)
def test_lists_that_are_none(content: bytes, words: str, tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_bytes(content)
    with pytest.raises(InputError, match=words):
        labelled_pictures(source, _LABELS)


def test_labelled_pictures_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        labelled_pictures(tmp_path / "absent", _LABELS)
    with pytest.raises(InputError, match="no class folders with pictures in them"):
        labelled_pictures(tmp_path, _LABELS)
    _picture(tmp_path / "loose.png")
    with pytest.raises(InputError, match="no class folders with pictures in them"):
        labelled_pictures(tmp_path, _LABELS)


@pytest.mark.realdata
def test_class_folders_of_the_real_photographs(shared_data: Path) -> None:
    from resdeploy.deploy.labels import read_labels

    flowers = read_labels(shared_data / "flowers_class_indices.json")
    pictures = labelled_pictures(shared_data / "flowers" / "val", flowers)
    assert len(pictures) == 367
    assert all(flowers[p.index] == p.path.parent.name for p in pictures)
    imagenet = read_labels(shared_data / "imagenet_class_indices.json")
    sample = labelled_pictures(shared_data / "imagenet-sample", imagenet)
    assert sorted(p.index for p in sample) == list(range(0, 1000, 2))


# --- in_order


def test_in_order_keeps_the_order_whatever_finishes_first() -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.003 * (5 - number % 5))
        return number

    assert list(in_order(slow_at_first, range(40), threads=4)) == list(range(40))
    assert list(in_order(slow_at_first, [], threads=4)) == []


def test_in_order_never_runs_further_ahead_than_it_says() -> None:
    lock = threading.Lock()
    started = consumed = most = 0

    def job(number: int) -> int:
        nonlocal started, most
        with lock:
            started += 1
            most = max(most, started - consumed)
        return number

    for _ in in_order(job, range(60), threads=3, ahead=5):
        time.sleep(0.002)
        with lock:
            consumed += 1
    assert started == consumed == 60
    assert 5 <= most <= 6  # five waiting, and the one being handed over


def test_in_order_raises_in_turn_and_ends_its_threads() -> None:
    def job(number: int) -> int:
        if number == 3:
            raise InputError("three")
        return number

    results = in_order(job, range(50), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="three"):
        next(results)
    assert next(results, None) is None
    assert not [t for t in threading.enumerate() if t.name.startswith("resdeploy")]


def test_closing_in_order_early_abandons_the_rest() -> None:
    started: list[int] = []
    results = in_order(started.append, range(1000), threads=2)
    next(results)
    results.close()  # type: ignore[attr-defined]  # a generator
    count = len(started)
    assert count <= 6
    assert not [t for t in threading.enumerate() if t.name.startswith("resdeploy")]
    assert len(started) == count


def test_jobs_that_raise_end_in_order() -> None:
    def jobs() -> Iterator[int]:
        yield from range(3)
        raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        list(in_order(abs, jobs(), threads=2))
