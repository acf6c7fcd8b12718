"""A resdeploy on a device, spoken to through ssh."""

import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Any

from resdeploy.deploy import errors
from resdeploy.deploy.errors import BackendError, ResdeployError
from resdeploy.deploy.optional import installed_version
from resdeploy.deploy.session import ClosesOnExit
from resdeploy.deploy.verification.device.address import Device
from resdeploy.deploy.verification.device.messages import (
    GREETING,
    GarbledError,
    Message,
    read_message,
    write_message,
)

# no terminal; a line that is silent for a minute is taken for cut
_SSH = ("ssh", "-T", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15",
        "-o", "ServerAliveCountMax=4")  # fmt: skip
_FAILED = 255  # ssh's own exit status
_NOT_FOUND = 127
_KILLED = (137, -9)
_NOISE = 1000  # lines a login shell may print before
_LAST_CHARACTERS = 300
_ENDS_WITHIN_S = 5.0


class Connection(ClosesOnExit):
    """The process on the device; a context manager that ends it.

    Raises BackendError (exit code 4) when the device cannot be reached, has no resdeploy of this
    version, or is lost on the way; what the device itself refuses is raised as it was there.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._lock = threading.Lock()
        self._said = TemporaryFile()  # noqa: SIM115 - closed in `close`
        command = [*_SSH, "--", device.host, device.command]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
            )
        except OSError as error:
            self._said.close()
            raise BackendError(
                f"{device.host}: ssh cannot be run here ({error.strerror}): install the OpenSSH "
                "client, e.g. apt install openssh-client"
            ) from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def send(self, fields: Mapping[str, Any], *payloads: bytes) -> None:
        """Say something that has no answer of its own."""
        with self._lock, suppress(OSError):  # a lost line shows when an answer is due
            write_message(self._requests, fields, *payloads)

    def ask(self, fields: Mapping[str, Any], *payloads: bytes) -> Message:
        """Ask and wait for the answer; callers in several threads take turns."""
        with self._lock:
            try:
                write_message(self._requests, fields, *payloads)
            except OSError:
                pass  # why it ended stands in an answer, or in its exit status
            except ValueError as error:  # closed already, by another thread's failure
                raise self._lost() from error
            try:
                answer = read_message(self._answers)
            except (EOFError, OSError, GarbledError) as error:
                raise self._lost() from error
        if answer.fields["kind"] == "error":
            raise _error(self.device.host, answer.fields)
        return answer

    def close(self) -> None:
        """End the process: the end of its input tells it to."""
        for stream in (self._requests, self._answers):
            with suppress(OSError):
                stream.close()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _greet(self) -> None:
        """Wait for the device's version, past whatever a login shell prints."""
        ours = installed_version("resdeploy")
        for _ in range(_NOISE):
            line = self._answers.readline(1 << 12)
            if not line:
                break
            if line.startswith(GREETING.encode()):
                theirs = line[len(GREETING) :].decode(errors="replace").strip()
                if theirs == ours:
                    return
                raise BackendError(
                    f"{self.device.host}: {self.device.python} there has resdeploy {theirs}, this "
                    f"is {ours}: install the same version there"
                )
        raise BackendError(f"{self.device.host}: {self._not_started(str(ours))}")

    def _not_started(self, ours: str) -> str:
        status, said = self._status(), self._last_words()
        python = self.device.python
        if status == _FAILED:
            return f"ssh cannot connect{said}: try ssh {self.device.host} true"
        install = (
            "pip install its wheel there (made by pip wheel --no-deps . here), or name another"
        )
        if status == _NOT_FOUND:
            return f"no {python} there{said}: name the Python that has resdeploy by --on-python"
        if "No module named" in said:
            return f"{python} there has no resdeploy {ours}{said}: {install} Python by --on-python"
        return f"resdeploy did not start there, status {status}{said}"

    def _lost(self) -> BackendError:
        """Why there was no answer."""
        status, host = self._status(), self.device.host
        nothing = "nothing was judged"
        if status in (_FAILED, None):
            return BackendError(
                f"{host}: the connection dropped midway{self._last_words()}: "
                f"{nothing}; run again when the device can be reached"
            )
        if status in _KILLED:
            return BackendError(
                f"{host}: resdeploy was killed there, most likely because it used too much memory: "
                f"{nothing}; verify one precision at a time with --precision"
            )
        return BackendError(
            f"{host}: resdeploy ended there with status {status}{self._last_words()}: {nothing}"
        )

    def _status(self) -> int | None:
        """The exit status, for which a dead line may take a moment; None while it still runs."""
        with suppress(OSError, ValueError):
            self._requests.close()
        try:
            return self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            return None

    def _last_words(self) -> str:
        """The end of what ssh and the device said on stderr, in parentheses."""
        if self._said.closed:
            return ""
        self._said.seek(0)
        text = self._said.read().decode(errors="replace")
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
        plain = "".join(c for c in " | ".join(lines[-2:]) if c.isprintable())
        return f" ({plain[-_LAST_CHARACTERS:]})" if plain else ""


def _error(host: str, fields: Mapping[str, Any]) -> ResdeployError:
    """What the device refused, as the same class with the host before it."""
    found = getattr(errors, str(fields.get("class")), None)
    message = f"{host}: {fields.get('message')}"
    if not isinstance(found, type) or not issubclass(found, ResdeployError):
        return BackendError(message)
    return found(message)
