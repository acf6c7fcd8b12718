"""Ranges that torch.ao's graph mode numbers instead of naming them, by tensors of the float graph.

`prepare_qat_fx` observes the input (0) and then every tensor that it would quantize, in the order
in which the network runs, so the n-th observer belongs to the n-th such tensor:

    Conv, Gemm, Add     the result, its ReLU included; a ReLU6 has an observer of its own, unless
                        it was fused as well
    pools, Flatten      the result
    Concat              the result

Nothing in the file says so: a count that differs, or a ReLU's range that goes below zero, means
that the network was traced otherwise, and nothing is placed.
"""

from collections.abc import Iterator, Mapping

import onnx

from resdeploy.export.checkpoint.weights.trained_ranges import TrainedRange

_PREFIX = "activation_post_process_"
_WITH_ACTIVATION = ("Conv", "Gemm", "MatMul", "Add")
_OBSERVED = ("MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Concat")


def numbered_ranges(model: onnx.ModelProto, ranges: Mapping[str, TrainedRange]) -> dict[str, str]:
    """{the range's key: the tensor it belongs to}; {} where the two do not go together."""
    numbers = {key: int(key.removeprefix(_PREFIX)) for key in ranges if _is_numbered(key)}
    for fused in (True, False):
        tensors = list(_observed(model.graph, clips_fused=fused))
        if numbers and sorted(numbers.values()) == list(range(len(tensors))):
            placed = {key: tensors[number][0] for key, number in numbers.items()}
            rectified = [key for key, number in numbers.items() if tensors[number][1]]
            if all(ranges[key].low.size == 1 and ranges[key].low >= 0 for key in rectified):
                return placed
    return {}


def _is_numbered(key: str) -> bool:
    return key.startswith(_PREFIX) and key.removeprefix(_PREFIX).isdecimal()


def _observed(graph: onnx.GraphProto, *, clips_fused: bool) -> Iterator[tuple[str, bool]]:
    """(tensor, whether it is the result of a ReLU), in the order of execution."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    activations = ("Relu", "Clip") if clips_fused else ("Relu",)
    yield graph.input[0].name, False
    for node in graph.node:
        result = node.output[0]
        following = readers.get(result, [])
        if node.op_type in _WITH_ACTIVATION:
            fused = len(following) == 1 and following[0].op_type in activations
            yield (following[0].output[0], True) if fused else (result, False)
        elif node.op_type in _OBSERVED:
            yield result, False
        elif node.op_type == "Clip" and not clips_fused:
            yield result, True
