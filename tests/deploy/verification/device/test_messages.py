"""What is written is read again, and what is cut off or no message is neither."""

from io import BytesIO

import numpy as np
import pytest

from resdeploy.deploy.verification.device.messages import (
    GarbledError,
    array_bytes,
    array_of,
    read_message,
    write_message,
)


def test_messages_come_back_with_their_arrays() -> None:
    stream = BytesIO()
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_message(stream, {"kind": "run", "name": "weiß\n"}, array_bytes(array[:, ::2]), b"")
    write_message(stream, {"kind": "end"})
    stream.seek(0)
    first, second = read_message(stream), read_message(stream)
    assert first.fields == {"kind": "run", "name": "weiß\n"}
    np.testing.assert_array_equal(array_of(first.payloads[0], (2, 2, 4)), array[:, ::2])
    assert first.payloads[1] == b"" and second.payloads == ()
    with pytest.raises(EOFError):
        read_message(stream)


def test_a_message_cut_anywhere_is_the_end() -> None:
    stream = BytesIO()
    write_message(stream, {"kind": "run"}, b"twelve bytes")
    whole = stream.getvalue()
    for length in range(len(whole)):
        with pytest.raises(EOFError):
            read_message(BytesIO(whole[:length]))


@pytest.mark.parametrize(
    "line", [b"Segmentation fault\n", b"[]\n", b'{"kind": 1}\n', b'{"bytes":[]}\n']
)
def test_what_is_no_message_is_garbled(line: bytes) -> None:
    with pytest.raises(GarbledError):
        read_message(BytesIO(line))


def test_bytes_that_do_not_fit_the_shape_are_garbled() -> None:
    with pytest.raises(GarbledError, match="8 bytes"):
        array_of(b"8 bytes!", (1, 3))
