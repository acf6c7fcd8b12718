"""Images are found, opened or refused with one line, and decoded ahead in order."""

import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, features

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.files import (
    LabelledImage,
    find_image_names,
    find_images,
    labelled_images,
    open_image,
)


def _image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2)).save(path)
    return path


def _refused(path: Path) -> str:
    with pytest.raises(InputError) as info:
        open_image(path)
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


def test_bad_images_say_why_in_one_line(tmp_path: Path, photographs: list[Image.Image]) -> None:
    def file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    photographs[0].save(tmp_path / "whole.jpg")
    photographs[0].save(tmp_path / "whole.png")
    jpeg, png = ((tmp_path / name).read_bytes() for name in ("whole.jpg", "whole.png"))
    assert _refused(file("empty.jpg", b"")) == "the file is empty"
    assert _refused(file("text.jpg", b"hello\n" * 99)).startswith("not an image")
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
def test_a_image_without_permission(tmp_path: Path) -> None:
    path = _image(tmp_path / "secret.png")
    path.chmod(0)
    assert _refused(path) == "cannot be read: Permission denied"


def test_odd_but_whole_images_open(tmp_path: Path) -> None:
    for size in [(1, 1), (1, 60_000), (60_000, 1)]:
        path = tmp_path / f"{size[0]}.png"
        Image.new("L", size, 7).save(path)
        image = open_image(path)
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", size, (7, 7, 7))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "AVIF"])
def test_damaged_images_never_raise_anything_else(
    kind: str, tmp_path: Path, photographs: list[Image.Image]
) -> None:
    """Every ninth byte flipped in turn, and cut there: an image or an InputError."""
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / "image"
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
                assert open_image(path).mode == "RGB"
            except InputError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused


# --- finding


def test_folders_are_searched_in_order_without_hidden_files(tmp_path: Path) -> None:
    wanted = [
        _image(tmp_path / "B.JPG"),
        _image(tmp_path / "a.png"),
        _image(tmp_path / "sub" / "deep" / "c.webp"),
        _image(tmp_path / "sub.d" / "d.TIFF"),
    ]
    _image(tmp_path / ".hidden.png")
    _image(tmp_path / "._a.png")
    _image(tmp_path / ".ipynb_checkpoints" / "a.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.jpg").mkdir()
    assert find_images([tmp_path]) == sorted(wanted)


def test_the_order_is_that_of_paths_and_names_are_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/z.png", "a.png", "a-b/c.png", "a/b/x.png", "a/b.png", "Z/1.png", "~.png"):
        _image(tmp_path / name)
    for source in (".", "a", "./a/", "a//b"):
        found = find_images([source])
        expected = [p for p in Path(source).rglob("*.png")]
        assert found == sorted(expected) and find_image_names([source]) == [str(p) for p in found]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    _image(tmp_path / "elsewhere" / "a.png")
    data = tmp_path / "data"
    data.mkdir()
    (data / "roses").symlink_to(tmp_path / "elsewhere")
    (data / "circle").symlink_to(data)
    (data / "dead.jpg").symlink_to("nowhere")
    assert find_images([data]) == [data / "dead.jpg", data / "roses" / "a.png"]


def test_globs_files_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x/1.png", "x/2.jpg", "y/3.png", "y/z/4.png", "[odd].png"):
        _image(tmp_path / name)
    (tmp_path / "x" / "notes.txt").write_text("")

    def found(*sources: str) -> list[str]:
        return [str(path) for path in find_images(sources)]

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
        with pytest.raises(InputError, match="no images there"):
            find_images(["x/1.png", nothing])


# --- labels

_LABELS = ("daisy", "crane", "10", "crane", "tulips")


def _indices(source: Path, labels: tuple[str, ...] = _LABELS) -> list[int]:
    return [image.index for image in labelled_images(source, labels)]


def test_class_folders_by_label_or_index(tmp_path: Path) -> None:
    by_label, by_index = tmp_path / "by_label", tmp_path / "by_index"
    first = _image(by_label / "daisy" / "sub" / "a.png")
    _image(by_label / "tulips" / "b.png")
    _image(by_label / "loose.png")
    _image(by_label / ".cache" / "c.png")
    assert labelled_images(by_label, _LABELS)[0] == LabelledImage(first, 0)
    assert _indices(by_label) == [0, 4]
    for name in ("0000", "1", "003"):
        _image(by_index / name / "a.png")
    assert _indices(by_index) == [0, 3, 1]


def test_a_label_that_is_a_number_goes_before_an_index(tmp_path: Path) -> None:
    _image(tmp_path / "10" / "a.png")
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
    _image(tmp_path / folder / "a.png")
    _image(tmp_path / "daisy" / "a.png")
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
    assert labelled_images(source, _LABELS) == [
        LabelledImage(tmp_path / "a.png", 0),
        LabelledImage(tmp_path / "sub" / "b.png", 4),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "lists no images"),
        (b"path,label\n", "lists no images"),
        (b"a.png,daisy\nb.png\n", "no class for 'b.png', expected lines of the form path,label"),
        (b"\xff\xd8\xff\xe0 a jpeg", "not a folder or list of images"),
        (b"a.png,rose\n", "'rose' is not among"),
    ],
)
def test_lists_that_are_none(content: bytes, words: str, tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_bytes(content)
    with pytest.raises(InputError, match=words):
        labelled_images(source, _LABELS)


def test_labelled_images_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        labelled_images(tmp_path / "absent", _LABELS)
    with pytest.raises(InputError, match="no class folders with images in them"):
        labelled_images(tmp_path, _LABELS)
    _image(tmp_path / "loose.png")
    with pytest.raises(InputError, match="no class folders with images in them"):
        labelled_images(tmp_path, _LABELS)


@pytest.mark.realdata
def test_class_folders_of_the_real_photographs(shared_data: Path) -> None:
    from resdeploy.deploy.images.labels import read_labels

    flowers = read_labels(shared_data / "flowers_class_indices.json")
    images = labelled_images(shared_data / "flowers" / "val", flowers)
    assert len(images) == 367
    assert all(flowers[p.index] == p.path.parent.name for p in images)
    imagenet = read_labels(shared_data / "imagenet_class_indices.json")
    sample = labelled_images(shared_data / "imagenet-sample", imagenet)
    assert sorted(p.index for p in sample) == list(range(0, 1000, 2))
