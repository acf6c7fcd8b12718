"""The file as it was, asked in the batches it insists on."""

import numpy as np
import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.export.foreign.original import OriginalGraph
from resdeploy.export.foreign.read import read_foreign
from tests.export.foreign.conftest import Draw, by_hand


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_fixed_batch_is_filled_up_and_the_filling_dropped(draw: Draw, count: int) -> None:
    path = draw("float[2, 3, 16, 16] images", answers="float[2, 4] p")
    images = np.random.default_rng(0).standard_normal((count, 3, 16, 16), np.float32)
    with OriginalGraph(read_foreign(path)) as original:
        logits = original.run(images)
        assert original.run_all(images)["logits"].shape == logits.shape == (count, 4)
    np.testing.assert_allclose(logits, by_hand(images), rtol=0, atol=1e-5)


def test_another_shape_is_refused(draw: Draw) -> None:
    with OriginalGraph(read_foreign(draw())) as original, pytest.raises(InputError, match="input"):
        original.run(np.zeros((1, 3, 8, 8), np.float32))
