"""Standard streams that somebody closed neither fail a command nor swallow a file."""

import os
import subprocess
import sys
from pathlib import Path

from resdeploy.deploy.system.streams import drop_output


def test_a_file_is_not_taken_for_a_closed_output(tmp_path: Path) -> None:
    """With 1 and 2 closed, the next file opened would get their numbers."""
    program = (
        "import os\n"
        "from resdeploy.deploy.system.streams import occupy_standard_streams\n"
        "occupy_standard_streams()\n"
        "number = os.open('file', os.O_CREAT | os.O_WRONLY)\n"
        "os.write(1, b'printed by a native library')\n"
        "os._exit(number)\n"
    )
    command = ["bash", "-c", '"$@" >&- 2>&- <&-', "bash", sys.executable, "-c", program]
    assert subprocess.run(command, cwd=tmp_path).returncode > 2
    assert (tmp_path / "file").read_bytes() == b""


def test_what_is_buffered_for_a_reader_who_left_goes_nowhere() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        stream.write("buffered")
        drop_output(stream)  # the end of the block flushes
