"""What a checkpoint's batch norms say about an assumed contract and its alternatives.

An alternative, by the interval of `position` and the `strength` s, is

    the same       it changes next to nothing on these images (ReLU6, where nothing exceeds 6)
    farther        the stored statistics lie on this side: high + 0.1 / √s < 0.5
    nearer         they lie on the other side: low - 0.4 / √s > 0.5
    open           anything else

The terms with √s are for images that are not quite those of the training, which no number of them
makes good. It takes more to leave an assumption than to keep it: what is assumed is what almost all
checkpoints of these names are. A key is decided when none of its alternatives is nearer or open.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from resdeploy.export.proof.contracts import INPUT_SIZE, RESIZE, Alternative, Contract
from resdeploy.export.proof.discrepancy import Comparison, Score

Verdict = Literal["farther", "nearer", "same", "open"]

# Nats. Right contracts of the networks this was measured on (benchmarks/batchnorm_statistics.py)
# score 0.001 to 0.06, wrong normalizations from 0.15 on.
FAR = 0.12

_DOUBT_TO_KEEP, _DOUBT_TO_LEAVE = 0.1, 0.4
_LEAST_STRENGTH = 0.15
# Training crops and stretches at random, as no deployment does: the stored statistics lie beside
# every way to resize, and a small change of it can come out nearer without being right.
_LEAST_STRENGTH_OF_SIZE = 2.0
_NOTHING = 2e-4  # nats: a shift by 2 % of a channel's standard deviation


@dataclass(frozen=True)
class Rival:
    """An alternative to the contract, and how it compares with it on `images` images.

    `margin` is its score less the contract's on the same images.
    """

    alternative: Alternative
    score: Score
    margin: float
    comparison: Comparison
    images: int

    @property
    def is_open(self) -> bool:
        """Whether it remains possible."""
        return self.verdict in ("open", "nearer")

    @property
    def worth_more_images(self) -> bool:
        """Whether it is open, and changes enough for more images to settle it."""
        return self.is_open and self.comparison.strength > self._least_strength / 2

    @property
    def _least_strength(self) -> float:
        sized = self.alternative.key in (RESIZE, INPUT_SIZE)
        return _LEAST_STRENGTH_OF_SIZE if sized else _LEAST_STRENGTH

    @property
    def verdict(self) -> Verdict:
        """See the module's docstring."""
        found = self.comparison
        if found.effect < _NOTHING:
            return "same"
        if found.strength < self._least_strength:
            return "open"
        root = math.sqrt(found.strength)
        if found.high + _DOUBT_TO_KEEP / root < 0.5:
            return "farther"
        return "nearer" if found.low - _DOUBT_TO_LEAVE / root > 0.5 else "open"


@dataclass(frozen=True)
class Testimony:
    """The contract that the statistics speak for, and how clearly.

    Attributes:
        contract: what remains; it differs from the assumed one only in what was decided.
        rivals: every alternative to it, the nearest first.
        changed: key -> value, where `contract` differs from the assumed one.
    """

    images: int
    layers: int
    contract: Contract
    score: Score
    rivals: tuple[Rival, ...]
    changed: Mapping[str, str]

    @property
    def decided(self) -> dict[str, str]:
        """Key -> value, where every alternative is farther or changes nothing.

        Where the contract is far, or one of its answers is contradicted, what is farther from it
        says nothing: then only what was changed for the better is decided.
        """
        if self.far or self.against:
            return dict(self.changed)
        return {
            key: self.contract.value(key)
            for key, verdicts in self._verdicts().items()
            if verdicts <= {"farther", "same"} and "farther" in verdicts
        }

    @property
    def undecided(self) -> dict[str, tuple[str, ...]]:
        """Key -> the values that remain possible, the contract's first."""
        return {
            key: (
                self.contract.value(key),
                *(
                    r.alternative.value
                    for r in self.rivals
                    if r.alternative.key == key and r.is_open
                ),
            )
            for key, verdicts in self._verdicts().items()
            if verdicts & {"open", "nearer"}
        }

    def _verdicts(self) -> dict[str, set[Verdict]]:
        found: dict[str, set[Verdict]] = {}
        for rival in self.rivals:
            found.setdefault(rival.alternative.key, set()).add(rival.verdict)
        return found

    @property
    def against(self) -> tuple[Rival, ...]:
        """The alternative that fits best, if it is nearer and yet not taken: the user said no.

        Others that are nearer too may only make up for it.
        """
        return tuple(rival for rival in self.rivals if rival.verdict == "nearer")[:1]

    @property
    def far(self) -> bool:
        """Whether even this contract is farther than any trained network's: something is wrong."""
        return self.score.low > FAR

    @property
    def runner_up(self) -> Rival | None:
        """The nearest alternative that changes anything."""
        return next((rival for rival in self.rivals if rival.verdict != "same"), None)

    def to_json(self) -> dict[str, Any]:
        """`proofs.batchnorm_statistics` of the manifest; scores in nats per channel."""
        runner_up = self.runner_up
        return {
            "images": self.images,
            "layers": self.layers,
            "score": _rounded(self.score.value),
            "interval": [_rounded(self.score.low), _rounded(self.score.high)],
            "far": self.far,
            "runner_up": None if runner_up is None else _rival_to_json(runner_up),
            "decided": self.decided,
            "undecided": {key: list(values) for key, values in self.undecided.items()},
            "changed": dict(self.changed),
            "sentences": list(self.sentences()),
            "alternatives": [_rival_to_json(rival) for rival in self.rivals],
        }

    def sentences(self) -> tuple[str, ...]:
        """What the user should know, the most important first."""
        said = []
        on = f"the batch-norm statistics on {self.images} of your images"
        if self.far:
            said.append(
                f"WARNING: {on} are {self.score.value:.2g} nats from those stored in training, "
                f"where trained networks are below {FAR:g}: the preprocessing, the architecture or "
                "the images are not those of the training"
            )
        said += [f"{key} is {value}: {on} speak for it" for key, value in self.changed.items()]
        said += [
            f"{on} speak for {rival.alternative.key}={rival.alternative.value}, not for "
            f"{self.contract.value(rival.alternative.key)} as you gave: check it"
            for rival in self.against
        ]
        kept = [f"{k} {v}" for k, v in self.decided.items() if k not in self.changed]
        if kept:
            said.append(f"{on} confirm {_listed(kept)}")
        leaves = [f"{key} ({' or '.join(values)})" for key, values in self.undecided.items()]
        if leaves and not self.far:
            said.append(f"{on} leave open {_listed(leaves)}")
        return tuple(said)


def _rival_to_json(rival: Rival) -> dict[str, Any]:
    found = rival.comparison
    return {
        "key": rival.alternative.key,
        "value": rival.alternative.value,
        "verdict": rival.verdict,
        "score": _rounded(rival.score.value),
        "interval": [_rounded(rival.score.low), _rounded(rival.score.high)],
        "margin": _rounded(rival.margin),
        "position": [_rounded(v) for v in (found.position, found.low, found.high)],
        "strength": _rounded(found.strength),
        "images": rival.images,
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]
