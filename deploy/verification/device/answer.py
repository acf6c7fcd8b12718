"""Runs on the device: opens the sessions of a bundle and answers batch by batch.

    python -m resdeploy.deploy.verification.device.answer < messages > messages

It is started over ssh and ends when its input does. A bundle that is sent lies in a temporary
folder until then.
"""

import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.model import Model, open_model
from resdeploy.deploy.bundle.spec_json import spec_to_json
from resdeploy.deploy.errors import BundleError, ResdeployError
from resdeploy.deploy.optional import installed_version
from resdeploy.deploy.verification.candidates import Candidate, open_candidates
from resdeploy.deploy.verification.device.machine import machine_sentence
from resdeploy.deploy.verification.device.messages import (
    GREETING,
    REMEMBERED,
    Message,
    array_bytes,
    array_of,
    read_message,
    write_message,
)


@dataclass(frozen=True)
class _Opened:
    """The sessions by name, and the batches that were sent last by their digest."""

    candidates: dict[str, Candidate]
    batches: "OrderedDict[str, Float32s]"


def answer(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the requests end; what goes wrong is told, and ends it."""
    write = answers.write
    write(f"{GREETING} {installed_version('resdeploy')}\n".encode())
    answers.flush()
    with ExitStack() as stack:
        try:
            opened = _open(requests, answers, stack)
            while True:
                _run(read_message(requests), opened, answers)
        except EOFError:
            return
        except ResdeployError as error:
            told = {"kind": "error", "class": type(error).__name__, "message": str(error)}
            write_message(answers, told)


def _open(requests: IO[bytes], answers: IO[bytes], stack: ExitStack) -> _Opened:
    """Receive or find the bundle, open what is asked for, and say what was opened."""
    asked = read_message(requests)
    path = asked.fields["bundle"]
    if path is None:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="resdeploy-")))
        path = _received(asked, requests, folder)
    model = open_model(Path(path).expanduser())
    _check_same(model, asked.fields["sha256"])
    opened = open_candidates(
        model, asked.fields["precisions"], asked.fields["backends"], stack, threads=None
    )
    sessions = [_described(candidate) for candidate in opened]
    write_message(answers, {"kind": "opened", "machine": machine_sentence(), "sessions": sessions})
    return _Opened({candidate.name: candidate for candidate in opened}, OrderedDict())


def _received(asked: Message, requests: IO[bytes], folder: Path) -> Path:
    """Write the files that are sent into `folder`; the path of the bundle or of the one graph."""
    for _ in range(asked.fields["files"]):
        file = read_message(requests)
        # a name alone: nothing is written elsewhere, whatever it says
        (folder / Path(file.fields["name"]).name).write_bytes(file.payloads[0])
    only = asked.fields["graph"]
    return folder if only is None else folder / Path(only).name


def _check_same(model: Model, sha256: dict[str, str]) -> None:
    """Raise BundleError for a bundle whose graphs are not those that are to be verified."""
    held = {str(name): file.sha256 for name, file in model.manifest.variants.items()}
    for variant, digest in sha256.items():
        if held.get(variant) not in (None, digest):
            raise BundleError(
                f"{model.path}: another bundle than the one to verify: {variant} has SHA-256 "
                f"{held[variant][:12]}…, expected {digest[:12]}…: copy the bundle there again"
            )


def _described(candidate: Candidate) -> dict[str, Any]:
    session = candidate.session
    return {
        "name": candidate.name,
        "precision": candidate.precision,
        "variant": candidate.variant,
        "backend": candidate.backend,
        "input": spec_to_json(session.input),
        "outputs": [spec_to_json(output) for output in session.outputs],
    }


def _run(asked: Message, opened: _Opened, answers: IO[bytes]) -> None:
    """Run one session on one batch, which may have been sent before for another."""
    digest, batches = asked.fields["batch"], opened.batches
    if asked.payloads:
        batches[digest] = array_of(asked.payloads[0], tuple(asked.fields["shape"]))
        if len(batches) > REMEMBERED:
            batches.popitem(last=False)
    session = opened.candidates[asked.fields["session"]].session
    outputs = _outputs(session.run_all(batches[digest]), asked.fields["outputs"])
    write_message(
        answers,
        {"kind": "outputs", "shapes": [list(values.shape) for values in outputs]},
        *map(array_bytes, outputs),
    )


def _outputs(found: dict[str, Float32s], names: Sequence[str]) -> list[Float32s]:
    return [found[name] for name in names]


def main() -> None:
    """Answer on stdin and stdout; what native code prints must not get between the messages."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answer(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
