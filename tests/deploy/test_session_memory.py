"""The peak memory of a session is measured in a process of its own, or not said."""

import subprocess
import sys
from pathlib import Path

import pytest

from resdeploy.deploy.session_memory import measure_peak_bytes


def test_a_fresh_process_says_its_peak(tiny_bundle: Path) -> None:
    peak = measure_peak_bytes(tiny_bundle, "fp32", "ort-cpu", 1)
    # Python, NumPy and ONNX Runtime alone; this process, with all it has loaded, is larger
    assert peak is not None and 20e6 < peak < 400e6
    lone = measure_peak_bytes(tiny_bundle / "fp32.onnx", "fp32", "ort-cpu", None)
    assert lone is not None and abs(lone - peak) < 50e6


def test_memory_of_this_process_does_not_count(tiny_bundle: Path) -> None:
    ballast = b"x" * (400 << 20)
    peak = measure_peak_bytes(tiny_bundle, "fp32", "ort-cpu", 1)
    assert peak is not None and peak < len(ballast)


def test_memory_that_was_given_back_does_count(tiny_bundle: Path) -> None:
    program = (
        "import sys; from resdeploy.deploy import session_memory\n"
        "ballast = b'x' * (400 << 20); del ballast; session_memory.main(sys.argv[1:])"
    )
    command = (sys.executable, "-c", program)
    peak = measure_peak_bytes(tiny_bundle, "fp32", "ort-cpu", 1, command=command)
    assert peak is not None and peak > 400 << 20


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(1)",
        "print('no number')",
        "pass",
        "print(0)",
        "import os; os.kill(os.getpid(), 9)",
        "import time; time.sleep(60)",
    ],
)
def test_what_cannot_be_measured_is_none(program: str, tiny_bundle: Path) -> None:
    command = (sys.executable, "-c", program)
    limit_s = 0.5 if "sleep" in program else 30.0
    found = measure_peak_bytes(
        tiny_bundle, "fp32", "ort-cpu", None, command=command, limit_s=limit_s
    )
    assert found is None


def test_a_bundle_without_the_precision_or_no_python_is_none(tiny_bundle: Path) -> None:
    assert measure_peak_bytes(tiny_bundle, "int8", "ort-cpu", None) is None
    absent = (str(tiny_bundle / "python"),)
    assert measure_peak_bytes(tiny_bundle, "fp32", "ort-cpu", None, command=absent) is None


def test_it_says_only_the_figure(tiny_bundle: Path) -> None:
    words = ["-m", "resdeploy.deploy.session_memory", str(tiny_bundle), "fp32", "ort-cpu", "0"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    assert done.stdout.strip().isdigit() and done.stderr == ""
