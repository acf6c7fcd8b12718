"""Reads a bundle with every file checked; `update` makes and changes one.

A bundle may be replaced while it is being read. A reader that meets a file which does not fit the
manifest reads the manifest once more before it complains.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.exchange import restore
from resdeploy.deploy.bundle.held import HeldFile
from resdeploy.deploy.bundle.loops import check_no_loops
from resdeploy.deploy.bundle.manifest import Manifest, VariantFile
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.files import (
    read_sealed,
    replaced_file,
    sealed,
    sha256_file,
    write_text,
)
from resdeploy.deploy.reading import StrPath
from resdeploy.deploy.specs import Variant

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
REFERENCE = "reference.npz"
RANGES = "ranges.json"
ENGINES = "engines"
REPORTS = "reports"
INT8_REPORT = "reports/int8.json"
TRAINED_RANGES = "trained_ranges.json"

# among the proofs: what an adopted graph was, and what was done to it
ADOPTION = "adoption"
# among the proofs: what replaced the reference that export recorded
NEW_REFERENCE = "reference"

# What an export or a quantization writes besides graphs. Engines and later reports come and go
# without the manifest, and carry hashes of their own.
_HASHED = (REFERENCE, RANGES, TRAINED_RANGES, INT8_REPORT)


# the folder of a bundle, and what its manifest must hold
_ONLY: ContextVar[tuple[Path, dict[str, Any]] | None] = ContextVar("_ONLY", default=None)


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder and its manifest; of a `fixed` one no other manifest is accepted."""

    path: Path
    manifest: Manifest
    fixed: bool = False

    def graph(self, variant: Variant) -> Path:
        """The path of a variant's ONNX file, after its size and SHA-256 were checked.

        Raises:
            BundleError: the bundle has no such variant, or its file was altered.
        """
        with self.held_graph(variant) as held:
            return held.path

    @contextmanager
    def held_graph(self, variant: Variant) -> Iterator[HeldFile]:
        """A variant's ONNX file, held open since its size and SHA-256 were checked.

        Raises:
            BundleError: the bundle has no such variant, or its file was altered, now or until the
                block ends.
        """
        with self._open(variant) as held:
            yield held
            held.check()

    def _open(self, variant: Variant) -> HeldFile:
        try:
            return self._checked(variant)
        except BundleError:
            if self.fixed or (now := read_bundle(self.path)).manifest == self.manifest:
                raise
            if _interface(now.manifest) != _interface(self.manifest):
                raise BundleError(
                    f"{self.path}: replaced by another model meanwhile: run again"
                ) from None
            return now._open(variant)

    def file(self, name: str) -> Path | None:
        """A file that is no graph, after its SHA-256 was checked; None where there is none (more).

        Raises:
            BundleError: it was altered, or is not the bundle's own.
        """
        path = self.path / name
        files = self.manifest.files
        if files is None or not path.exists():
            return path if path.is_file() else None
        try:
            if name not in files:
                raise BundleError(
                    f"{path}: not among the files that {MANIFEST} lists: remove it or export again"
                )
            check_file(path, files[name])
            return path
        except BundleError:
            if self.fixed or (now := read_bundle(self.path)).manifest.files == files:
                raise
            return now.file(name)

    def owns(self, path: Path) -> bool:
        """Whether a file is the manifest or one that it lists, whose place no report may take."""
        listed = [*(self.manifest.files or ()), *(v.file for v in self.manifest.variants.values())]
        names = (MANIFEST, SIGNATURE, *listed)
        return path.resolve() in {(self.path / name).resolve() for name in names}

    def _checked(self, variant: Variant) -> HeldFile:
        file = self.manifest.variants.get(variant)
        if file is None:
            have = ", ".join(self.manifest.variants) or "none"
            advice = (
                f"make it with resdeploy quantize {self.path} --calib DIR"
                if variant.startswith("int8")
                else f"export again with --precision {variant}"
            )
            raise BundleError(f"{self.path}: no {variant} variant in it (it has {have}): {advice}")
        held = HeldFile(self.path / file.file, file.sha256, file.bytes)
        try:
            check_no_loops(held.path, held.file)
        except BaseException:
            held.close()
            raise
        return held


def read_bundle(path: StrPath) -> Bundle:
    """Open a bundle's manifest; its files are checked when they are asked for.

    Raises:
        BundleError: no bundle there, or its manifest is damaged or of a newer format.
    """
    path = Path(path)
    try:
        return _read(path)
    except BundleError:
        restore(path)  # a replacement of it may be under way, or was killed half-way
        return _read(path)


@contextmanager
def only_manifest(bundle: Path, content: Mapping[str, Any]) -> Iterator[None]:
    """While it is entered, this bundle is not read with a manifest of another content."""
    fields = {key: value for key, value in content.items() if key != "sha256"}
    before = _ONLY.set((bundle.resolve(), fields))
    try:
        yield
    finally:
        _ONLY.reset(before)


def _read(path: Path) -> Bundle:
    file = path / MANIFEST
    try:
        fields = read_sealed(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(_why_no_bundle(path)) from error
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{file}: cannot be read ({error}): export again") from error
    only = _ONLY.get()
    fixed = only is not None and only[0] == path.resolve()
    if only is not None and fixed and only[1] != fields:
        raise BundleError(
            f"{path}: changed since its signature was checked: run again if you know why"
        )
    return Bundle(path, Manifest.from_json(fields, source=str(file)), fixed)


def _why_no_bundle(path: Path) -> str:
    """What stands in the place of a bundle, and what to do with it."""
    if not path.is_file():
        what = "no manifest.json in it" if path.is_dir() else "no such bundle"
        return f"{path}: {what}; make a bundle with resdeploy export CHECKPOINT"
    if path.suffix.lower() == ".engine":
        return (
            f"{path}: an engine, expected a bundle's folder: give the bundle that it was built "
            f"from, {bundle_of(path)}"
        )
    if path.suffix.lower() == ".onnx":
        return (
            f"{path}: an ONNX graph, expected a bundle's folder: give the bundle it belongs to, "
            f"or make one of another tool's graph with resdeploy adopt {path}"
        )
    return (
        f"{path}: a file, expected a bundle's folder or an .onnx file; if it is a checkpoint, "
        f"make a bundle of it with resdeploy export {path}"
    )


def bundle_of(engine: Path) -> str:
    """The bundle that an engine lies in, as a command takes it; BUNDLE where it lies in none."""
    return str(engine.parent.parent) if engine.parent.name == ENGINES else "BUNDLE"


def check_file(path: Path, sha256: str, size_bytes: int | None = None) -> None:
    """Raise BundleError unless the file is there with the size and hash the manifest names."""
    HeldFile(path, sha256, size_bytes).close()


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write `manifest.json` atomically, with its own hash and those of the files it describes.

    Always the last file of a change. Returns the manifest with those hashes.
    """
    files = {name: sha256_file(folder / name) for name in _HASHED if (folder / name).is_file()}
    manifest = replace(manifest, files=files)
    fields = sealed(manifest.to_json())
    text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    with replaced_file(folder / MANIFEST) as temporary:
        temporary.write_text(text, encoding="utf-8")
    (folder / SIGNATURE).unlink(missing_ok=True)  # of the former manifest
    return manifest


def describe_file(path: Path, *, opset: int, made_from: str) -> VariantFile:
    """The manifest's entry for an ONNX file that lies in its final form at `path`."""
    return VariantFile(path.name, sha256_file(path), path.stat().st_size, opset, made_from)


def _interface(manifest: Manifest) -> tuple[object, ...]:
    """What a reader has already acted on: two states that agree in it are interchangeable."""
    return (manifest.model, manifest.input, manifest.output, manifest.preprocess, manifest.labels)


def save_in_bundle(bundle: Path, name: str, content: Mapping[str, Any]) -> None:
    """Keep a result under `reports/` of a bundle; one that cannot be written is left alone.

    `files.read_sealed` reads it.
    """
    folder = bundle / REPORTS
    text = json.dumps(sealed(content), indent=1) + "\n"
    try:
        if (bundle / MANIFEST).is_file():
            folder.mkdir(exist_ok=True)
            if (folder / name).is_symlink():  # into the Hub's cache, which keeps what was fetched
                (folder / name).unlink()
            write_text(folder / name, text)
    except (OSError, InputError):
        return  # a copy for later, not what was asked for


def is_adopted(manifest: Manifest) -> bool:
    """Whether the bundle comes from a foreign ONNX graph, which PyTorch never answered for."""
    return ADOPTION in manifest.proofs


def original_name(manifest: Manifest) -> str:
    """What gave the recorded answers, as sentences name it."""
    return "the adopted graph" if is_adopted(manifest) else "PyTorch"


def recorded_by(manifest: Manifest) -> str:
    """What gave the logits in reference.npz; quantize may have replaced those of the original."""
    return "fp32.onnx" if NEW_REFERENCE in manifest.proofs else original_name(manifest)
