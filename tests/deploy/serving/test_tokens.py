"""Tokens come from a file, several at once, and follow it."""

from pathlib import Path

import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.serving.tokens import Tokens


def test_tokens_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("old")
    tokens = Tokens(file)
    file.write_text("new")
    tokens._changed_ns = 0  # file systems round times
    tokens.refresh()
    assert tokens.accept("Bearer new") and not tokens.accept("Bearer old")
    file.write_text("# nothing")
    tokens._changed_ns = 0
    with pytest.raises(InputError, match="no token in it"):
        tokens.refresh()
    assert tokens.accept("Bearer new")
    with pytest.raises(InputError, match="cannot be read"):
        Tokens(tmp_path / "missing")
