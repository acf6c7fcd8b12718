"""HOST and HOST:PATH, and what the device's shell is told."""

import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.verification.device.address import Device, parse_device


@pytest.mark.parametrize(
    ("text", "host", "bundle"),
    [
        ("jetson", "jetson", None),
        ("nvidia@10.0.0.7:flowers.bundle", "nvidia@10.0.0.7", "flowers.bundle"),
        ("jetson:~/a b:c.bundle", "jetson", "~/a b:c.bundle"),
        ("[fe80::1]", "fe80::1", None),
        ("[fe80::1]:/srv/f.bundle", "fe80::1", "/srv/f.bundle"),
    ],
)
def test_a_host_and_a_bundle_there(text: str, host: str, bundle: str | None) -> None:
    assert parse_device(text) == Device(host, bundle)


@pytest.mark.parametrize("text", ["", ":path", "-oProxyCommand=x", "two words", "a b:c", "[]:x"])
def test_what_is_no_host_never_reaches_ssh(text: str) -> None:
    with pytest.raises(InputError, match="expected HOST or HOST:PATH"):
        parse_device(text)


def test_a_python_is_one_word_for_the_shell() -> None:
    assert Device("h").command.startswith("python3 -m resdeploy.")
    assert Device("h", python="~/venv/bin/python").command.startswith("~/venv/bin/python -m ")
    assert Device("h", python="a; rm -r b").command.startswith("'a; rm -r b' -m ")
