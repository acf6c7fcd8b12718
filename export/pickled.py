"""Reads what `torch.save` wrote as plain data, without running anything the file asks for.

A pickle is a small program: it may name any importable function and have it called. Every load here
is `torch.load(weights_only=True)`, which only knows tensors and plain containers. People also store
harmless riders of other classes (argparse.Namespace, numpy scalars, configuration objects), and
one of those makes torch refuse the whole file. So on refusal each class the pickle names is bound,
for that one load, to a stand-in of the same name that remembers its name and does nothing else. The
real classes are never imported and never called.

The stand-ins follow what torch's unpickler accepts (`torch/_weights_only_unpickler.py`):

    name(*arguments)         REDUCE   an object that ignores its state
    name.__new__(name, …)    NEWOBJ   an OrderedDict, the only mapping of ours that may take items
                                      (CfgNode, AttributeDict) and attributes (Namespace)
    collections.defaultdict           a dict
"""

import pickle
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch

from resdeploy.deploy.errors import CheckpointError

# A legacy file is five pickles in a row: magic number, protocol, machine, the object, storage keys.
_OBJECT_PICKLE_LEGACY = 3
# Nothing a training script stores needs these; a file that names one is a trap or badly broken.
_RUNS_CODE = {"builtins.eval", "builtins.exec", "builtins.compile", "builtins.__import__"}
_RUNS_CODE_MODULES = {"os", "posix", "nt", "sys", "subprocess", "runpy", "importlib", "ctypes"}
_STANDS_FOR = "resdeploy_stands_for"
_REASON_LENGTH = 160


def load_plain(path: Path) -> tuple[Any, tuple[str, ...]]:
    """The object saved in `path` with its tensors on the CPU, and the classes that were replaced.

    Tensors of an uncompressed zip file stay on disk until they are used (mmap).

    Raises:
        CheckpointError: damaged, made to run code, or an object that cannot be read as plain data.
    """
    try:
        return _torch_load(path), ()
    except pickle.UnpicklingError as error:
        refusal = error
    except Exception as error:  # a damaged pickle can make torch raise nearly anything
        raise _damaged(path, error) from error
    names = _globals_named(path)
    for name in names:
        if name in _RUNS_CODE or name.partition(".")[0] in _RUNS_CODE_MODULES:
            raise CheckpointError(
                f"{path} is a pickle that names {name}, which runs code and has no place in a "
                "checkpoint: nothing was run; get the file from a source you trust"
            ) from refusal
    foreign = tuple(name for name in names if not _is_torchs_own(name))
    try:
        with torch.serialization.safe_globals(_stand_ins(names)):
            return _torch_load(path), foreign
    except Exception as error:
        if any(name.startswith("torch.nn.modules.") for name in foreign):
            raise pickled_module(path, foreign[0]) from error
        raise _damaged(path, error) from error


def class_replaced(value: object) -> str | None:
    """The full name of the class `value` stands in for, or None for plain data."""
    name = getattr(value, _STANDS_FOR, None)
    return name if isinstance(name, str) else None


def pickled_module(path: Path, name: str, key: str = "") -> CheckpointError:
    """The error for a whole `nn.Module` saved instead of its tensors, with the way to convert it.

    `key` is the Python subscript that reaches the module inside the file, e.g. `["model"]`.
    """
    converted = f"{path.stem}_state_dict.pth"
    return CheckpointError(
        f"{path} is a pickled module of class {name}, and unpickling one runs code; save its "
        "tensors instead, where its class can be imported: "
        f"model = torch.load({path.name!r}, map_location='cpu', weights_only=False){key}; "
        f"torch.save(model.state_dict(), {converted!r})"
    )


def _torch_load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=_can_be_mapped(path))


def _can_be_mapped(path: Path) -> bool:
    # torch maps a record's raw bytes; in an archive that was zipped again they are deflated.
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(record.compress_type == zipfile.ZIP_STORED for record in archive.infolist())


def _stand_ins(names: tuple[str, ...]) -> list[Any]:
    stand_ins: list[Any] = [
        (_StandIn(name, (), {"__new__": _new}), name)
        for name in names
        if name != "collections.defaultdict"
    ]
    # What a called stand-in returns must itself be known, or torch lets no state be set on it.
    stand_ins.append((_Replaced, "resdeploy.replaced"))
    # A defaultdict is called and then filled, which torch allows for a plain dict only.
    stand_ins.append((lambda *_: {}, "collections.defaultdict"))
    return stand_ins


class _Replaced:
    """What a call of an unknown class or function became."""

    def __init__(self, name: str) -> None:
        setattr(self, _STANDS_FOR, name)

    def __setstate__(self, _: object) -> None:
        """Ignored."""


class _StandIn(type):
    """A class of the name the pickle gives, whose instances are inert."""

    def __call__(cls, *_: object) -> _Replaced:
        return _Replaced(cls.__name__)


def _new(cls: type, *_: object) -> Any:
    items: OrderedDict[str, object] = OrderedDict()
    setattr(items, _STANDS_FOR, cls.__name__)
    return items


def _globals_named(path: Path) -> tuple[str, ...]:
    """Every module.name in the pickle, in order, found by disassembling it."""
    names: dict[str, None] = {}
    strings: list[str] = []
    try:
        with _object_pickle(path) as stream:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    module, _, name = str(argument).partition(" ")
                elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                    module, name = strings[-2:]
                else:
                    if isinstance(argument, str):
                        strings.append(argument)
                    continue
                module, name = NAME_MAPPING.get(
                    (module, name), (IMPORT_MAPPING.get(module, module), name)
                )
                names[f"{module}.{name}"] = None
    except Exception as error:  # lengths in a damaged pickle can even exhaust memory
        raise _damaged(path, error) from error
    return tuple(names)


def _object_pickle(path: Path) -> IO[bytes]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            record = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            return BytesIO(archive.read(record))
    stream = path.open("rb")
    for _ in range(_OBJECT_PICKLE_LEGACY):
        for _ in pickletools.genops(stream):
            pass
    return stream


def _is_torchs_own(name: str) -> bool:
    containers = ("collections.", "_codecs.", "torch._utils.", "torch.serialization.")
    return name.startswith(containers) or (
        name.startswith("torch.") and name.endswith(("Storage", "Size", "device", "Parameter"))
    )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    # Between torch's pages of advice on trusting files stands the line that says what failed.
    told = " ".join(str(error).split()).rpartition("WeightsUnpickler error: ")[2]
    told = told.partition(" Check the documentation")[0][:_REASON_LENGTH].rstrip(". ")
    if told.startswith("Unsupported operand"):
        return CheckpointError(
            f"{path} was pickled in a newer way than torch reads without running code ({told}), "
            "expected pickle protocol 2: save it again with torch.save and no pickle_protocol"
        )
    return CheckpointError(
        f"{path} cannot be read as a checkpoint ({told or type(error).__name__}): it is damaged, "
        "cut short or not from torch.save; copy it again or save it anew with "
        "torch.save(model.state_dict(), …)"
    )
