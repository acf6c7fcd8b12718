"""Pictures of terminals of 80 columns: what is left on them, and nothing loaded from elsewhere."""

import os
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def captures() -> ModuleType:
    sys.path.insert(0, str(_ROOT / "examples"))  # where digits.py is
    spec = spec_from_file_location("terminal_captures", _ROOT / "examples/terminal_captures.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def test_a_command_sees_a_terminal_of_80_columns(captures: ModuleType, tmp_path: Path) -> None:
    program = "import os, sys; print(os.get_terminal_size(2).columns, sys.stdout.isatty())"
    written = captures.typed(f'{sys.executable} -c "{program}"', tmp_path, dict(os.environ))
    assert captures.screen(written) == "80 True"


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("one\r\ntwo\r\n", "one\ntwo"),
        ("10 %\r\x1b[2K100 %\r\n", "100 %"),
        ("a\r\nb\r\n\x1b[2A\r\x1b[2KA\r\n\x1b[2KB\r\n", "A\nB"),
        ("\x1b[?25l\x1b[32mgreen\x1b[0m\x1b[?25h", "\x1b[32mgreen\x1b[0m"),
    ],
)
def test_the_screen_holds_what_was_not_erased(
    captures: ModuleType, written: str, left: str
) -> None:
    assert captures.screen(written) == left


def test_every_picture_is_of_a_command_and_loads_nothing(captures: ModuleType) -> None:
    pictures = {file.stem.partition("-")[2] for file in (_ROOT / "docs").glob("terminal-*.svg")}
    assert pictures == set(captures.COMMANDS)
    for name in pictures:
        svg = (_ROOT / "docs" / f"terminal-{name}.svg").read_text(encoding="utf-8")
        assert not re.search(r"url\((?!#)|href|@import", svg)
        first_words = captures.COMMANDS[name][:30].replace(" ", "&#160;")
        assert first_words in svg
