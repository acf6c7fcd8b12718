"""How one variant is made: a recipe, built from measurements that all recipes share, and judged.

Recipes are values: the repair ladder compares them, the report stores them. What is costly is done
once: one pass over the pictures per float graph, one GPTQ rounding per float graph and target.
Neither the range method nor centring changes weights or covariances, so the integers stay.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from resdeploy.calibration.absorb import absorb
from resdeploy.calibration.budget import Score
from resdeploy.calibration.draft import Draft, rounded
from resdeploy.calibration.high_bias import centre
from resdeploy.calibration.plan import PlanTarget
from resdeploy.calibration.qdq import QuantizedWeight
from resdeploy.calibration.sensitivity import logits
from resdeploy.calibration.statistics import Statistics
from resdeploy.deploy.compare import agreement, sqnr_db
from resdeploy.deploy.output import Progress, silent
from resdeploy.deploy.specs import Variant

# What "auto" begins with: the method that does best most often.
FIRST_METHOD = "mse"
VARIANT_OF: dict[PlanTarget, Variant] = {"tensorrt": "int8", "cpu": "int8-cpu"}

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Recipe:
    """How a variant is made; the field names are those of the rungs. `refit` repeats "prefix" with
    the layers of `float` left float."""

    method: str = FIRST_METHOD
    prefix: bool = False
    equalize: bool = False
    centre: bool = False
    pad: tuple[str, ...] = ()
    float: tuple[str, ...] = ()
    refit: bool = False


@dataclass
class Material:
    """What drafts are made from and judged by.

    Attributes:
        measure: statistics of the float graph, or (True) of its equalized form.
        held: batches kept back from calibration; `expected` their float logits.
        fitting: batches that `absorb` may keep in memory.
        drafts, integers: what was built already.
    """

    measure: Callable[[bool], Statistics]
    held: Sequence[Floats]
    expected: Floats
    fitting: Sequence[Floats]
    threads: int
    seed: int = 0
    progress: Progress = silent
    drafts: dict[tuple[PlanTarget, Recipe], Draft] = field(default_factory=dict)
    integers: dict[tuple[PlanTarget, bool], Mapping[str, QuantizedWeight]] = field(
        default_factory=dict
    )


def build(material: Material, target: PlanTarget, recipe: Recipe) -> Draft:
    """The draft a recipe describes."""
    if recipe.float:
        whole = build(material, target, replace(recipe, float=(), refit=False))
        partial = whole.left_float(recipe.float)
        return _absorb(material, partial) if recipe.refit else partial
    if (target, recipe) in material.drafts:
        return material.drafts[target, recipe]
    statistics = material.measure(recipe.equalize)
    model, ranges = statistics.model, statistics.ranges(recipe.method, target)
    taken: dict[str, float] = {}
    if recipe.centre:
        centred = centre(model, ranges, padded=recipe.pad)
        model, ranges, taken = centred.model, centred.ranges, centred.taken
    draft = rounded(
        Draft(model, target, ranges),
        statistics.moments,
        taken=taken,
        integers=material.integers.get((target, recipe.equalize)),
    )
    material.integers[target, recipe.equalize] = draft.weights
    if recipe.prefix:
        draft = _absorb(material, draft)
    material.drafts[target, recipe] = draft
    return draft


def forget_others(material: Material, target: PlanTarget, recipe: Recipe) -> None:
    """Keep only the draft that this recipe and its successors start from: each holds a graph."""
    base = (target, replace(recipe, float=(), refit=False))
    for key in set(material.drafts) - {base}:
        del material.drafts[key]


def judge(material: Material, draft: Draft) -> Score:
    """The draft's graph against the float logits of the held-back pictures, as it will run."""
    graph = draft.graph().SerializeToString()
    got = logits(graph, VARIANT_OF[draft.target], material.held, material.threads)
    same = agreement(material.expected, got)
    return Score(len(got), same, sqnr_db(material.expected, got))


def _absorb(material: Material, draft: Draft) -> Draft:
    return absorb(
        draft,
        material.fitting,
        threads=material.threads,
        seed=material.seed,
        progress=material.progress,
    )
