"""How often batch-norm statistics rank the right contract first, and how often they decide wrongly.

    python benchmarks/batchnorm_statistics.py [--data ../shared/data] [--draws 20] [--json FILE]
        [--images 24,128] [--only WORDS]

Every kind is a network with a right contract and one alternative. In the first table the right
contract is the one of the training. In the second we have no checkpoint that was trained so, and
make one: the network is changed, its batch norms forget, and a few hundred augmented training
images (random crop, flip) run through it in training mode; weights stay as they are.

Each draw takes other images out of those that trained nothing. Three scores are compared:

    median      median channel of the symmetric Gaussian divergence, mean over layers, plain
    mean        D of `batchnorm_statistics`, mean over layers: sampling noise removed
    used        the geometric mean over layers of D, which the export uses

and the decision from both sides: with the right contract assumed it is kept (kept), left open, or
left (wrong); with the alternative assumed it is corrected (corr.), left open, or confirmed (wrong).
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from batchnorm_contracts import KINDS, NETWORKS, Bench, Kind

from resdeploy.deploy.arrays import Indices
from resdeploy.export.proof.batchnorm_statistics import Layer
from resdeploy.export.proof.contracts import Alternative, Contract
from resdeploy.export.proof.discrepancy import compare, products, score
from resdeploy.export.proof.testimony import Rival

_LINE = "{:<20} {:<34} {:>6} {:>7} {:>7} {:>7}   {:>5} {:>5} {:>5}   {:>5} {:>5} {:>5}"
_TITLES = (
    "network", "right / alternative", "images", "median", "mean", "used",
    "kept", "open", "wrong", "corr.", "open", "wrong",
)  # fmt: skip


def _drawn(layers: Sequence[Layer], chosen: Indices) -> list[Layer]:
    return [
        replace(layer, means=layer.means[chosen], variances=layer.variances[chosen])
        for layer in layers
    ]


def _median_score(layers: Sequence[Layer]) -> float:
    """Median channel of the symmetric Gaussian divergence, mean over layers."""
    found = []
    for layer in layers:
        variance = layer.variances.mean(axis=0) + layer.means.var(axis=0) + layer.eps
        stored = layer.stored_variance + layer.eps
        shift = (layer.means.mean(axis=0) - layer.stored_mean) ** 2
        spread = variance / stored + stored / variance - 2
        found.append(np.median(0.25 * (spread + shift * (1 / variance + 1 / stored))))
    return float(np.mean(found))


def _mean_score(gram: Any) -> float:
    count = gram.shape[1]
    total = gram.sum(axis=(1, 2)) - np.einsum("lii->l", gram)
    return float((total / (count * (count - 1))).mean())


def trial(kind: Kind, right: Sequence[Layer], other: Sequence[Layer]) -> dict[str, bool]:
    """What the scores and the decisions say on one draw."""
    ours = [layer.vectors() for layer in right]
    theirs = [layer.vectors() for layer in other]
    own, alien, cross = products(ours, ours), products(theirs, theirs), products(ours, theirs)
    own_score, alien_score = score(own), score(alien)
    placeholder = Alternative(kind.key, kind.other, Contract({}, NETWORKS[kind.network].preprocess))
    margin = alien_score.value - own_score.value
    kept = Rival(placeholder, alien_score, margin, compare(own, alien, cross), len(ours[0]))
    back = compare(alien, own, cross.transpose(0, 2, 1))
    corrected = Rival(placeholder, own_score, -margin, back, len(ours[0]))
    return {
        "median": _median_score(right) < _median_score(other),
        "mean": _mean_score(own) < _mean_score(alien),
        "used": margin > 0,
        "kept": kept.verdict == "farther",
        "left": kept.verdict == "nearer",
        "corrected": corrected.verdict == "nearer",
        "confirmed": corrected.verdict == "farther",
    }


def measure(bench: Bench, kind: Kind, images: int, draws: int) -> dict[str, float]:
    """Counts of `draws` trials."""
    right, other = bench.layers(kind, kind.right), bench.layers(kind, kind.other)
    random = np.random.default_rng(2)
    total = len(right[0].means)
    counts: dict[str, float] = {}
    for _ in range(draws):
        chosen = random.choice(total, min(images, total), replace=False)
        for name, happened in trial(kind, _drawn(right, chosen), _drawn(other, chosen)).items():
            counts[name] = counts.get(name, 0) + happened
    return counts


def rows(
    bench: Bench, kinds: Sequence[Kind], sizes: Sequence[int], draws: int
) -> Iterator[dict[str, Any]]:
    """Every kind at every number of images."""
    for kind in kinds:
        for images in sizes:
            counts = measure(bench, kind, images, draws)
            yield {**vars(kind), "images": images, "draws": draws, **counts}


def _line(row: Mapping[str, Any]) -> str:
    what = f"{row['key']}: {row['right']} / {row['other']}"
    decided = [row["kept"], row["draws"] - row["kept"] - row["left"], row["left"]]
    decided += [
        row["corrected"],
        row["draws"] - row["corrected"] - row["confirmed"],
        row["confirmed"],
    ]
    name = row["network"] + ("*" if row["retrained"] else "")
    ranked = (row["median"], row["mean"], row["used"])
    return _LINE.format(name, what[:34], row["images"], *(f"{v:g}" for v in (*ranked, *decided)))


def main() -> None:
    """Print the table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--images", default="24,128")
    parser.add_argument("--only", default="", help='in "NETWORK KEY", e.g. "ResNeXt-50 stride"')
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(_LINE.format(*_TITLES))
    found = []
    sizes = [int(n) for n in options.images.split(",")]
    kinds = [kind for kind in KINDS if options.only in f"{kind.network} {kind.key}"]
    for row in rows(Bench(options.data), kinds, sizes, options.draws):
        print(_line(row), flush=True)
        found.append(row)
    print("* its batch norms were made to be of the right contract: see the top of this file")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
