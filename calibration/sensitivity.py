"""Measures which layers an INT8 graph's error comes from, one layer quantized at a time.

The share of node n is the squared error of the logits with only n quantized (its inputs and its
weights), over the sum of the same over all nodes. Errors of different layers are nearly
uncorrelated, so the shares tell what leaving a layer float would gain.
"""

from collections.abc import Sequence

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
    progress: Progress = silent,
) -> dict[str, float]:
    """Node name → share of the output error, 0 to 1, largest first; they sum to 1."""
    nodes = quantized_nodes(draft)
    expected = logits(draft.model.SerializeToString(), "fp32", batches, threads)
    noise = {}
    for number, node in enumerate(nodes):
        progress("measuring layers", number, len(nodes))
        alone = draft.left_float([name for name in nodes if name != node])
        got = logits(alone.graph().SerializeToString(), "int8", batches, threads)
        noise[node] = float(((got.astype(np.float64) - expected) ** 2).sum())
    total = sum(noise.values()) or 1.0
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
