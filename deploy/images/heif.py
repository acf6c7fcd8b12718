"""HEIC, the format of iPhones: read where pillow-heif is installed, else named as skipped."""

import os
from functools import lru_cache
from importlib import import_module
from pathlib import Path

EXTENSIONS = frozenset([".heic", ".heif"])


def is_heif(path: str | Path) -> bool:
    """Whether a file is named like one."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS


@lru_cache(maxsize=1)
def can_read_heif() -> bool:
    """Whether Pillow reads these files, which the plugin makes it do when it is registered."""
    try:
        plugin = import_module("pillow_heif")
    except ImportError:  # not installed, or a library of it is missing
        return False
    plugin.register_heif_opener()
    return True


def skipped_heif(folder: Path) -> int:
    """How many files of a folder are left out because nothing here reads them."""
    if can_read_heif():
        return 0
    files = (name for _, _, names in os.walk(folder, followlinks=True) for name in names)
    return sum(is_heif(name) and not name.startswith(".") for name in files)
