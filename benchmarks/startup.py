"""What a user waits for and what it needs: `resdeploy --help` in seconds, predicting in MiB.

    python benchmarks/startup.py BUNDLE IMAGES [--rounds 15] [--json FILE]

Peak memory is the largest resident set of a `resdeploy predict` process on ONNX Runtime's CPU
backend, as the kernel counts it. This process imports little: a child begins as its copy.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from timing import interleaved, medians, show, write_json

_RESDEPLOY = str(Path(sys.executable).with_name("resdeploy"))


def peak_mib(words: list[str]) -> float:
    """Run a command to its end; the peak of its resident memory in MiB."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, words)
    return usage.ru_maxrss / 1024  # Linux counts KiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    predict = [_RESDEPLOY, "predict", str(options.bundle), str(options.images)]
    predict += ["--backend", "ort-cpu", "--json"]
    peaks = {f"predict --batch {n}": peak_mib([*predict, "--batch", str(n)]) for n in (1, 8)}
    help_ = {"--help": lambda: subprocess.run([_RESDEPLOY, "--help"], capture_output=True)}
    taken = interleaved(help_, options.rounds)
    rows = [(name, f"{s:.3f} s (median of {options.rounds})") for name, s in medians(taken).items()]
    rows += [(name, f"{mib:.0f} MiB at the peak") for name, mib in peaks.items()]
    show("resdeploy", ("", ""), rows)
    write_json(options.json, {"seconds": taken, "peak_mib": peaks})


if __name__ == "__main__":
    main()
