"""`auto` on a machine that is said to have a GPU: what is tried, chosen, remembered and refused."""

import gc
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from resdeploy.deploy import choice, load
from resdeploy.deploy.choice import choose
from resdeploy.deploy.cuda import Device, cuda_problem
from resdeploy.deploy.errors import BackendError
from resdeploy.deploy.ort import OrtSession
from resdeploy.deploy.recording import read_reference
from resdeploy.deploy.session import Model, open_model, open_session
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.warm_up import reference_pictures, warm_up

Opened = list[tuple[Precision, Backend]]


class Faked:
    """The CPU's session, slower by `delay_s` and wrong by `error`."""

    def __init__(self, inner: Any, delay_s: float, error: float) -> None:
        self.inner, self.delay_s, self.error = inner, delay_s, error
        self.input, self.output = inner.input, inner.output

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(self.delay_s)
        logits: NDArray[np.float32] = self.inner.run(batch)
        return logits * np.float32(1 + self.error)

    def __enter__(self) -> "Faked":
        return self

    def __exit__(self, *_: object) -> None:
        self.inner.close()


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], Opened]:
    """A function: backend → (delay, error) or an exception, which then are this machine's."""

    def fake(behaviour: dict[str, Any]) -> Opened:
        opened: Opened = []

        def open_faked(model: Model, *, precision: Precision, backend: Backend) -> Faked:
            opened.append((precision, backend))
            what = behaviour[backend]
            if isinstance(what, Exception):
                raise what
            return Faked(open_session(model, precision=precision, backend="ort-cpu"), *what)

        monkeypatch.setattr(choice, "cuda_problem", lambda: None)
        monkeypatch.setattr(choice, "device", lambda: Device("Some GPU", "8.6", False))
        monkeypatch.setattr(choice, "open_session", open_faked)
        monkeypatch.setattr(choice, "_TIMED_S", 0.01)
        return opened

    return fake


def test_the_fastest_right_one_is_chosen_and_remembered(
    tiny_bundle: Path, with_gpu: Callable[[dict[str, Any]], Opened]
) -> None:
    opened = with_gpu({"ort-cpu": (0.02, 0.0), "ort-cuda": (0.002, 0.0)})
    model = open_model(tiny_bundle)
    first = choose(model, ("fp32",))
    assert (first.backend, first.precision, first.remembered) == ("ort-cuda", "fp32", False)
    assert [trial.backend for trial in first.trials] == ["ort-cpu", "ort-cuda"]
    assert "SQNR" in first.trials[1].evidence and "on 4 reference pictures" in str(first)
    opened.clear()

    again = choose(model, ("fp32",))
    assert again.remembered and opened == []
    assert (again.backend, again.trials) == (first.backend, first.trials)
    assert "chosen earlier on this machine" in str(again)
    (kept,) = json.loads((tiny_bundle / "engines" / "auto.json").read_text()).values()
    assert kept["backend"] == "ort-cuda"


def test_a_fast_one_with_other_logits_is_out(
    tiny_bundle: Path, with_gpu: Callable[[dict[str, Any]], Opened]
) -> None:
    with_gpu({"ort-cpu": (0.02, 0.0), "ort-cuda": (0.0, 0.5)})
    chosen = choose(open_model(tiny_bundle), ("fp32",))
    assert chosen.backend == "ort-cpu"
    assert chosen.trials[1].milliseconds is None
    assert chosen.trials[1].evidence.startswith("other logits: SQNR 6.0 dB")


def test_one_that_does_not_start_is_out(
    tiny_bundle: Path, with_gpu: Callable[[dict[str, Any]], Opened]
) -> None:
    broken = BackendError("no kernel image is available")
    opened = with_gpu({"ort-cpu": (0.0, 0.0), "ort-cuda": broken, "tensorrt": broken})
    (tiny_bundle / "engines").mkdir()
    (tiny_bundle / "engines" / "fp32-tensorrt-10.3.0-sm86.engine").touch()
    chosen = choose(open_model(tiny_bundle), ("fp32",))
    assert chosen.backend == "ort-cpu"
    assert [backend for _, backend in opened] == ["ort-cpu", "ort-cuda", "tensorrt"]
    assert "no kernel image" in chosen.trials[2].evidence


def test_none_is_an_error_with_all_reasons(
    tiny_bundle: Path, with_gpu: Callable[[dict[str, Any]], Opened]
) -> None:
    with_gpu({"ort-cpu": (0.0, 9.0), "ort-cuda": BackendError("too old a driver")})
    with pytest.raises(BackendError, match=r"ort-cpu fp32: other logits.*too old a driver"):
        choose(open_model(tiny_bundle), ("fp32",))


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}'])
def test_a_damaged_memory_is_tried_anew(
    tiny_bundle: Path, with_gpu: Callable[[dict[str, Any]], Opened], content: str
) -> None:
    with_gpu({"ort-cpu": (0.0, 0.0), "ort-cuda": (0.01, 0.0)})
    (tiny_bundle / "engines").mkdir()
    (tiny_bundle / "engines" / "auto.json").write_text(content)
    assert not choose(open_model(tiny_bundle), ("fp32",)).remembered
    assert choose(open_model(tiny_bundle), ("fp32",)).remembered


@pytest.mark.skipif(cuda_problem() is None, reason="this machine has a GPU")
def test_without_a_gpu_nothing_is_tried(tiny_bundle: Path) -> None:
    chosen = choose(open_model(tiny_bundle), ("fp32",))
    assert (chosen.backend, chosen.trials) == ("ort-cpu", ())
    assert not (tiny_bundle / "engines").exists()
    for backend in ("ort-cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"):
        with pytest.raises(BackendError, match="needs an NVIDIA GPU") as caught:
            load(tiny_bundle, backend=backend)
        assert caught.value.exit_code == 4


def test_binding_gives_what_a_plain_run_gives(tiny_bundle: Path) -> None:
    """What GPU providers run by, on the CPU's provider, which is here."""
    reference = read_reference(tiny_bundle / "reference.npz")
    with OrtSession(tiny_bundle / "fp32.onnx") as session:
        bound = session._run_bound(reference.inputs[:, :, ::-1][:, :, ::-1])
        np.testing.assert_array_equal(bound, session.run(reference.inputs))
        outcome = warm_up(session, "fp32", reference_pictures(open_model(tiny_bundle)))
    assert outcome.passed and outcome.sqnr_db is not None and outcome.sqnr_db > 100


def test_200_cycles_do_not_grow(tiny_bundle: Path) -> None:
    """Load, predict and close on ONNX Runtime: the second hundred takes no more memory."""
    inputs = read_reference(tiny_bundle / "reference.npz").inputs

    def cycles(count: int) -> None:
        for _ in range(count):
            with load(tiny_bundle, backend="ort-cpu", threads=1) as classifier:
                classifier.logits(inputs)
        gc.collect()

    cycles(100)
    before = _resident_bytes()
    handles = len(list(Path("/proc/self/fd").iterdir()))
    cycles(100)
    assert _resident_bytes() - before < 4 << 20
    assert len(list(Path("/proc/self/fd").iterdir())) <= handles


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
