"""`python -m resdeploy` is the command, and the package knows its version."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import resdeploy


def test_the_package_knows_its_version() -> None:
    assert resdeploy.__version__ == version("resdeploy")
    with pytest.raises(AttributeError, match="module 'resdeploy' has no attribute 'nothing'"):
        getattr(resdeploy, "nothing")  # noqa: B009


def test_python_m_is_the_command() -> None:
    command = [sys.executable, "-m", "resdeploy"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == version("resdeploy")
    wrong = subprocess.run([*command, "predict"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "Missing argument" in wrong.stderr
