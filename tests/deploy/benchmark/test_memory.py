"""The peak memory of a session is measured in a process of its own, or not said."""

import subprocess
import sys
from pathlib import Path

import pytest

from resdeploy.deploy.benchmark.memory import measure_peak_bytes


@pytest.mark.slow
def test_a_process_of_its_own_opens_what_it_is_told(tiny_bundle: Path) -> None:
    assert isinstance(measure_peak_bytes(tiny_bundle, "fp32", "ort-cpu", 1), int)
    assert isinstance(measure_peak_bytes(tiny_bundle / "fp32.onnx", "fp32", "ort-cpu", None), int)


def test_the_figure_is_the_last_word_of_the_process(tiny_bundle: Path) -> None:
    """Libraries may print before it; the arguments are those of the module's docstring."""
    program = (
        "import sys; print('a library says hello')\n"
        "assert sys.argv[2:] == ['fp32', 'ort-cpu', '3'], sys.argv\n"
        "print(123456)"
    )
    command = (sys.executable, "-c", program)
    assert measure_peak_bytes(tiny_bundle, "fp32", "ort-cpu", 3, command=command) == 123456


@pytest.mark.slow
def test_memory_that_was_given_back_counts(tiny_bundle: Path) -> None:
    """What the figure is: the most that the process ever held, not what it holds at the end."""
    program = (
        "import sys; from resdeploy.deploy.benchmark import memory\n"
        "given_back = b'x' * (200 << 20); del given_back; memory.main(sys.argv[1:])"
    )
    command = (sys.executable, "-c", program)
    peak = measure_peak_bytes(tiny_bundle, "fp32", "ort-cpu", 1, command=command)
    assert peak is not None and peak > 200 << 20


@pytest.mark.slow
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
    words = ["-m", "resdeploy.deploy.benchmark.memory", str(tiny_bundle), "fp32", "ort-cpu"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    assert done.stdout.strip().isdigit() and done.stderr == ""
