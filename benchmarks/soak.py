"""Whether memory, files and threads stay as they are while a command goes on for long.

    python benchmarks/soak.py predict BUNDLE IMAGES [--count 100000]    # links to a few images
    python benchmarks/soak.py verify BUNDLE [--minutes 10]              # over and over

Prints JSON. Growth is from the first tenth, when libraries have taken what they take, to the end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdeploy.deploy.images.files import find_images

# allocators keep a little more now and then; what grows with the work grows far beyond
_LIMIT_MIB = 20.0
_EVERY_S = 0.5


@dataclass(frozen=True)
class Use:
    """What a process holds at a moment."""

    mib: float
    files: int
    threads: int


def use_of(process: int) -> Use | None:
    """What /proc says of a process; None once it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        files = len(os.listdir(f"/proc/{process}/fd"))
        threads = len(os.listdir(f"/proc/{process}/task"))
    except (OSError, IndexError):
        return None
    return Use(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), files, threads)


def judged(uses: list[Use]) -> dict[str, Any]:
    """How much more is held at the end than after the first tenth, and whether that is much."""
    tenth = max(1, len(uses) // 10)
    before, after = uses[tenth : 2 * tenth] or uses, uses[-tenth:]
    grown = max(use.mib for use in after) - max(use.mib for use in before)
    files = max(use.files for use in after) - max(use.files for use in before)
    threads = max(use.threads for use in after) - max(use.threads for use in before)
    return {
        "samples": len(uses),
        "mib": round(max(use.mib for use in after), 1),
        "grown_mib": round(grown, 1),
        "grown_files": files,
        "grown_threads": threads,
        "flat": grown < _LIMIT_MIB and files <= 0 and threads <= 0,
    }


def soak_predict(bundle: Path, images: Path, count: int) -> dict[str, Any]:
    """`predict` over a folder of `count` links; its answers go nowhere."""
    found = [path.resolve() for path in find_images([images])]
    with tempfile.TemporaryDirectory() as name:
        for number in range(count):
            file = found[number % len(found)]
            os.symlink(file, f"{name}/{number:06}{file.suffix}")
        command = [sys.executable, "-m", "resdeploy", "predict", str(bundle), name]
        command += ["--csv", os.devnull, "--batch", "32"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        uses = []
        while process.poll() is None:
            uses += [use for use in [use_of(process.pid)] if use is not None]
            time.sleep(_EVERY_S)
    return {"images": count, "exit_code": process.returncode, **judged(uses)}


def soak_verify(bundle: Path, minutes: float) -> dict[str, Any]:
    """`verify` of a bundle in this process, over and over."""
    from resdeploy.deploy.verification.verify import verify

    def runs() -> Iterable[Use]:
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            verify(bundle)
            use = use_of(os.getpid())
            assert use is not None
            yield use

    return {"minutes": minutes, **judged(list(runs()))}


def main() -> int:
    """Run as a program; 1 where something grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("predict", "verify"))
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    soaks: dict[str, Callable[[], dict[str, Any]]] = {
        "predict": lambda: soak_predict(options.bundle, options.images, options.count),
        "verify": lambda: soak_verify(options.bundle, options.minutes),
    }
    result = soaks[options.command]()
    print(json.dumps(result, indent=2))
    return 0 if result["flat"] and not result.get("exit_code") else 1


if __name__ == "__main__":
    sys.exit(main())
