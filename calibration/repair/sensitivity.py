"""Measures which layers an INT8 graph's error comes from, one layer quantized at a time.

The share of node n is the squared error of the logits with only n quantized (its inputs and its
weights), over the squared error of the whole INT8 graph. Errors of different layers are nearly
uncorrelated, so shares add up to about 1 and tell what leaving a layer float would gain.
"""

from collections.abc import Collection, Sequence

import numpy as np

from resdeploy.calibration.repair.run import logits, noise_share
from resdeploy.calibration.weights.draft import Draft
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.specs import TensorSpec


def shares(
    draft: Draft,
    batches: Sequence[Float32s],
    *,
    threads: int,
    among: Collection[str] | None = None,
    maps: Sequence[TensorSpec] = (),
    progress: Progress = silent,
) -> dict[str, float]:
    """Node name → share of the output error, largest first; only of the nodes `among`, if given.

    `maps` are a backbone's outputs, whose errors count in proportion to each map's signal.
    """
    nodes = quantized_nodes(draft)
    asked = [node for node in nodes if among is None or node in among]
    expected = logits(draft.model.SerializeToString(), "fp32", batches, threads)

    def noise_of(part: Draft) -> float:
        got = logits(part.graph().SerializeToString(), "int8", batches, threads)
        if maps:
            return noise_share(expected, got, maps)
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
