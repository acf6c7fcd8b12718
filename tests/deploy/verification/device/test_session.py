"""`verify --on HOST` against a real sshd: the same figures as here, or nothing and exit 4."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import BackendError, BundleError, InputError
from resdeploy.deploy.verification.device.address import Device
from resdeploy.deploy.verification.verify import verify
from tests.deploy.verification.device.conftest import Loopback

pytestmark = pytest.mark.slow

WriteBundle = Callable[..., Path]

_BROKEN = {"int8": np.array([-0.5, 0, 0], np.float32)}


@pytest.fixture
def bundle(tmp_path: Path, write_bundle: WriteBundle, identity: Float32s) -> Path:
    both = {"fp32": identity, "int8": identity}
    return write_bundle(tmp_path / "colours.bundle", both, bias=_BROKEN)


def _command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "resdeploy", "verify", *map(str, arguments)]
    outside = {k: v for k, v in os.environ.items() if k != "GITHUB_ACTIONS"}
    return subprocess.run(words, cwd=folder, env=outside, capture_output=True, text=True)


def _figures(content: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on where the sessions run."""
    keys = ("verdict", "images", "top1", "drop", "drop_ci95", "agreement", "max_abs")
    return {name: {key: row[key] for key in keys} for name, row in content["variants"].items()}


def test_a_device_is_judged_like_this_machine(
    bundle: Path, colours: Path, device: Loopback, tmp_path: Path
) -> None:
    on = ("--on", "device", "--on-python", device.python)
    files = ("--markdown", "m.md", "--html", "p.html", "--record", "h.jsonl")
    here = _command(tmp_path, bundle, "--data", colours, "--json")
    there = _command(tmp_path, bundle, "--data", colours, "--json", *on, *files)
    assert (here.returncode, there.returncode) == (3, 3), there.stderr
    content, local = json.loads(there.stdout), json.loads(here.stdout)
    assert _figures(content)["int8"] == _figures(local)["int8"]
    assert content["reason"].partition(": ")[2] == local["reason"].partition(": ")[2]
    # the fp32 graph of the device is compared with the one that runs here
    assert content["variants"]["fp32"]["is_reference"] is False
    assert content["variants"]["fp32"]["agreement"] == 100
    assert content["device"]["name"] == "device" and "resdeploy" in content["device"]["machine"]
    assert local["device"] is None
    assert "colours.bundle on device" in (tmp_path / "m.md").read_text()
    assert "Ran on device." in (tmp_path / "p.html").read_text()
    assert json.loads((tmp_path / "h.jsonl").read_text())["device"] == "device"


def test_the_closing_lines_name_the_device(
    bundle: Path, colours: Path, device: Loopback, tmp_path: Path
) -> None:
    found = _command(
        tmp_path, bundle, "--data", colours, "--on", "device", "--on-python", device.python
    )
    *_, compared, closing = found.stdout.splitlines()
    assert compared.startswith(f"{bundle} on device compared with fp32.onnx on ort-cpu on 300")
    assert closing.startswith("FAILED 2 of 8 checks: int8 lost")


def test_a_bundle_that_lies_on_the_device_is_used_and_must_be_the_same(
    bundle: Path, write_bundle: WriteBundle, device: Loopback, tmp_path: Path
) -> None:
    there = Path(shutil.copytree(bundle, tmp_path / "there.bundle"))
    python = str(device.python)
    report = verify(bundle, on=Device("device", str(there), python), precisions=["fp32"])
    assert report.device is not None and report.device.name == f"device:{there}"
    other = write_bundle(tmp_path / "other.bundle", {"fp32": 2 * np.eye(3, dtype=np.float32)})
    with pytest.raises(BundleError, match=r"^device: .*another bundle than the one to verify"):
        verify(bundle, on=Device("device", str(other), python), precisions=["fp32"])
    with pytest.raises(BundleError, match=r"^device: .*missing.bundle: no such bundle"):
        verify(bundle, on=Device("device", str(tmp_path / "missing.bundle"), python))


def test_an_onnx_file_alone_is_sent_too(bundle: Path, colours: Path, device: Loopback) -> None:
    file = bundle / "int8.onnx"
    report = verify(file, data=colours, min_top1=50, on=Device("device", None, str(device.python)))
    assert [v.name for v in report.variants] == ["int8"]
    assert report.to_json()["variants"]["int8"]["images"] == 300


@pytest.mark.parametrize("host", ["cut-early", "cut-late"])
def test_a_line_that_is_cut_midway_judges_nothing(
    host: str, bundle: Path, colours: Path, device: Loopback, tmp_path: Path
) -> None:
    """Early: while the bundle is sent. Late: between two batches."""
    files = ("--junit", "j.xml", "--html", "p.html", "--record", "h.jsonl", "--json")
    done = _command(
        tmp_path, bundle, "--data", colours, "--on", host, "--on-python", device.python, *files
    )
    assert done.returncode == 4
    assert list(json.loads(done.stdout)) == ["error"]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {host}: the connection dropped midway")
    assert "nothing was judged" in line
    assert not any((tmp_path / name).exists() for name in ("j.xml", "p.html", "h.jsonl"))
    assert not (bundle / "reports").exists()


def test_a_device_process_that_is_killed_is_told_apart(
    bundle: Path, colours: Path, device: Loopback
) -> None:
    """As the kernel ends a process that uses too much memory."""

    python, number = device.folder / "mortal", device.folder / "number"
    python.write_text(f'#!/bin/sh\necho $$ > {number}\nexec {device.python} "$@"\n')
    python.chmod(0o755)

    def kill(step: str, done: int, total: int) -> None:
        if step == "verifying" and number.exists():
            os.kill(int(number.read_text()), signal.SIGKILL)
            number.unlink()

    with pytest.raises(BackendError, match=r"killed there.*nothing was judged") as raised:
        verify(bundle, data=colours, on=Device("device", None, str(python)), progress=kill)
    assert raised.value.exit_code == 4


@pytest.mark.parametrize(
    ("host", "python", "expected"),
    [
        ("nobody", "", "nobody: ssh cannot connect (ssh: connect to host 127.0.0.1 port"),
        ("device", "/no/python3", "device: no /no/python3 there ("),
        ("device", "/bin/false", "device: resdeploy did not start there, status 1"),
    ],
)
def test_a_device_that_cannot_be_used_is_exit_4(
    host: str, python: str, expected: str, bundle: Path, device: Loopback, tmp_path: Path
) -> None:
    done = _command(tmp_path, bundle, "--on", host, "--on-python", python or device.python)
    assert done.returncode == 4
    assert done.stderr.startswith(f"error: {expected}") and len(done.stderr.splitlines()) == 1


def test_the_python_there_is_asked_for_its_version(
    bundle: Path, device: Loopback, tmp_path: Path
) -> None:
    old, without = tmp_path / "old", tmp_path / "without"
    old.write_text("#!/bin/sh\necho resdeploy-device 1 0.0.1\ncat > /dev/null\n")
    message = "No module named 'resdeploy'"
    without.write_text(f'#!/bin/sh\necho "/usr/bin/python3: {message}" >&2\nexit 1\n')
    for script in (old, without):
        script.chmod(0o755)
    with pytest.raises(BackendError, match=r"has resdeploy 0\.0\.1, this is .*: install the same"):
        verify(bundle, on=Device("device", None, str(old)))
    with pytest.raises(BackendError, match=r"has no resdeploy .*: pip install its wheel there"):
        verify(bundle, on=Device("device", None, str(without)))


def test_what_the_device_refuses_has_its_own_class(bundle: Path, device: Loopback) -> None:
    python = str(device.python)
    with pytest.raises(BackendError, match=r"^device: "):
        verify(bundle, backends=["ort-cuda"], on=Device("device", None, python))
    with pytest.raises(InputError, match="--max-slower would time the line to device"):
        verify(bundle, max_slower=5, on=Device("device", None, python))
