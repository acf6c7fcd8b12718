"""A real sshd on the loopback, in a folder of the test's own, that stands for a device."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# what ssh connects through: it passes on so many bytes of ours, then the line is dead
_CUT_LINE = """
import os, selectors, socket, sys
left = int(sys.argv[2])
server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
chosen = selectors.DefaultSelector()
chosen.register(0, selectors.EVENT_READ)
chosen.register(server, selectors.EVENT_READ)
while left > 0:
    for key, _ in chosen.select():
        data = os.read(key.fd, 1 << 15)
        if not data:
            sys.exit()
        if key.fd == 0:
            left -= len(data)
            server.sendall(data)
        else:
            os.write(1, data)
"""

_SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
"""

_CLIENT = """
Host *
  User {user}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking accept-new
  LogLevel ERROR
Host device
  HostName 127.0.0.1
  Port {port}
Host nobody
  HostName 127.0.0.1
  Port {closed}
Host cut-early cut-late
  HostName 127.0.0.1
Host cut-early
  ProxyCommand {python} {folder}/cut.py {port} 6000
Host cut-late
  ProxyCommand {python} {folder}/cut.py {port} 150000
"""


@dataclass(frozen=True)
class Loopback:
    """The hosts of `_CLIENT` can be reached with `path` first in PATH; `python` has resdeploy."""

    path: Path
    python: Path
    folder: Path


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """The server, running."""
    server = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if server is None or shutil.which("ssh") is None:
        pytest.skip("no sshd and ssh here: apt install openssh-server openssh-client")
    _make_run_folder()
    folder = tmp_path_factory.mktemp("sshd")
    port, closed = _free_port(), _free_port()
    _write(folder, port, closed)
    log = (folder / "log").open("wb")
    process = subprocess.Popen([server, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        _wait_for(process, port, folder / "log")
        _log_in(folder)
        yield Loopback(folder / "bin", folder / "python", folder)
    finally:
        process.terminate()
        process.wait()
        log.close()


@pytest.fixture
def device(sshd: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """The same, found by the `ssh` that this process and its children run."""
    monkeypatch.setenv("PATH", f"{sshd.path}:{os.environ['PATH']}")
    return sshd


def _make_run_folder() -> None:
    """Started by root, sshd insists on its folder, which a service would have made."""
    if os.geteuid() == 0:
        try:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            pytest.skip(f"sshd as root needs /run/sshd: {error}")


def _write(folder: Path, port: int, closed: int) -> None:
    for name in ("host_key", "user_key"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    values = {
        "folder": folder, "port": port, "closed": closed, "user": getpass.getuser(),
        "python": sys.executable,
    }  # fmt: skip
    (folder / "sshd_config").write_text(_SERVER.format(**values))
    (folder / "ssh_config").write_text(_CLIENT.format(**values))
    (folder / "cut.py").write_text(_CUT_LINE)
    (folder / "bin").mkdir()
    client = shutil.which("ssh")
    _write_script(folder / "bin" / "ssh", f'exec {client} -F {folder}/ssh_config "$@"')
    # a login shell may greet; and the tree that is tested is not the one that is installed
    imports = os.pathsep.join(path for path in sys.path if path)
    start = f'echo "Welcome to the device"\nexport PYTHONPATH="{imports}"'
    _write_script(folder / "python", f'{start}\nexec "{sys.executable}" "$@"')


def _write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text()[-300:]}")
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.skip("sshd does not answer here")


def _log_in(folder: Path) -> None:
    """An account without a shell, or a locked one, is no device."""
    words = [str(folder / "bin" / "ssh"), "-o", "BatchMode=yes", "device", "true"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        pytest.skip(f"nobody can log in over ssh here: {done.stderr.strip()[-300:]}")
