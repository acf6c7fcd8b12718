"""Class names are read in class order from every file that training scripts leave."""

import json
from pathlib import Path

import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.labels import find_labels_file, numbered, read_labels

_NAMES = ("daisy", "Löwenzahn", "roses")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_indices.json", json.dumps({str(i): name for i, name in enumerate(_NAMES)})),
        ("unsorted.json", json.dumps({"2": "roses", "0": "daisy", "1": "Löwenzahn"})),
        ("class_to_idx.json", json.dumps({"roses": 2, "daisy": 0, "Löwenzahn": 1})),
        ("keras.json", json.dumps({str(i): [f"n{i}", name] for i, name in enumerate(_NAMES)})),
        ("list.json", "\ufeff" + json.dumps(_NAMES, ensure_ascii=False)),
        ("labels.txt", "daisy\nLöwenzahn\nroses\n"),
        ("windows.txt", "\ufeffdaisy\r\n Löwenzahn \r\nroses\r\n\r\n"),
    ],
)
def test_the_usual_files(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_labels(tmp_path / name) == _NAMES


def test_more_than_ten_classes_are_in_numerical_order(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps({str(i): f"c{i}" for i in sorted(range(12), key=str)}))
    assert read_labels(file) == tuple(f"c{i}" for i in range(12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"0": "a", "2": "b"}', "indices are not 0 … 1, each once"),
        ('{"1": "a", "2": "b"}', "indices are not 0 … 1"),
        ('{"a": 0, "b": 0}', "each once"),
        ('{"0": "a", "00": "b"}', "each once"),
        ('{"a": "x"}', "not class names"),
        ('{"0": {"name": "a"}}', "a class name that is a dict"),
        ('["a", 1]', "not class names"),
        ('"a"', "a JSON str"),
        ("{}", "no class names in it"),
        ("[]", "no class names in it"),
        ("{", "not class names"),
    ],
)
def test_wrong_json_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(text)
    with pytest.raises(InputError, match=words) as info:
        read_labels(file)
    assert str(info.value).startswith(f"{file}: ")
    assert "\n" not in str(info.value)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("empty.txt", "binary.txt", "absent.txt", "."):
        with pytest.raises(InputError, match="class names"):
            read_labels(tmp_path / name)


def test_the_checkpoints_own_file_goes_before_the_usual_ones(tmp_path: Path) -> None:
    checkpoint = tmp_path / "net.pth"
    assert find_labels_file(checkpoint) is None
    (tmp_path / "labels.txt").touch()
    assert find_labels_file(checkpoint) == tmp_path / "labels.txt"
    (tmp_path / "class_indices.json").touch()
    assert find_labels_file(checkpoint) == tmp_path / "class_indices.json"
    (tmp_path / "net_class_indices.json").touch()
    assert find_labels_file(checkpoint) == tmp_path / "net_class_indices.json"
    assert find_labels_file(tmp_path / "other.pth") == tmp_path / "class_indices.json"


def test_numbered() -> None:
    assert numbered(2) == ("class_0", "class_1")


@pytest.mark.realdata
def test_the_real_files(shared_data: Path) -> None:
    assert len(read_labels(shared_data / "imagenet_class_indices.json")) == 1000
    flowers = read_labels(shared_data / "flowers_class_indices.json")
    assert flowers[0] == "daisy" and len(flowers) == 5
