"""Reads a PyTorch checkpoint of any usual kind into named tensors, never running code from it.

    file --format--> plain data --wrapper--> state_dict --prefix--> {name: float32 tensor}

* format: zip or legacy `torch.save` (whatever the suffix), or safetensors, told by the first bytes.
* wrapper: the key under which a training script put the state_dict (`find_state_dict`).
* prefix: what DataParallel, torch.compile or Lightning put before each name; removed only where a
  known architecture fits the result (`fitting.fit`).

Everything else in the file (optimizer, epoch, arguments) is left alone and mentioned in the notes.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import CheckpointError
from resdeploy.deploy.files import sha256_file
from resdeploy.export.checkpoint.formats.contents import Contents, Format, open_contents
from resdeploy.export.checkpoint.formats.stored import (
    FLOATING,
    Stored,
    placeholder,
    read_float32,
)
from resdeploy.export.checkpoint.formats.unpickle import Inert, plain
from resdeploy.export.checkpoint.sidecars.hub import read_hub, weights_in
from resdeploy.export.checkpoint.sidecars.sidecar import Sidecar, joined
from resdeploy.export.checkpoint.sidecars.training import (
    read_training,
    segmentation,
    take_normalizer,
)
from resdeploy.export.checkpoint.state_dict import (
    check_bounds,
    find_labels,
    find_state_dict,
    some,
)
from resdeploy.export.checkpoint.weights.caffe2 import from_caffe2
from resdeploy.export.checkpoint.weights.merged_paths import merged_paths
from resdeploy.export.checkpoint.weights.one_network import one_network
from resdeploy.export.checkpoint.weights.reparametrised import plain_weights
from resdeploy.export.checkpoint.weights.trained_ranges import TrainedRange, set_aside_ranges
from resdeploy.export.matching.fitting import fit
from resdeploy.export.matching.prefixes import without_prefix

_NAMED_IN_ERRORS = 3
_LEAST_EPS = 1e-5  # what batch norms add to a variance at least, which rounding may have made -1e-9
# How the sentences begin that say which part of a file was taken for the network.
_CHOICES = ("only the ", "there are two networks")


@dataclass(frozen=True)
class Checkpoint:
    """A state_dict as read from a file.

    Attributes:
        path: the file; format: how it was written; sha256: of the whole file.
        wrapper: where in the file the state_dict stood, e.g. "state_dict"; None when bare.
        prefix: removed from the start of the names, e.g. "module."; "" for none.
        tensors: name without prefix -> values; float32, views of what was read where they are
            float32 in the file.
        notes: what was chosen, converted or ignored on the way, as sentences.
        choices: those of the notes that say what of the file is the network, which an export
            must not keep to itself.
        labels: class names found in the file or beside it, in the order of the classes, or None.
        sidecar: what is said about the network beside its tensors, or None.
        trained_ranges: "LAYER.input", "LAYER.weight" or "LAYER.output" in the file's names ->
            the ends that quantization-aware training kept.
    """

    path: Path
    format: Format
    wrapper: str | None
    prefix: str
    tensors: dict[str, Float32s]
    notes: tuple[str, ...]
    sha256: str
    choices: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    sidecar: Sidecar | None = None
    trained_ranges: Mapping[str, TrainedRange] = field(default_factory=dict)


def read_checkpoint(path: Path, *, checked: bool = True) -> Checkpoint:
    """Read `path`; nothing in it is executed and tensors are not copied where that can be helped.

    A folder is that of a model from a hub, with its configuration beside the weights. With
    `checked` off, the values of large tensors are neither compared with their checksums nor looked
    through for NaN: enough to tell which network it is, and no more.

    Raises:
        CheckpointError: no such file, not a checkpoint, damaged, a pickled module, quantized, or
            with NaN or infinite weights; the message says which and what to do.
    """
    path = weights_in(path) if Path(path).is_dir() else Path(path)
    contents = open_contents(path, checked=checked)
    if (found := find_state_dict(contents.root)) is None:
        raise _no_state_dict(path, contents.root)
    check_bounds(path, found.tensors)
    digest = _hashed_beside(path)
    notes = [*contents.notes, *found.notes, *_ignored(contents.replaced)]
    tensors = _float32(path, found.tensors, _reading(contents, checked), notes)
    tensors, ranges = set_aside_ranges(tensors, notes)
    tensors, told = _one_plain_network(path, tensors, notes)
    tensors, prefix = _fitted(tensors, notes)
    if checked:
        _check_finite(path, tensors)
    said = (*told, *read_training(contents.root), read_hub(path))
    sidecar = joined([one for one in said if one is not None])
    return Checkpoint(
        path=path,
        format=contents.format,
        wrapper=found.wrapper,
        prefix=prefix,
        tensors=tensors,
        notes=tuple(notes),
        choices=tuple(note for note in notes if note.startswith(_CHOICES)),
        sha256=digest.result(),
        labels=find_labels(contents.root) or (sidecar.labels if sidecar else None),
        sidecar=sidecar,
        trained_ranges=ranges,
    )


def _reading(contents: Contents, checked: bool) -> Callable[[Stored], Float32s]:
    """What makes floats of a tensor in the file."""
    if checked:
        return partial(read_float32, storages=contents.storages)
    return partial(placeholder, storages=contents.storages, size_of=contents.size_of)


def _ignored(classes: Sequence[str]) -> Iterator[str]:
    if classes:
        yield f"ignored objects of class {some(classes)} (never loaded)"


def _hashed_beside(path: Path) -> "Future[str]":
    """The file's SHA-256, which takes as long as reading it and none of Python's lock."""
    beside = ThreadPoolExecutor(1)
    digest = beside.submit(sha256_file, path)
    beside.shutdown(wait=False)
    return digest


def _one_plain_network(
    path: Path, tensors: dict[str, Float32s], notes: list[str]
) -> tuple[dict[str, Float32s], tuple[Sidecar | None, ...]]:
    """The tensors of one network as it computes with them, and what other tensors say of it."""
    tensors, caffe2 = from_caffe2(tensors, notes)
    tensors, normalizer = take_normalizer(tensors, notes)
    tensors = plain_weights(one_network(path, tensors, notes), notes)
    return tensors, (normalizer, caffe2, segmentation(tensors))


def _no_state_dict(path: Path, root: object) -> CheckpointError:
    for key, value in [("", root), *(root.items() if isinstance(root, Mapping) else ())]:
        if isinstance(value, Inert) and "_modules" in value.state:
            return _pickled_module(path, value.stands_for, f"[{key!r}]" if key else "")
    root = plain(root)
    if isinstance(root, Stored):
        what = f"a single tensor of shape {root.shape}"
    elif isinstance(root, Mapping) and root:
        what = f"a dictionary of {', '.join(str(key) for key in list(root)[:6])}"
    else:
        what = f"an empty {type(root).__name__}" if not root else f"a {type(root).__name__}"
    return CheckpointError(
        f"{path} holds {what}, and no named weights in it: "
        "save the network with torch.save(model.state_dict(), 'state_dict.pth')"
    )


def _pickled_module(path: Path, name: str, key: str) -> CheckpointError:
    """`key` is the Python subscript that reaches the module inside the file, e.g. `["model"]`."""
    if name.startswith("fastai."):
        return CheckpointError(
            f"{path} is a pickled fastai Learner ({name}), and unpickling one runs code; save its "
            f"weights where fastai is installed: load_learner({path.name!r}).save('model')"
        )
    return CheckpointError(
        f"{path} is a pickled module of class {name}, and unpickling one runs code; save its "
        "tensors instead, where its class can be imported: "
        f"model = torch.load({path.name!r}, map_location='cpu', weights_only=False){key}; "
        f"torch.save(model.state_dict(), '{path.stem}_state_dict.pth')"
    )


def _float32(
    path: Path,
    tensors: Mapping[str, Stored],
    read: Callable[[Stored], Float32s],
    notes: list[str],
) -> dict[str, Float32s]:
    values: dict[str, Float32s] = {}
    for name, tensor in tensors.items():
        whole_numbers = tensor.dtype not in FLOATING and tensor.ndim >= 2
        if tensor.kind == "quantized" or (whole_numbers and not tensor.kind):
            raise CheckpointError(
                f"{path} is quantized: {name} is {tensor.dtype}, expected floating-point "
                "weights: give the checkpoint from before quantization"
            )
        if tensor.kind:
            raise CheckpointError(
                f"{path}: {name} is no plain tensor ({tensor.kind} {tensor.dtype}): "
                "save the network's dense weights with torch.save(model.state_dict(), …)"
            )
        try:
            values[name] = read(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{path}: the values of {name} cannot be read ({error}): the file is damaged or "
                "cut short; copy or download it again"
            ) from error
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.dtype in FLOATING}
    if dtypes - {"float32"}:
        told = " and ".join(sorted(dtypes - {"float32"}))
        notes.append(f"{told} weights converted to float32")
    return values


def _fitted(tensors: dict[str, Float32s], notes: list[str]) -> tuple[dict[str, Float32s], str]:
    """Without prefix and without what is no part of the network, if a known architecture fits."""
    matched = fit({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if matched is None:
        merged, paths = merged_paths(tensors)
        if not paths:
            return tensors, ""
        matched = fit({name: tuple(tensor.shape) for name, tensor in merged.items()})
        if matched is None:
            return tensors, ""
        notes.append(f"{paths} separate paths of each block are one grouped convolution")
        tensors = merged
    if matched.ignored:
        notes.append(f"ignored, not part of the network: {', '.join(matched.ignored)}")
    if matched.prefix:
        notes.append(f"prefix {matched.prefix!r} removed from the names")
    if matched.surroundings:
        notes.append(
            f"only the {matched.network.name} under {matched.prefix!r} is read"
            f"{'' if matched.network.head else ', its pooled features are the output'}; "
            f"ignored around it: {_by_part(matched.surroundings)}"
        )
    fitted = {
        without_prefix(name, matched.prefix): tensor
        for name, tensor in tensors.items()
        if name not in (*matched.ignored, *matched.surroundings)
    }
    return fitted, matched.prefix


def _by_part(names: tuple[str, ...]) -> str:
    """The top-level parts of the names and how many tensors each has."""
    parts = Counter(name.partition(".")[0] for name in names)
    return ", ".join(f"{part} ({count} tensors)" for part, count in parts.items())


def _check_finite(path: Path, tensors: Mapping[str, Float32s]) -> None:
    # A finite sum has finite terms; only a sum that is not may have overflowed and needs the look.
    with np.errstate(all="ignore"):
        bad = [
            name
            for name, values in tensors.items()
            if not np.isfinite(values.sum()) and not np.isfinite(values).all()
        ]
    if bad:
        more = f" and {len(bad) - _NAMED_IN_ERRORS} more" if len(bad) > _NAMED_IN_ERRORS else ""
        raise CheckpointError(
            f"{path} has NaN or infinite values in {', '.join(bad[:_NAMED_IN_ERRORS])}{more}: "
            "the training diverged or the file is damaged; give an earlier checkpoint"
        )
    for name, values in tensors.items():
        if name.endswith("running_var") and values.size and values.min() < -_LEAST_EPS:
            raise CheckpointError(
                f"{path} has a negative variance in {name}, whose root is no number: the file is "
                "damaged; copy or download it again"
            )
