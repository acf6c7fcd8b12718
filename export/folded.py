"""A float graph in its final form, with an account of what was done to it."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.session import Session
from resdeploy.export.graph.edits import Rewrites
from resdeploy.export.graph.fold_batchnorm import FoldResult, fold_batchnorm
from resdeploy.export.graph.simplify import simplify_and_report


@dataclass(frozen=True)
class FoldedGraph:
    """The graph that becomes fp32.onnx, which batch norms were folded, what else was rewritten."""

    model: onnx.ModelProto
    fold: FoldResult
    rewrites: Mapping[str, Rewrites]
    opset: int

    def float_session(self) -> Session:
        """The graph in ONNX Runtime, from memory, one thread for each run."""
        return OrtSession(self.model.SerializeToString(), threads=1)


def fold_and_simplify(model: onnx.ModelProto, *, opset: int) -> FoldedGraph:
    """Fold the batch norms, then bring the graph to its canonical form.

    Raises:
        GraphError: a batch norm is broken, or simplifying changed the function.
    """
    fold = fold_batchnorm(model)
    simplified = simplify_and_report(fold.model)
    return FoldedGraph(simplified.model, fold, simplified.rewrites, opset)
