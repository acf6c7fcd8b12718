"""Class names from the first place that has them, said aloud where they were not given."""

import json
from pathlib import Path

import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.export.checkpoint.labels import class_names
from tests.export.checkpoint.conftest import Save, State


def folders(root: Path, names: list[str]) -> Path:
    for name in [*names, ".cache"]:
        (root / "data" / name).mkdir(parents=True)
    (root / "data" / "readme.txt").write_text("no class")
    return root / "data"


def test_sorted_folders_name_the_classes(weights: State, save: Save, tmp_path: Path) -> None:
    data = folders(tmp_path, ["rose", "Tulip", "daisy"])
    names, said = class_names(save(weights).path, 3, None, [data])
    assert names == ("Tulip", "daisy", "rose")  # as ImageFolder sorts: capital letters first
    assert "sorted names of the 3 folders" in said[0] and "--classes" in said[0]


def test_folders_of_another_number_name_nothing(weights: State, save: Save, tmp_path: Path) -> None:
    data = folders(tmp_path, ["rose", "tulip"])
    names, said = class_names(save(weights).path, 3, None, [data, tmp_path / "nowhere"])
    assert names == ("class_0", "class_1", "class_2") and "not known" in said[0]


def test_the_checkpoints_own_come_before_the_folders(
    weights: State, save: Save, tmp_path: Path
) -> None:
    data = folders(tmp_path, ["x", "y", "z"])
    checkpoint = save({"state_dict": weights, "classes": ["a", "b", "c"]})
    assert class_names(checkpoint.path, 3, None, [data], stored=checkpoint.labels or ())[0] == (
        "a",
        "b",
        "c",
    )


def test_stored_names_of_another_number_are_left_and_told(weights: State, save: Save) -> None:
    checkpoint = save({"state_dict": weights, "classes": ["a", "b"]})
    names, said = class_names(checkpoint.path, 3, None, [], stored=checkpoint.labels or ())
    assert names[0] == "class_0" and said[0].startswith("the 2 class names stored")


def test_a_file_outranks_everything(weights: State, save: Save, tmp_path: Path) -> None:
    checkpoint = save({"state_dict": weights, "classes": ["a", "b", "c"]})
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(["d", "e", "f"]))
    assert class_names(checkpoint.path, 3, file, [], stored=checkpoint.labels or ()) == (
        ("d", "e", "f"),
        (),
    )
    file.write_text(json.dumps(["d"]))
    with pytest.raises(InputError, match="1 class names, but"):
        class_names(checkpoint.path, 3, file, [], stored=checkpoint.labels or ())
    with pytest.raises(InputError, match="no classification head"):
        class_names(checkpoint.path, None, file, [], stored=checkpoint.labels or ())
