"""What the device answers, message by message, without a line between."""

import hashlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.optional import installed_version
from resdeploy.deploy.verification.device.answer import answer
from resdeploy.deploy.verification.device.messages import (
    GREETING,
    Message,
    array_bytes,
    array_of,
    read_message,
    write_message,
)

WriteBundle = Callable[..., Path]

_BATCH = np.random.default_rng(0).random((4, 3, 8, 8), np.float32)


def _answered(*asked: tuple[dict[str, Any], tuple[bytes, ...]]) -> list[Message]:
    requests, answers = BytesIO(), BytesIO()
    for fields, payloads in asked:
        write_message(requests, fields, *payloads)
    requests.seek(0)
    answer(requests, answers)
    answers.seek(0)
    assert answers.readline().decode() == f"{GREETING} {installed_version('resdeploy')}\n"
    found = []
    while answers.tell() < len(answers.getvalue()):
        found.append(read_message(answers))
    return found


def _open(bundle: Path | None, **changed: Any) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    fields: dict[str, Any] = {
        "kind": "open", "bundle": None if bundle is None else str(bundle), "sha256": {},
        "precisions": ["fp32"], "backends": ["ort-cpu"], "files": 0, "graph": None,
    }  # fmt: skip
    return {**fields, **changed}, ()


def _run(payload: Float32s | None) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    digest = hashlib.sha256(array_bytes(_BATCH)).hexdigest()
    fields = {"kind": "run", "session": "fp32", "batch": digest, "outputs": ["logits"]}
    if payload is None:
        return fields, ()
    return {**fields, "shape": list(payload.shape)}, (array_bytes(payload),)


@pytest.fixture
def bundle(tmp_path: Path, write_bundle: WriteBundle, identity: Float32s) -> Path:
    return write_bundle(tmp_path / "b.bundle", {"fp32": identity})


def test_a_batch_is_answered_and_remembered(bundle: Path) -> None:
    opened, first, again = _answered(_open(bundle), _run(_BATCH), _run(None))
    (session,) = opened.fields["sessions"]
    assert (session["name"], session["variant"], session["backend"]) == ("fp32", "fp32", "ort-cpu")
    assert session["input"]["shape"] == ["batch", 3, 8, 8]
    assert first.fields["shapes"] == [[4, 3]]
    logits = array_of(first.payloads[0], (4, 3))
    np.testing.assert_allclose(logits, _BATCH.mean(axis=(2, 3)), rtol=1e-5)
    assert again.payloads == first.payloads


def test_a_bundle_that_is_sent_is_opened_without_its_folders(bundle: Path, tmp_path: Path) -> None:
    files = [
        ({"kind": "file", "name": f"../../{path.name}"}, (path.read_bytes(),))
        for path in sorted(bundle.iterdir())
        if path.is_file()
    ]
    _, found = _answered(_open(None, files=len(files)), *files, _run(_BATCH))
    assert found.fields["kind"] == "outputs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.bundle"]


def test_what_goes_wrong_is_told_with_its_class(bundle: Path, tmp_path: Path) -> None:
    (told,) = _answered(_open(tmp_path / "missing"))
    assert told.fields["kind"] == "error" and told.fields["class"] == "BundleError"
    assert "no such bundle" in told.fields["message"]
    digest = read_bundle(bundle).manifest.variants["fp32"].sha256
    (opened,) = _answered(_open(bundle, sha256={"fp32": digest, "int8": "0" * 64}))
    assert opened.fields["kind"] == "opened"
    (other,) = _answered(_open(bundle, sha256={"fp32": "f" * 64}))
    assert "another bundle than the one to verify" in other.fields["message"]
