"""How one variant is made: a recipe, built from measurements that all recipes share, and judged.

Recipes are values: the repair ladder compares them, the report stores them. What is costly is done
once: one pass over the images per float graph, one GPTQ rounding per float graph and target.
Neither the range method nor centring changes weights or covariances, so the integers stay.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from resdeploy.calibration.graph.qdq import QuantizedWeight
from resdeploy.calibration.observe.gather import Observations
from resdeploy.calibration.repair.budget import Score
from resdeploy.calibration.repair.run import logits, worst_map_sqnr_db
from resdeploy.calibration.weights.centre import centre
from resdeploy.calibration.weights.draft import Draft, rounded
from resdeploy.calibration.weights.sequential_fit import sequential_fit
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.metrics.logits import agreement, sqnr_db
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.specs import TensorSpec
from resdeploy.deploy.targets import CPU, Target

# What "auto" begins with: the method that does best most often.
FIRST_METHOD = "mse"


@dataclass(frozen=True)
class Recipe:
    """How a variant is made; the field names are those of the rungs.

    `refit` repeats the sequential fit with the layers of `float` left float.
    """

    method: str = FIRST_METHOD
    sequential_fit: bool = False
    equalize: bool = False
    centre: bool = False
    pad: tuple[str, ...] = ()
    float: tuple[str, ...] = ()
    refit: bool = False


@dataclass(frozen=True)
class Measurements:
    """What drafts are made from and judged by.

    Attributes:
        observed: what was seen of the float graph.
        observe_equalized: measures the equalized graph, in another pass over the images.
        held: batches kept back from calibration; `expected` their float logits.
        fitting: batches that the sequential fit may keep in memory.
        maps: a backbone's outputs, which `expected` has side by side; empty for a classifier.
    """

    observed: Observations
    observe_equalized: Callable[[], Observations]
    held: Sequence[Float32s]
    expected: Float32s
    fitting: Sequence[Float32s]
    threads: int
    seed: int = 0
    progress: Progress = silent
    maps: tuple[TensorSpec, ...] = ()


class DraftCache:
    """What costs most of building drafts from one set of measurements, kept for the next recipe."""

    def __init__(self) -> None:
        """Nothing is built yet."""
        self._equalized: Observations | None = None
        self.integers: dict[tuple[Target, bool], Mapping[str, QuantizedWeight]] = {}
        self.drafts: dict[tuple[Target, Recipe], Draft] = {}

    def observations(self, measurements: Measurements, recipe: Recipe) -> Observations:
        """Those of the graph the recipe starts from; the equalized one is measured once."""
        if not recipe.equalize:
            return measurements.observed
        if self._equalized is None:
            self._equalized = measurements.observe_equalized()
        return self._equalized

    def keep_only(self, target: Target, recipe: Recipe) -> None:
        """Keep only the draft that this recipe and its successors start from: each is a graph."""
        base = (target, _without_float(recipe))
        self.drafts = {key: draft for key, draft in self.drafts.items() if key == base}


def build(measurements: Measurements, cache: DraftCache, target: Target, recipe: Recipe) -> Draft:
    """The draft a recipe describes."""
    if recipe.float:
        whole = build(measurements, cache, target, _without_float(recipe))
        partial = whole.left_float(recipe.float)
        return _fitted(measurements, partial) if recipe.refit else partial
    if (target, recipe) in cache.drafts:
        return cache.drafts[target, recipe]
    observed = cache.observations(measurements, recipe)
    model, ranges = observed.model, observed.ranges(recipe.method, target)
    centres: Mapping[str, float] = {}
    if recipe.centre:
        # A centred tensor has 256 steps; a symmetric grid leaves 128 to one without signs.
        unsigned = observed.ranges(recipe.method, CPU)
        centred = centre(model, unsigned, padded=recipe.pad)
        model, centres = centred.model, centred.centres
        ranges |= {tensor: centred.ranges[tensor] for tensor in centres}
    draft = rounded(
        Draft(model, target, ranges),
        observed.moments,
        centres=centres,
        integers=cache.integers.get((target, recipe.equalize)),
        peaks=None if observed.trained is None else observed.trained.weights,
        threads=measurements.threads,
        progress=measurements.progress,
    )
    cache.integers[target, recipe.equalize] = draft.weights
    if recipe.sequential_fit:
        draft = _fitted(measurements, draft)
    cache.drafts[target, recipe] = draft
    return draft


def judge(measurements: Measurements, draft: Draft) -> Score:
    """The draft's graph against the float logits of the held-back images, as it will run.

    A backbone is as good as its noisiest map.
    """
    graph = draft.graph().SerializeToString()
    got = logits(graph, draft.target.variant, measurements.held, measurements.threads)
    if measurements.maps:
        worst = worst_map_sqnr_db(measurements.expected, got, measurements.maps)
        return Score(len(got), None, worst)
    same = agreement(measurements.expected, got)
    return Score(len(got), same, sqnr_db(measurements.expected, got))


def _without_float(recipe: Recipe) -> Recipe:
    return replace(recipe, float=(), refit=False)


def _fitted(measurements: Measurements, draft: Draft) -> Draft:
    return sequential_fit(
        draft,
        measurements.fitting,
        threads=measurements.threads,
        seed=measurements.seed,
        progress=measurements.progress,
    )
