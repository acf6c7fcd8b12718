"""Signs a bundle's manifest with Ed25519, and checks that it was signed with a key that is trusted.

The manifest holds the SHA-256 of the graphs, the reference, the ranges and the INT8 report, so that
its signature covers them. Engines and later reports are made on other machines and are not covered.
Keys are PEM files as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from resdeploy.deploy.bundle.bundle import MANIFEST, SIGNATURE, only_manifest
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.files import replaced_file
from resdeploy.deploy.optional import needs
from resdeploy.deploy.reading import open_regular, parse_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_KEY_LIMIT_BYTES = 1 << 16


def read_private_key(file: Path) -> "Ed25519PrivateKey":
    """The key to sign with.

    Raises:
        InputError: no such file, encrypted, or no Ed25519 key.
        MissingDependencyError: the library of the extra `sign` is missing.
    """
    with needs("signing"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    try:
        key = load_pem_private_key(_content(file), password=None)
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: {_NO_KEY.format('genpkey -algorithm ed25519')}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{file}: {_NO_KEY.format('genpkey -algorithm ed25519')}")
    return key


def sign(bundle: Path, key: "Ed25519PrivateKey") -> None:
    """Put the signature of a bundle's manifest beside it; a change of the manifest removes it."""
    content = (bundle / MANIFEST).read_bytes()
    with replaced_file(bundle / SIGNATURE) as temporary:
        temporary.write_text(key.sign(content).hex() + "\n", encoding="ascii")


@contextmanager
def signed_with(bundle: Path, public_key: Path) -> Iterator[None]:
    """While it is entered, `bundle` is read with the manifest that is signed now, or not at all.

    Raises:
        BundleError, InputError, MissingDependencyError: as `check_signature`.
    """
    content = parse_json(check_signature(bundle, public_key))
    with only_manifest(bundle, content):
        yield


def check_signature(bundle: Path, public_key: Path) -> bytes:
    """The manifest, which was signed with the key that belongs to this one.

    Raises:
        BundleError: it was not.
        InputError: no such key file, or no Ed25519 public key.
        MissingDependencyError: the library of the extra `sign` is missing.
    """
    with needs("checking a signature"):
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    try:
        key = load_pem_public_key(_content(public_key))
    except ValueError as error:
        raise InputError(f"{public_key}: {_NO_KEY.format('pkey -pubout')}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{public_key}: {_NO_KEY.format('pkey -pubout')}")
    try:
        with open_regular(bundle / SIGNATURE) as file:
            signature = bytes.fromhex(file.read(_KEY_LIMIT_BYTES).decode("ascii"))
        with open_regular(bundle / MANIFEST) as file:
            content = file.read()
            key.verify(signature, content)
            return content
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"{bundle}: not signed, or changed since: sign it with --sign of export or quantize"
        ) from error
    except (InvalidSignature, OSError, ValueError) as error:
        raise BundleError(
            f"{bundle}: its signature is not of this manifest and this key: do not use it unless "
            "you know why"
        ) from error


_NO_KEY = "no Ed25519 key in PEM: make one with openssl {}"


def _content(file: Path) -> bytes:
    try:
        with open_regular(file) as stream:
            return stream.read(_KEY_LIMIT_BYTES)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
