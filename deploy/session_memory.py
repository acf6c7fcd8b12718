"""Peak memory of one session: a fresh process opens it, answers one picture, and says.

    python -m resdeploy.deploy.session_memory BUNDLE PRECISION BACKEND THREADS

The process that times several sessions cannot tell: what one has freed, the next one takes. The
figure is the resident memory of the whole new process, Python and its libraries included: what a
program that does nothing but predict needs. Memory of a GPU with memory of its own is not in it.
"""

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from resdeploy.deploy.machine import peak_memory_bytes
from resdeploy.deploy.session import open_model, open_session, sizes_of
from resdeploy.deploy.specs import Backend, Precision

_COMMAND = (sys.executable, "-m", "resdeploy.deploy.session_memory")
_LIMIT_S = 120.0

_log = logging.getLogger(__name__)


def measure_peak_bytes(
    path: Path,
    precision: Precision,
    backend: str,
    threads: int | None,
    *,
    command: Sequence[str] = _COMMAND,
    limit_s: float = _LIMIT_S,
) -> int | None:
    """The most resident memory of a process that opens this and runs one picture.

    None where it cannot be measured: the process fails, hangs, or the system does not tell.
    """
    words = [*command, str(path), precision, backend, str(threads or 0)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit_s, check=True)
        return int(done.stdout.split()[-1]) or None
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        _log.info("%s %s on %s: memory not measured: %s", path, precision, backend, error)
        return None


def _peak_of_one_picture(
    path: Path, precision: Precision, backend: Backend, threads: int | None
) -> int:
    model = open_model(path)
    with open_session(model, precision=precision, backend=backend, threads=threads) as session:
        session.run(np.zeros((1, *sizes_of(session.input)), np.float32))
    return peak_memory_bytes()


def main(arguments: Sequence[str]) -> None:
    """Run as the measured process; the figure is the last word on stdout."""
    path, precision, backend, threads = arguments
    way = cast(Precision, precision), cast(Backend, backend)
    print(_peak_of_one_picture(Path(path), *way, int(threads) or None))


if __name__ == "__main__":
    main(sys.argv[1:])
