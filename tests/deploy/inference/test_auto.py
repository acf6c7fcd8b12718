"""`auto`: what is tried, chosen, remembered and refused, on machines with and without a GPU."""

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from resdeploy.deploy import load
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import describe_file, read_bundle, write_manifest
from resdeploy.deploy.bundle.model import Model, open_model
from resdeploy.deploy.bundle.reference import Reference, read_reference
from resdeploy.deploy.cli.main import cli
from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import BackendError, BundleError
from resdeploy.deploy.files import read_sealed
from resdeploy.deploy.inference.auto import choose
from resdeploy.deploy.inference.host import Host
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import GPU_BACKENDS, Backend, Precision
from tests.fakes import FakeSession

# precision or backend → milliseconds an image and relative error of the logits, or what it raises
Behaviour = Mapping[str, tuple[float, float] | Exception]


class Machine:
    """A machine whose sessions replay the bundle's reference; `opened` is what was tried on it."""

    def __init__(self, behaviour: Behaviour, backends: tuple[Backend, ...]) -> None:
        self.opened: list[tuple[Precision, Backend]] = []
        self.host = Host(backends, ("a machine",), self._open, self._measure)
        self._behaviour = behaviour

    def _open(self, model: Model, precision: Precision, backend: Backend) -> Session:
        self.opened.append((precision, backend))
        variant = model.variant_for(precision, backend)
        model.graph(variant)  # every backend checks the file that it opens
        what = self._behaviour.get(precision, self._behaviour.get(backend, (1.0, 0.0)))
        if isinstance(what, Exception):
            raise what
        recorded = read_reference(model.path / "reference.npz")
        answer = _replay(recorded, np.float32(1 + what[1]))
        return FakeSession(answer, size_px=16, backend=backend, variant=variant)

    def _measure(self, sessions: Collection[Session], reference: Reference | None) -> list[float]:
        found = []
        for session in sessions:
            precision = session.variant.partition("-")[0]
            what = self._behaviour.get(precision, self._behaviour.get(session.backend, (1.0, 0.0)))
            assert not isinstance(what, Exception)
            found.append(what[0])
        return found


def _replay(recorded: Reference, scale: np.float32) -> Callable[[Float32s], Float32s]:
    def answer(batch: Float32s) -> Float32s:
        same = (recorded.inputs[None] == batch[:, None]).all(axis=(2, 3, 4))
        return np.asarray(recorded.logits[same.argmax(axis=1)] * scale)

    return answer


def _on_cpu(behaviour: Behaviour) -> Machine:
    return Machine(behaviour, ("ort-cpu",))


def _with_gpu(behaviour: Behaviour) -> Machine:
    return Machine(behaviour, ("ort-cpu", *GPU_BACKENDS))  # auto leaves plugins alone


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


def test_the_fastest_right_one_is_chosen_and_remembered(tiny_bundle: Path) -> None:
    machine = _with_gpu({"ort-cpu": (20.0, 0.0), "ort-cuda": (2.0, 0.0)})
    model = open_model(tiny_bundle)
    first = choose(model, ("fp32",), host=machine.host)
    assert (first.backend, first.precision, first.remembered) == ("ort-cuda", "fp32", False)
    assert [trial.backend for trial in first.trials] == ["ort-cpu", "ort-cuda"]
    assert str(first).startswith("fp32 on ort-cuda, 2.00 ms an image (fp32 on ort-cpu 20.00 ms); ")
    assert "SQNR" in first.trials[1].evidence and "on 4 reference images" in str(first)
    machine.opened.clear()

    again = choose(model, ("fp32",), host=machine.host)
    assert again.remembered and machine.opened == []
    assert (again.backend, again.trials) == (first.backend, first.trials)
    assert str(again) == f"{first}; measured earlier on this machine"
    (kept,) = read_sealed(tiny_bundle / "engines" / "auto.json").values()
    assert kept["backend"] == "ort-cuda"


def test_a_fast_one_with_other_logits_is_out(tiny_bundle: Path) -> None:
    machine = _with_gpu({"ort-cpu": (20.0, 0.0), "ort-cuda": (0.1, 0.5)})
    chosen = choose(open_model(tiny_bundle), ("fp32",), host=machine.host)
    assert chosen.backend == "ort-cpu"
    assert chosen.trials[1].milliseconds is None
    assert chosen.trials[1].evidence.startswith("its logits differ: SQNR 6.0 dB")


def test_one_that_does_not_start_is_out(tiny_bundle: Path) -> None:
    broken = BackendError("no kernel image is available")
    machine = _with_gpu({"ort-cpu": (1.0, 0.0), "ort-cuda": broken, "tensorrt": broken})
    (tiny_bundle / "engines").mkdir()
    (tiny_bundle / "engines" / "fp32-tensorrt-10.3.0-sm86.engine").touch()
    chosen = choose(open_model(tiny_bundle), ("fp32",), host=machine.host)
    assert chosen.backend == "ort-cpu"
    assert [backend for _, backend in machine.opened] == ["ort-cpu", "ort-cuda", "tensorrt"]
    assert "no kernel image" in chosen.trials[2].evidence


def test_none_is_an_error_with_all_reasons(tiny_bundle: Path) -> None:
    machine = _with_gpu({"ort-cpu": (1.0, 9.0), "ort-cuda": BackendError("too old a driver")})
    with pytest.raises(BackendError, match=r"ort-cpu fp32: its logits differ.*too old a driver"):
        choose(open_model(tiny_bundle), ("fp32",), host=machine.host)


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}'])
def test_a_damaged_memory_is_tried_anew(tiny_bundle: Path, content: str) -> None:
    host = _with_gpu({}).host
    (tiny_bundle / "engines").mkdir()
    (tiny_bundle / "engines" / "auto.json").write_text(content)
    assert not choose(open_model(tiny_bundle), ("fp32",), host=host).remembered
    assert choose(open_model(tiny_bundle), ("fp32",), host=host).remembered


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        ((7.5, 5.4), "int8 on ort-cpu, 5.40 ms an image (fp32 7.50 ms); passes the check"),
        ((7.5, 9.1), "fp32 on ort-cpu, 7.50 ms an image (int8 9.10 ms: no faster); passes"),
        # a hair faster is not worth the precision
        ((7.5, 7.3), "fp32 on ort-cpu, 7.50 ms an image (int8 7.30 ms: not 5 % faster); passes"),
    ],
)
def test_int8_is_chosen_only_where_it_is_faster(
    milliseconds: tuple[float, float], expected: str, int8_bundle: Path
) -> None:
    machine = _on_cpu({"fp32": (milliseconds[0], 0.0), "int8": (milliseconds[1], 0.0)})
    found = choose(open_model(int8_bundle), host=machine.host)
    assert found.precision == expected[:4] and str(found).startswith(expected)


def test_int8_that_answers_otherwise_is_out(int8_bundle: Path) -> None:
    machine = _on_cpu({"fp32": (20.0, 0.0), "int8": (1.0, 0.6)})
    found = choose(open_model(int8_bundle), ("fp32", "int8"), host=machine.host)
    assert found.precision == "fp32"
    assert "(int8 ruled out: its logits differ: SQNR 4.4 dB and 100 % agreement on 4" in str(found)


@pytest.mark.slow
def test_load_takes_what_auto_chooses_and_predict_says_so(
    int8_bundle: Path, image_folder: Path
) -> None:
    with load(int8_bundle, precision="auto", backend="ort-cpu") as classifier:
        assert classifier.auto is not None and len(classifier.auto.trials) == 2
        assert classifier.precision == classifier.auto.precision
        assert classifier.session.variant == {"int8": "int8-cpu"}.get(classifier.precision, "fp32")
    with load(int8_bundle) as classifier:
        assert (classifier.precision, classifier.auto) == ("fp32", None)
    image = str(image_folder / "cut_00.jpg")
    arguments = ["predict", str(int8_bundle), image, "--precision", "auto", "--json"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0 and json.loads(done.stdout)[0]["path"] == image
    (line,) = done.stderr.splitlines()
    assert line.startswith("auto: ") and "passes the check: SQNR" in line


def test_what_decides_the_outcome_is_asked_anew_when_it_changes(int8_bundle: Path) -> None:
    host = _on_cpu({}).host

    def is_remembered(on: Host = host) -> bool:
        return choose(open_model(int8_bundle), ("fp32", "int8"), host=on).remembered

    assert not is_remembered() and is_remembered()
    other = replace(host, facts=("another machine",))
    assert not is_remembered(other) and is_remembered(other) and is_remembered()
    changes: tuple[Callable[[], object], ...] = (
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


def test_an_altered_file_is_said_and_not_passed_over(int8_bundle: Path) -> None:
    with (int8_bundle / "int8-cpu.onnx").open("r+b") as file:
        file.write(b"no graph")
    with pytest.raises(BundleError, match=r"int8-cpu\.onnx: altered since it was written"):
        choose(open_model(int8_bundle), host=_on_cpu({}).host)


def test_without_a_reference_only_the_most_precise_is_trusted(int8_bundle: Path) -> None:
    machine = _on_cpu({})
    (int8_bundle / "reference.npz").unlink()
    chosen = choose(open_model(int8_bundle), host=machine.host)
    assert chosen.precision == "fp32" and machine.opened == []
    assert "without reference.npz" in str(chosen)


def test_a_backend_asked_for_is_the_only_one_tried(int8_bundle: Path) -> None:
    machine = _with_gpu({"ort-cuda": BackendError("no kernel image is available")})
    words = r"tiny\.bundle: no kernel image is available$"
    with pytest.raises(BackendError, match=words):
        choose(open_model(int8_bundle), backend="ort-cuda", host=machine.host)
    assert {backend for _, backend in machine.opened} == {"ort-cuda"}


@pytest.mark.skipif(cuda_problem() is None, reason="this machine has a GPU")
def test_without_a_gpu_nothing_is_tried(tiny_bundle: Path) -> None:
    chosen = choose(open_model(tiny_bundle), ("fp32",))
    assert (chosen.backend, chosen.trials) == ("ort-cpu", ())
    assert not (tiny_bundle / "engines").exists()
