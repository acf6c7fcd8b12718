"""Calibration images are chosen evenly and repeatably; bad ones are told, not swallowed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdeploy.calibration.observe.images import (
    DecodedImages,
    Reading,
    choose_images,
    images_sha256,
    read_batches,
)
from resdeploy.deploy.errors import CalibrationError
from resdeploy.deploy.images.preprocess import Preprocess

_PREPROCESS = Preprocess("tiny", (8, 8), None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders of 5, 20 and 40 small random images."""
    rng = np.random.default_rng(0)
    for name, count in (("cat", 5), ("dog", 20), ("owl", 40)):
        (tmp_path / name).mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number:02}.png")
    return tmp_path


def test_balanced_over_classes_also_in_every_part(folder: Path) -> None:
    chosen = choose_images(folder, images=45, seed=1)
    assert Counter(chosen.classes) == {"cat": 5, "dog": 20, "owl": 20}
    assert Counter(chosen.classes[:15]) == {"cat": 5, "dog": 5, "owl": 5}
    assert len(set(chosen.paths)) == 45
    assert chosen.notes == ()


def test_seed_decides(folder: Path) -> None:
    assert choose_images(folder, seed=3) == choose_images(folder, seed=3)
    assert choose_images(folder, seed=3).paths != choose_images(folder, seed=4).paths
    assert set(choose_images(folder, seed=3).paths) == set(choose_images(folder, seed=4).paths)


def test_flat_folder_few_images_and_duplicates(folder: Path) -> None:
    (folder / "cat" / "copy.png").write_bytes((folder / "cat" / "00.png").read_bytes())
    chosen = choose_images(folder / "cat")
    assert len(chosen.paths) == 6
    assert any("only 6 calibration images; 32 are the least" in note for note in chosen.notes)
    assert any("1 of 6 calibration images are duplicates" in note for note in chosen.notes)


def test_one_image_is_accepted_with_a_remark(folder: Path) -> None:
    chosen = choose_images(folder, images=1)
    assert len(chosen.paths) == 1
    assert "only 1 calibration images" in chosen.notes[0]


def test_one_class_is_remarked(folder: Path) -> None:
    for name in ("cat", "dog"):
        for path in (folder / name).iterdir():
            path.unlink()
        (folder / name).rmdir()
    (note,) = choose_images(folder).notes
    assert "all calibration images are of one class, 'owl'" in note


@pytest.mark.parametrize("heading", ["", "path,label\n"])
def test_list_file(folder: Path, heading: str) -> None:
    listing = folder / "list.csv"
    listing.write_text(heading + "cat/00.png,cat\n\ndog/01.png,dog\nowl/02.png\n")
    chosen = choose_images(listing)
    assert sorted(path.name for path in chosen.paths) == ["00.png", "01.png", "02.png"]
    assert sorted(chosen.classes) == ["", "cat", "dog"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no images there"):
        choose_images(tmp_path)
    with pytest.raises(CalibrationError, match="No such file"):
        choose_images(tmp_path / "nowhere")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(CalibrationError, match="lists no images"):
        choose_images(tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(CalibrationError, match=r"binary\.txt: not a folder or list of images"):
        choose_images(tmp_path / "binary.txt")


def test_batches_hold_the_pixels_in_order(folder: Path) -> None:
    paths = choose_images(folder, images=10).paths
    batches = list(read_batches(paths, _PREPROCESS, batch=4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    with Image.open(paths[5]) as image:
        expected = _PREPROCESS.apply(image.convert("RGB"))
    np.testing.assert_array_equal(batches[1][1], expected)


def test_unreadable_are_noted_up_to_five_percent(folder: Path) -> None:
    paths = choose_images(folder, images=40).paths
    for path in paths[:2]:
        path.write_bytes(b"not an image")
    reading = Reading()
    batches = list(read_batches(paths, _PREPROCESS, batch=16, reading=reading))
    assert sum(map(len, batches)) == 38
    assert list(reading.unreadable) == [0, 1]
    assert "not an image in any format" in reading.notes()[0]
    paths[7].write_bytes(b"")
    with pytest.raises(CalibrationError, match="3 of 40 calibration images cannot be read"):
        list(read_batches(paths, _PREPROCESS))


def test_single_colour_is_noticed(folder: Path) -> None:
    Image.new("RGB", (20, 20)).save(folder / "cat" / "00.png")
    reading = Reading()
    list(read_batches(choose_images(folder).paths, _PREPROCESS, reading=reading))
    assert list(reading.single_colour.values()) == [folder / "cat" / "00.png"]
    assert "single colour" in reading.notes()[0]


def test_hash_depends_on_the_bytes_alone(folder: Path) -> None:
    paths = choose_images(folder, images=12).paths
    before = images_sha256(paths)
    assert images_sha256(paths[::-1]) == before
    assert images_sha256(paths[1:]) != before
    (folder / "renamed.png").write_bytes(paths[0].read_bytes())
    assert images_sha256([folder / "renamed.png", *paths[1:]]) == before


def test_a_second_pass_decodes_nothing_that_is_kept(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (40, 36), (number, 80, 200)).save(path)
    images = DecodedImages(_PREPROCESS)
    first = np.concatenate(list(read_batches(paths, images)))
    for path in paths:
        path.unlink()
    np.testing.assert_array_equal(np.concatenate(list(read_batches(paths, images))), first)
    with pytest.raises(CalibrationError, match="no such file"):
        list(read_batches(paths, _PREPROCESS))
