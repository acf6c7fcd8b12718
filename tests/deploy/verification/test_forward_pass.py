"""One pass: each image is decoded once, whatever the sessions; what is kept stays in order."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.images.preprocess import named
from resdeploy.deploy.verification.forward_pass import (
    DECODE,
    Batch,
    forward_images,
    forward_inputs,
)
from tests.fakes import FakeSession, channel_means

_HALF = named("half", 8)


def _logits(batch: Batch) -> Float32s:
    return batch.logits["fp32"]


def test_batches_come_back_in_order_with_every_sessions_logits(colours: Path) -> None:
    images = Images(tuple(sorted(colours.glob("*/*"))[:20]), None)
    sessions = {"fp32": FakeSession(), "int8": FakeSession(lambda batch: -channel_means(batch))}
    steps: list[tuple[str, int, int]] = []
    done = forward_images(
        images,
        _HALF,
        sessions,
        lambda batch: (batch.positions, batch.logits["fp32"] + batch.logits["int8"]),
        step="counting",
        progress=lambda *state: steps.append(state),
    )
    assert done.positions == tuple(range(20)) and done.unreadable == ()
    assert [len(positions) for positions, _ in done.kept] == [8, 8, 4]
    assert all(not sums.any() for _, sums in done.kept)
    assert steps == [("counting", 8, 20), ("counting", 16, 20), ("counting", 20, 20)]
    assert list(done.seconds) == [DECODE, "fp32", "int8"]


def test_unreadable_images_are_left_out_wherever_they_stand(colours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "red"
    shutil.copytree(colours / "red", folder)
    paths = tuple(sorted(folder.iterdir()))
    for number in (0, 9, 99):
        paths[number].write_bytes(b"not an image")
    done = forward_images(
        Images(paths, None), _HALF, {"fp32": FakeSession()}, _logits, step="verifying"
    )
    readable = [i for i in range(100) if i not in (0, 9, 99)]
    assert done.positions == tuple(readable)
    expected = [channel_means(read_input(paths[i], _HALF)[None]) for i in readable]
    np.testing.assert_array_equal(np.concatenate(done.kept), np.concatenate(expected))
    assert [path for path, _ in done.unreadable] == [paths[0], paths[9], paths[99]]
    assert all("not an image" in reason for _, reason in done.unreadable)


def test_a_batch_without_a_readable_image_reaches_no_session(tmp_path: Path) -> None:
    session = FakeSession()
    images = Images((tmp_path / "gone.png",), None)
    with pytest.raises(InputError, match=r"1 of 1 images cannot be read, limit: 5%"):
        forward_images(images, _HALF, {"fp32": session}, _logits, step="verifying")
    assert session.batches == []


def test_inputs_in_memory_are_not_decoded() -> None:
    inputs = np.random.default_rng(0).random((11, 3, 8, 8), np.float32)
    done = forward_inputs(inputs, {"fp32": FakeSession()}, _logits, step="replaying")
    np.testing.assert_allclose(np.concatenate(done.kept), channel_means(inputs), atol=1e-6)
    assert done.positions == tuple(range(11)) and list(done.seconds) == ["fp32"]


@pytest.mark.parametrize(("threads", "images"), [(1, 2), (4, 8)])
def test_one_thread_takes_few_large_images_at_a_time(threads: int, images: int) -> None:
    inputs = np.zeros((9, 3, 160, 160), np.float32)
    session = FakeSession(size_px=160, threads=threads)
    forward_inputs(inputs, {"fp32": session}, _logits, step="replaying")
    assert max(session.batches) == images and sum(session.batches) == 9


def test_an_error_of_a_session_reaches_the_caller() -> None:
    inputs = np.zeros((1, 3, 9, 9), np.float32)
    with pytest.raises(InputError, match="expected float32 of shape"):
        forward_inputs(inputs, {"fp32": FakeSession()}, _logits, step="replaying")
