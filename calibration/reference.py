"""Replaces a reference of built-in images by images that were held back from calibration.

An export without images records what PyTorch answers to images made by a formula. They prove the
float graphs, but lie so far from photographs that INT8, whose ranges are those of photographs, may
answer them differently and still be right. The new logits are those of fp32.onnx, which export has
shown to be PyTorch's within rounding.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from resdeploy.calibration.job import Job
from resdeploy.deploy.bundle.bundle import NEW_REFERENCE
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.session import Session
from resdeploy.deploy.targets import is_int8
from resdeploy.deploy.verification.checks.promise import ON_RECORDED, PROMISED, promise_of
from resdeploy.deploy.verification.evaluation import replay
from resdeploy.deploy.verification.measure import measure

_MOST_IMAGES = 32


def better_reference(job: Job, held: Reference) -> Reference | None:
    """Images `held` back and their float logits; None where export had images of the user's.

    A backbone keeps its reference: it is judged by distances, which any image shows.
    """
    manifest = job.bundle.manifest
    source = manifest.proofs.get("parity", {}).get("image_source")
    if manifest.features or source != "built-in" or job.without_images:
        return None
    return Reference(held.inputs[:_MOST_IMAGES], held.logits[:_MOST_IMAGES])


def proofs_with(job: Job, reference: Reference) -> dict[str, Any]:
    """The bundle's proofs with what the new reference is, and what float graphs reach on it."""
    manifest = job.bundle.manifest
    found = {
        "images": len(reference.inputs),
        "image_source": job.judges.removeprefix("images "),
        "logits": "those of fp32.onnx",
    }
    promised = _float_promises(job, manifest, reference)
    return {**manifest.proofs, PROMISED: promised, NEW_REFERENCE: found}


def about_reference(job: Job, reference: Reference | None) -> list[str]:
    """What to tell the user."""
    if reference is None:
        return []
    return [
        f"reference.npz now holds {len(reference.inputs)} {job.judges} with the "
        "logits of fp32.onnx, which export compared with PyTorch: the built-in images of the "
        "export are too unlike yours to judge INT8 by"
    ]


def _float_promises(job: Job, manifest: Manifest, reference: Reference) -> Mapping[str, Any]:
    promised = dict(manifest.proofs.get(PROMISED, {}))
    names = [name for name in manifest.variants if not is_int8(name) and name in promised]
    with ExitStack() as stack:
        sessions: dict[str, Session] = {
            name: stack.enter_context(
                OrtSession(job.bundle.graph(name), variant=name, threads=1, arena=False)
            )
            for name in names
        }
        replayed = replay(reference, sessions)
    for name in names:
        reached = promise_of(measure(replayed, name), "the recorded inputs")
        promised[name] = {**promised[name], ON_RECORDED: reached}
    return promised
