"""What files and tools of x86 machines and Jetsons say is read rightly."""

import os
import platform
import sys
from pathlib import Path

import pytest

from resdeploy.deploy import machine

# as an Orin with JetPack 6 gives them
_ORIN = {
    "/proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd aes fphp asimdhp asimddp sve2\n",
    "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
    "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit\0",
}
_XEON = {
    "/proc/cpuinfo": "model name\t: Intel Xeon\nflags\t\t: sse2 avx2 avx512f avx512_vnni\n",
}
_ZEN2 = {"/proc/cpuinfo": "model name\t: AMD EPYC 7282\nflags\t\t: sse2 avx2 sha_ni\n"}


def _pretend(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], architecture: str, nvpmodel: str = ""
) -> None:
    monkeypatch.setattr(machine, "_text", lambda path: files.get(str(path), ""))
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    monkeypatch.setattr(machine, "command_output", lambda *_: nvpmodel)


def test_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, _ORIN, "aarch64", "NV Fan Mode:quiet\nNV Power Mode: 15W\n0")
    assert machine.jetson_line() == (
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit, L4T 36.4.3, power mode 15W"
    )
    assert machine.cpu_flags() == ("asimddp", "asimdhp")
    assert machine.has_exact_int8()


@pytest.mark.parametrize(("files", "exact"), [(_XEON, True), (_ZEN2, False)])
def test_x86(files: dict[str, str], exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, files, "x86_64")
    assert machine.has_exact_int8() is exact
    assert machine.jetson_line() is None
    line = machine.cpu_line()
    assert machine.cpu_name() in line and "avx2" in line
    assert ("saturate" in line) is not exact


def test_a_system_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, {}, "x86_64")
    assert machine.cpu_flags() == () and not machine.has_exact_int8()
    assert machine.cpu_line() and machine.jetson_line() is None and machine.gpu_line() is None


def test_this_machine(tmp_path: Path) -> None:
    assert machine.cpu_name() and 1 <= machine.cores() <= (os.cpu_count() or 1)
    python = sys.executable
    assert machine.command_output([python, "-c", "print('yes')"]) == "yes"
    assert machine.command_output([python, "-c", "print('no'); exit(1)"]) == ""
    assert machine.command_output([python, "-c", "import time; time.sleep(9)"], timeout_s=0.2) == ""
    assert machine.command_output([str(tmp_path / "absent")]) == ""
    assert machine.command_output([str(tmp_path)]) == ""
