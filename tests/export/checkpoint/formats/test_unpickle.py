"""The unpickler knows tensors and plain containers, and runs nothing else."""

import io
import os
import pickle
from collections import Counter, OrderedDict, defaultdict
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resdeploy.export.checkpoint.formats.stored import Stored, read_float32
from resdeploy.export.checkpoint.formats.unpickle import (
    TENSORS_LIMIT,
    Inert,
    PlainUnpickler,
    RunsCodeError,
    TooManyTensorsError,
    plain,
)


class Settings(dict[str, Any]):
    """A configuration object with items and attributes."""


class Phase(Enum):
    """A class that is not loaded, of hashable members."""

    TRAIN = 1


def load(value: object, protocol: int = 2) -> tuple[Any, PlainUnpickler]:
    unpickler = PlainUnpickler(io.BytesIO(pickle.dumps(value, protocol)))
    return unpickler.load(), unpickler


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back(protocol: int) -> None:
    value = {
        "numbers": [1, 2.5, None, True, -(10**30)],
        "text": ("ä", b"bytes"),
        "ordered": OrderedDict(a=1),
        "set": {1, 2},
    }
    loaded, unpickler = load(value, protocol)
    assert loaded == value and not unpickler.replaced


def test_counters_and_defaults_become_dictionaries() -> None:
    loaded, _ = load([Counter("aab"), defaultdict(list, {"loss": [0.1]})])
    assert loaded == [{"a": 2, "b": 1}, {"loss": [0.1]}]


def test_other_objects_are_inert_and_named() -> None:
    settings = Settings(lr=0.1)
    settings.depth = 18  # type: ignore[attr-defined]
    loaded, unpickler = load([settings, Fraction(1, 2), {Phase.TRAIN: 3}, Path("x")])
    assert all(isinstance(item, Inert) for item in (loaded[0], loaded[1], loaded[3]))
    assert loaded[0] == loaded[0] and loaded[0]["lr"] == 0.1 and loaded[0].state["depth"] == 18
    assert loaded[0].stands_for.endswith("Settings")
    assert "fractions.Fraction" in unpickler.replaced


class Trap:
    """Runs a command when it is unpickled in the usual way."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, open, os.path.exists])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_runs_code_ends_the_reading(function: Any, protocol: int) -> None:
    trap = {"weights": [Trap(function, "x")]}
    if function is os.path.exists:  # harmless, but not looked up all the same
        assert isinstance(load(trap, protocol)[0]["weights"][0], Inert)
        return
    with pytest.raises(RunsCodeError):
        load(trap, protocol)


def test_members_of_an_enum_as_early_releases_of_python_3_11_save_them() -> None:
    loaded, _ = load({"phase": Trap(getattr, Phase, "TRAIN")})
    assert loaded["phase"].stands_for.endswith("Phase")
    for foreign in (Path("x"), "x", 1):
        with pytest.raises(RunsCodeError):
            load(Trap(getattr, foreign, "TRAIN"))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
def test_numpy_arrays_are_tensors(order: Any, dtype: str) -> None:
    values = np.asarray(np.arange(6).reshape(2, 3), dtype=dtype, order=order)
    loaded, _ = load({"w": values})
    stored = plain(loaded["w"])
    assert isinstance(stored, Stored) and stored.shape == (2, 3)
    read = read_float32(stored, lambda key: np.empty(0, np.uint8))
    np.testing.assert_array_equal(read, np.arange(6, dtype=np.float32).reshape(2, 3))


def test_a_large_place_in_the_memo_costs_nothing() -> None:
    # PUT 2**31: Python's own unpickler in C would allocate 32 GiB for it
    content = b"\x80\x02]r\x00\x00\x00\x80."
    assert PlainUnpickler(io.BytesIO(content)).load() == []


def test_more_tensors_than_any_network_has_are_refused() -> None:
    unpickler = PlainUnpickler(io.BytesIO(b""))
    storage = unpickler.persistent_load(("storage", unpickler.find_class("torch", "FloatStorage"),
                                         "0", "cpu", 1))  # fmt: skip
    rebuild = unpickler.find_class("torch._utils", "_rebuild_tensor_v2")
    for _ in range(TENSORS_LIMIT):
        rebuild(storage, 0, (1,), (1,))
    with pytest.raises(TooManyTensorsError):
        rebuild(storage, 0, (1,), (1,))


def test_a_few_bytes_do_not_take_gigabytes() -> None:
    bytes_of_20_gib = b"\x80\x05\x96" + (20 << 30).to_bytes(8, "little") + b"."
    with pytest.raises(EOFError):
        PlainUnpickler(io.BytesIO(bytes_of_20_gib)).load()
    classes = b"".join(b"ca\n%d\n" % number for number in range(1001))
    with pytest.raises(pickle.UnpicklingError, match="more than 1000 foreign classes"):
        PlainUnpickler(io.BytesIO(b"\x80\x02(" + classes + b"l.")).load()


_STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ"
_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (_STORAGE + b"K\x00(X\x01\0\0\0at)", "no shape"),
        (_STORAGE + b"K\x00(" + b"K\x01" * 40 + b"t)", "no shape"),
        (_STORAGE + b"N))", "without its storage"),
        (_REBUILD + b"K\x00))", "without its storage"),
    ],
)
def test_a_tensor_is_made_of_a_storage_and_numbers(arguments: bytes, told: str) -> None:
    program = b"\x80\x04" + _REBUILD + b"(" + arguments + b"\x89}tR."
    with pytest.raises((pickle.UnpicklingError, ValueError), match=told):
        PlainUnpickler(io.BytesIO(program)).load()


def test_a_state_does_not_change_a_tensor() -> None:
    program = (
        _REBUILD + b"(" + _STORAGE + b"K\x00K\x01\x85K\x01\x85\x89}tR}X\x05\0\0\0shapeK\x05sb."
    )
    tensor = PlainUnpickler(io.BytesIO(b"\x80\x04" + program)).load()
    assert isinstance(tensor, Stored) and tensor.shape == (1,)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (b"\x8b" + (5000).to_bytes(4, "little") + b"\x01" * 5000 + b".", "thousands of digits"),
        (b"c" + b"m" * 2000 + b"\nname\n.", "a class's name of 2004 characters"),
    ],
)
def test_what_is_absurdly_long_is_refused(program: bytes, told: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=told):
        PlainUnpickler(io.BytesIO(b"\x80\x04" + program)).load()
