"""Checks that the labels and the preprocessing are those the network was made with.

Wrong ones cost accuracy on every variant alike, so no comparison of variants sees it.

* Every ONNX file carries its labels, its preprocessing and the settings that the network was built
  with; the manifest must say the same.
* What `quantize` refused and wrote only because it was forced to is undecided, whatever it reaches
  here: two gates contradict each other.
* At export, real images reproduce what the batch norms stored in training, or something is wrong.
* Permuted labels: if another naming of the network's classes, learnt on every second image, is
  right significantly more often on the others (McNemar, p < 0.001), the labels are not in the
  order of the network's classes. One image per class is too few to see it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from resdeploy.deploy.arrays import Indices
from resdeploy.deploy.bundle.lone_file import read_graph_manifest
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.model import Model
from resdeploy.deploy.errors import MissingDependencyError
from resdeploy.deploy.metrics.intervals import Interval, mcnemar_p, paired
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.checks.gate import EVERY_VARIANT, Gate
from resdeploy.deploy.verification.evaluation import Evaluation

_SURE = 0.001
_NAMED = 3


def metadata_gate(model: Model, candidate: Candidate) -> Gate | None:
    """Fail where a graph's own metadata contradicts the manifest; None where there is nothing.

    None also where ONNX Runtime, which reads the metadata, is not installed: a device that runs
    engines does without, and the check has run on the machine that exported.
    """
    if model.bundle is None or candidate.variant not in model.manifest.variants:
        return None
    try:
        inside = read_graph_manifest(model.graph(candidate.variant))
    except MissingDependencyError:
        return None
    sentence = _contradiction(model.manifest, inside)
    if sentence is None:
        return None
    file = model.manifest.variants[candidate.variant].file
    what = f"manifest.json contradicts {file}: {sentence}"
    return Gate("consistency", candidate.name, "fail", what, brief=what)


def refused_gate(manifest: Manifest, candidate: Candidate) -> Gate | None:
    """Undecided where `quantize --force` wrote what it had refused; None for all else."""
    refused = (manifest.calibration or {}).get("refused")
    if not isinstance(refused, Mapping) or candidate.variant not in refused:
        return None
    brief = f"{candidate.name} was refused by quantize and written with --force"
    sentence = f"quantize refused it, and --force wrote it: {refused[candidate.variant]}"
    return Gate("refused", candidate.name, "inconclusive", sentence, brief=brief)


def statistics_gate(manifest: Manifest) -> Gate | None:
    """Fail where real images did not reproduce what the batch norms stored in training."""
    found = manifest.proofs.get("batchnorm_statistics")
    if not found or not found.get("far"):
        return None
    low, high = found["interval"]
    return Gate(
        "batchnorm-statistics",
        EVERY_VARIANT,
        "fail",
        f"{found['images']} real images do not reproduce the statistics that the batch norms "
        f"stored in training: {found['score']:.2g} nats per channel; check the preprocessing and "
        "the assumptions, and export again with --data",
        value=found["score"],
        interval=Interval(low, high),
    )


def labels_gate(evaluation: Evaluation, labels: Sequence[str]) -> Gate | None:
    """Fail where another order of the labels explains the answers significantly better."""
    if evaluation.truth is None or not evaluation.answers:
        return None
    name = evaluation.reference or next(iter(evaluation.answers))
    got, truth = evaluation.answers[name].index, evaluation.truth
    renamed = _renamed(got, truth, len(labels))
    counts = paired(renamed == truth, got == truth)
    if counts.drop <= 0 or mcnemar_p(counts.lost, counts.gained) >= _SURE:
        return None
    naming = _naming(got, truth, len(labels))
    wrong = [
        f"{labels[k]!r} is {labels[naming[k]]!r}" for k in range(len(labels)) if naming[k] != k
    ]
    more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    sentence = (
        f"the labels are not in the order of the network's classes: top-1 is "
        f"{100 * float((got == truth).mean()):.1f} %, with the labels renamed "
        f"{100 * float((renamed == truth).mean()):.1f} % ({', '.join(wrong[:_NAMED])}{more})"
    )
    brief = "the labels are not in the order of the network's classes"
    return Gate("labels", name, "fail", sentence, brief=brief)


def _contradiction(manifest: Manifest, inside: Manifest) -> str | None:
    if manifest.labels != inside.labels:
        differing = [
            f"class {k} is {ours!r} in the manifest and {theirs!r} in the graph"
            for k, (ours, theirs) in enumerate(zip(manifest.labels, inside.labels, strict=False))
            if ours != theirs
        ]
        return "the labels differ: " + "; ".join(differing[:_NAMED] or ["their number"])
    if manifest.preprocess != inside.preprocess:
        ours, theirs = manifest.preprocess.to_json(), inside.preprocess.to_json()
        return f"the preprocessing differs: {_differing(ours, theirs)}"
    if manifest.model.checkpoint_sha256 != inside.model.checkpoint_sha256:
        return "the graph was made from another checkpoint"
    # a graph from before settings were kept has none
    if inside.model.settings and manifest.model.settings != inside.model.settings:
        ours, theirs = dict(manifest.model.settings), dict(inside.model.settings)
        return f"the network's settings differ: {_differing(ours, theirs)}"
    return None


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    found = [
        f"{key} is {ours.get(key)} in the manifest and {theirs.get(key)} in the graph"
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    ]
    return "; ".join(found[:_NAMED])


def _renamed(got: Indices, truth: Indices, classes: int) -> Indices:
    """The answers under the naming learnt on the other half of the images."""
    even = np.arange(len(got)) % 2 == 0
    renamed = got.copy()
    for learn, apply in ((even, ~even), (~even, even)):
        renamed[apply] = _naming(got[learn], truth[learn], classes)[got[apply]]
    return renamed


def _naming(got: Indices, truth: Indices, classes: int) -> Indices:
    """Answered class -> true class, one to one: the most frequent pairs first, else unchanged."""
    pairs, counts = np.unique(got * classes + truth, return_counts=True)
    naming = np.full(classes, -1)
    taken = np.zeros(classes, np.bool_)
    for pair in pairs[np.argsort(-counts, kind="stable")]:
        answered, true = divmod(int(pair), classes)
        if naming[answered] < 0 and not taken[true]:
            naming[answered], taken[true] = true, True
    for answered in map(int, np.flatnonzero(naming < 0)):
        if not taken[answered]:
            naming[answered], taken[answered] = answered, True
    free = iter(np.flatnonzero(~taken))
    for answered in map(int, np.flatnonzero(naming < 0)):
        naming[answered] = next(free)
    return naming
