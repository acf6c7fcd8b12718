"""How many images the accuracy gate needs, and how often its intervals are right, on real graphs.

    python benchmarks/gate_power.py --save logits/flowers.npz --bundle BUNDLE --data DIR
    python benchmarks/gate_power.py logits/flowers.npz … [--draws 200] [--json FILE]

A file of logits holds `truth` (N,), `fp32` (N, K) and one (N, K) array for every graph compared
with it. From each graph, subsets of images are drawn, and their drop is estimated three times: by
counting (McNemar's pairs), from pooled errors, and from the logits as the gate does
(`metrics.calibrated_drop`).

* Pooled errors: with reference logits r_i, errors e_j and true classes y_i, the accuracy is the
  mean over all pairs (i, j) of 1[argmax(r_i + e_j) = y_i]; the means of its rows and columns give
  its standard error (Hajek's projection).
* Coverage: the interval of a subset and that of the images outside it must overlap in their
  standard errors, |a - b| <= 1.96 hypot(s_a, s_b), in 95 % of the draws.
* Images needed: with s the standard error at 100 images, 100 (1.96 s / (limit - drop))^2 images put
  the interval on one side of a limit of 1 point, for a true drop of 0.5, 2 and 5 points, and of 0.
  By the logits a part of the interval does not narrow (`metrics.calibrated_drop`); where that is
  too wide, the count decides.
* Log-loss: it has no limit in points, so its images are those that show that it rose at all, and
  only graphs that really lost about so much can be asked.
* False alarms: undamaged graphs whose drop on all images is within the limit must hardly ever fail.
"""

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from resdeploy.deploy.arrays import Float32s, Indices
from resdeploy.deploy.bundle.model import open_model, precisions_of
from resdeploy.deploy.images.dataset import read_data
from resdeploy.deploy.metrics.calibrated_drop import PairedLogits, calibrated_drop
from resdeploy.deploy.metrics.intervals import Z95, Interval, drop_interval, paired
from resdeploy.deploy.verification.candidates import open_candidates
from resdeploy.deploy.verification.forward_pass import Batch, forward_images

_SIZES = (50, 100, 200, 400)
_DROPS = (0.0, 0.5, 2.0, 5.0)
_LIMIT = 1.0
_LARGEST_SHARE = 0.6  # of all images in a subset, so that enough are left to compare with
_RESAMPLES = 1000

Estimate = tuple[float, float]  # drop and standard error in points


def counted(pair: PairedLogits, seed: int) -> Estimate:
    """The paired count with its bootstrap interval."""
    right = [values.argmax(axis=1) == pair.truth for values in (pair.reference, pair.got)]
    counts = paired(right[0], right[1])
    return counts.drop, _error(drop_interval(counts, seed=seed, resamples=_RESAMPLES))


def from_logits(pair: PairedLogits, seed: int) -> Estimate:
    """The calibrated drop; the count where it declines, as the gate does."""
    found = calibrated_drop(pair)
    return counted(pair, seed) if found is None else (found.drop, _error(found.interval))


def pooled(pair: PairedLogits, seed: int) -> Estimate:
    """The drop by pooled errors; `seed` is not needed."""
    errors = pair.got - pair.reference
    answers = (pair.reference[:, None, :] + errors[None, :, :]).argmax(axis=2)
    right = (answers == pair.truth[:, None]).astype(np.float64)
    reference = (pair.reference.argmax(axis=1) == pair.truth).astype(np.float64)
    drop = float(reference.mean() - right.mean())
    influence = reference - right.mean(axis=1) - right.mean(axis=0) + right.mean() - drop
    return 100 * drop, 100 * float(influence.std(ddof=1) / np.sqrt(len(influence)))


def log_loss_rise(pair: PairedLogits) -> Estimate:
    """Mean difference of the true class's log probability, in nats, and its standard error."""
    rows = np.arange(len(pair.truth))
    parts = []
    for logits in (pair.reference.astype(np.float64), pair.got.astype(np.float64)):
        highest = logits.max(axis=1)
        total = np.log(np.exp(logits - highest[:, None]).sum(axis=1)) + highest
        parts.append(logits[rows, pair.truth] - total)
    change = parts[0] - parts[1]
    return float(change.mean()), float(change.std(ddof=1) / np.sqrt(len(change)))


ESTIMATES: dict[str, Callable[[PairedLogits, int], Estimate]] = {
    "count": counted,
    "pooled": pooled,
    "logits": from_logits,
}


def study(file: Path, draws: int) -> list[dict[str, float | str]]:
    """One row for every graph and size of subset."""
    stored = np.load(file)
    rows: list[dict[str, float | str]] = []
    for graph in (name for name in stored.files if name not in ("truth", "fp32", "fp16")):
        whole = PairedLogits(stored["fp32"], stored[graph], stored["truth"].astype(np.int64))
        for size in _SIZES:
            if size <= _LARGEST_SHARE * len(whole.truth):
                rows.append({"file": file.stem, "graph": graph, **_subsets(whole, size, draws)})
    return rows


def _subsets(whole: PairedLogits, size: int, draws: int) -> dict[str, float]:
    random = np.random.default_rng(size)
    found = np.zeros((draws, len(ESTIMATES), 3))  # covered, false alarm, standard error
    for draw in range(draws):
        order = random.permutation(len(whole.truth))
        few, others = _part(whole, order[:size]), _part(whole, order[size:])
        outside = counted(others, draw)
        for k, estimate in enumerate(ESTIMATES.values()):
            drop, error = estimate(few, draw)
            covered = abs(drop - outside[0]) <= Z95 * np.hypot(error, outside[1])
            found[draw, k] = covered, drop - Z95 * error > _LIMIT, error
    row: dict[str, float] = {"images": size, "drop": counted(whole, 0)[0]}
    for k, name in enumerate(ESTIMATES):
        row[f"coverage_{name}"] = 100 * float(found[:, k, 0].mean())
        row[f"fails_{name}"] = 100 * float(found[:, k, 1].mean())
        row[f"error_{name}"] = float(np.median(found[:, k, 2]))
    rise, error = log_loss_rise(whole)
    row["log_loss_rise"] = rise
    row["log_loss_images"] = len(whole.truth) * (Z95 * error / rise) ** 2 if rise else float("inf")
    error = row["error_logits"]
    of_all = calibrated_drop(whole)
    row["floor_logits"] = 0.0 if of_all is None else of_all.floor
    row["variance_ratio"] = (row["error_count"] / error) ** 2 if error else float("inf")
    return row


def images_needed(row: dict[str, float | str], how: str, drop: float) -> float:
    """Images until the interval around `drop` leaves the limit on one side."""
    images, distance = float(row["images"]), abs(_LIMIT - drop)
    needed = images * (Z95 * float(row[f"error_{how}"]) / distance) ** 2
    if how != "logits":
        return needed
    floor, counted = float(row["floor_logits"]), images_needed(row, "count", drop)
    if floor >= distance:
        return counted
    narrowing = (Z95 * float(row["error_logits"])) ** 2 - floor**2
    return min(counted, images * narrowing / (distance**2 - floor**2))


def save_logits(bundle: Path, data: Path, output: Path) -> None:
    """Run every variant of a bundle on labelled images and keep all logits."""
    model = open_model(bundle)
    images = read_data(data, model.manifest.labels)
    if images.truth is None:
        raise SystemExit(f"{data}: class folders are needed")

    def keep(batch: Batch) -> dict[str, Float32s]:
        return dict(batch.logits)

    with ExitStack() as stack:
        opened = open_candidates(model, precisions_of(model, ()), ("ort-cpu",), stack)
        sessions = {candidate.name: candidate.session for candidate in opened}
        done = forward_images(images, model.manifest.preprocess, sessions, keep, step="running")
    logits = {name: np.concatenate([part[name] for part in done.kept]) for name in sessions}
    arrays = {"truth": images.truth[list(done.positions)], **logits}
    np.savez_compressed(output, allow_pickle=False, **arrays)


def _part(whole: PairedLogits, chosen: Indices) -> PairedLogits:
    return PairedLogits(whole.reference[chosen], whole.got[chosen], whole.truth[chosen])


def _error(interval: Interval) -> float:
    return (interval.high - interval.low) / (2 * Z95)


def _print(rows: list[dict[str, float | str]]) -> None:
    line = "{:>9} {:>16} {:>6} {:>7} {:>18} {:>16} {:>9}"
    print(
        line.format("file", "graph", "images", "drop", "coverage %", "fails %", "variance"),
        f"({'/'.join(ESTIMATES)})",
    )
    for r in rows:
        triples = [
            "/".join(f"{r[f'{key}_{how}']:.1f}" for how in ESTIMATES)
            for key in ("coverage", "fails")
        ]
        figures = (f"{r['drop']:.2f}", *triples, f"{r['variance_ratio']:.1f}")
        print(line.format(str(r["file"]), str(r["graph"]), str(r["images"]), *figures))
    for file in dict.fromkeys(str(r["file"]) for r in rows):
        _print_summary(file, [r for r in rows if r["file"] == file])


def _print_summary(file: str, rows: list[dict[str, float | str]]) -> None:
    """Over the graphs of one file: coverage at every size, images for every true drop."""
    print(f"\n{file}: coverage, mean (lowest) over the graphs")
    for size in dict.fromkeys(r["images"] for r in rows):
        parts = []
        for how in ESTIMATES:
            shares = [float(r[f"coverage_{how}"]) for r in rows if r["images"] == size]
            parts.append(f"{how} {np.mean(shares):.1f} ({min(shares):.1f})")
        print(f"  {size} images: {', '.join(parts)}")
    print(f"{file}: images that put the interval on one side of a limit of 1 point (median)")
    at_100 = [r for r in rows if r["images"] == 100]
    chosen = [r for r in at_100 if abs(float(r["drop"])) < _LIMIT]
    for drop in _DROPS if chosen else ():
        needed = [np.median([images_needed(r, how, drop) for r in chosen]) for how in ESTIMATES]
        like = [r for r in at_100 if abs(float(r["drop"]) - drop) <= max(0.25, 0.3 * drop)]
        shown = [f"{number:,.0f} ({how})" for how, number in zip(ESTIMATES, needed, strict=True)]
        if like and drop:
            images = float(np.median([float(r["log_loss_images"]) for r in like]))
            up = sum(float(r["log_loss_rise"]) > 0 for r in like)
            shown.append(f"{images:,.0f} (log-loss, {up} of {len(like)} graphs rose)")
        print(f"  true drop {drop:g}: {', '.join(shown)}")


def main() -> None:
    """Save logits, or print the tables of files that hold them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.save is not None:
        if options.bundle is None or options.data is None:
            parser.error("--save needs --bundle and --data")
        save_logits(options.bundle, options.data, options.save)
        return
    rows = [row for file in options.files for row in study(file, options.draws)]
    _print(rows)
    if options.json is not None:
        options.json.write_text(json.dumps({"draws": options.draws, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
