"""Class names: read from the file a training script left, or numbered when there is none.

Accepted, as people save them:
    class_indices.json   {"0": "daisy", "1": "roses"}, {"daisy": 0, "roses": 1} or ["daisy", …]
    labels.txt           one name a line, in the order of the classes
"""

from pathlib import Path
from typing import Any

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.reading import parse_json, read_text

# Looked for beside the checkpoint when --classes is not given.
USUAL_NAMES = (
    "class_indices.json",
    "classes.json",
    "labels.json",
    "class_to_idx.json",
    "idx_to_class.json",
    "labels.txt",
    "classes.txt",
)


def find_labels_file(checkpoint: Path) -> Path | None:
    """The labels file beside a checkpoint; `<stem>_class_indices.json` goes before the usual."""
    own = [f"{checkpoint.stem}_{name}" for name in USUAL_NAMES]
    for name in [*own, *USUAL_NAMES]:
        candidate = checkpoint.parent / name
        if candidate.is_file():
            return candidate
    return None


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names in class order.

    Raises:
        InputError: the file cannot be read, or its indices are not 0 … n-1.
    """
    try:
        text = read_text(path, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: class names cannot be read: {error}") from error
    if path.suffix.lower() == ".json":
        try:
            labels = _labels_of_json(parse_json(text))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}: not class names ({error}); expected "
                '{"0": "daisy", …}, {"daisy": 0, …} or ["daisy", …]'
            ) from error
    else:
        labels = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not labels:
        raise InputError(f"{path}: no class names in it")
    return labels


def class_folders(folder: Path) -> tuple[str, ...]:
    """The sorted names of the folders in `folder`, as torchvision's ImageFolder numbers classes."""
    if not folder.is_dir():
        return ()
    entries = (entry for entry in folder.iterdir() if entry.is_dir())
    return tuple(sorted(entry.name for entry in entries if not entry.name.startswith(".")))


def numbered(classes: int) -> tuple[str, ...]:
    """Names for a network whose class names nobody gave: class_0, class_1 and so on."""
    return tuple(f"class_{index}" for index in range(classes))


def _labels_of_json(content: Any) -> tuple[str, ...]:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return tuple(content)
    if not isinstance(content, dict):
        raise TypeError(f"a JSON {type(content).__name__}")
    if all(isinstance(index, int) for index in content.values()):
        by_index = {index: str(name) for name, index in content.items()}
    else:
        by_index = {int(index): _name_of(name) for index, name in content.items()}
    if sorted(by_index) != list(range(len(content))):
        raise ValueError(f"the indices are not 0 … {len(content) - 1}, each once")
    return tuple(by_index[index] for index in range(len(by_index)))


def _name_of(value: Any) -> str:
    # Keras' imagenet_class_index.json stores ["n01440764", "tench"]
    if isinstance(value, list) and len(value) == 2:
        return str(value[1])
    if not isinstance(value, str):
        raise TypeError(f"a class name that is a {type(value).__name__}")
    return value
