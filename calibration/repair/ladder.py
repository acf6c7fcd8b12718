"""The repair ladder: one rung after the other, while a variant misses its budget.

    centre          the middle of ReLU ranges taken out (int8 only: uint8 has zero points)
    pad             centring for the inputs of padded depthwise layers that err most
    sequential_fit  integers and biases fitted, layer by layer, to what each layer really reads
    ranges          the range method that does best on images held back from calibration
    equalize        channels of a tensor brought to like size, the above included
    float           layers left float, those first that gain most, until the budget is met

A rung proposes recipes; each is built from the same measurements and judged by the signal-to-noise
ratio of the logits on held-back images, which is far less noisy than counting answers. The best
proposal stays if it gains, and every attempt is reported.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from resdeploy.calibration.graph.layers import layers
from resdeploy.calibration.ranges.methods import METHODS
from resdeploy.calibration.repair.budget import Budget, Cost, Score
from resdeploy.calibration.repair.recipes import (
    DraftCache,
    Measurements,
    Recipe,
    build,
    judge,
)
from resdeploy.calibration.repair.sensitivity import shares
from resdeploy.calibration.weights.draft import Draft
from resdeploy.deploy.specs import Variant
from resdeploy.deploy.targets import Target

# What a proposal must gain, in dB; a float layer costs speed and must gain more.
_WORTHWHILE = 0.1
_FLOAT_WORTH = 0.3
# The same where few images say too little: what 32 may be off by, from which other numbers follow.
# Of five methods the best looks better than it is: moving ranges gained 1.2 dB on 16 images and
# lost 1.5 on 92 others. Centring and the sequential fit gain 1 to 2 dB on hundreds of images, even
# where 25 said -0.6 and 16 said -0.9. A padded layer of a large share gains 3 dB on photographs, of
# which synthetic images show nothing.
_DOUBT_IMAGES = 32
_DOUBT = {"ranges": 1.5, "centre": -0.8, "pad": -0.3, "sequential_fit": -0.7}
# Share of the output error from which a padded layer's input is worth a Pad node, and how many.
_PAD_SHARE, _MOST_PADDED = 0.1, 3
# Candidates tried for each layer left float.
_FLOAT_CANDIDATES = 4
# Held-back batches on which shares are measured, those of padded layers and all, and layers that a
# refusal names.
_PAD_BATCHES, _SHARE_BATCHES, _NAMED = 1, 4, 3


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
class RepairState:
    """Where a variant stands: its draft, recipe and score, and all that was tried.

    `shares` has each node's share of the output error, once it was needed.
    """

    draft: Draft
    recipe: Recipe
    score: Score
    steps: tuple[Step, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> list[str]:
        """The nodes with the largest shares."""
        return list(self.shares)[:_NAMED]


def repair_variant(
    measurements: Measurements,
    cache: DraftCache,
    state: RepairState,
    budget: Budget,
    *,
    other_ranges: bool = True,
) -> RepairState:
    """Repair a variant rung by rung while it misses its aim; rungs tried before are left out.

    `other_ranges`: range methods other than the one so far may be tried.
    """
    tried = {step.rung for step in state.steps}
    for rung, propose in _RUNGS.items():
        if rung in tried or budget.met(state.score, _COSTS.get(rung, "free")):
            continue
        if rung != "ranges" or other_ranges:
            named = as_step(measurements, _step_name(state, rung))
            state = _try(named, cache, state, rung, propose(named, cache, state))
    if not budget.met(state.score, "costly"):
        named = as_step(measurements, _step_name(state, "float"))
        state = _leave_float(named, cache, with_shares(named, state), budget)
    return state


def as_step(measurements: Measurements, step: str) -> Measurements:
    """The same, with all progress reported as that of one step."""
    progress = measurements.progress
    return replace(measurements, progress=lambda _, done, total: progress(step, done, total))


def _step_name(state: RepairState, rung: str) -> str:
    return f"{state.draft.target.variant}: {_WORDS[rung]}"


def first_draft(
    measurements: Measurements, cache: DraftCache, target: Target, method: str
) -> RepairState:
    """The foot of the ladder: ranges by one method, GPTQ rounding, analytic bias correction."""
    recipe = Recipe(method)
    step = f"{target.variant}: rounding weights"
    draft = build(as_step(measurements, step), cache, target, recipe)
    return RepairState(draft, recipe, judge(measurements, draft))


def _try(
    measurements: Measurements,
    cache: DraftCache,
    state: RepairState,
    rung: str,
    proposals: Sequence[Recipe],
) -> RepairState:
    """Build and judge the proposals; move to the best one if it gains enough."""
    started = time.monotonic()
    best: RepairState | None = None
    for number, recipe in enumerate(proposals):
        measurements.progress("", number, len(proposals))
        draft = build(measurements, cache, state.draft.target, recipe)
        score = judge(measurements, draft)
        if best is None or not best.score.sqnr_db >= score.sqnr_db:  # NaN is worse than all
            best = RepairState(draft, recipe, score, state.steps, state.shares)
    if best is None:
        return state  # nothing to propose
    step = Step(
        state.draft.target.variant,
        rung,
        _detail(rung, best.recipe),
        best.score.sqnr_db > state.score.sqnr_db + _least_gain(rung, state.score.images),
        state.score,
        best.score,
        time.monotonic() - started,
    )
    after = replace(best if step.accepted else state, steps=(*state.steps, step))
    cache.keep_only(after.draft.target, after.recipe)
    return after


def _least_gain(rung: str, images: int) -> float:
    """What a proposal must gain on so many images to stay, in dB; less than 0: may lose."""
    if rung in _DOUBT:
        return _DOUBT[rung] * math.sqrt(_DOUBT_IMAGES / images)
    return _FLOAT_WORTH if rung == "float" else _WORTHWHILE


def _detail(rung: str, recipe: Recipe) -> str:
    """What a rung did, where its name does not say it all."""
    details = {"ranges": recipe.method, "pad": ", ".join(recipe.pad)}
    details["float"] = ", ".join(recipe.float)
    details["sequential_fit"] = "again, without the float layers" if recipe.refit else ""
    return details.get(rung, "")


def with_shares(measurements: Measurements, state: RepairState) -> RepairState:
    """The same with each node's share of the output error measured."""
    if state.shares:
        return state
    measured = shares(
        state.draft,
        measurements.held[:_SHARE_BATCHES],
        threads=measurements.threads,
        maps=measurements.maps,
        progress=measurements.progress,
    )
    return replace(state, shares=measured)


def _leave_float(
    measurements: Measurements, cache: DraftCache, state: RepairState, budget: Budget
) -> RepairState:
    """Leave layer after layer float: of the likeliest candidates the one that gains most."""
    while not budget.met(state.score, "costly") and len(state.recipe.float) < budget.most_float:
        left = [node for node in state.shares if node not in state.recipe.float]
        proposals = [
            replace(state.recipe, float=tuple(sorted({*state.recipe.float, node})))
            for node in left[:_FLOAT_CANDIDATES]
        ]
        before, state = state, _try(measurements, cache, state, "float", proposals)
        if state.recipe == before.recipe:
            break
    if state.recipe.sequential_fit and state.recipe.float:
        # The others were fitted to the errors of these layers, which are no longer there.
        again = [replace(state.recipe, refit=True)]
        state = _try(measurements, cache, state, "sequential_fit", again)
    return state


def _propose_ranges(
    measurements: Measurements, cache: DraftCache, state: RepairState
) -> list[Recipe]:
    """The best other method, chosen without the sequential fit, which would take long for each."""
    plain = replace(state.recipe, sequential_fit=False)
    best, most_db = "", -np.inf
    others = [method for method in METHODS if method != plain.method]
    for number, method in enumerate(others):
        measurements.progress("", number, len(others))
        draft = build(measurements, cache, state.draft.target, replace(plain, method=method))
        score_db = judge(measurements, draft).sqnr_db
        if score_db > most_db:
            best, most_db = method, score_db
        cache.keep_only(state.draft.target, state.recipe)
    return [replace(state.recipe, method=best)] if best else []


def _propose_centre(
    measurements: Measurements, cache: DraftCache, state: RepairState
) -> list[Recipe]:
    symmetric = state.draft.target.grid == "int8"
    return [replace(state.recipe, centre=True)] if symmetric else []


def _propose_pad(measurements: Measurements, cache: DraftCache, state: RepairState) -> list[Recipe]:
    worst = worst_padded(measurements, state.draft) if state.recipe.centre else ()
    return [replace(state.recipe, pad=worst)] if worst else []


def worst_padded(measurements: Measurements, draft: Draft) -> tuple[str, ...]:
    """Padded depthwise layers with so large a share of the error that a Pad node is worth it."""
    padded = {x.name for x in layers(draft.model) if x.depthwise and any(x.pads)}
    measured = shares(
        draft,
        measurements.held[:_PAD_BATCHES],
        threads=measurements.threads,
        maps=measurements.maps,
        among=padded,
        progress=measurements.progress,
    )
    return tuple(node for node, share in measured.items() if share >= _PAD_SHARE)[:_MOST_PADDED]


def _propose_sequential_fit(
    measurements: Measurements, cache: DraftCache, state: RepairState
) -> list[Recipe]:
    return [replace(state.recipe, sequential_fit=True)]


def _propose_equalize(
    measurements: Measurements, cache: DraftCache, state: RepairState
) -> list[Recipe]:
    return [replace(state.recipe, equalize=True)]


_RUNGS: dict[str, Callable[[Measurements, DraftCache, RepairState], list[Recipe]]] = {
    "centre": _propose_centre,
    "pad": _propose_pad,
    "sequential_fit": _propose_sequential_fit,
    "ranges": _propose_ranges,
    "equalize": _propose_equalize,
}
# What a rung does, as progress shows it.
_WORDS = {
    "centre": "centring activations",
    "pad": "centring what padded layers read",
    "sequential_fit": "fitting layer by layer",
    "ranges": "trying other ranges",
    "equalize": "equalizing channels",
    "float": "choosing layers to leave float",
}
# The rungs that are not free. Another pass over all images, for equalizing, seldom pays.
_COSTS: dict[str, Cost] = {"sequential_fit": "fit", "equalize": "costly"}
