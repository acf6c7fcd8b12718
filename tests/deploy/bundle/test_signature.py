"""A signature covers the manifest and, by its hashes, the graphs; a change removes it."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from resdeploy.deploy.bundle.bundle import SIGNATURE, read_bundle, write_manifest
from resdeploy.deploy.bundle.signature import check_signature, read_private_key, sign, signed_with
from resdeploy.deploy.cli.main import cli
from resdeploy.deploy.errors import BundleError, InputError

pytest.importorskip("cryptography")


def _keys(folder: Path, name: str, algorithm: str = "ed25519") -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    make = ["openssl", "genpkey", "-algorithm", algorithm, "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    subprocess.run(
        ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)], check=True
    )
    return private, public


def test_a_signed_bundle_is_told_from_others(bundle: Path, tmp_path: Path) -> None:
    private, public = _keys(tmp_path, "mine")
    _, other = _keys(tmp_path, "other")
    with pytest.raises(BundleError, match="not signed, or changed since: sign it with --sign"):
        check_signature(bundle, public)
    sign(bundle, read_private_key(private))
    check_signature(bundle, public)
    with pytest.raises(BundleError, match="is not of this manifest and this key"):
        check_signature(bundle, other)
    manifest = bundle / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.replace(b"tiny", b"tine"))
    with pytest.raises(BundleError, match="is not of this manifest and this key"):
        check_signature(bundle, public)
    manifest.write_bytes(whole)
    (bundle / SIGNATURE).write_text("no hexadecimal digits")
    with pytest.raises(BundleError, match="is not of this manifest and this key"):
        check_signature(bundle, public)
    write_manifest(bundle, read_bundle(bundle).manifest)
    assert not (bundle / SIGNATURE).exists()


def test_commands_refuse_a_bundle_that_is_not_signed(bundle: Path, tmp_path: Path) -> None:
    private, public = _keys(tmp_path, "mine")
    arguments = ["verify", str(bundle), "--verify-key", str(public)]
    refused = CliRunner().invoke(cli, arguments).exception
    assert isinstance(refused, BundleError) and "not signed" in str(refused)
    sign(bundle, read_private_key(private))
    passed_on = CliRunner().invoke(cli, arguments).exception
    assert isinstance(passed_on, InputError) and "reference.npz" in str(passed_on)


def test_no_other_manifest_is_read_than_the_signed_one(bundle: Path, tmp_path: Path) -> None:
    """However soon after the check the bundle is exchanged, and exchanged back at its end."""
    private, public = _keys(tmp_path, "mine")
    sign(bundle, read_private_key(private))
    whole = (bundle / "manifest.json").read_bytes()
    manifest = read_bundle(bundle).manifest
    with signed_with(bundle, public):
        opened = read_bundle(bundle)
        assert opened.manifest == manifest and opened.fixed
        write_manifest(bundle, replace(manifest, labels=tuple("abcde")))
        (bundle / "fp32.onnx").write_bytes(b"of the other manifest")
        with pytest.raises(BundleError, match="changed since its signature was checked"):
            read_bundle(bundle)
        with pytest.raises(BundleError, match="altered since it was written"):
            opened.graph("fp32")
        (bundle / "manifest.json").write_bytes(whole)
    assert not read_bundle(bundle).fixed


@pytest.mark.slow
def test_what_is_no_key(tmp_path: Path) -> None:
    private, public = _keys(tmp_path, "rsa", "rsa")
    (tmp_path / "text").write_text("no key")
    for file in (private, tmp_path / "text", public):
        with pytest.raises(
            InputError, match="no Ed25519 key in PEM: make one with openssl genpkey"
        ):
            read_private_key(file)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_private_key(tmp_path / "absent")
    for file in (public, tmp_path / "text"):
        with pytest.raises(InputError, match="no Ed25519 key in PEM: make one with openssl pkey"):
            check_signature(tmp_path, file)
