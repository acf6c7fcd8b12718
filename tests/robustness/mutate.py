"""Changes bytes and texts at random, and makes hostile pickles; the generator decides all."""

import json
import pickle
import pickletools
import random
import zipfile
from io import BytesIO
from typing import Any

_TEXTS = (
    "", "-1", "0", "1e309", "nan", "9" * 5000, "[" * 3000, "../x", "a\x00b", "\x1b[2J", "\udcff",
    "[/b]", "=1+1", "\u202e", "x" * 5000, "null", "{}", "é花", "--json", "a:b", ":", "%s%n", "~",
)  # fmt: skip


def changed(data: bytes, rng: random.Random, others: tuple[bytes, ...] = ()) -> bytes:
    """`data` with one to four changes: bits, bytes, cuts, insertions, pieces moved or foreign."""
    content = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        place = rng.randrange(len(content) + 1)
        length = min(len(content) - place, rng.choice((1, 2, 8, 100, 4000)))
        kind = rng.randrange(7)
        if kind == 0 and content:
            content[place % len(content)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place : place + length] = rng.randbytes(length)
        elif kind == 2:
            del content[place : place + length]
        elif kind == 3:
            content[place:place] = rng.randbytes(rng.choice((1, 4, 64)))
        elif kind == 4:
            content[place : place + length] = (
                bytes(length) if rng.random() < 0.5 else b"\xff" * length
            )
        elif kind == 5:
            content = content[:place]
        else:
            other = rng.choice((*others, data))
            start = rng.randrange(len(other) + 1)
            content[place:place] = other[start : start + length]
    return bytes(content)


def opcodes(rng: random.Random, most: int) -> bytes:
    """A pickle of random opcodes, most with arguments of the right form."""
    program = b"\x80\x04"
    for _ in range(rng.randrange(1, most)):
        opcode = rng.choice(pickletools.opcodes)
        program += opcode.code.encode("latin1")
        if opcode.arg is not None:
            program += _argument(opcode.arg.n, rng)
    return program + b"."


def repacked(archive: bytes, rng: random.Random, most: int = 400) -> bytes:
    """A checkpoint whose pickle is changed or random, with right checksums around it."""
    target = BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(BytesIO(archive)) as old, zipfile.ZipFile(target, "w", method) as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = changed(content, rng) if rng.random() < 0.7 else opcodes(rng, most)
            new.writestr(name, content)
    return target.getvalue()


def hostile_text(rng: random.Random) -> str:
    """A text that programs stumble over."""
    if rng.random() < 0.7:
        return rng.choice(_TEXTS)
    return "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(40)))


def changed_json(value: Any, rng: random.Random) -> Any:
    """A JSON value with one thing in it replaced, removed or wrapped."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], changed_json(value[place], rng), *value[place + 1 :]]
    strange: tuple[Any, ...] = (
        None,
        True,
        -1,
        0,
        1e300,
        10**80,
        hostile_text(rng),
        [],
        {},
        [value],
        {"a": value},
    )
    return rng.choice(strange)


def json_text(value: Any, rng: random.Random) -> bytes:
    """The text of a changed JSON value, one time in four changed as bytes besides."""
    text = json.dumps(changed_json(value, rng)).encode()
    return changed(text, rng) if rng.random() < 0.25 else text


def _argument(length: int, rng: random.Random) -> bytes:
    if length > 0:
        return rng.randbytes(length)
    if length == pickletools.UP_TO_NEWLINE:
        names = (b"torch", b"os", b"collections", b"1", b"-5", b"x" * 50)
        return rng.choice(names) + b"\n" + rng.choice((b"OrderedDict\n", b"system\n", b""))
    size = rng.choice((0, 1, 3, 200, 2**31 - 1))
    width = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT8U: 8}.get(
        length, 4
    )
    prefix = size.to_bytes(8, "little")[:width]
    return prefix + rng.randbytes(min(size, 200))


PLAIN_PICKLE = pickle.dumps({"model": {"a.weight": [1.0, 2.0]}, "epoch": 3}, protocol=4)
