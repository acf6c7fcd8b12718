"""Names a device: HOST, as ssh knows it, and where its bundle and its Python are."""

import re
import shlex
from dataclasses import dataclass

from resdeploy.deploy.errors import InputError

PYTHON = "python3"

_MODULE = "resdeploy.deploy.verification.device.answer"
# nothing in it that a shell would change, but for the ~ of a home folder, which it shall
_PLAIN = re.compile(r"[\w./~+-]+")


@dataclass(frozen=True)
class Device:
    """A machine that runs sessions.

    Attributes:
        host: what ssh is given: a name, user@name, an entry of ~/.ssh/config.
        bundle: the path of the bundle there; None sends this one for the time of the run.
        python: the Python there that has resdeploy.
    """

    host: str
    bundle: str | None = None
    python: str = PYTHON

    def __str__(self) -> str:
        """The host and, where it was named, the bundle there."""
        return self.host if self.bundle is None else f"{self.host}:{self.bundle}"

    @property
    def command(self) -> str:
        """What the shell of the device is told to run.

        The shell outlives it, so that its exit status tells how it ended, killed or not.
        """
        python = self.python if _PLAIN.fullmatch(self.python) else shlex.quote(self.python)
        return f"{python} -m {_MODULE}; exit"


@dataclass(frozen=True)
class DeviceFacts:
    """The device that ran the sessions: as it was named, and the machine in one sentence."""

    name: str
    machine: str


def parse_device(text: str, python: str = PYTHON) -> Device:
    """Read HOST or HOST:PATH; the host in brackets where it has colons itself, [::1]:PATH.

    Raises:
        InputError: no host, or one that ssh would take for an option.
    """
    matched = re.fullmatch(r"(?:\[([^]]+)\]|([^:\[\]]+))(?::(.+))?", text)
    host = "" if matched is None else matched[1] or matched[2]
    if matched is None or not host or host.startswith("-") or any(c.isspace() for c in host):
        raise InputError(
            f"device {text!r}: expected HOST or HOST:PATH as ssh knows the host, such as jetson or "
            "nvidia@jetson:flowers.bundle"
        )
    return Device(host, matched[3], python)
