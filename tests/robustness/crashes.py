"""Classes about what is left when writing fails or a process is ended at any moment."""

import errno
import gc
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from resdeploy.deploy.bundle import exchange
from resdeploy.deploy.bundle.bundle import (
    RANGES,
    read_bundle,
)
from resdeploy.deploy.cli.main import _signals_as_interrupts
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.preprocess import named
from resdeploy.deploy.specs import Variant
from tests.builders import write_bundle
from tests.conftest import tiny_graph
from tests.deploy.bundle.test_update import (
    _export_again as export_again,
)
from tests.deploy.bundle.test_update import (
    _requantize as requantize,
)
from tests.robustness.killed import SIGNALS, check_clean
from tests.robustness.processes import ended

Case = Callable[[random.Random], None]

# every way in which this code changes what others see
_STEPS = ("mkdir", "link", "rename", "replace", "unlink", "rmdir", "fsync", "open")
_VARIANTS: tuple[Variant, ...] = ("int8", "int8-cpu")
_MOST_STEPS = 120


def failing_writes(folder: Path) -> Case:
    """ENOSPC or EIO at any step of a change of a bundle: the old or the new state, and no rest."""
    bundle = _bundle(folder)
    numbers = iter(range(2, 10**9))

    def case(rng: random.Random) -> None:
        change = rng.choice((requantize, export_again))
        moment, code = rng.randrange(_MOST_STEPS), rng.choice((errno.ENOSPC, errno.EIO))
        old, new = _state(bundle), next(numbers)
        with pytest.MonkeyPatch.context() as patch:
            _fail_at(patch, moment, code)
            with suppress(InputError, OSError):
                change(bundle, new)
        assert _state(bundle) in (old, new), f"step {moment}"
        again = next(numbers)
        change(bundle, again)
        assert _state(bundle) == again
        check_clean(folder)

    return case


def kills(folder: Path) -> Case:
    """A process that changes a bundle over and over, ended by a signal while another reads."""
    bundle = _bundle(folder)

    def case(rng: random.Random) -> None:
        change = rng.choice((requantize, export_again))
        number, sent = rng.choice(SIGNALS), rng.uniform(0.0, 0.05)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS[1:])
        child = os.fork()
        if child == 0:
            _change_for_ever(change, bundle)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        until = time.monotonic() + sent
        while time.monotonic() < until:
            _state(bundle)
        os.kill(child, number)
        status = ended(child, number)[0]
        assert status in (-number, 128 + number), f"{number.name}: status {status}"
        if number != signal.SIGKILL:
            check_clean(folder)
        found = _state(bundle)
        change(bundle, found + 1)
        assert _state(bundle) == found + 1
        check_clean(folder)

    return case


def _bundle(folder: Path) -> Path:
    bundle = folder / "net.bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    labels = tuple(f"class {index}" for index in range(5))
    write_bundle(bundle, {"fp32": tiny_graph()}, named("imagenet", 32), labels=labels)
    requantize(bundle, 1)
    return bundle


def _state(bundle: Path) -> int:
    """The run that a reader finds, after every file was checked.

    Between two files the next state may come into force: each is whole by its own hash.
    """
    opened = read_bundle(bundle)
    opened.graph("fp32")
    texts = [opened.graph(variant).read_text() for variant in _VARIANTS]
    assert opened.file(RANGES) is not None
    return max(int(text.rpartition(" ")[2]) for text in texts)


def _change_for_ever(change: Callable[[Path, int], None], bundle: Path) -> NoReturn:
    """In the child: until the signal comes, which ends it as it ends a command."""
    received: list[int] = []
    code = 99
    try:
        with _signals_as_interrupts(received):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS[1:])
            number = _state(bundle)
            while True:
                number += 1
                change(bundle, number)
    except KeyboardInterrupt:
        code = 128 + (received[0] if received else signal.SIGINT)
    except BaseException:  # native code may turn an interrupt into an error, as `main` knows
        code = 128 + received[0] if received else 99
    gc.collect()  # a command ends with its generators closed
    os._exit(code)


def _fail_at(patch: pytest.MonkeyPatch, moment: int, code: int) -> None:
    """Let the step `moment` of `os`, or of the exchange, fail once."""
    passed = 0

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **keywords: object) -> object:
            nonlocal passed
            passed += 1
            if passed == moment + 1:
                raise OSError(code, os.strerror(code))
            return function(*arguments, **keywords)

        return step

    for name in _STEPS:
        patch.setattr(os, name, counted(getattr(os, name)))
    patch.setattr(exchange, "exchange", counted(exchange.exchange))
