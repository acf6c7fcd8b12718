"""The sentence names this machine and the versions that the answers depend on."""

import platform

import numpy as np

from resdeploy.deploy.machine import cores, cpu_name
from resdeploy.deploy.verification.device.machine import machine_sentence


def test_processor_cores_and_versions_are_those_of_this_machine() -> None:
    sentence = machine_sentence()
    assert sentence.startswith(f"{cpu_name()}, {cores()} cores")
    for words in (f"Python {platform.python_version()}", f"numpy {np.__version__}", "resdeploy "):
        assert words in sentence
    assert "\n" not in sentence
