"""Reads a pickle as plain data, without importing torch or running anything the file asks for.

A pickle is a small program: it may name any importable function and have it called. Here no name is
ever looked up. Those of tensors and plain containers are answered with the functions below, every
other one with an `Inert` class of that name, which remembers its name and does nothing else, so
riders of foreign classes (argparse.Namespace, configuration objects) cost nothing. A name that has
no place in a checkpoint, such as os.system, ends the reading.

Python's own unpickler in C is not used: its memo is an array, which one opcode can grow to 64 GiB.
"""

import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import IO, Any, ClassVar

from resdeploy.export.checkpoint.formats.stored import Storage, Stored, sizes_of, whole
from resdeploy.export.checkpoint.formats.work import WORK_ALWAYS, Counted

TENSORS_LIMIT = 100_000
"""More than any network has; a file with more would only take time."""

_CLASSES_LIMIT = 1000
_NAME_LIMIT = 1000  # of a class

# Nothing a training script stores needs these; a file that names one is a trap or badly broken.
_RUNS_CODE = {
    *(f"builtins.{name}" for name in ("eval", "exec", "execfile", "compile", "input", "open")),
    *("builtins.__import__", "io.open", "_io.open"),
}
_RUNS_CODE_MODULES = {
    *("os", "posix", "nt", "sys", "subprocess", "runpy", "importlib", "ctypes", "socket"),
    *("commands", "shutil", "pty", "code", "webbrowser"),
}
_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "UntypedStorage": "uint8",
}
_NUMPY_DTYPES = {
    "f4": "float32",
    "f8": "float64",
    "f2": "float16",
    "i8": "int64",
    "i4": "int32",
    "i2": "int16",
    "i1": "int8",
    "u1": "uint8",
    "b1": "bool",
}


class RunsCodeError(pickle.UnpicklingError):
    """The pickle names something that runs code; `name` is what."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class TooManyTensorsError(pickle.UnpicklingError):
    """The pickle makes more tensors than any network has."""


class Inert(dict[Any, Any]):
    """Stands for an object of a class that is not loaded; `stands_for` is the class's full name.

    Keeps the items and attributes that the pickle gives it, so that a configuration object can be
    read like the dictionary it is.
    """

    stands_for = ""
    state: Mapping[str, Any] = {}
    __hash__ = object.__hash__  # type: ignore[assignment]  # members of an Enum are keys

    def __new__(cls, *_: object) -> "Inert":
        """Make one of whatever arguments the file gives."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], Mapping):
            state = state[1]
        if isinstance(state, Mapping):
            self.state = dict(state)

    def append(self, _: object) -> None:
        """Ignored; the pickle takes it for a list."""

    def extend(self, _: object) -> None:
        """Ignored; the pickle takes it for a list."""

    add = append


class _Array:
    """A numpy array on its way: made empty, then given its state (numpy `__setstate__`)."""

    stored: Stored | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(data, str):  # a pickle of Python 2
            data = data.encode("latin1")
        name = dtype.name if isinstance(dtype, _Dtype) else None
        if name is None or not isinstance(data, bytes):
            return
        shape = sizes_of(shape)
        stored = whole(name, shape, data, dtype.order)
        if fortran:
            columns = whole(name, shape[::-1], data).strides[::-1]
            stored = Stored(name, shape, columns, 0, data, order=dtype.order)
        self.stored = stored


class _Dtype:
    """numpy.dtype("f4", …): its torch name, or None for one that no tensor has."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.name = _NUMPY_DTYPES.get(str(code).lstrip("<>|="))
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"


class PlainUnpickler(pickle._Unpickler):
    """One pickle of a stream, as plain data, `Stored` tensors and `Inert` objects.

    Attributes:
        replaced: the full names of classes that were not loaded, in the order they were met.
        tensors: how many were made.
    """

    def __init__(self, stream: IO[bytes], limit: int = WORK_ALWAYS) -> None:
        super().__init__(stream, fix_imports=True, encoding="latin1")
        self.dispatch = Counted(type(self).dispatch, self, limit)  # type: ignore[misc]  # for `load`
        self.replaced: dict[str, type[Inert]] = {}
        self.storages: dict[str, str] = {}
        self.tensors = 0

    def find_class(self, module: str, name: str) -> Any:
        """What stands for module.name here; nothing is imported."""
        # Protocols up to 2 have Python 2's names of modules.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        if len(module) + len(name) > _NAME_LIMIT:
            raise pickle.UnpicklingError(f"a class's name of {len(module) + len(name)} characters")
        full = f"{module}.{name}"
        if full in _RUNS_CODE or module.partition(".")[0] in _RUNS_CODE_MODULES:
            raise RunsCodeError(full)
        if module in ("torch", "torch.storage", "torch.cuda") and name in _STORAGES:
            return Storage("", _STORAGES[name])
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return self._tensor
        known = _PLAIN.get(full)
        if known is not None:
            return known
        if module == "torch" and name in _DTYPES:
            return name
        if full not in self.replaced:
            if len(self.replaced) == _CLASSES_LIMIT:
                raise pickle.UnpicklingError(f"more than {_CLASSES_LIMIT} foreign classes")
            self.replaced[full] = type(name, (Inert,), {"stands_for": full})
        return self.replaced[full]

    def _bytearray(self) -> None:
        """BYTEARRAY8, for which Python sets the memory aside before it looks for the bytes."""
        # read and append are what Python's own unpickler gives itself while it loads
        length = int.from_bytes(self.read(8), "little")  # type: ignore[attr-defined]
        self.append(bytes(self.read(length)))  # type: ignore[attr-defined]

    def _long(self) -> None:
        """LONG4, for integers of more than 255 bytes."""
        raise pickle.UnpicklingError("an integer of thousands of digits")

    def _build(self) -> None:
        """BUILD, which would set any attribute: only what keeps its state is given one."""
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        state = stack.pop()
        if isinstance(stack[-1], Inert | _Array | _Dtype):
            stack[-1].__setstate__(state)

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    dispatch[pickle.BYTEARRAY8[0]] = _bytearray
    dispatch[pickle.LONG4[0]] = _long
    dispatch[pickle.BUILD[0]] = _build

    def persistent_load(self, pid: Any) -> Any:
        """A storage, known by its key; in a file of many years ago, the source of a module."""
        if pid[0] == "module":
            return pid[1]
        _, kind, key, _, _, *view = pid
        if not isinstance(key, str | int):
            raise pickle.UnpicklingError("a storage without a key")
        dtype = kind.dtype if isinstance(kind, Storage) else "unknown"
        self.storages[str(key)] = dtype
        storage = Storage(str(key), dtype)
        # The legacy file may store a storage as a part of another: (key, first value, values).
        return (storage, view[0][1]) if view and view[0] is not None else storage

    def _tensor(self, storage: Any, offset: int, shape: Any, strides: Any, *_: object) -> Stored:
        self.tensors += 1
        if self.tensors > TENSORS_LIMIT:
            raise TooManyTensorsError(f"more than {TENSORS_LIMIT} tensors")
        if isinstance(storage, tuple):
            storage, offset = storage[0], offset + storage[1]
        return _stored(storage, offset, shape, strides)


def _parameter(data: Any, *_: object) -> Any:
    return data


def _of_dtype(storage: Storage, offset: int, shape: Any, strides: Any, *others: Any) -> Stored:
    # The offset counts bytes there, and the dtypes are newer than float32: none is read.
    return replace(_stored(storage, offset, shape, strides, "newer"), dtype=str(others[2]))


def _of_type(function: Callable[..., Any], _: object, arguments: Any, *__: object) -> Any:
    # A subclass of Tensor: what it is made of. The function is one of ours.
    return function(*arguments)


def _stored(storage: Any, offset: Any, shape: Any, strides: Any, kind: str = "") -> Stored:
    """A tensor of what the file says of it, which may be anything."""
    if not isinstance(storage, Storage) or not isinstance(offset, int):
        raise pickle.UnpicklingError("a tensor without its storage")
    return Stored(storage.dtype, sizes_of(shape), sizes_of(strides), offset, storage, kind)


def _not_plain(kind: str) -> Callable[..., Stored]:
    return lambda *_: Stored("float32", (0, 0), (0, 0), 0, None, kind)


def _member(kind: Any = None, name: object = None, *_: object) -> Inert:
    """A member of an Enum as Python 3.11.0 to 3.11.3 save it; any other look-up runs code."""
    if isinstance(kind, type) and issubclass(kind, Inert) and isinstance(name, str):
        return kind()
    raise RunsCodeError("builtins.getattr")


_DTYPES = {*_STORAGES.values(), "float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64"}
_PLAIN: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": lambda counts=(): dict(counts),
    "builtins.dict": lambda *_: {},
    "builtins.set": lambda items=(): set(items),
    "builtins.frozenset": lambda items=(): frozenset(items),
    "builtins.bytearray": lambda *_: b"",
    "builtins.complex": lambda *_: 0,
    "builtins.slice": lambda *_: (),
    "builtins.getattr": _member,
    "_codecs.encode": lambda text, *_: text.encode("latin1"),
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.device": lambda *_: "cpu",
    "torch.Tensor": type(None),
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch._utils._rebuild_tensor_v3": _of_dtype,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_qtensor": lambda a, b, c, d, *_: _stored(a, b, c, d, "quantized"),
    "torch._utils._rebuild_sparse_tensor": _not_plain("sparse"),
    "torch._utils._rebuild_nested_tensor": _not_plain("nested"),
    "torch._utils._rebuild_meta_tensor_no_storage": _not_plain("meta"),
    "torch.serialization._get_layout": lambda *_: "layout",
    "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy._core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
}


def plain(value: Any) -> Any:
    """`value`, with numpy arrays of numbers as `Stored` tensors."""
    return value.stored if isinstance(value, _Array) else value
