"""Values are read from a file's bytes by dtype, strides and offset."""

import numpy as np
import pytest
import torch

from resdeploy.export.checkpoint.formats.stored import (
    Bytes,
    Storage,
    Storages,
    Stored,
    placeholder,
    read_float32,
    whole,
)


def storages(values: torch.Tensor) -> Storages:
    """The bytes of one storage, called 0."""
    content = values.view(torch.uint8).numpy().copy()

    def of(key: str) -> Bytes:
        if key != "0":
            raise ValueError(f"no storage {key}")
        found: Bytes = content
        return found

    return of


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_strides_and_offset_as_torch_counts_them(dtype: torch.dtype) -> None:
    whole_tensor = torch.randn(60, dtype=torch.float64).to(dtype)
    view = whole_tensor[5:53].reshape(4, 3, 4).permute(2, 0, 1)[1:, ::2]
    stored = Stored(
        dtype=str(dtype).removeprefix("torch."),
        shape=tuple(view.shape),
        strides=view.stride(),
        offset=int(view.storage_offset()),
        data=Storage("0", str(dtype).removeprefix("torch.")),
    )
    values = read_float32(stored, storages(whole_tensor))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, view.float().numpy())


def test_float32_is_not_copied_and_big_endian_is_turned() -> None:
    content = np.arange(6, dtype="f4").view(np.uint8)
    plain = read_float32(whole("float32", (2, 3), Storage("0", "float32")), lambda _: content)
    assert np.shares_memory(plain, content) and plain.tolist() == [[0, 1, 2], [3, 4, 5]]
    turned = whole("float32", (3,), np.array([1, 2, 3], ">f4").tobytes(), order=">")
    assert read_float32(turned, lambda _: content).tolist() == [1, 2, 3]
    assert turned.ndim == 1 and plain.dtype.isnative


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_a_placeholder_has_the_shape_and_few_values_only(dtype: str) -> None:
    content = torch.arange(40000, dtype=getattr(torch, dtype))

    def size_of(key: str) -> int:
        return content.nbytes

    for count, read in ((10, True), (40000, False)):
        stored = Stored(dtype, (count,), (1,), 0, Storage("0", dtype))
        values = placeholder(stored, storages(content), size_of)
        assert values.dtype == np.float32 and values.shape == (count,)
        assert float(values[-1]) == (count - 1 if read else 1)
    with pytest.raises(ValueError, match="wanted"):
        stored = Stored(dtype, (40001,), (1,), 0, Storage("0", dtype))
        placeholder(stored, storages(content), size_of)


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (whole("float32", (5,), Storage("0", "float32")), "20 bytes wanted, 16 there"),
        (Stored("float32", (2,), (1,), 3, Storage("0", "float32")), "20 bytes wanted, 16 there"),
        (Stored("float32", (2,), (-1,), 1, Storage("0", "float32")), "a size is negative"),
        (Stored("float32", (2,), (1,), 0, None, "sparse"), "a sparse tensor has no plain values"),
        (whole("float32", (1,), Storage("1", "float32")), "no storage 1"),
    ],
)
def test_what_is_not_in_the_file_is_refused(stored: Stored, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_float32(stored, storages(torch.ones(4)))


def test_an_empty_tensor_needs_no_bytes() -> None:
    assert read_float32(whole("float32", (0, 3), b""), storages(torch.ones(1))).shape == (0, 3)
