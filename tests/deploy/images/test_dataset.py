"""What `--data` may name, which of the images take part, and how many may be unreadable."""

from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import Images, check_readable, evenly_spaced, read_data

_LABELS = ("red", "green", "blue")


def test_class_folders_have_true_classes_and_a_plain_folder_has_none(colours: Path) -> None:
    labelled = read_data(colours, _LABELS)
    assert labelled.truth is not None
    assert np.bincount(labelled.truth).tolist() == [100, 100, 100]
    assert all(
        _LABELS[k] == p.parent.name for p, k in zip(labelled.paths, labelled.truth, strict=True)
    )
    plain = read_data(colours / "red", _LABELS)
    assert len(plain.paths) == 100 and plain.truth is None


def test_a_network_without_labels_reads_class_folders_as_plain_images(colours: Path) -> None:
    images = read_data(colours, ())
    assert len(images.paths) == 300 and images.truth is None


def test_a_list_names_the_classes(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a.png,blue\nb.png,red\n")
    images = read_data(tmp_path / "list.csv", _LABELS)
    assert images.truth is not None and images.truth.tolist() == [2, 0]


def test_evenly_spaced_holds_both_ends_and_never_more_than_there_are() -> None:
    assert evenly_spaced(367, 4) == [0, 122, 244, 366]
    assert evenly_spaced(3, 32) == [0, 1, 2]
    assert evenly_spaced(0, 32) == []


def test_spread_keeps_paths_and_classes_together() -> None:
    images = Images(tuple(Path(str(k)) for k in range(10)), np.arange(10))
    few = images.spread(4)
    assert few.truth is not None
    assert [int(path.name) for path in few.paths] == few.truth.tolist() == [0, 3, 6, 9]
    assert images.spread(50).paths == images.paths


def test_one_image_in_twenty_may_be_unreadable() -> None:
    bad = (Path("x.png"), "the file is empty")
    check_readable([bad], 20)
    words = r"2 of 20 images cannot be read, limit: 5%; the last one is x\.png: the file is empty"
    with pytest.raises(InputError, match=words):
        check_readable([bad, bad], 20)
    with pytest.raises(InputError, match="1 of 19"):
        check_readable([bad], 19)


def test_a_folder_that_is_not_there_is_not_an_unreadable_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nosuch: no such file or folder of images"):
        read_data(tmp_path / "nosuch", ("a", "b"))
