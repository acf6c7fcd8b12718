"""Plugins of ONNX Runtime: named when missing, and OpenVINO run for real where it is installed."""

import json
import os
import subprocess
from pathlib import Path

import onnxruntime as ort
import pytest

from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.errors import BackendError
from resdeploy.deploy.inference.backends import open_backend
from resdeploy.deploy.inference.ort_plugins import PLUGINS, open_on_plugin
from resdeploy.deploy.ort import session_options
from resdeploy.deploy.specs import PLUGIN_BACKENDS

_PYTHON = os.environ.get("ORT_PLUGIN_PYTHON")
_ROOT = Path(__file__).resolve().parents[3]


def test_every_plugin_has_a_package() -> None:
    assert set(PLUGINS) == set(PLUGIN_BACKENDS)


def test_a_package_that_is_missing_is_named(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resdeploy.deploy.inference import ort_plugins

    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(ort_plugins, "import_module", absent)
    words = r"backend ort:qnn: onnxruntime-qnn is not installed: pip install onnxruntime-qnn"
    with pytest.raises(BackendError, match=words) as caught:
        open_backend(open_model(tiny_bundle), "fp32", "ort:qnn")
    assert caught.value.exit_code == 4


def test_an_older_onnxruntime_loads_no_plugins(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ort, "get_ep_devices", raising=False)
    with pytest.raises(BackendError, match=r"loads no plugins, expected 1\.23 or newer"):
        open_on_plugin(tiny_bundle / "fp32.onnx", "ort:webgpu", session_options())


@pytest.mark.skipif(_PYTHON is None, reason="ORT_PLUGIN_PYTHON names no Python with OpenVINO")
def test_openvino_gives_the_same_answers_as_the_cpu(tiny_bundle: Path, image_folder: Path) -> None:
    assert _PYTHON is not None
    answers = {}
    for backend in ("ort-cpu", "ort:openvino"):
        words = [
            _PYTHON,
            "-m",
            "resdeploy",
            "predict",
            tiny_bundle,
            image_folder,
            "--backend",
            backend,
        ]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT / "src")}
        done = subprocess.run([*map(str, words), "--json"], capture_output=True, text=True,
                              env=environment)  # fmt: skip
        assert done.returncode == 0, done.stderr
        answers[backend] = json.loads(done.stdout)
    for here, there in zip(*answers.values(), strict=True):
        for first, second in zip(here["predictions"], there["predictions"], strict=True):
            assert first["label"] == second["label"]
            assert first["probability"] == pytest.approx(second["probability"], abs=1e-4)
