"""The standard streams of a process whose caller, or whose reader, closed them."""

import os
from typing import TextIO


def drop_output(stream: TextIO) -> None:
    """Let what is still buffered go nowhere: the interpreter would fail on it at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return


def occupy_standard_streams() -> None:
    """Give the numbers 0, 1 and 2 to nothing where a caller closed them.

    The first file that is opened would get such a number, and what native libraries print would
    be written into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
