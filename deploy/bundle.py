"""Reads a bundle with every file checked, and writes one so that no half of it is ever seen.

Writing: everything goes into a folder inside a temporary sibling, the manifest last, and the folder
is moved into place with one rename. Adding files to a bundle that exists (INT8 variants, engines)
writes each file beside its final name, renames it, and replaces the manifest last; until then the
old manifest with its old hashes is in force.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.manifest import Manifest, VariantFile, sha256_file
from resdeploy.deploy.specs import Variant

MANIFEST = "manifest.json"
REFERENCE = "reference.npz"
RANGES = "ranges.json"
ENGINES = "engines"
REPORTS = "reports"

# what writing raises without naming a file: disk or quota full, file too large, device failing
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder and its manifest."""

    path: Path
    manifest: Manifest

    def graph(self, variant: Variant) -> Path:
        """The path of a variant's ONNX file, after its size and SHA-256 were checked.

        Raises:
            BundleError: the bundle has no such variant, or its file was altered.
        """
        file = self.manifest.variants.get(variant)
        if file is None:
            have = ", ".join(self.manifest.variants) or "none"
            advice = (
                f"make it with resdeploy quantize {self.path} --calib DIR"
                if variant.startswith("int8")
                else f"export again with --precision {variant}"
            )
            raise BundleError(f"{self.path}: no {variant} variant in it (it has {have}): {advice}")
        path = self.path / file.file
        check_file(path, file.sha256, file.bytes)
        return path


def read_bundle(path: Path) -> Bundle:
    """Open a bundle's manifest; its files are checked when they are asked for.

    Raises:
        BundleError: no bundle there, or its manifest is damaged or of a newer format.
    """
    file = path / MANIFEST
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "no manifest.json in it" if path.is_dir() else "no such bundle"
        if path.is_file():
            raise BundleError(
                f"{path}: a file, expected a bundle's folder or an .onnx file; if it is a "
                f"checkpoint, make a bundle of it with resdeploy export {path}"
            ) from error
        raise BundleError(
            f"{path}: {what}; make a bundle with resdeploy export CHECKPOINT"
        ) from error
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{file}: cannot be read ({error}): export again") from error
    if isinstance(fields, dict) and fields.pop("sha256", None) not in (None, _digest(fields)):
        raise BundleError(
            f"{file}: altered since it was written: export again, or take its line "
            '"sha256" out if you edited it yourself'
        )
    return Bundle(path, Manifest.from_json(fields, source=str(file)))


def check_file(path: Path, sha256: str, size_bytes: int | None = None) -> None:
    """Raise BundleError unless the file is there with the size and hash the manifest names."""
    if not path.is_file():
        raise BundleError(f"{path}: missing, though the manifest lists it: export again")
    size = path.stat().st_size
    if size_bytes is not None and size != size_bytes:
        raise BundleError(
            f"{path}: altered since it was written: {size} bytes, expected {size_bytes}: "
            "export again or restore the file"
        )
    try:
        found = sha256_file(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    if found != sha256:
        raise BundleError(
            f"{path}: altered since it was written: sha256 {found[:12]}…, expected "
            f"{sha256[:12]}…: export again or restore the file"
        )


@contextmanager
def new_bundle(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; on success it becomes `path`, else it vanishes.

    The caller fills the folder and calls `write_manifest` last. An existing bundle is replaced
    only with `overwrite`, and only at the very end.

    Raises:
        InputError: `path` exists and `overwrite` is not given, is no bundle, or cannot be written.
    """
    check_target(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        staging = holder / "new"
        staging.mkdir()  # not the holder itself, whose 0700 would keep others from the bundle
        yield staging
        _move_into_place(staging, path, aside=holder / "old")
    except OSError as error:
        # the body may also fail to read a file of the user's, which is another matter
        if error.errno in _FULL or str(error.filename or "").startswith((str(holder), str(path))):
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error
        raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise InputError when `path` is taken: asked early, before minutes of work."""
    if not path.exists():
        return
    if not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path}: exists and is not a bundle: choose another name with -o")
    if not overwrite:
        raise InputError(f"{path}: exists already: replace it with --overwrite or choose -o")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` atomically, with its own hash; always the last file of a change."""
    fields = json.loads(json.dumps(manifest.to_json()))
    text = json.dumps({**fields, "sha256": _digest(fields)}, indent=2, ensure_ascii=False) + "\n"
    with replaced_file(folder / MANIFEST) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed over `path`.

    A device or a pipe (/dev/stdout) cannot be replaced by a file: it is yielded itself.

    Raises:
        InputError: the folder cannot be written or is full.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # nothing there, or no folder there at all
            temporary.unlink()


def describe_file(path: Path, *, opset: int, made_from: str) -> VariantFile:
    """The manifest's entry for an ONNX file that lies in its final form at `path`."""
    return VariantFile(path.name, sha256_file(path), path.stat().st_size, opset, made_from)


def _digest(fields: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content, whatever its layout."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _move_into_place(staging: Path, path: Path, *, aside: Path) -> None:
    if not path.exists():
        os.rename(staging, path)
        return
    # a folder that is not empty cannot be renamed over: the old bundle steps aside for a moment
    try:
        os.rename(path, aside)
        os.rename(staging, path)
    finally:
        if aside.exists() and not path.exists():  # whatever went wrong, Ctrl-C included
            os.rename(aside, path)
