"""Bounds what a pickle may do by the size of its file.

Each opcode counts, and so does each item of what a call, a state, a set or a storage is given: the
same long list may be given to a thousand, and a tuple of tuples that shares its parts is hashed for
ever. Text counts too, for it is copied.
"""

import pickle
from collections.abc import Iterable, Mapping
from typing import Any

# A checkpoint has some 50 opcodes for a tensor and its name, in 250 bytes and the tensor's own.
WORK_ALWAYS, _BYTES_FOR_WORK = 300_000, 16
_TEXT_FOR_WORK = 64  # characters that are copied in the time of an opcode

# What the opcodes may copy or hash of what lies on the stack.
_GIVEN: dict[bytes, slice] = {
    pickle.REDUCE: slice(-1, None),
    pickle.NEWOBJ: slice(-1, None),
    pickle.NEWOBJ_EX: slice(-2, None),
    pickle.BUILD: slice(-1, None),
    pickle.BINPERSID: slice(-1, None),
    pickle.SETITEM: slice(-2, -1),
    **{code: slice(0, None, 2) for code in (pickle.SETITEMS, pickle.DICT)},
    **{code: slice(None) for code in (pickle.ADDITEMS, pickle.FROZENSET, pickle.OBJ, pickle.INST)},
}
_LOOKED_AT = {code[0]: part for code, part in _GIVEN.items()}


def work_limit(file_bytes: int) -> int:
    """How much the pickles of a file of this size may do."""
    return WORK_ALWAYS + file_bytes // _BYTES_FOR_WORK


class Counted(dict[int, Any]):
    """The functions of an unpickler's opcodes, each of which costs something to get."""

    def __init__(self, functions: Mapping[int, Any], unpickler: Any, limit: int) -> None:
        super().__init__(functions)
        self._unpickler, self._left = unpickler, limit

    def __getitem__(self, opcode: int) -> Any:
        self._spend(1)
        part = _LOOKED_AT.get(opcode)
        if part is not None:
            self._look_at(self._unpickler.stack[part])
        return super().__getitem__(opcode)

    def _look_at(self, values: Iterable[Any]) -> None:
        pending = list(values)
        while pending:
            value = pending.pop()
            if isinstance(value, tuple | list):
                self._spend(len(value))
                pending += value
            elif isinstance(value, str | bytes):
                self._spend(len(value) // _TEXT_FOR_WORK)
            elif isinstance(value, dict | set | frozenset):
                self._spend(len(value))

    def _spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise pickle.UnpicklingError("it would take far more work than its tensors need")
