"""The stages of one image, and which images they are timed on."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from resdeploy.deploy.benchmark.stages import read_encoded, time_stages
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.errors import InputError
from tests.fakes import FakeSession


def test_without_images_there_is_one_synthetic_photograph() -> None:
    (encoded,), what = read_encoded(None)
    with Image.open(BytesIO(encoded)) as image:
        assert image.format == "JPEG" and image.size == (640, 480)
    assert len(encoded) > 30_000  # as much detail as a photograph
    assert what == "a synthetic JPEG of 640x480 pixels"


def test_sixteen_images_are_taken_from_all_over_a_folder(image_folder: Path) -> None:
    encoded, what = read_encoded(image_folder)
    paths = sorted(image_folder.iterdir())
    assert len(encoded) == 16 and what == f"16 images from {image_folder}"
    assert encoded[0] == paths[0].read_bytes() and encoded[-1] == paths[-1].read_bytes()
    with pytest.raises(InputError, match="cannot be read"):
        read_encoded(image_folder / "gone.jpg")


def test_every_stage_and_every_session_is_timed(tiny_bundle: Path, image_folder: Path) -> None:
    manifest = open_model(tiny_bundle).manifest
    encoded, _ = read_encoded(image_folder)
    sessions = {"fp32@ort-cpu": FakeSession(size_px=16), "int8@ort-cpu": FakeSession(size_px=16)}
    steps: list[tuple[int, int]] = []
    stages, whole = time_stages(
        manifest, sessions, encoded, 0.02, lambda step, done, total: steps.append((done, total))
    )
    assert list(stages) == ["decode", "resize_and_normalise", "postprocess"]
    assert list(whole) == list(sessions)
    assert min(*stages.values(), *whole.values()) > 0
    assert sessions["int8@ort-cpu"].batches and set(sessions["int8@ort-cpu"].batches) == {1}
    assert steps[-1] == (10, 10)


def test_what_is_no_image_is_named_before_anything_is_timed(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"notes\.jpg: not an image"):
        read_encoded(tmp_path / "notes.jpg")
