"""Warnings of modules are lines that no terminal obeys; remarks are for nobody."""

import logging

import pytest

from resdeploy.deploy.cli.shell.logs import harmless_logs


def test_what_is_logged_is_made_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("resdeploy.deploy.engine")
    with harmless_logs():
        logger.info("built")
        logger.warning("%s: altered", "\x1b]0;title\x07a.engine")
    output, errors = capsys.readouterr()
    assert (output, errors) == ("", "\\x1b]0;title\\x07a.engine: altered\n")
    assert not logging.getLogger("resdeploy").handlers
