"""`python -m resdeploy` is the command, and the package knows its version."""

import signal
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


_INTERRUPTED_IMPORT = """
import os, signal, sys
from resdeploy.__main__ import run

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "resdeploy.deploy.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
run()
"""


def test_ctrl_c_before_the_command_begins_ends_python_without_a_word() -> None:
    command = [sys.executable, "-c", _INTERRUPTED_IMPORT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
