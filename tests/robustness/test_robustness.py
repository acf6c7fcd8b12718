"""A sample of the attack on every class, each in a process of its own: the same cases every time.

ROBUSTNESS_SECONDS (of each class) and ROBUSTNESS_SEED make it longer and new, which may find what
no change before it broke: `make robustness`, and SECURITY.md.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.robustness.classes import CLASSES

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = os.environ.get("ROBUSTNESS_SECONDS")
_SEED = int(os.environ.get("ROBUSTNESS_SEED", "0"))

# a few seconds of each on two cores
_SAMPLE = {
    "checkpoints": 600,
    "megabytes": 10,
    "bundles": 300,
    "documents": 200,
    "images": 600,
    "commands": 40,
    "failing writes": 40,
    "kills": 30,
    "killed exports": 4,
    "killed quantizations": 8,
    "killed builds": 8,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_no_case_of_a_class_fails(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    log = tmp_path / "case"
    command = [sys.executable, "-m", "tests.robustness.run", name, "--seed", str(_SEED)]
    sample = ["--cases", str(_SAMPLE[name]), "--limit", "60"]  # CI's machine may be a slow one
    end = ["--seconds", _SECONDS] if _SECONDS else sample
    done = subprocess.run(
        [*command, *end, "--log", str(log)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        errors="replace",
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode not in (0, 1) or not lines or not lines[-1].startswith("{"):
        case = log.read_text() if log.exists() else "none"
        pytest.fail(f"ended with {done.returncode} in case {case}: {done.stderr[-2000:]}")
    result = json.loads(lines[-1])
    record_property("tally", result)
    assert result["tried"] > 0
    assert not result["failures"], f"python -m tests.robustness.run {name} --seed {_SEED} --case N"
