"""What is attacked: each class prepares a folder and returns the function that tries one case.

A case raises AssertionError, or whatever else it does not expect, when something is wrong.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import click
import numpy as np
from click.testing import CliRunner
from PIL import Image

from resdeploy.deploy.bundle.bundle import MANIFEST, RANGES, REFERENCE, read_bundle, write_manifest
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.model import open_model, recorded_reference
from resdeploy.deploy.bundle.reference import Reference, write_reference
from resdeploy.deploy.cli.main import cli
from resdeploy.deploy.errors import ResdeployError, shown
from resdeploy.deploy.files import sealed
from resdeploy.deploy.images.files import open_image
from resdeploy.deploy.images.labels import read_labels
from resdeploy.deploy.images.lists import read_image_list
from resdeploy.deploy.images.preprocess import named, read_preprocess
from resdeploy.export.checkpoint.read import read_checkpoint
from tests.builders import write_bundle
from tests.conftest import tiny_graph
from tests.robustness.crashes import failing_writes, kills
from tests.robustness.killed import killed_builds, killed_exports, killed_quantizations
from tests.robustness.megabytes import megabytes
from tests.robustness.mutate import (
    PLAIN_PICKLE,
    changed,
    hostile_text,
    json_text,
    opcodes,
    repacked,
)

Case = Callable[[random.Random], None]

_PIECE_BYTES = 4096
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
# commands and options that would leave the folder: a server, a device over ssh, a cluster
_NOT_RUN = {"serve"}
_OPTIONS_NOT_GIVEN = {"--on", "--engine", "--address", "--parquet", "--help", "--version"}


def checkpoints(folder: Path) -> Case:
    """Zip, legacy and plain pickles and safetensors, changed at random."""
    bases = _checkpoint_files(folder)

    def case(rng: random.Random) -> None:
        base = rng.choice(bases)
        if base[:2] == b"PK" and rng.random() < 0.5:
            content = repacked(base, rng)
        elif rng.random() < 0.15:
            content = opcodes(rng, 2000)
        else:
            content = changed(base, rng, bases)
        file = folder / f"case{rng.choice(('.pth', '.safetensors', '.pt'))}"
        file.write_bytes(content)
        _refused_in_one_line(lambda: read_checkpoint(file))

    return case


def bundles(folder: Path) -> Case:
    """Every file of a bundle, a bit in any of its pieces of 4 kB: found, or without effect."""
    whole = _whole_bundle(folder)
    names = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
    contents = {name: (whole / name).read_bytes() for name in names}
    pieces = [
        (name, start) for name in names for start in range(0, len(contents[name]), _PIECE_BYTES)
    ]
    manifest = read_bundle(whole).manifest

    def case(rng: random.Random) -> None:
        name, start = rng.choice(pieces)
        content = bytearray(contents[name])
        place = min(len(content) - 1, start + rng.randrange(_PIECE_BYTES))
        content[place] ^= 1 << rng.randrange(8)
        (whole / name).write_bytes(content)
        try:
            opened = read_bundle(whole)
            for variant in opened.manifest.variants:
                opened.graph(variant)
            opened.file(RANGES)
            recorded_reference(open_model(whole))
        except ResdeployError as error:
            _check_line(error)
        else:
            assert name == MANIFEST and opened.manifest == manifest, f"{name} byte {place}"
        finally:
            (whole / name).write_bytes(contents[name])

    return case


def documents(folder: Path) -> Case:
    """Manifests with a right hash, labels, lists and preprocessings, changed as JSON and bytes."""
    whole = _whole_bundle(folder)
    fields = json.loads((whole / MANIFEST).read_text())
    labels = {str(index): f"class {index}" for index in range(5)}
    preprocess = named("imagenet").to_json()

    def case(rng: random.Random) -> None:
        file = folder / "document.json"
        content = json_text(fields, rng)
        with suppress(ValueError, TypeError):
            content = json.dumps(sealed(json.loads(content))).encode()
        (whole / MANIFEST).write_bytes(content)
        _refused_in_one_line(lambda: open_model(whole))
        _refused_in_one_line(
            lambda: Manifest.from_json(json.loads(content or b"0"), source="x"), (ValueError,)
        )
        for base, read in ((labels, read_labels), (preprocess, read_preprocess)):
            file.write_bytes(json_text(base, rng))
            _refused_in_one_line(lambda read=read: read(file))  # type: ignore[misc]
        file.write_bytes(changed(b"path,class\na.jpg,one\nb.jpg,two\n", rng))
        _refused_in_one_line(lambda: read_image_list(file))
        line = shown(hostile_text(rng))
        assert line.isprintable() or not any(ord(c) < 32 for c in line)

    return case


def images(folder: Path) -> Case:
    """Images of seven formats, changed at random."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    bases = []
    for name in _FORMATS:
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, name)
        bases.append(stream.getvalue())
    preprocess = named("imagenet", 32)

    def case(rng: random.Random) -> None:
        file = folder / "case.jpg"
        file.write_bytes(changed(rng.choice(bases), rng, tuple(bases)))
        _refused_in_one_line(lambda: preprocess.apply(open_image(file)))

    return case


def commands(folder: Path) -> Case:
    """Every command with hostile values of its options, inside a folder of its own."""
    whole = _whole_bundle(folder)
    _checkpoint_files(folder)
    Image.new("RGB", (40, 40), "red").save(folder / "a.jpg")
    context = click.Context(cli)
    found = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    usable = {name: one for name, one in found.items() if one is not None and name not in _NOT_RUN}
    inner = folder / "inner"

    def case(rng: random.Random) -> None:
        shutil.rmtree(inner, ignore_errors=True)
        shutil.copytree(whole, inner / "net.bundle")
        shutil.copy(folder / "a.jpg", inner / "a.jpg")
        shutil.copy(folder / "zip.pth", inner / "zip.pth")
        os.chdir(inner)
        name = rng.choice(list(usable))
        arguments = [name, *_arguments(usable[name], rng)]
        result = CliRunner().invoke(cli, arguments)
        error = result.exception
        expected = error is None or isinstance(
            error, SystemExit | ResdeployError | click.ClickException
        )
        expected = expected or (isinstance(error, OSError) and bool(error.strerror))
        assert expected, f"{arguments}: {error!r}"
        if isinstance(error, ResdeployError):
            assert str(error), arguments
        left = [path.name for path in inner.rglob(".*.new.*")]
        assert not left, f"{arguments} left {left}"

    return case


CLASSES: dict[str, Callable[[Path], Case]] = {
    "checkpoints": checkpoints,
    "megabytes": megabytes,
    "bundles": bundles,
    "documents": documents,
    "images": images,
    "commands": commands,
    "failing writes": failing_writes,
    "kills": kills,
    "killed exports": killed_exports,
    "killed quantizations": killed_quantizations,
    "killed builds": killed_builds,
}


def _arguments(command: click.Command, rng: random.Random) -> Iterable[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            usual = ("net.bundle", "a.jpg", "zip.pth", "net.bundle/fp32.onnx")
            yield rng.choice(usual) if rng.random() < 0.7 else _operand(rng)
        elif rng.random() < 0.25 and not _OPTIONS_NOT_GIVEN & set(parameter.opts):
            yield parameter.opts[0]
            if not (isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count)):
                yield (
                    rng.choice(("a.jpg", "1", "new.file", "."))
                    if rng.random() < 0.3
                    else _operand(rng)
                )


def _operand(rng: random.Random) -> str:
    """A hostile text, as a shell can give it, that names nothing outside the folder."""
    text = hostile_text(rng).replace("\0", "")
    data = b"\xff\xfe" if "\udcff" in text else text.encode("utf-8", "ignore")
    return os.fsdecode(data).lstrip("/-~").replace("..", ".").replace("://", ":")


def _refused_in_one_line(
    read: Callable[[], object], also: tuple[type[Exception], ...] = ()
) -> None:
    try:
        read()
    except ResdeployError as error:
        _check_line(error)
    except also:
        return


def _check_line(error: ResdeployError) -> None:
    text = shown(error)
    assert text and "Traceback" not in text and " object at 0x" not in text, text


def _checkpoint_files(folder: Path) -> tuple[bytes, ...]:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    tensors = {"conv1.weight": torch.randn(8, 3, 3, 3), "fc.weight": torch.randn(5, 8)}
    wrapped = {"state_dict": tensors, "epoch": 3, "classes": ["a", "b", "c", "d", "e"]}
    torch.save(wrapped, folder / "zip.pth")
    torch.save(wrapped, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, folder / "x.safetensors")
    files = ("zip.pth", "legacy.pth", "x.safetensors")
    return (*((folder / name).read_bytes() for name in files), PLAIN_PICKLE)


def _whole_bundle(folder: Path) -> Path:
    """A bundle with every kind of file that the manifest lists."""
    whole = folder / "whole.bundle"
    reference = Reference(np.zeros((2, 3, 32, 32), np.float32), np.zeros((2, 5), np.float32))
    labels = tuple(f"class {index}" for index in range(5))
    graphs = {"fp32": tiny_graph(), "int8": tiny_graph(), "int8-fp16": tiny_graph()}
    write_bundle(whole, graphs, named("imagenet", 32), labels=labels, reference=reference)  # type: ignore[arg-type]
    write_reference(whole / REFERENCE, reference)
    (whole / RANGES).write_text(json.dumps({"format_version": 2, "grids": {}}))
    write_manifest(whole, read_bundle(whole).manifest)
    return whole
