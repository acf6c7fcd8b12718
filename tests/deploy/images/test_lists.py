"""One reader for every list of images: headings, blank lines, relative paths, missing classes."""

from pathlib import Path

import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.lists import read_image_list


@pytest.mark.parametrize("heading", ["", "path,label\n", "File,Class\n", "filename\n", "image,y\n"])
def test_a_heading_may_stand_first(heading: str, tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_text(heading + "a.png,daisy\n\nsub/b.png\n")
    assert read_image_list(source) == [(tmp_path / "a.png", "daisy"), (tmp_path / "sub/b.png", "")]


def test_spreadsheets_write_byte_order_marks_quotes_and_spaces(tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_bytes('\ufeff"a, b.png", "daisy"\r\n c.png , tulips \r\n'.encode())
    assert read_image_list(source) == [
        (tmp_path / "a, b.png", "daisy"),
        (tmp_path / "c.png", "tulips"),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "lists no images"),
        (b"path,label\n", "lists no images"),
        (b"a.png,daisy\n,tulips\n", "got ',tulips', expected lines path or path,class"),
        (b"\xff\xd8\xff\xe0 a jpeg", "not a folder or list of images: .*utf-8"),
    ],
)
def test_what_is_no_list_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_image_list(source)
    with pytest.raises(InputError, match="absent: not a folder or list of images: No such file"):
        read_image_list(tmp_path / "absent")
