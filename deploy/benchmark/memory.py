"""Peak memory of one session: a fresh process opens it, runs one image, and prints its peak.

    python -m resdeploy.deploy.benchmark.memory BUNDLE PRECISION BACKEND [THREADS]

The process that times several sessions cannot measure this: one session reuses what another has
freed. The figure is the resident memory of the whole new process, with Python and its libraries:
what a program needs that does nothing but predict. The memory of a discrete GPU is not included.
"""

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.inference.open import open_session
from resdeploy.deploy.machine import peak_memory_bytes
from resdeploy.deploy.session import sizes_of
from resdeploy.deploy.specs import Backend, Precision

_COMMAND = (sys.executable, "-m", "resdeploy.deploy.benchmark.memory")
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
    """Peak resident memory of a process that opens this session and runs one image.

    None if it cannot be measured: the process fails or hangs, or the system does not report it.
    """
    words = [*command, str(path), precision, backend]
    if threads is not None:
        words.append(str(threads))
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit_s, check=True)
        return int(done.stdout.split()[-1]) or None
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        _log.info("%s %s on %s: memory not measured: %s", path, precision, backend, error)
        return None


def _peak_of_one_image(
    path: Path, precision: Precision, backend: Backend, threads: int | None
) -> int:
    model = open_model(path)
    with open_session(model, precision=precision, backend=backend, threads=threads) as session:
        session.run(np.zeros((1, *sizes_of(session.input)), np.float32))
    return peak_memory_bytes()


def main(arguments: Sequence[str]) -> None:
    """Run as the measured process, and print the figure."""
    path, precision, backend, *rest = arguments
    threads = int(rest[0]) if rest else None
    peak = _peak_of_one_image(
        Path(path), cast(Precision, precision), cast(Backend, backend), threads
    )
    print(peak)


if __name__ == "__main__":
    main(sys.argv[1:])
