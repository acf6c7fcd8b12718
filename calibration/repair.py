"""The repair ladder: one rung after the other, while a variant misses its budget.

    centre    the middle of ReLU ranges taken out (`high_bias`; int8 only, uint8 has zero points)
    pad       centring for the inputs of padded depthwise layers where most of the error comes from
    ranges    the range method that does best on pictures held back from calibration
    prefix    integers and biases fitted, layer by layer, to the quantized prefix (`absorb`)
    equalize  channels of a tensor brought to like size, the above included (`equalize`)
    float     layers left float, those first that gain most, until the budget is met

A rung proposes recipes; each is built from the same measurements and judged by the signal-to-noise
ratio of the logits on held-back pictures, which is far less noisy than counting answers. The best
proposal stays if it gains, and every attempt is reported.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from resdeploy.calibration.budget import Budget, Score
from resdeploy.calibration.draft import Draft
from resdeploy.calibration.layers import layers
from resdeploy.calibration.plan import PlanTarget
from resdeploy.calibration.range_choice import METHODS
from resdeploy.calibration.recipes import (
    FIRST_METHOD,
    VARIANT_OF,
    Material,
    Recipe,
    build,
    forget_others,
    judge,
)
from resdeploy.calibration.sensitivity import shares
from resdeploy.deploy.specs import Variant

# What a proposal must gain, in dB; a float layer costs speed and must gain more.
_WORTHWHILE, _WORTH_FLOAT = 0.1, 0.3
# Share of the output error from which a padded layer's input is worth a Pad node, and how many.
_PAD_SHARE, _MOST_PADDED = 0.1, 3
# Candidates tried for each layer left float.
_FLOAT_CANDIDATES = 4
# Held-back batches on which shares are measured, and layers that a refusal names.
_SHARE_BATCHES, _NAMED = 2, 3


@dataclass(frozen=True)
class Step:
    """One attempt: what was tried, whether it stayed, and the scores before and after."""

    variant: Variant
    rung: str
    detail: str
    accepted: bool
    before: Score
    after: Score
    seconds: float


@dataclass(frozen=True)
class Climb:
    """Where a variant stands: its draft, recipe and score, all that was tried, and, once it was
    needed, each node's share of the output error."""

    draft: Draft
    recipe: Recipe
    score: Score
    steps: tuple[Step, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> list[str]:
        """The nodes with the largest shares."""
        return list(self.shares)[:_NAMED]


def climb(
    material: Material,
    target: PlanTarget,
    budget: Budget,
    *,
    method: str = "auto",
    repair: bool = True,
    start: Climb | None = None,
) -> Climb:
    """Make a variant, or take one up again, and repair it rung by rung while it misses its aim."""
    here = start or first_draft(material, target, FIRST_METHOD if method == "auto" else method)
    tried = {step.rung for step in here.steps}
    for rung, propose in _RUNGS.items():
        if not repair or budget.met(here.score, free=rung not in _LAST_RUNGS):
            break
        if rung not in tried and (rung != "ranges" or method == "auto"):
            here = _try(material, here, rung, propose(material, here))
    if repair and not budget.met(here.score, free=False):
        here = _leave_float(material, with_shares(material, here), budget)
    if budget.refuses(here.score) is not None:
        here = with_shares(material, here)
    return here


def first_draft(material: Material, target: PlanTarget, method: str) -> Climb:
    """The foot of the ladder: ranges by one method, GPTQ rounding, analytic bias correction."""
    recipe = Recipe(method)
    draft = build(material, target, recipe)
    return Climb(draft, recipe, judge(material, draft))


def _try(material: Material, here: Climb, rung: str, proposals: Sequence[Recipe]) -> Climb:
    """Build and judge the proposals; move to the best one if it gains enough."""
    started = time.monotonic()
    best: Climb | None = None
    for number, recipe in enumerate(proposals):
        material.progress(f"repairing: {rung}", number, len(proposals))
        draft = build(material, here.draft.target, recipe)
        score = judge(material, draft)
        if best is None or not best.score.sqnr_db >= score.sqnr_db:  # NaN is worse than all
            best = Climb(draft, recipe, score, here.steps, here.shares)
    if best is None:
        return here  # nothing to propose
    least = _WORTH_FLOAT if rung == "float" else _WORTHWHILE
    accepted = best.score.sqnr_db > here.score.sqnr_db + least
    step = Step(
        VARIANT_OF[here.draft.target],
        rung,
        _detail(rung, best.recipe),
        accepted,
        here.score,
        best.score,
        time.monotonic() - started,
    )
    after = replace(best if accepted else here, steps=(*here.steps, step))
    forget_others(material, after.draft.target, after.recipe)
    return after


def _detail(rung: str, recipe: Recipe) -> str:
    """What a rung did, where its name does not say it all."""
    details = {"ranges": recipe.method, "pad": ", ".join(recipe.pad)}
    details["float"] = ", ".join(recipe.float)
    details["prefix"] = "again, without the float layers" if recipe.refit else ""
    return details.get(rung, "")


def with_shares(material: Material, here: Climb) -> Climb:
    """The same with each node's share of the output error measured."""
    if here.shares:
        return here
    measured = shares(
        here.draft,
        material.held[:_SHARE_BATCHES],
        threads=material.threads,
        progress=material.progress,
    )
    return replace(here, shares=measured)


def _leave_float(material: Material, here: Climb, budget: Budget) -> Climb:
    """Leave layer after layer float: of the likeliest candidates the one that gains most."""
    while not budget.met(here.score, free=False) and len(here.recipe.float) < budget.most_float:
        left = [node for node in here.shares if node not in here.recipe.float]
        proposals = [
            replace(here.recipe, float=tuple(sorted({*here.recipe.float, node})))
            for node in left[:_FLOAT_CANDIDATES]
        ]
        before, here = here, _try(material, here, "float", proposals)
        if here.recipe == before.recipe:
            break
    if here.recipe.prefix and here.recipe.float:
        # What the others absorbed of the errors of these layers is no longer there.
        here = _try(material, here, "prefix", [replace(here.recipe, refit=True)])
    return here


def _propose_ranges(material: Material, here: Climb) -> list[Recipe]:
    return [replace(here.recipe, method=method) for method in METHODS if method != FIRST_METHOD]


def _propose_centre(material: Material, here: Climb) -> list[Recipe]:
    return [replace(here.recipe, centre=True)] if here.draft.target == "tensorrt" else []


def _propose_pad(material: Material, here: Climb) -> list[Recipe]:
    worst = worst_padded(material, here.draft) if here.recipe.centre else ()
    return [replace(here.recipe, pad=worst)] if worst else []


def worst_padded(material: Material, draft: Draft) -> tuple[str, ...]:
    """Padded depthwise layers with so large a share of the error that a Pad node is worth it."""
    padded = {x.name for x in layers(draft.model) if x.depthwise and any(x.pads)}
    measured = shares(
        draft,
        material.held[:_SHARE_BATCHES],
        threads=material.threads,
        among=padded,
        progress=material.progress,
    )
    return tuple(node for node, share in measured.items() if share >= _PAD_SHARE)[:_MOST_PADDED]


def _propose_prefix(material: Material, here: Climb) -> list[Recipe]:
    return [replace(here.recipe, prefix=True)]


def _propose_equalize(material: Material, here: Climb) -> list[Recipe]:
    return [replace(here.recipe, equalize=True)]


_RUNGS: dict[str, Callable[[Material, Climb], list[Recipe]]] = {
    "centre": _propose_centre,
    "pad": _propose_pad,
    "ranges": _propose_ranges,
    "prefix": _propose_prefix,
    "equalize": _propose_equalize,
}
# Tried only while the lower aim is missed: another pass over all pictures seldom pays.
_LAST_RUNGS = ("equalize",)
