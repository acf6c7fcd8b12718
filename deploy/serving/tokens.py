"""Bearer tokens from a file: one a line, several at once, read again when the file changes."""

import hashlib
import hmac
from pathlib import Path

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.reading import read_text

_SCHEME = "bearer "


class Tokens:
    """The tokens that are accepted now."""

    def __init__(self, path: Path) -> None:
        """Read the file: one token a line; empty lines and lines that begin with # are skipped.

        Raises:
            InputError: it cannot be read, or holds no token.
        """
        self._path = path
        self._digests = _read(path)
        self._changed_ns = path.stat().st_mtime_ns

    def refresh(self) -> None:
        """Read the file again if it changed; one that cannot be used leaves the tokens as they are.

        Raises:
            InputError: it cannot be read, or holds no token.
        """
        try:
            changed_ns = self._path.stat().st_mtime_ns
        except OSError as error:
            raise InputError(f"{self._path}: cannot be read: {error.strerror}") from error
        if changed_ns != self._changed_ns:
            self._changed_ns = changed_ns
            self._digests = _read(self._path)

    def accept(self, authorization: str) -> bool:
        """Whether an Authorization header carries a token of the file; takes the same time for all.

        Hashing first hides the length of the tokens as well.
        """
        scheme, token = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
        digest = hashlib.sha256(token.strip().encode()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == _SCHEME and any(matches)


def _read(path: Path) -> tuple[bytes, ...]:
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as tokens: {error}") from error
    tokens = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not tokens:
        raise InputError(f"{path}: no token in it, expected one a line")
    return tuple(hashlib.sha256(token.encode()).digest() for token in tokens)
