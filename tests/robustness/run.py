"""Tries cases of one class for a while and prints what came of it as JSON.

    python -m tests.robustness.run CLASS --seed 0 {--seconds 10 | --cases 100 | --case N}

In a process of its own, so that a crash is one more finding and memory can be told. Case N of a
seed is always the same; --case tries that one alone and shows its traceback.
"""

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

# threads do not survive a fork, and what they hold stays held: OpenMP's, for which a child would
# wait, and that of ONNX Runtime's telemetry
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from tests.robustness.classes import CLASSES, Case

# what one case may cost: seconds of one core, and memory beyond what the libraries took before
CASE_LIMIT_S = 5.0
MEMORY_LIMIT_MB = 500.0
_FAILURES_TOLD = 10
# classes that only read; a command may have been given real work
_READERS = ("checkpoints", "megabytes", "bundles", "documents", "images")


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=CLASSES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--cases", type=int, help="stop after so many, instead")
    parser.add_argument("--case", type=int)
    parser.add_argument("--limit", type=float, default=CASE_LIMIT_S, help="seconds of a case")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    # what whoever started this ignores or blocks is ignored by every process that is killed
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = CLASSES[options.name](folder)
        if options.case is not None:
            case(random.Random(f"{options.seed} {options.case}"))
            return 0
        limit_s = options.limit if options.name in _READERS else float("inf")
        result = _tried(case, options, limit_s)
        os.chdir("/")
    print(json.dumps({"class": options.name, "seed": options.seed, **result}))
    return 1 if result["failed"] else 0


def _tried(case: Case, options: argparse.Namespace, limit_s: float) -> dict[str, Any]:
    seed, log, most = options.seed, options.log, options.cases
    case(random.Random(f"{seed} warm"))
    before = _peak_mb()
    failures: list[str] = []
    number, slowest, until = 0, 0.0, time.monotonic() + options.seconds
    while time.monotonic() < until if most is None else number < most:
        if log is not None:
            log.write_text(str(number))
        start = time.process_time()
        try:
            case(random.Random(f"{seed} {number}"))
            took = time.process_time() - start
            assert took < limit_s, f"took {took:.1f} s"
        except Exception as error:
            failures.append(f"case {number}: {error!r}"[:500])
            print(failures[-1], file=sys.stderr, flush=True)  # of a night, nobody waits for its end
        slowest = max(slowest, time.process_time() - start)
        number += 1
    grown = _peak_mb() - before
    if grown > MEMORY_LIMIT_MB:
        failures.append(f"memory grew by {grown:.0f} MB")
    return {
        "tried": number,
        "failed": len(failures),
        "failures": failures[:_FAILURES_TOLD],
        "slowest_s": round(slowest, 2),
        "grown_mb": round(grown, 1),
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
