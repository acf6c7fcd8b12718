"""Writes the pictures docs/terminal-*.svg: commands as they look on a terminal of 80 columns.

    python examples/terminal_captures.py

Each command runs for real, with the demo's digits, on a pseudo-terminal. What it leaves there
(colours included, progress bars as they end) becomes an SVG that loads nothing from elsewhere.
"""

import fcntl
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping
from pathlib import Path

from digits import write_images
from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).resolve().parents[1] / "docs"
COLUMNS, ROWS = 80, 50
_CHECKPOINT = "digits_mobilenet_v2.pth"
_BUNDLE = "digits_mobilenet_v2.bundle"
# picture -> what is typed
COMMANDS = {
    "help": "resdeploy --help",
    "export": f"resdeploy export {_CHECKPOINT} --input-size 64 --resize 64 --calib photos/train "
    "--data photos/val",
    "predict": f"resdeploy predict {_BUNDLE} sample --precision int8 --top 2",
    "verify": f"resdeploy verify {_BUNDLE} --data photos/val --precision int8 --max-drop 2",
    "inspect": f"resdeploy inspect {_BUNDLE}",
}
# cursor up, erase line, and other sequences; colours end in m
_SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\r|\n")


def typed(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """What the command writes to a terminal of 80 columns, standard error included."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(shlex.split(command), cwd=folder, env=environment, stdin=side,
                               stdout=side, stderr=side)  # fmt: skip
    os.close(side)
    written = b""
    try:
        while part := os.read(main, 65536):
            written += part
    except OSError:  # how Linux says that the last writer has left
        pass
    os.close(main)
    process.wait()
    return written.decode()


def screen(written: str) -> str:
    """What is left on the screen when lines were erased and the cursor went up; colours stay.

    Enough of a terminal for rich, which erases a whole line before it writes it anew.
    """
    lines, row, place = [""], 0, 0
    for match in [*_SEQUENCE.finditer(written), None]:
        text = written[place : match.start() if match else None]
        lines[row] += text
        if match is None:
            break
        place = match.end()
        count, kind = match[1] or "", match[2]
        if match[0] == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif kind == "K":
            lines[row] = ""
        elif kind == "A":
            row = max(row - int(count or 1), 0)
        elif kind == "m":
            lines[row] += match[0]
    return "\n".join(lines).rstrip("\n")


def picture(command: str, shown: str) -> str:
    """The SVG of a terminal with the command and what it left on the screen."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(f"[bold]$ {command}[/bold]", highlight=False)
        console.print(Text.from_ansi(shown), highlight=False)
        console.print()  # below the last line, or the picture ends above its underscores
        svg = console.export_svg(title="resdeploy", unique_id="resdeploy")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def main() -> None:
    environment = {
        **{name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TERM": "xterm-256color",
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images("train", folder / "photos" / "train")
        write_images("test", folder / "photos" / "val")
        for file in (_CHECKPOINT, "class_indices.json"):
            shutil.copy(Path(__file__).with_name(file), folder)
        (folder / "sample").mkdir()
        for digit in (folder / "photos" / "val").iterdir():
            shutil.copy(min(digit.iterdir()), folder / "sample" / f"{digit.name}.png")
        for picture_name, command in COMMANDS.items():
            shown = screen(typed(command, folder, environment))
            (DOCS / f"terminal-{picture_name}.svg").write_text(picture(command, shown))
            print(f"docs/terminal-{picture_name}.svg")


if __name__ == "__main__":
    main()
