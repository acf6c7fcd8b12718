"""Classes in which the real commands are killed at any moment while another process reads.

Most cases run in a fork of this process, which has loaded the libraries already; one in ten in a
new interpreter, so that imports are interrupted too. The moment is one of the command's own CPU
time, which a busy machine does not move.
"""

import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn
from unittest import mock

import numpy as np
from PIL import Image

from resdeploy.deploy.bundle.bundle import (
    RANGES,
    Bundle,
    describe_file,
    read_bundle,
    write_manifest,
)
from resdeploy.deploy.bundle.model import open_model, recorded_reference
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.bundle.update import changed_bundle
from resdeploy.deploy.cli.main import main
from resdeploy.deploy.engine.sidecar import read_plan
from resdeploy.deploy.images.preprocess import named
from resdeploy.export.graph.onnx_file import save_graph
from tests.builders import logits_of, noise_for, write_bundle
from tests.command import run_command
from tests.conftest import tiny_graph
from tests.robustness.processes import HANGS_S, children, cpu_s, ended, is_running

Case = Callable[[random.Random], None]

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_ROOT = Path(__file__).resolve().parents[2]
_NEW_INTERPRETERS = 0.1
_RUN_AGAIN = 0.1
# what a command may still compute after a signal: native code ends what it is at before Python
# hears of the signal; one that did not hear it goes on to its end
_DEAF_S = 3.0


def killed_exports(folder: Path) -> Case:
    """`export --overwrite` of a real network; readers open the graph and the reference."""
    checkpoint = _ROOT / "examples" / "digits_mobilenet_v2.pth"
    words = ["export", str(checkpoint), "-o", "net.bundle", "--overwrite"]
    words += ["--input-size", "32", "--precision", "fp32"]

    def read() -> None:
        opened = read_bundle(folder / "net.bundle")
        opened.graph("fp32")
        opened.file("reference.npz")

    return _killed(_Command(folder, lambda _: words, read))


def killed_quantizations(folder: Path) -> Case:
    """`quantize` with a new seed each time; readers open every graph, the ranges, the reference."""
    bundle = _tiny_bundle(folder)
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 40, 3), np.uint8)
    (folder / "images").mkdir()
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")

    def words(rng: random.Random) -> list[str]:
        seed = str(rng.randrange(1 << 32))
        return ["quantize", "net.bundle", "--calib", "images", "--seed", seed]

    def read() -> None:
        opened = read_bundle(bundle)
        for variant in opened.manifest.variants:
            opened.graph(variant)
        opened.file(RANGES)
        recorded_reference(open_model(bundle))

    return _killed(_Command(folder, words, read))


def killed_builds(folder: Path) -> Case:
    """`build` of a graph that changed; readers open every engine with what stands beside it."""
    bundle = _tiny_bundle(folder)

    def words(rng: random.Random) -> list[str]:
        _change_weights(read_bundle(bundle), rng)
        options = ["--flavor", "tensorrt-rtx", "--compute-capability", "8.6"]
        return ["build", "net.bundle", "--precision", "fp32", *options]

    def read() -> None:
        for engine in (bundle / "engines").glob("[!.]*.engine"):
            read_plan(engine)

    return _killed(_Command(folder, words, read))


@dataclass(frozen=True)
class _Command:
    """What is typed in `folder`, and what readers do meanwhile."""

    folder: Path
    words: Callable[[random.Random], Sequence[str]]
    read: Callable[[], None]


def _killed(command: _Command) -> Case:
    words = command.words(random.Random(0))
    start = time.process_time()
    # loads the libraries here, once; closes what it opened before the first fork
    _check_done(run_command(*words, folder=command.folder))
    gc.collect()
    cold_s = time.process_time() - start
    _wait_for_threads()
    words = command.words(random.Random(1))
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        status, warm_s = ended(_fork(command.folder, words, said), signal.SIGCONT)
        said.seek(0)
        assert status == 0, f"fails in a fork: {said.read()}"

    def case(rng: random.Random) -> None:
        words, number = command.words(rng), rng.choice(SIGNALS)
        cold, part = rng.random() < _NEW_INTERPRETERS, rng.uniform(0.0, 1.05)
        before = _hidden(command.folder)  # what a SIGKILL left, until a run makes something there
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            begin = _start if cold else _fork
            process = begin(command.folder, words, said)
            _read_until(command.read, process, part * (cold_s if cold else warm_s))
            before_s, workers = cpu_s(process), children(process)
            os.kill(process, number)
            status, used_s = ended(process, number)
            said.seek(0)
            _check_end(number, status, used_s - before_s, said.read(), new_python=cold)
        _check_gone(workers)
        command.read()
        if status == 128 + number:
            left = _hidden(command.folder) - before
            assert not left, f"{number.name} left {left}"
        if rng.random() < _RUN_AGAIN:
            with tempfile.TemporaryFile("w+", errors="replace") as said:
                process = _fork(command.folder, words, said)
                status, _ = ended(process, signal.SIGCONT)
                said.seek(0)
                assert status == 0, f"cannot be run again: {said.read()}"
            command.read()
            check_clean(command.folder)

    return case


def _wait_for_threads() -> None:
    """Until none is left but this one: whoever holds a lock then holds it for ever in a fork."""
    until = time.monotonic() + HANGS_S
    while (threads := len(os.listdir("/proc/self/task"))) > 1:
        assert time.monotonic() < until, f"{threads} threads before a fork"
        time.sleep(0.01)


def _check_end(
    number: signal.Signals, status: int, since_s: float, said: str, *, new_python: bool
) -> None:
    if new_python and number == signal.SIGINT and _is_pythons_own(said):
        return
    # before Python has its handlers, a signal ends it as it ends any program
    assert status in (0, -number, 128 + number), f"{number.name}: status {status}, {said}"
    assert status != 0 or since_s < _DEAF_S, f"{number.name}: went on for {since_s:.1f} s, {said}"
    if status != -number:
        traced = "Traceback" in said or "Exception ignored" in said
        assert not traced, f"{number.name}: {said}"


def _is_pythons_own(said: str) -> bool:
    """Whether Python itself was interrupted, before the first line of ours took the signal.

    Its start ends in words of its own; and an interrupt in a callback of its import system is only
    reported. Had our handler raised it, `interrupt` would stand in the traceback.
    """
    started = "Fatal Python error: init_" not in said
    reported = "Exception ignored" in said and "KeyboardInterrupt" in said
    return not started or (reported and ", in interrupt\n" not in said)


def _read_until(read: Callable[[], None], process: int, moment_s: float) -> None:
    while is_running(process) and cpu_s(process) < moment_s:
        read()
        time.sleep(0.01)


def _start(folder: Path, words: Sequence[str], said: IO[str]) -> int:
    """The command in an interpreter of its own."""
    command = [sys.executable, "-m", "resdeploy", *words]
    environment = {**os.environ, "PYTHONPATH": f"{_ROOT / 'src'}"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=said
    )
    process.returncode = 0  # waited for here
    return process.pid


def _fork(folder: Path, words: Sequence[str], said: IO[str]) -> int:
    """The command in a copy of this process."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS[1:])
    child = os.fork()
    if child == 0:
        _run(folder, words, said)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return child


def _run(folder: Path, words: Sequence[str], said: IO[str]) -> NoReturn:
    code: object = 99
    try:
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(said.fileno(), 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - until the process ends
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        for number in SIGNALS[1:]:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS[1:])
        with mock.patch.object(sys, "argv", ["resdeploy", *words]):
            main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 98)


def _check_gone(workers: Sequence[int]) -> None:
    """Whoever worked for a process that is gone ends, too."""
    until = time.monotonic() + HANGS_S / 4
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < until, f"{workers} outlive the command"
        time.sleep(0.01)


def _check_done(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 0, done.stderr


def check_clean(folder: Path) -> None:
    """Nothing that was being made is left anywhere in the folder."""
    left = _hidden(folder)
    assert not left, f"left behind: {left}"


def _hidden(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob(".*")} - {".lock"}


def _tiny_bundle(folder: Path) -> Path:
    graph = tiny_graph()
    inputs = noise_for(graph)
    reference = Reference(inputs, logits_of(graph, inputs))
    labels = tuple(f"class {index}" for index in range(5))
    return write_bundle(
        folder / "net.bundle", {"fp32": graph}, named("imagenet", 32),
        labels=labels, reference=reference,
    )  # fmt: skip


def _change_weights(bundle: Bundle, rng: random.Random) -> None:
    """Another fp32 graph, so that the engine built of it is another."""
    import onnx

    with changed_bundle(bundle) as folder:
        file = bundle.manifest.variants["fp32"]
        graph = onnx.load(folder / file.file)
        weight = graph.graph.initializer[0]
        values = np.random.default_rng(rng.randrange(1 << 32)).standard_normal(tuple(weight.dims))
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
        (folder / file.file).unlink()
        save_graph(graph, folder / file.file)
        changed = describe_file(folder / file.file, opset=file.opset, made_from=file.made_from)
        write_manifest(folder, bundle.manifest.with_variant("fp32", changed))
