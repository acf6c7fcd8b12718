"""`make demo` does what the README promises, and its bundle predicts where PyTorch is not."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo run in a copy of examples/: the folder it ran in and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(_ROOT / "examples", folder / "examples")
    command = [sys.executable, str(folder / "examples" / "demo.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_checkpoint_is_small_and_alone_with_its_class_names() -> None:
    assert (_ROOT / "examples" / "digits_mobilenet_v2.pth").stat().st_size <= 5_000_000
    names = json.loads((_ROOT / "examples" / "class_indices.json").read_text())
    assert len(names) == 10


def test_every_variant_is_as_accurate_as_pytorch(demo: tuple[Path, str]) -> None:
    rows = re.findall(r"(PyTorch|resdeploy \w+) *│ *([\d.]+) %", demo[1])
    accuracy = {name: float(percent) for name, percent in rows}
    assert {"PyTorch", "resdeploy fp32", "resdeploy fp16", "resdeploy int8"} <= set(accuracy)
    assert accuracy["PyTorch"] >= 97
    assert accuracy["resdeploy fp32"] == accuracy["PyTorch"]
    assert all(percent >= accuracy["PyTorch"] - 1 for percent in accuracy.values())


def test_bundle_predicts_without_pytorch_and_onnx(demo: tuple[Path, str]) -> None:
    # None in sys.modules makes an import fail as if the library were not installed
    absent = ["torch", "torchvision", "onnx", "onnx_ir", "onnxscript", "onnxsim", "scipy"]
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
        "from resdeploy.deploy import load\n"
        "with load('demo-output/digits.bundle', precision='fp16') as classifier:\n"
        "    print(classifier.predict('demo-output/images/sample/seven.png')[0].label)"
    )
    shown = subprocess.run([sys.executable, "-c", program], cwd=demo[0], capture_output=True,
                           text=True, check=True).stdout  # fmt: skip
    assert shown.strip() == "seven"
