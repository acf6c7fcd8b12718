"""Are the labels and the preprocessing those the network was made with?

A wrong contract costs accuracy on every variant alike, so no comparison of variants sees it.

* Every ONNX file carries its labels and preprocessing; the manifest must say the same.
* Permuted labels: if another naming of the network's classes, learnt on every second picture, is
  right significantly more often on the others (McNemar, p < 0.001), the labels are not in the
  order of the network's classes. It cannot be seen with one picture per class.
"""

from collections.abc import Sequence

import numpy as np

from resdeploy.deploy.candidates import Candidate
from resdeploy.deploy.compare import Indices
from resdeploy.deploy.errors import MissingDependencyError
from resdeploy.deploy.evaluation import Evaluation
from resdeploy.deploy.gate import Gate
from resdeploy.deploy.manifest import Manifest
from resdeploy.deploy.optional import needs
from resdeploy.deploy.session import Model
from resdeploy.deploy.statistics import mcnemar_p, paired

_SURE = 0.001
_NAMED = 3


def metadata_gate(model: Model, candidate: Candidate) -> Gate | None:
    """Fail where a graph's own metadata contradicts the manifest; None where there is nothing.

    None, too, where ONNX Runtime, which reads it, is not installed: a device that runs engines
    does well without, and the export's machine has asked.
    """
    if model.bundle is None or candidate.variant not in model.manifest.variants:
        return None
    try:
        with needs("reading an ONNX file"):
            from resdeploy.deploy.ort import read_graph_manifest
    except MissingDependencyError:
        return None
    inside = read_graph_manifest(model.graph(candidate.variant))
    sentence = _contradiction(model.manifest, inside)
    if sentence is None:
        return None
    file = model.manifest.variants[candidate.variant].file
    return Gate("contract", candidate.name, "fail", f"manifest.json contradicts {file}: {sentence}")


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
        f"{100 * float((got == truth).mean()):.1f} %, renamed it is "
        f"{100 * float((renamed == truth).mean()):.1f} % ({', '.join(wrong[:_NAMED])}{more})"
    )
    return Gate("labels", name, "fail", sentence)


def _contradiction(manifest: Manifest, inside: Manifest) -> str | None:
    if manifest.labels != inside.labels:
        differing = [
            f"class {k} is {ours!r} there and {theirs!r} in the graph"
            for k, (ours, theirs) in enumerate(zip(manifest.labels, inside.labels, strict=False))
            if ours != theirs
        ]
        return "the labels differ: " + "; ".join(differing[:_NAMED] or ["their number"])
    if manifest.preprocess != inside.preprocess:
        ours, theirs = manifest.preprocess.to_json(), inside.preprocess.to_json()
        differing = [
            f"{key} is {ours[key]} there and {theirs[key]} in the graph"
            for key in ours
            if ours[key] != theirs[key]
        ]
        return "the preprocessing differs: " + "; ".join(differing[:_NAMED])
    if manifest.model.checkpoint_sha256 != inside.model.checkpoint_sha256:
        return "the graph was made from another checkpoint"
    return None


def _renamed(got: Indices, truth: Indices, classes: int) -> Indices:
    """The answers under the naming learnt on the other half of the pictures."""
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
