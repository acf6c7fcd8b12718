"""Why a device cannot be spoken to, with programs of our own in the place of ssh."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from resdeploy.deploy.errors import BackendError, BundleError
from resdeploy.deploy.optional import installed_version
from resdeploy.deploy.verification.device.address import Device
from resdeploy.deploy.verification.device.connection import Connection

Ssh = Callable[[str], None]

_HELLO = f"echo Welcome; echo resdeploy-device 1 {installed_version('resdeploy')}"


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    """A function: the text of a shell script → it is what `ssh` runs."""

    def install(script: str) -> None:
        path = tmp_path / "ssh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo no route to host >&2; exit 255",
            r"ssh cannot connect \(no route to host\): try ssh",
        ),
        ("echo sh: python9: not found >&2; exit 127", r"no python9 there .*: name the Python that"),
        (
            "echo No module named resdeploy >&2; exit 1",
            r"python9 there has no resdeploy .*pip inst",
        ),
        ("exit 3", r"resdeploy did not start there, status 3$"),
        ("echo resdeploy-device 1 0.0.1", r"has resdeploy 0\.0\.1, this is .*same version there"),
    ],
)
def test_a_device_that_does_not_greet_says_why(ssh: Ssh, script: str, message: str) -> None:
    ssh(script)
    with pytest.raises(BackendError, match=f"^jetson: .*{message}"):
        Connection(Device("jetson", python="python9"))


@pytest.mark.parametrize(
    ("status", "message"),
    [(255, "the connection dropped midway"), (137, "was killed there"), (2, "ended there with")],
)
def test_a_device_that_is_lost_judges_nothing(ssh: Ssh, status: int, message: str) -> None:
    ssh(f"{_HELLO}; read line; exit {status}")
    with (
        Connection(Device("jetson")) as connection,
        pytest.raises(BackendError, match=f"^jetson: .*{message}.*nothing was judged"),
    ):
        connection.ask({"kind": "run"})


def test_an_answer_comes_with_its_bytes_and_an_error_with_its_class(ssh: Ssh) -> None:
    good = r'{"kind": "outputs", "bytes": [3]}\nabc'
    bad = r'{"kind": "error", "class": "BundleError", "message": "no such bundle", "bytes": []}\n'
    ssh(f"{_HELLO}; read line; printf '{good}'; read line; printf '{bad}'; read line")
    with Connection(Device("jetson")) as connection:
        answer = connection.ask({"kind": "run"})
        assert (answer.fields["kind"], answer.payloads) == ("outputs", (b"abc",))
        with pytest.raises(BundleError, match=r"^jetson: no such bundle$"):
            connection.ask({"kind": "run"})


def test_without_ssh_the_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match=r"ssh cannot be run here .*install the OpenSSH client"):
        Connection(Device("jetson"))
