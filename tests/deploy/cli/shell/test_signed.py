"""--sign signs what a command made, however the command ends, and nothing where it failed."""

import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from resdeploy.deploy.bundle.bundle import SIGNATURE
from resdeploy.deploy.bundle.signature import check_signature
from resdeploy.deploy.cli.shell.signed import SignedCommand, sign_option, will_be_signed
from resdeploy.deploy.errors import InputError


@pytest.fixture
def bundle(flower_bundle: Path, tmp_path: Path) -> Path:
    """A copy that may be signed."""
    return Path(shutil.copytree(flower_bundle, tmp_path / "net.bundle"))


@click.command(cls=SignedCommand)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("end")
@sign_option
def _make(bundle: Path, end: str) -> None:
    """A command that says it made BUNDLE."""
    will_be_signed(bundle)
    if end == "error":
        raise InputError("it went wrong")
    if end != "plain":
        click.get_current_context().exit(int(end))


@pytest.mark.parametrize(("end", "signed"), [("plain", True), ("3", True), ("error", False)])
def test_what_was_made_is_signed(bundle: Path, tmp_path: Path, end: str, signed: bool) -> None:
    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    CliRunner().invoke(_make, [str(bundle), end, "--sign", str(private)])
    assert (bundle / SIGNATURE).exists() is signed
    if signed:
        check_signature(bundle, public)


def test_a_key_that_cannot_be_read_ends_the_command_before_its_work(bundle: Path) -> None:
    result = CliRunner().invoke(_make, [str(bundle), "plain", "--sign", "absent.pem"])
    assert isinstance(result.exception, InputError) and "absent.pem" in str(result.exception)
