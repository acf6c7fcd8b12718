"""`auto`: what is tried, chosen, remembered and refused, on machines with and without a GPU."""

import gc
import json
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from resdeploy.deploy import choice, load
from resdeploy.deploy.bundle import describe_file, read_bundle, write_manifest
from resdeploy.deploy.choice import choose
from resdeploy.deploy.cli import cli
from resdeploy.deploy.cuda import Device, cuda_problem
from resdeploy.deploy.errors import BackendError, BundleError
from resdeploy.deploy.ort import OrtSession
from resdeploy.deploy.recording import Reference, read_reference
from resdeploy.deploy.session import Model, open_model, open_session
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.warm_up import reference_pictures, warm_up

Opened = list[tuple[Precision, Backend]]
Behaviour = dict[str, Any]
Fake = Callable[[Behaviour], Opened]


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
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A function: backend or precision → (delay, error) or an exception, as on this machine."""

    def fake(behaviour: Behaviour) -> Opened:
        opened: Opened = []

        def open_faked(
            model: Model, *, precision: Precision, backend: Backend, threads: int | None
        ) -> Faked:
            opened.append((precision, backend))
            what = behaviour.get(precision, behaviour.get(backend))
            if isinstance(what, Exception):
                raise what
            session = open_session(
                model, precision=precision, backend="ort-cpu", threads=threads or 1
            )
            return Faked(session, *(what or (0.0, 0.0)))

        monkeypatch.setattr(choice, "cuda_problem", lambda: "no GPU")
        monkeypatch.setattr(choice, "device", lambda: None)
        monkeypatch.setattr(choice, "open_session", open_faked)
        monkeypatch.setattr(choice, "_TIMED_S", 0.01)
        return opened

    return fake


@pytest.fixture
def with_gpu(on_cpu: Fake, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The same on a machine that is said to have a GPU."""

    def fake(behaviour: Behaviour) -> Opened:
        opened = on_cpu(behaviour)
        monkeypatch.setattr(choice, "cuda_problem", lambda: None)
        monkeypatch.setattr(choice, "device", lambda: Device("Some GPU", "8.6", False))
        return opened

    return fake


@pytest.fixture
def int8_bundle(tiny_bundle: Path) -> Path:
    """The tiny bundle with an int8 variant, which computes what fp32 does unless a fake errs."""
    manifest = read_bundle(tiny_bundle).manifest
    for variant in ("int8", "int8-cpu"):
        shutil.copy(tiny_bundle / "fp32.onnx", tiny_bundle / f"{variant}.onnx")
        file = describe_file(tiny_bundle / f"{variant}.onnx", opset=17, made_from="fp32")
        manifest = manifest.with_variant(variant, file)
    write_manifest(tiny_bundle, manifest)
    return tiny_bundle


def test_the_fastest_right_one_is_chosen_and_remembered(tiny_bundle: Path, with_gpu: Fake) -> None:
    opened = with_gpu({"ort-cpu": (0.02, 0.0), "ort-cuda": (0.002, 0.0)})
    model = open_model(tiny_bundle)
    first = choose(model, ("fp32",))
    assert (first.backend, first.precision, first.remembered) == ("ort-cuda", "fp32", False)
    assert [trial.backend for trial in first.trials] == ["ort-cpu", "ort-cuda"]
    assert "SQNR" in first.trials[1].evidence and "on 4 reference pictures" in str(first)
    assert str(first).startswith("fp32 on ort-cuda, ") and "(fp32 on ort-cpu 2" in str(first)
    opened.clear()

    again = choose(model, ("fp32",))
    assert again.remembered and opened == []
    assert (again.backend, again.trials) == (first.backend, first.trials)
    assert str(again) == f"{first}; measured earlier on this machine"
    (kept,) = json.loads((tiny_bundle / "engines" / "auto.json").read_text()).values()
    assert kept["backend"] == "ort-cuda"


def test_a_fast_one_with_other_logits_is_out(tiny_bundle: Path, with_gpu: Fake) -> None:
    with_gpu({"ort-cpu": (0.02, 0.0), "ort-cuda": (0.0, 0.5)})
    chosen = choose(open_model(tiny_bundle), ("fp32",))
    assert chosen.backend == "ort-cpu"
    assert chosen.trials[1].milliseconds is None
    assert chosen.trials[1].evidence.startswith("other logits: SQNR 6.0 dB")


def test_one_that_does_not_start_is_out(tiny_bundle: Path, with_gpu: Fake) -> None:
    broken = BackendError("no kernel image is available")
    opened = with_gpu({"ort-cpu": (0.0, 0.0), "ort-cuda": broken, "tensorrt": broken})
    (tiny_bundle / "engines").mkdir()
    (tiny_bundle / "engines" / "fp32-tensorrt-10.3.0-sm86.engine").touch()
    chosen = choose(open_model(tiny_bundle), ("fp32",))
    assert chosen.backend == "ort-cpu"
    assert [backend for _, backend in opened] == ["ort-cpu", "ort-cuda", "tensorrt"]
    assert "no kernel image" in chosen.trials[2].evidence


def test_none_is_an_error_with_all_reasons(tiny_bundle: Path, with_gpu: Fake) -> None:
    with_gpu({"ort-cpu": (0.0, 9.0), "ort-cuda": BackendError("too old a driver")})
    with pytest.raises(BackendError, match=r"ort-cpu fp32: other logits.*too old a driver"):
        choose(open_model(tiny_bundle), ("fp32",))


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}'])
def test_a_damaged_memory_is_tried_anew(tiny_bundle: Path, with_gpu: Fake, content: str) -> None:
    with_gpu({"ort-cpu": (0.0, 0.0), "ort-cuda": (0.01, 0.0)})
    (tiny_bundle / "engines").mkdir()
    (tiny_bundle / "engines" / "auto.json").write_text(content)
    assert not choose(open_model(tiny_bundle), ("fp32",)).remembered
    assert choose(open_model(tiny_bundle), ("fp32",)).remembered


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        ((7.5, 5.4), "int8 on ort-cpu, 5.40 ms a picture (fp32 7.50 ms); passes the check"),
        ((7.5, 9.1), "fp32 on ort-cpu, 7.50 ms a picture (int8 9.10 ms: no faster); passes"),
        # a hair faster is not worth the precision
        ((7.5, 7.3), "fp32 on ort-cpu, 7.50 ms a picture (int8 7.30 ms: not 5 % faster); passes"),
    ],
)
def test_int8_is_chosen_only_where_it_is_faster(
    milliseconds: tuple[float, float],
    expected: str,
    int8_bundle: Path,
    on_cpu: Fake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_cpu({})
    monkeypatch.setattr(choice, "_milliseconds", lambda sessions, reference: milliseconds)
    found = choose(open_model(int8_bundle), ("fp32", "int8"))
    assert found.precision == expected[:4] and str(found).startswith(expected)
    assert choose(open_model(int8_bundle), ("fp32", "int8")).precision == found.precision


def test_int8_that_answers_otherwise_is_out(int8_bundle: Path, on_cpu: Fake) -> None:
    on_cpu({"fp32": (0.02, 0.0), "int8": (0.0, 0.6)})
    found = choose(open_model(int8_bundle), ("fp32", "int8"))
    assert found.precision == "fp32"
    assert "(int8 out: other logits: SQNR 4.4 dB and 100 % the same answers on 4" in str(found)
    # 1.5 times every logit would pass; the classes in another order do not
    with open_session(open_model(int8_bundle), backend="ort-cpu") as session:
        reference = reference_pictures(open_model(int8_bundle))
        assert reference is not None
        near = Reference(reference.inputs, _with_the_second_first(reference.logits))
        outcome = warm_up(session, "int8", near)
    assert not outcome.passed and outcome.agreement_percent == 0.0
    assert outcome.sqnr_db is not None and outcome.sqnr_db > 5


def _with_the_second_first(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same logits, the second largest raised above the largest by a hair."""
    changed = logits.copy()
    order = np.argsort(logits, axis=1)
    rows = np.arange(len(logits))
    changed[rows, order[:, -2]] = logits[rows, order[:, -1]] + np.float32(1e-4)
    return changed


def test_load_takes_what_auto_chooses_and_predict_says_so(
    int8_bundle: Path, on_cpu: Fake, picture_folder: Path
) -> None:
    on_cpu({"fp32": (0.02, 0.0), "int8": (0.0, 0.0)})
    with load(int8_bundle, precision="auto") as classifier:
        assert classifier.precision == "int8"
        assert getattr(classifier.session, "variant") == "int8-cpu"  # noqa: B009
        assert classifier.choice is not None and len(classifier.choice.trials) == 2
    with load(int8_bundle) as classifier:
        assert (classifier.precision, classifier.choice) == ("fp32", None)
    picture = str(picture_folder / "cut_00.jpg")
    arguments = ["predict", str(int8_bundle), picture, "--precision", "auto", "--json"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0 and json.loads(done.stdout)[0]["path"] == picture
    (line,) = done.stderr.splitlines()
    assert line.startswith("auto: int8 on ort-cpu, ") and "passes the check: SQNR" in line


def test_what_decides_the_outcome_is_asked_anew_when_it_changes(
    int8_bundle: Path, on_cpu: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu({})
    precisions: tuple[Precision, ...] = ("fp32", "int8")

    def is_remembered(threads: int | None = None) -> bool:
        return choose(open_model(int8_bundle), precisions, threads=threads).remembered

    assert not is_remembered() and is_remembered()
    assert not is_remembered(threads=1)
    changes: tuple[Callable[[], object], ...] = (
        lambda: monkeypatch.setattr(choice, "cpu_name", lambda: "another processor"),
        lambda: monkeypatch.setattr(choice, "cpu_flags", lambda: ("avx512_vnni",)),
        lambda: monkeypatch.setattr(choice, "cores", lambda: 64),
        lambda: monkeypatch.setattr(choice, "power_mode", lambda: "15W"),
        lambda: monkeypatch.setattr(choice, "device", lambda: Device("A GPU", "8.7", True)),
        lambda: monkeypatch.setattr(choice, "_version", lambda name: "99.0"),
        lambda: os.utime(int8_bundle / "reference.npz", (0, 0)),
        lambda: _replace_int8(int8_bundle),
    )
    for change in changes:
        change()
        assert not is_remembered() and is_remembered()


def _replace_int8(bundle: Path) -> None:
    """Another int8 graph, properly in the manifest."""
    graph = onnx.load(bundle / "int8-cpu.onnx")
    graph.doc_string = "calibrated again"
    onnx.save(graph, bundle / "int8-cpu.onnx")
    file = describe_file(bundle / "int8-cpu.onnx", opset=17, made_from="fp32")
    write_manifest(bundle, read_bundle(bundle).manifest.with_variant("int8-cpu", file))


def test_an_altered_file_is_said_and_not_passed_over(int8_bundle: Path, on_cpu: Fake) -> None:
    on_cpu({})
    with (int8_bundle / "int8-cpu.onnx").open("r+b") as file:
        file.write(b"no graph")
    with pytest.raises(BundleError, match=r"int8-cpu\.onnx: altered since it was written"):
        load(int8_bundle, precision="auto")


def test_without_a_reference_only_the_most_precise_is_trusted(
    int8_bundle: Path, on_cpu: Fake
) -> None:
    opened = on_cpu({})
    (int8_bundle / "reference.npz").unlink()
    with load(int8_bundle, precision="auto") as classifier:
        assert classifier.precision == "fp32" and opened == []
        assert "without reference.npz" in str(classifier.choice)


def test_a_backend_asked_for_is_the_only_one_tried(int8_bundle: Path, with_gpu: Fake) -> None:
    opened = with_gpu({"ort-cuda": BackendError("no kernel image is available")})
    words = r"tiny\.bundle: no kernel image is available$"
    with pytest.raises(BackendError, match=words):
        load(int8_bundle, precision="auto", backend="ort-cuda")
    assert {backend for _, backend in opened} == {"ort-cuda"}


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
