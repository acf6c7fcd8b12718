"""Broken graphs given to a real TensorRT-RTX: the error says what to do."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from resdeploy.deploy.engine.error_hints import explain, hint_for, without_noise
from resdeploy.deploy.engine.flavor import is_installed
from resdeploy.deploy.engine.request import BuildOptions, BuildRequest
from resdeploy.deploy.engine.worker import build
from resdeploy.deploy.errors import EngineError
from resdeploy.deploy.specs import BatchRange, Precision

needs_rtx = pytest.mark.skipif(not is_installed("tensorrt-rtx"), reason="needs tensorrt-rtx")

_HEAD = '<ir_version: 9, opset_import: ["" : {opset}{domains}]>\ng (float[batch,3,8,8] input) => '


def _quantized(
    zero_type: str = "int8", zero: int = 0, scale: float = 0.1, weight: str = "int8", bias: str = ""
) -> onnx.ModelProto:
    """x → Q → DQ → Conv(DQ(w), …), with one thing wrong as the caller likes."""
    conv_bias, more = "", ""
    if bias == "int32":
        conv_bias = ", b"
        more = "b = DequantizeLinear <axis = 0> (b_q, b_scale, b_zero)\n"
    text = f"""{_HEAD.format(opset=21, domains="")} (float[batch,4,8,8] logits)
    {{
        q = QuantizeLinear (input, s, z)
        x = DequantizeLinear (q, s, z)
        w = DequantizeLinear <axis = 0> (w_q, w_scale, w_zero)
        {more}
        logits = Conv (x, w{conv_bias})
    }}"""
    model = onnx.parser.parse_model(text)
    arrays = {
        "s": np.array(scale, np.float32),
        "z": np.array(zero, zero_type),
        "w_q": np.ones((4, 3, 1, 1), weight),
        "w_scale": np.full(4, 0.1, np.float32),
        "w_zero": np.zeros(4, weight),
        "b_q": np.ones(4, np.int32),
        "b_scale": np.full(4, 0.01, np.float32),
        "b_zero": np.zeros(4, np.int32),
    }
    used = {name for node in model.graph.node for name in node.input}
    for name, array in arrays.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def _mixed() -> onnx.ModelProto:
    # 10 is ONNX's number of float16
    model = onnx.parser.parse_model(
        _HEAD.format(opset=17, domains="")
        + "(float[batch,3,8,8] logits) { h = Cast <to = 10> (input)\n logits = Add (input, h) }"
    )
    return model


def _unknown_operator() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        _HEAD.format(opset=17, domains=', "mine" : 1')
        + "(float[batch,3,8,8] logits) { logits = mine.Sparkle (input) }"
    )


def _other_input() -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        _HEAD.format(opset=17, domains="") + "(float[batch,3,8,8] logits) { logits = Relu (input) }"
    )
    model.graph.input[0].name = model.graph.node[0].input[0] = "images"
    return model


BROKEN = {
    "int32 bias": (_quantized(bias="int32"), "TensorRT wants float biases"),
    "asymmetric": (_quantized(zero=3), "with zero points 0"),
    "uint8 activations": (_quantized(zero_type="uint8", zero=128), "not uint8|zero points 0"),
    "uint8 weights": (_quantized(weight="uint8"), "not uint8|zero points 0"),
    "scale 0": (_quantized(scale=0.0), "a quantization scale is 0"),
    "16 bits": (_quantized(zero_type="int16"), "16-bit quantization is one"),
    "mixed types": (_mixed(), "mixes float and half without a Cast"),
    "unknown operator": (_unknown_operator(), "an operator that this TensorRT does not know"),
    "another input": (_other_input(), "the batch range does not fit the graph's input"),
}


def _build(graph: Path, precision: Precision = "int8", architecture: str = "8.6") -> None:
    request = BuildRequest(
        graph=str(graph),
        plan=str(graph.with_suffix(".plan")),
        flavor="tensorrt-rtx",
        precision=precision,
        typing="strong",
        input_name="input",
        input_sizes=(3, 8, 8),
        options=BuildOptions(BatchRange(1, 2, 4), (architecture,)),
    )
    build(request, lambda event: None)


@needs_rtx
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_graph_gets_its_hint(name: str, tmp_path: Path) -> None:
    model, hint = BROKEN[name]
    onnx.save(model, tmp_path / "broken.onnx")
    with pytest.raises(EngineError, match=hint) as caught:
        _build(tmp_path / "broken.onnx")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'broken.onnx'}: TensorRT-RTX ")
    assert "\n" not in text and not text.endswith(".") and "cudaError" not in text


@needs_rtx
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, this is a text file\n", "no ONNX graph in it|truncated, or is not an ONNX file"),
        (b"", "no ONNX graph in it"),
        (None, "truncated, or is not an ONNX file"),
    ],
)
def test_what_is_no_graph_is_said_to_be_none(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is None:
        whole = _quantized().SerializeToString()
        content = whole[: len(whole) // 2]
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(EngineError, match=message):
        _build(tmp_path / "broken.onnx")


@needs_rtx
def test_the_unbroken_graph_builds(tmp_path: Path) -> None:
    """So that the tests above fail for the reason they name."""
    onnx.save(_quantized(), tmp_path / "good.onnx")
    _build(tmp_path / "good.onnx")
    assert (tmp_path / "good.plan").stat().st_size > 1000


@needs_rtx
def test_float32_products_are_not_for_turing(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        _HEAD.format(opset=17, domains="")
        + "(float[batch,5] logits) { flat = Flatten (input)\n logits = Gemm (flat, w) }"
    )
    weights = np.ones((192, 5), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    onnx.save(model, tmp_path / "g.onnx")
    with pytest.raises(EngineError, match="use --precision fp16"):
        _build(tmp_path / "g.onnx", "fp32", "7.5")


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Tactic Device request: 4229MB. Device memory is insufficient to use tactic", "memory"),
        ("NvMapMemAllocInternalTagged: 1075072515 error 12", "there was not enough memory"),
        ("Could not find any implementation for node conv1", "there was not enough memory"),
        ("CUDA initialization failure with error: 35", "driver is missing or too old"),
        ("Target GPU SM 70 is not supported by this TensorRT release", "no kernels for this GPU"),
        ("libnvinfer_lean.so.1: cannot open shared object file", "needs the lean runtime"),
        ("No importer registered for op: Sparkle", "an operator that this TensorRT"),
        ("Unsupported ONNX opset version: 26", "export with --opset 17"),
    ],
)
def test_errors_of_other_versions_have_hints_too(said: str, hint: str) -> None:
    assert hint in (hint_for(said) or "")


def test_noise_is_dropped_only_where_it_is_noise() -> None:
    noise = "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35)"
    assert without_noise([noise, "real", "real"], has_gpu=False) == ["real"]
    assert without_noise([noise], has_gpu=True) == [noise]
    assert explain([noise], has_gpu=False) == "it gave no reason"
    assert "driver is missing or too old" in explain([noise], has_gpu=True)
    assert explain(["IBuilder::x: Error Code 4: API Usage Error (odd thing."], has_gpu=True)
