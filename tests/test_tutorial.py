"""The tutorial does what it says: its files are written and its commands typed, in order."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).resolve().parents[1]
_PAGE = (_ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
_BLOCK = re.compile(
    r'^```(?:python title="([^"\n]+)"|console)\n(.*?)^```', re.MULTILINE | re.DOTALL
)
_MARK = "@@ command"


def _steps() -> Iterator[tuple[str, list[str]]]:
    """A shell's text for every file and command of the page, and the lines shown below it."""
    for name, block in _BLOCK.findall(_PAGE):
        if name:
            yield f"cat > {name} <<'END OF FILE'\n{block}END OF FILE", []
            continue
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            if not command.startswith("pip install "):
                yield command, [line for line in shown if line not in ("", "…")]


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def _is_shown_in(shown: str, printed: str) -> bool:
    """Whether a line of the page is that line of the output, spaces and what … stands for apart."""
    parts = (re.escape(" ".join(part.split())) for part in shown.split("…"))
    return re.fullmatch(r"\s*.*\s*".join(parts), " ".join(printed.split())) is not None


def test_the_lines_of_a_page_match_what_was_printed() -> None:
    assert _is_shown_in(" fp32  1.0 …  100.0 %", "fp32 1.0   2e-5 100.0 %")
    assert not _is_shown_in("fp32 1.0", "fp32 1.0 2.0") and not _is_shown_in("99.… %", "98.2 %")


def test_every_command_prints_what_the_page_shows(tmp_path: Path) -> None:
    steps = list(_steps())
    assert len(steps) > 15 and sum(len(shown) for _, shown in steps) > 20
    shutil.copytree(_ROOT / "examples", tmp_path / "examples")
    text = "set -e\n" + "\n".join(f"echo '{_MARK}'\n{command}" for command, _ in steps)
    for port in ("8000", "8001"):
        text = text.replace(port, str(_free_port()))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", text], cwd=tmp_path, env={**os.environ, "PATH": path},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout
    outputs = done.stdout.split(f"{_MARK}\n")[1:]
    for (command, shown), output in zip(steps, outputs, strict=True):
        lines = iter(output.splitlines())
        for line in shown:
            assert any(_is_shown_in(line, printed) for printed in lines), (command, line, output)
