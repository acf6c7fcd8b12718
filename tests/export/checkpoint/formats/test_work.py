"""A pickle of a few bytes may not work for hours."""

import io
import pickle

import pytest

from resdeploy.export.checkpoint.formats.unpickle import PlainUnpickler
from resdeploy.export.checkpoint.formats.work import work_limit

_LONG = b"](" + b"K\x01" * 50_000 + b"e"
_SHARED = b")" + b"2\x86" * 60  # a tuple of sixty levels that has 2**60 leaves
_COPIES = b"(" + b"h\x01h\x00\x85R" * 1000 + b"l."


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(b"]" * 400_000 + b".", id="many empty lists"),
        pytest.param(_LONG + b"q\x000cbuiltins\nset\nq\x010" + _COPIES, id="copies of a list"),
        pytest.param(
            b"X" + (400_000).to_bytes(4, "little") + b"a" * 400_000
            + b"q\x000c_codecs\nencode\nq\x010" + _COPIES, id="copies of a text",
        ),
        pytest.param(b"}" + _SHARED + b"Ns.", id="a key that is hashed for ever"),
        pytest.param(b"(" + _SHARED + b"\x91.", id="a member that is hashed for ever"),
        pytest.param(b"cbuiltins\nset\n](" + _SHARED + b"e\x85R.", id="the same in a call"),
        pytest.param(b"ccollections\nOrderedDict\n]](" + _SHARED + b"Nea\x85R.", id="and in pairs"),
    ],
)  # fmt: skip
def test_work_is_bounded(program: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError, match="far more work"):
        PlainUnpickler(io.BytesIO(b"\x80\x04" + program)).load()


def test_work_is_bounded_by_the_size_of_the_file() -> None:
    history = pickle.dumps(list(range(200_000)))
    with pytest.raises(pickle.UnpicklingError, match="far more work"):
        PlainUnpickler(io.BytesIO(history), work_limit(0) // 2).load()
    assert PlainUnpickler(io.BytesIO(history), work_limit(len(history))).load()[-1] == 199_999
