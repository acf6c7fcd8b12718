"""The systemd unit in the docs: systemd accepts it, and the command line in it is a real one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from resdeploy.deploy.cli.serve import serve

_UNIT = Path(__file__).resolve().parents[3] / "docs" / "resdeploy.service"


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / "resdeploy.service"
    # the program must exist for this check
    unit.write_text(_UNIT.read_text().replace("/opt/resdeploy/bin/resdeploy", "/bin/true"))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    complaints = [line for line in result.stderr.splitlines() if "resdeploy.service" in line]
    assert (result.returncode, complaints) == (0, [])


def test_the_units_command_has_options_that_exist() -> None:
    found = re.search(r"^ExecStart=\S+ serve (.*)$", _UNIT.read_text(), re.MULTILINE)
    assert found
    options = set(re.findall(r"--[a-z-]+", found[1]))
    assert options <= {name for parameter in serve.params for name in parameter.opts}
