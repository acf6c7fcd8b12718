"""Folders, lists and URIs give the same images in the same order, with their classes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import read_data
from resdeploy.deploy.scale_out.locations import (
    Location,
    as_files,
    find_locations,
    read_bytes,
    read_located_data,
)

_LABELS = ("a", "a-b", "c")


@pytest.fixture
def folders(tmp_path: Path, image_folder: Path) -> Path:
    """Class folders whose order differs as text and as paths, and files that are no images."""
    for number, name in enumerate(("a-b/x.jpg", "a/z.jpg", "a/.hidden.jpg", "c/deep/y.JPG")):
        target = tmp_path / "photos" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image_folder / f"cut_{number:02}.jpg", target)
    (tmp_path / "photos" / "c" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.fixture
def memory(folders: Path) -> Iterator[str]:
    """The same folders in fsspec's memory."""
    system = fsspec.filesystem("memory")
    system.put(str(folders), "/photos", recursive=True)
    yield "memory://photos"
    system.rm("/photos", recursive=True)


def test_a_uri_is_listed_as_a_folder_is(folders: Path, memory: str) -> None:
    local = find_locations([str(folders)])
    assert [location.class_name for location in local] == ["a", "a-b", "c"]
    assert find_locations([f"{memory}/"]) == [
        Location(location.place.replace(str(folders), memory), location.class_name)
        for location in local
    ]
    assert find_locations([f"{memory}/a/z.jpg"]) == [Location("memory://photos/a/z.jpg")]


def test_lists_name_places_anywhere(folders: Path, memory: str) -> None:
    list_file = folders / "list.csv"
    list_file.write_text(f"path,class\na/z.jpg,a\n{memory}/c/deep/y.JPG,c\n/x/y.png,\n")
    there = [Location(f"{memory}/c/deep/y.JPG", "c"), Location("/x/y.png")]
    assert find_locations([str(list_file)]) == [Location(f"{folders}/a/z.jpg", "a"), *there]
    fsspec.filesystem("memory").put(str(list_file), "/photos/list.csv")
    found = find_locations([f"{memory}/list.csv"])
    assert found == [Location(f"{memory}/a/z.jpg", "a"), *there]


def test_a_parquet_list(folders: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    file = folders / "list.parquet"
    columns = {"uri": ["a/z.jpg", "s3://b/x.jpg"], "Label": ["a", "c"], "other": [1, 2]}
    pq.write_table(pa.table(columns), file)
    expected = [Location(f"{folders}/a/z.jpg", "a"), Location("s3://b/x.jpg", "c")]
    assert find_locations([str(file)]) == expected
    pq.write_table(pa.table({"name": ["x"]}), file)
    with pytest.raises(InputError, match="columns name, expected one named path, file"):
        find_locations([str(file)])
    file.write_text("no")
    with pytest.raises(InputError, match="not a Parquet file"):
        find_locations([str(file)])


def test_classes_are_those_of_read_data(folders: Path, memory: str) -> None:
    here = read_data(folders, _LABELS)
    images, places = read_located_data(memory, _LABELS)
    assert here.truth is not None and images.truth is not None
    assert images.truth.tolist() == here.truth.tolist() == [0, 1, 2]
    assert [place.removeprefix(memory) for place in places] == [
        str(path).removeprefix(str(folders)) for path in here.paths
    ]
    assert read_located_data(str(folders), _LABELS)[0].paths == here.paths
    with pytest.raises(InputError, match="class 'c' is not among the 2 labels"):
        read_located_data(memory, _LABELS[:2])
    (folders / "list.csv").write_text("a/z.jpg,a\nc/deep/y.JPG\n")
    with pytest.raises(InputError, match=r"no class for .*/c/deep/y.JPG"):
        read_located_data(str(folders / "list.csv"), _LABELS)


def test_images_become_files(folders: Path, memory: str) -> None:
    local = str(folders / "a" / "z.jpg")
    with as_files([local, f"{memory}/c/deep/y.JPG", f"{memory}/gone.jpg"]) as files:
        assert files[0] == Path(local) and files[1].suffix == ".JPG"
        assert files[1].read_bytes() == (folders / "c" / "deep" / "y.JPG").read_bytes()
        assert not files[2].exists()
    assert not files[1].exists()
    with as_files(["s3://b/1.jpg", "s3://b/2.jpg"], [b"one", None]) as files:
        assert files[0].read_bytes() == b"one" and not files[1].exists()


def test_what_cannot_be_had_says_so(tmp_path: Path, memory: str) -> None:
    with pytest.raises(InputError, match="no images there"):
        find_locations([f"{memory}/nothing"])
    with pytest.raises(InputError, match=r"gone.csv: no such file"):
        find_locations([f"{memory}/gone.csv"])
    with pytest.raises(InputError, match="Protocol not known: nosuch"):
        find_locations(["nosuch://x/y"])
    with pytest.raises(InputError, match="cannot be read: "):
        read_bytes(str(tmp_path))
