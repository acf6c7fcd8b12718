"""Writes reports where the user asked: refused early when that cannot work, whole or not at all."""

import os
from pathlib import Path

from resdeploy.deploy.bundle import MANIFEST, REPORTS, replaced_file
from resdeploy.deploy.errors import InputError


def check_writable(*paths: Path | None) -> None:
    """Raise InputError for a file that could not be written, before minutes of work.

    None stands for a report that was not asked for.
    """
    asked = [path for path in paths if path is not None]
    for path in asked:
        if not path.parent.is_dir():
            raise InputError(f"{path}: cannot be written: no folder {path.parent}: make it first")
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            what = "it is a folder" if path.is_dir() else "no permission"
            raise InputError(f"{path}: cannot be written: {what}")
    for path in asked:
        if asked.count(path) > 1:
            raise InputError(f"{path}: named for two reports: give each its own file")


def write_text(path: Path, text: str) -> None:
    """Write a text file, replacing what was there in one step.

    Raises:
        InputError: the folder cannot be written or is full.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")  # /dev/stdout or a pipe must not be replaced
        return
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_in_bundle(bundle: Path, name: str, text: str) -> None:
    """Keep a result under `reports/` of a bundle; one that cannot be written is left alone."""
    folder = bundle / REPORTS
    try:
        if (bundle / MANIFEST).is_file():
            folder.mkdir(exist_ok=True)
            write_text(folder / name, text)
    except (OSError, InputError):
        return  # a copy for later, not what was asked for
