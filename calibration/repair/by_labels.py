"""What labelled images say of a variant: repair it further, refuse it, or let it pass.

Decibels come first, for they need no labels. Where true classes are known and too many answers are
lost all the same, the aim rises step by step, and more layers may be left float.
"""

from collections.abc import Callable

from resdeploy.calibration.repair.budget import Budget, Score
from resdeploy.calibration.repair.ladder import RepairState, repair_variant
from resdeploy.calibration.repair.recipes import DraftCache, Measurements
from resdeploy.deploy.verification.accuracy import Accuracy

# The aim rises in such steps, so often.
_RAISE_DB, _RAISES = 3.0, 3
# Then one layer in so many may be left float.
_FLOAT_SHARE = 5


def repair_by_labels(
    measurements: Measurements,
    cache: DraftCache,
    state: RepairState,
    accuracy: Accuracy,
    *,
    max_drop: float,
    measure: Callable[[RepairState], Accuracy],
    other_ranges: bool = True,
) -> RepairState:
    """Aim higher and repair on while top-1 drops by more than `max_drop` percentage points.

    Args:
        measurements, cache: what drafts are built from.
        state: where the variant stands, and `accuracy` what labels say of it.
        max_drop: points of top-1 that may be lost.
        measure: the accuracy of a further state.
        other_ranges: as `repair_variant` has it.
    """
    for _ in range(_RAISES):
        if accuracy.counts is None or accuracy.counts.drop <= max_drop:
            break
        aim = state.score.sqnr_db + _RAISE_DB
        most = len(state.draft.layers) // _FLOAT_SHARE
        budget = Budget(aim_sqnr_db=aim, aim_sqnr_free_db=aim, aim_sqnr_fit_db=aim, most_float=most)
        before = state
        state = repair_variant(measurements, cache, before, budget, other_ranges=other_ranges)
        if state.recipe == before.recipe:
            break
        accuracy = measure(state)
    return state


def refusal(score: Score, accuracy: Accuracy, max_drop: float, budget: Budget) -> str | None:
    """Why a variant may not be published, None when it may.

    With labels they decide, and chance is given its due; without, the budget does.
    """
    if accuracy.counts is None or accuracy.drop_ci95 is None:
        return budget.refuses(score)
    if accuracy.drop_ci95.low <= max_drop:
        return None
    return (
        f"top-1 drops by {accuracy.counts.drop:.2f} points on {accuracy.images} images "
        f"(95 % interval from {accuracy.drop_ci95.low:.2f}), more than {max_drop:g}"
    )
