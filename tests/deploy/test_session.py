"""What every session promises: the sizes of its input, and which batches it refuses."""

from collections.abc import Callable

import numpy as np
import pytest

from resdeploy.deploy.bundle.manifest import input_spec
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.session import check_batch, images_at_once, sizes_of


def test_check_batch_names_what_it_got() -> None:
    spec = input_spec(32, 48)
    assert sizes_of(spec) == (3, 32, 48)
    check_batch(np.zeros((1, 3, 32, 48), np.float32), spec)
    wrong: list[Callable[[], np.ndarray]] = [
        lambda: np.zeros((0, 3, 32, 48), np.float32),
        lambda: np.zeros((3, 32, 48), np.float32),
        lambda: np.zeros((1, 3, 48, 32), np.float32),
        lambda: np.zeros((1, 3, 32, 48), np.float64),
        lambda: np.zeros((1, 3, 32, 48), ">f4"),
        lambda: np.zeros((), np.float32),
    ]
    for batch in wrong:
        with pytest.raises(InputError, match=r"input: got .* expected float32 of shape \(N, 3, 32"):
            check_batch(batch(), spec)


@pytest.mark.parametrize(("size_px", "images"), [(32, 8), (96, 7), (160, 2), (224, 1), (2048, 1)])
def test_large_images_run_one_at_a_time(size_px: int, images: int) -> None:
    assert images_at_once(input_spec(size_px, size_px)) == images
