"""Fits what was judged to all calibration images, those held back to judge it included.

Images are held back so that recipes are compared on images that they were not fitted to. Once a
recipe is chosen these are images like the others: ranges, moments and the sequential fit learn from
them, too, and the drafts are built again. Scores and figures of held-back images are therefore
those of the drafts before this step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from resdeploy.calibration.observe.gather import Observations, gather_more
from resdeploy.calibration.repair.ladder import RepairState, as_step
from resdeploy.calibration.repair.recipes import (
    DraftCache,
    Measurements,
    Recipe,
    build,
    judge,
)
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.targets import Target


@dataclass(frozen=True)
class Refit:
    """Measurements of all images, what was built from them, and each target's state."""

    measurements: Measurements
    cache: DraftCache
    states: Mapping[Target, RepairState]


def refitted(
    measurements: Measurements, cache: DraftCache, states: Mapping[Target, RepairState]
) -> Refit:
    """The same recipes, measured on and fitted to all images.

    What `measurements` and `cache` have observed goes on learning: they are not to be used any
    more. A state keeps the score that it was judged by, and its draft where the new one answers the
    held-back images worse, although it was fitted to them.
    """

    def more(observed: Observations) -> Observations:
        return gather_more(
            observed,
            measurements.held,
            threads=measurements.threads,
            progress=measurements.progress,
        )

    whole = replace(
        measurements,
        observed=more(measurements.observed),
        observe_equalized=lambda: more(cache.observations(measurements, Recipe(equalize=True))),
        fitting=_fitting(measurements),
    )
    fresh = DraftCache()
    return Refit(
        whole, fresh, {target: _again(whole, fresh, state) for target, state in states.items()}
    )


def _fitting(measurements: Measurements) -> Sequence[Float32s]:
    """Held-back batches first: no more images than were fitted to before, or than were held."""
    most = max(len(measurements.fitting), len(measurements.held))
    return [*measurements.held, *measurements.fitting][:most]


def _again(measurements: Measurements, cache: DraftCache, state: RepairState) -> RepairState:
    named = as_step(measurements, f"{state.draft.target.variant}: fitting to all images")
    draft = build(named, cache, state.draft.target, state.recipe)
    cache.keep_only(state.draft.target, state.recipe)
    better = judge(measurements, draft).sqnr_db >= state.score.sqnr_db
    return replace(state, draft=draft) if better else state
