"""Measures which layers an INT8 graph's error comes from, one layer quantized at a time.

The share of node n is the squared error of the logits with only n quantized (its inputs and its
weights), over the squared error of the whole INT8 graph. Errors of different layers are nearly
uncorrelated, so shares add up to about 1 and tell what leaving a layer float would gain.
"""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from resdeploy.calibration.draft import Draft
from resdeploy.deploy.ort import OrtSession
from resdeploy.deploy.output import Progress, silent
from resdeploy.deploy.specs import Variant

Floats = npt.NDArray[np.float32]


def shares(
    draft: Draft,
    batches: Sequence[Floats],
    *,
    threads: int,
    among: Collection[str] | None = None,
    progress: Progress = silent,
) -> dict[str, float]:
    """Node name → share of the output error, largest first; only of the nodes `among`, if given."""
    nodes = quantized_nodes(draft)
    asked = [node for node in nodes if among is None or node in among]
    expected = logits(draft.model.SerializeToString(), "fp32", batches, threads)

    def noise_of(part: Draft) -> float:
        got = logits(part.graph().SerializeToString(), "int8", batches, threads)
        return float(((got.astype(np.float64) - expected) ** 2).sum())

    total = noise_of(draft) or 1.0
    noise = {}
    for number, node in enumerate(asked):
        progress("measuring layers", number, len(asked))
        noise[node] = noise_of(draft.left_float([name for name in nodes if name != node]))
    ordered = sorted(noise.items(), key=lambda item: -item[1])
    return {node: value / total for node, value in ordered}


def quantized_nodes(draft: Draft) -> list[str]:
    """Names of the convolutions, Gemms and Adds that the draft quantizes, in graph order."""
    known = {name for name, _ in draft.plan.edges}
    return [
        node.name
        for node in draft.model.graph.node
        if node.name in known and node.op_type in ("Conv", "Gemm", "Add")
    ]


def logits(graph: bytes, variant: Variant, batches: Sequence[Floats], threads: int) -> Floats:
    """The answers (N, classes) of a graph to all batches, run as a session of `variant` runs it."""
    with OrtSession(graph, variant=variant, threads=threads) as session:
        return np.concatenate([session.run(batch) for batch in batches])
