"""Values become tensors where torch could have put them."""

import numpy as np
import pytest
import torch

from resdeploy.export.checkpoint.tensors import aligned


@pytest.mark.parametrize("shift", [0, 4, 16, 32])
def test_memory_is_shared_where_it_is_aligned(shift: int) -> None:
    room = np.zeros(64 * 4 + 64, np.uint8)
    start = -room.ctypes.data % 64 + shift
    values = room[start : start + 64].view(np.float32).reshape(4, 4)
    values[:] = np.arange(16).reshape(4, 4)
    tensor = aligned(values)
    assert tensor.data_ptr() % 64 == 0
    assert (tensor.data_ptr() == values.ctypes.data) == (shift == 0)
    assert torch.equal(tensor, torch.arange(16.0).reshape(4, 4))


def test_any_layout_and_a_scalar_keep_their_shape() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4).T
    tensor = aligned(values)
    assert tensor.is_contiguous() and torch.equal(tensor, torch.arange(12.0).reshape(3, 4).T)
    assert aligned(np.array(2.0, np.float32)).shape == ()
