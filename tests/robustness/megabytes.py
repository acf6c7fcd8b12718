"""Files of a megabyte at most that are made to cost as much time and memory as they can."""

import json
import random
import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from resdeploy.deploy.bundle.reference import read_reference
from resdeploy.deploy.errors import ResdeployError
from resdeploy.deploy.images.files import open_image
from resdeploy.deploy.images.labels import read_labels
from resdeploy.deploy.images.lists import read_image_list
from resdeploy.deploy.images.preprocess import named, read_preprocess
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint

Case = Callable[[random.Random], None]

_BYTES = 1 << 20

# a long list, a long text, sets, sizes and a foreign class, as 0 to 5 of the memo
_HEAD = (
    b"\x80\x04](" + b"K\x01" * 5000 + b"eq\x000"
    + b"X" + (20_000).to_bytes(4, "little") + b"a" * 20_000 + b"q\x010"
    + b"cbuiltins\nset\nq\x020ctorch\nSize\nq\x030cfoo\nBar\nq\x040"
    + b"ccollections\nOrderedDict\nq\x050"
)  # fmt: skip
_PIECES = (
    b"]", b"}", b"\x8f", b")", b"2", b"N", b"K\x01", b"h\x00", b"h\x01", b"(", b"l", b"t", b"0",
    b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b"\x90", b"\x91", b"\x94", b"q\x09",
    b"h\x09", b"h\x02h\x00\x85R", b"h\x03h\x00\x85R", b"h\x04)\x81", b"h\x05)R",
    b"h\x04h\x00\x85\x81",
    b"h\x04)\x81}b", b"X\x01\0\0\0a", b"\x8c\x01b", b"G\0\0\0\0\0\0\0\0", b"\x8a\x02\xff\x01",
)  # fmt: skip
_WORDS = (
    "module", "layer1", "layer4", "features", "conv1", "conv", "0", "bn1", "downsample", "blocks",
    "stem", "encoder", "stages", "residual", "fc", "classifier", "net", "backbone",
)  # fmt: skip


def megabytes(folder: Path) -> Case:
    """A piece of a pickle, a name, a row or a value, over and over; images and arrays of zeros."""
    kinds = (_pickle, _pickle, _tensors, _tensors, _text, _image, _arrays)

    def case(rng: random.Random) -> None:
        try:
            rng.choice(kinds)(folder, rng)
        except ResdeployError as error:
            assert str(error)

    return case


def _pickle(folder: Path, rng: random.Random) -> None:
    piece = b"".join(rng.choice(_PIECES) for _ in range(rng.randrange(1, 6)))
    start = rng.choice((b"(", b"](", b"}(", b"\x8f(", b"", b"]", b"}X\x01\0\0\0w"))
    end = rng.choice((b"l.", b"e.", b"u.", b"\x90.", b".", b"t.", b"s."))
    content = _HEAD + start
    content += piece * ((_BYTES - len(content)) // len(piece) - 1) + end
    file = folder / "case.pth"
    if rng.random() < 0.3:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", content)
    else:
        file.write_bytes(content)
    identify(read_checkpoint(file))


def _tensors(folder: Path, rng: random.Random) -> None:
    parts = [rng.choice(_WORDS) for _ in range(rng.choice((1, 2, 3, 8, 40)))]
    place, every = rng.randrange(len(parts) + 1), rng.choice((1, 2, 50, 10**6))
    shapes = ([1, 1, 1, 1], [1], [1, 1])
    header: dict[str, object] = {}
    size, end, limit = 0, 0, rng.choice((500, 2000, 9000))
    while len(header) < limit and size + end < _BYTES - 1000:
        number = len(header)
        words = [*parts[:place], f"{rng.choice(_WORDS)}{number // every}", *parts[place:]]
        one = [1, 3, 1, 1] if number % 3 == 0 else rng.choice(shapes)
        name = ".".join([*words, f"{rng.choice(_WORDS)}{number % every}", "weight"])
        place_bytes = [end, end + 4 * (3 if len(one) == 4 and one[1] == 3 else 1)]
        end = place_bytes[1]
        header[name] = {"dtype": "F32", "shape": one, "data_offsets": place_bytes}
        size += len(name) + 70
    text = json.dumps(header).encode()
    file = folder / "case.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    identify(read_checkpoint(file))


def _text(folder: Path, rng: random.Random) -> None:
    piece = rng.choice(
        ('"a",', "[0],", "{},", "1e9,", '{"a": [1, 2]},', "a,b\n", '"a\n', "[", ",\n")
    )
    text = rng.choice(("", "[", '{"a": [')) + piece * (_BYTES // len(piece) - 3)
    text = text.rstrip(",") + rng.choice(("", "]", "]}"))
    file = folder / "case.json"
    file.write_text(text)
    rng.choice((read_labels, read_preprocess, read_image_list))(file)


def _image(folder: Path, rng: random.Random) -> None:
    mode, kind = rng.choice(
        (("1", "PNG"), ("L", "PNG"), ("RGB", "PNG"), ("L", "GIF"), ("1", "TIFF"))
    )
    size = rng.choice(((30_000, 30_000), (10_000, 8_000), (60_000, 100), (3, 60_000)))
    file = folder / "case.png"
    if size[0] * size[1] > 10**8:  # what is declared; nobody has that much to compress
        stream = BytesIO()
        Image.new(mode, (8, 8)).save(stream, "PNG")
        content = bytearray(stream.getvalue())
        content[16:24] = struct.pack(">II", *size)
        file.write_bytes(content)
    else:
        Image.new(mode, size).save(
            file, kind, **({"compression": "group4"} if mode == "1" and kind == "TIFF" else {})
        )
    if file.stat().st_size <= _BYTES:
        named("imagenet", 32).apply(open_image(file))


def _arrays(folder: Path, rng: random.Random) -> None:
    file = folder / "case.npz"
    shape = rng.choice(((1, 3, 200, 200), (2**20, 3, 8, 8), (10**9, 1, 1, 1), (0, 3, 2**40, 1)))
    head = BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": rng.choice(("<f4", "<f8", "|O")), "fortran_order": False, "shape": shape}
    )
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in ("inputs", "logits"):
            archive.writestr(f"{name}.npy", head.getvalue() + bytes(rng.choice((100, 400_000))))
    read_reference(file)
