"""What all edits of a graph end with: a report of what changed, and the graph's final form."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes


@dataclass(frozen=True)
class Rewrites:
    """`count` places were rewritten; `declined` maps the nodes left (name or output) to reasons."""

    count: int
    declined: Mapping[str, str] = field(default_factory=dict)


def finish(model: ir.Model) -> onnx.ModelProto:
    """Turn an edited graph into its final form: sorted, nothing unused, no traces of its making.

    Drops doc strings and node metadata (exporters leave stack traces with absolute paths there)
    and sets the lowest ir_version its operator set allows.
    """
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    passes.TopologicalSortPass()(model)
    notes = dict(sorted(model.metadata_props.items()))
    model.metadata_props.clear()
    model.metadata_props.update(notes)
    model.producer_name, model.producer_version = "resdeploy", None
    model.graph.name = "classifier"
    for tensor in model.graph.initializers.values():
        if tensor.const_value is not None:  # one storage form, so equal weights are equal bytes
            tensor.const_value = ir.tensor(tensor.const_value.numpy(), name=tensor.name)
    proto = ir.to_proto(model)
    proto.ir_version = onnx.helper.find_min_ir_version_for(list(proto.opset_import), True)
    # An initializer states its own type; saying it twice only makes room for contradiction.
    tensors = {tensor.name for tensor in proto.graph.initializer}
    described = [value for value in proto.graph.value_info if value.name not in tensors]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(described)
    return proto
