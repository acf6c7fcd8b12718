"""How often the accuracy gate fails a sound deployment, and how often it catches a damaged one.

    python benchmarks/gate_power.py [--runs 2000] [--json FILE]

Every run draws the flips of a deployment with a known true drop and gives them to the gate:
of n pictures, b ~ lost and c ~ gained with P(lost) - P(gained) = drop and P(lost) + P(gained) =
flips (flips: share of pictures whose rightness changes; 3 % is usual for INT8). The verdicts are
those of `--max-drop` at 0, 0.5 and 1 points. A false alarm is "fail" at a true drop within the
limit; the worst case is a drop of exactly the limit, where 2.5 % is nominal.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from resdeploy.deploy.statistics import Paired, drop_interval, mcnemar_p

_FLIPS = 0.03
_RESAMPLES = 2000
_LINE = "{:>8} {:>10} {:>6} {:>7} {:>13} {:>7} {:>16}"
_TITLES = ("pictures", "true drop", "limit", "pass %", "inconclusive", "fail %", "McNemar < 0.05 %")


def simulate(
    pictures: int, true_drop: float, limit: float, runs: int, *, flips: float = _FLIPS
) -> dict[str, float]:
    """Shares of the verdicts in percent, and of McNemar p < 0.05."""
    drop = true_drop / 100
    flips = max(flips, drop)
    chances = ((flips + drop) / 2, (flips - drop) / 2, 1 - flips)
    random = np.random.default_rng([pictures, round(100 * true_drop), round(100 * limit)])
    verdicts = dict.fromkeys(("pass", "inconclusive", "fail"), 0)
    significant = 0
    for lost, gained, _ in random.multinomial(pictures, chances, runs):
        counts = Paired(pictures, int(lost), int(gained))
        interval = drop_interval(counts, resamples=_RESAMPLES)
        within = "pass" if interval.high <= limit else "inconclusive"
        verdicts["fail" if interval.low > limit else within] += 1
        significant += mcnemar_p(counts.lost, counts.gained) < 0.05
    shares = {name: 100 * count / runs for name, count in verdicts.items()}
    return {**shares, "mcnemar": 100 * significant / runs}


def main() -> None:
    """Print the table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, float]] = []
    print(_LINE.format(*_TITLES))
    for pictures, limit in ((n, limit) for n in (367, 1000) for limit in (0.0, 0.5, 1.0)):
        for true_drop in dict.fromkeys((0.0, limit, 1.0, 2.0, 5.0)):
            shares = simulate(pictures, true_drop, limit, options.runs)
            rows.append({"pictures": pictures, "true_drop": true_drop, "limit": limit, **shares})
            print(_LINE.format(*(f"{value:.4g}" for value in rows[-1].values())))
    if options.json is not None:
        options.json.write_text(json.dumps({"runs": options.runs, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
