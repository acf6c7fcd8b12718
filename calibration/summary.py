"""What the manifest keeps of a run of `quantize`: images, recipes, repairs and figures."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from resdeploy.calibration.accuracy import MeasuredGraphs, confidence_on_calibration
from resdeploy.calibration.job import Job
from resdeploy.calibration.repair.ladder import RepairState, Step
from resdeploy.calibration.repair.recipes import Measurements
from resdeploy.deploy.targets import TENSORRT, Target


def summary(
    job: Job,
    measurements: Measurements,
    states: Mapping[Target, RepairState],
    found: MeasuredGraphs,
) -> dict[str, Any]:
    """Plain values; `states` tell how each target was quantized, `found` what came of it."""
    return {
        "images": job.measured,
        "held_back": job.images - len(job.calibrate.paths),
        "refit": job.refits,
        "method": states[TENSORRT].recipe.method,
        "images_sha256": job.key.images,
        "confidence": confidence_on_calibration(job, measurements),
        "recipes": {t.variant: asdict(state.recipe) for t, state in states.items()},
        "options": job.stored_options(),
        "repairs": [_step(step) for state in states.values() for step in state.steps],
        "accuracy": {name: figures.to_json() for name, figures in found.accuracy.items()},
        "ms_per_image": dict(found.ms_per_image),
    }


def _step(step: Step) -> dict[str, Any]:
    before, after = (
        {
            "images": s.images,
            "agreement": None if s.agreement is None else round(s.agreement, 2),
            "sqnr_db": round(s.sqnr_db, 2),
        }
        for s in (step.before, step.after)
    )
    return {
        "variant": step.variant,
        "rung": step.rung,
        "detail": step.detail,
        "accepted": step.accepted,
        "gained_db": round(step.after.sqnr_db - step.before.sqnr_db, 2),
        "before": before,
        "after": after,
        "seconds": round(step.seconds, 1),
    }
