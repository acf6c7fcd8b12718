"""Reads a PyTorch checkpoint of any usual kind into named tensors, never running code from it.

    file --format--> plain data --wrapper--> state_dict --prefix--> {name: float32 tensor}

* format: zip or legacy `torch.save` (whatever the suffix), or safetensors, told by the first bytes.
* wrapper: the key under which a training script put the state_dict (`dialects.find_state_dict`).
* prefix: what DataParallel, torch.compile or Lightning put before each name; removed only where a
  known architecture fits the result (`fitting.fit`).

Everything else in the file (optimizer, epoch, arguments) is left alone and mentioned in the notes.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from resdeploy.deploy.errors import CheckpointError
from resdeploy.deploy.manifest import sha256_file
from resdeploy.deploy.optional import needs
from resdeploy.export import dialects
from resdeploy.export.fitting import fit
from resdeploy.export.pickled import class_replaced, load_plain, pickled_module

Format = Literal["zip", "legacy", "safetensors"]

# First bytes of files that get mistaken for checkpoints -> what they are and what to do.
_MISTAKEN = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself: run git lfs pull"),
    (b"<", "a web page or XML, not a checkpoint: download the file itself, not the page about it"),
    (b"\x89HDF", "an HDF5 file (Keras): export the network from PyTorch instead"),
    (b"\x1f\x8b", "gzip-compressed: run gunzip on it first"),
    (b"\x08", "an ONNX graph or other protobuf file, not a PyTorch checkpoint"),
)
_MAGIC_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # after pickle's own header
_NAMED_IN_ERRORS = 3
# Where torch allocates and where torch.save puts tensors in its file. Other writers do not, and
# a kernel that gets an unaligned weight may sum in another order: other last bits.
_ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class Checkpoint:
    """A state_dict as read from a file.

    Attributes:
        path: the file; format: "zip", "legacy" or "safetensors"; sha256: of the whole file.
        wrapper: where in the file the state_dict stood, e.g. "state_dict"; None when bare.
        prefix: removed from the start of the names, e.g. "module."; "" for none.
        tensors: name without prefix -> tensor on the CPU; floating-point ones are float32.
        notes: what was chosen, converted or ignored on the way, as sentences.
        labels: class names found in the file in the order of the classes, or None.
    """

    path: Path
    format: Format
    wrapper: str | None
    prefix: str
    tensors: dict[str, torch.Tensor]
    notes: tuple[str, ...]
    sha256: str
    labels: tuple[str, ...] | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read `path`; nothing in it is executed and tensors are not copied where that can be helped.

    Raises:
        CheckpointError: no such file, not a checkpoint, damaged, a pickled module, quantized, or
            with NaN or infinite weights; the message says which and what to do.
    """
    path = Path(path)
    file_format = _format_of(path)
    root, replaced = _load(path, file_format)
    found = dialects.find_state_dict(root)
    if found is None:
        raise _no_state_dict(path, root)
    notes = list(found.notes)
    if replaced:
        notes.append(f"ignored objects of class {', '.join(replaced)} (never loaded)")
    tensors = _float32(path, found.tensors, notes)
    tensors, prefix = _fitted(tensors, notes)
    _check_finite(path, tensors)
    return Checkpoint(
        path=path,
        format=file_format,
        wrapper=found.wrapper,
        prefix=prefix,
        tensors=tensors,
        notes=tuple(notes),
        sha256=sha256_file(path),
        labels=dialects.find_labels(root),
    )


def _format_of(path: Path) -> Format:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: give the checkpoint file inside it")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes): copy or download it again")
    if head.startswith(b"PK\x03\x04"):
        _check_archive(path)
        return "zip"
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return "safetensors"
    if _MAGIC_LEGACY in head:
        return "legacy"
    for start, kind in _MISTAKEN:
        if head.lstrip().startswith(start):
            raise CheckpointError(f"{path} is {kind}")
    if head.startswith(b"\x80"):
        raise CheckpointError(
            f"{path} is a plain pickle, not written by torch.save, and reading one runs code: "
            "save the tensors with torch.save(model.state_dict(), 'state_dict.pth')"
        )
    kind = "a text file" if head.isascii() and b"\x00" not in head else "no PyTorch file"
    raise CheckpointError(
        f"{path} is {kind} (it begins with {head[:16]!r}): give a checkpoint written by torch.save "
        "or a .safetensors file"
    )


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{path} is a zip archive that is damaged or cut short "
            f"({path.stat().st_size} bytes): copy or download it again"
        ) from error
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path} is a TorchScript archive (torch.jit.save), no checkpoint; save its tensors: "
            f"model = torch.jit.load({path.name!r}, map_location='cpu'); "
            f"torch.save(model.state_dict(), '{path.stem}_state_dict.pth')"
        )
    if "data.pkl" not in names:
        kind = "a torch.export archive" if "archive_format" in names else "a zip archive"
        raise CheckpointError(
            f"{path} is {kind} but no checkpoint (it has no data.pkl): give the file that "
            "torch.save(model.state_dict(), …) wrote"
        )


def _load(path: Path, file_format: Format) -> tuple[Any, tuple[str, ...]]:
    if file_format != "safetensors":
        return load_plain(path)
    with needs("reading .safetensors"):
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, ()  # noqa: SIM118  no iterator
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}): copy or download it again"
        ) from error


def _no_state_dict(path: Path, root: object) -> CheckpointError:
    for key, value in [("", root), *(root.items() if isinstance(root, Mapping) else ())]:
        name = class_replaced(value)
        if name is not None and hasattr(value, "_modules"):
            return pickled_module(path, name, f"[{key!r}]" if key else "")
    if isinstance(root, torch.Tensor):
        what = f"a single tensor of shape {tuple(root.shape)}"
    elif isinstance(root, Mapping) and root:
        what = f"a dictionary of {', '.join(str(key) for key in list(root)[:6])}"
    else:
        what = f"an empty {type(root).__name__}" if not root else f"a {type(root).__name__}"
    return CheckpointError(
        f"{path} holds {what}, and no named weights in it: "
        "save the network with torch.save(model.state_dict(), 'state_dict.pth')"
    )


def _float32(
    path: Path, tensors: Mapping[str, torch.Tensor], notes: list[str]
) -> dict[str, torch.Tensor]:
    converted: dict[str, torch.Tensor] = {}
    dtypes: set[str] = set()
    for name, tensor in tensors.items():
        whole_number_weight = not tensor.dtype.is_floating_point and tensor.ndim >= 2
        if tensor.is_quantized or whole_number_weight or tensor.is_complex():
            raise CheckpointError(
                f"{path} is quantized: {name} is {_name_of(tensor.dtype)}, expected floating-point "
                "weights: give the checkpoint from before quantization"
            )
        if tensor.layout != torch.strided or tensor.is_meta:
            raise CheckpointError(
                f"{path}: {name} is not a plain tensor ({tensor.layout}, {tensor.device}): "
                "save the network's dense weights with torch.save(model.state_dict(), …)"
            )
        tensor = tensor.detach()
        if tensor.dtype.is_floating_point and tensor.dtype != torch.float32:
            dtypes.add(_name_of(tensor.dtype))
            tensor = tensor.float()
        if tensor.data_ptr() % _ALIGNMENT_BYTES:
            tensor = tensor.clone()
        converted[name] = tensor
    if dtypes:
        notes.append(f"{' and '.join(sorted(dtypes))} weights converted to float32")
    return converted


def _fitted(
    tensors: dict[str, torch.Tensor], notes: list[str]
) -> tuple[dict[str, torch.Tensor], str]:
    """Without prefix and without what is no part of the network, if a known architecture fits."""
    matched = fit({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if matched is None:
        return tensors, ""
    if matched.ignored:
        notes.append(f"ignored, not part of the network: {', '.join(matched.ignored)}")
    if matched.prefix:
        notes.append(f"prefix {matched.prefix!r} removed from the names")
    fitted = {
        dialects.without_prefix(name, matched.prefix): tensor
        for name, tensor in tensors.items()
        if name not in matched.ignored
    }
    return fitted, matched.prefix


def _check_finite(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    # A finite sum has finite terms; only a sum that is not may have overflowed and needs the look.
    bad = [
        name
        for name, tensor in tensors.items()
        if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all()
    ]
    if bad:
        more = f" and {len(bad) - _NAMED_IN_ERRORS} more" if len(bad) > _NAMED_IN_ERRORS else ""
        raise CheckpointError(
            f"{path} has NaN or infinite values in {', '.join(bad[:_NAMED_IN_ERRORS])}{more}: "
            "the training diverged or the file is damaged; give an earlier checkpoint"
        )


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
