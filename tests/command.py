"""The `resdeploy` command in this process: what it prints and how it ends, in no time.

What is about the process itself (signals, pipes, encodings, imports) needs a process of its own.
"""

import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

from resdeploy.deploy.cli.main import main


def run_command(
    *words: object, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> "CompletedProcess[str]":
    """Run `resdeploy WORDS…` in `folder`; stdout and stderr are no terminals."""
    arguments = [str(word) for word in words]
    output, errors = _stream(), _stream()
    before, status = Path.cwd(), 0
    with (
        mock.patch.object(sys, "argv", ["resdeploy", *arguments]),
        mock.patch.dict(os.environ, environment or {}),
        warnings.catch_warnings(),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        os.chdir(folder or before)
        try:
            main()
        except SystemExit as end:
            assert isinstance(end.code, int)
            status = end.code
        finally:
            os.chdir(before)
    return CompletedProcess(arguments, status, _text(output), _text(errors))


def _stream() -> TextIOWrapper:
    return TextIOWrapper(BytesIO(), "utf-8", errors="surrogateescape", write_through=True)


def _text(stream: TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()
