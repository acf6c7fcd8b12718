"""Layer tables in the three shapes that TensorRT has logged them in."""

from resdeploy.deploy.engine.layer_table import LayerCounts, is_layer_table, read_layer_table

RTX = """Layers:
Name: __mye1057_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], \
TacticName: , StreamId: 0, Metadata: 
Name: __myl_Cast_myl0_1, LayerType: kgen, Inputs: [ { Name: input, Dimensions: [-1,3,224,224], \
Datatype: Float, Format: (Linear) Row major }], Constants: [], Outputs: [ { Name: y, Dimensions: \
[-1,3,224,224], Datatype: Half, Format: (NHWC) }], TacticName: a, StreamId: 0, Metadata: 
Name: conv1_myl0_2, LayerType: correlation, Inputs: [ { Name: y, Dimensions: [-1,3,224,224], \
Strides: [1,2,3,4], Datatype: Int8, Format: (NHWC) Channel major }], Constants: [ { Name: c, \
Datatype: Float, Format: x }], Outputs: [ { Name: z, Datatype: Float, Format: x }], TacticName: t, \
StreamId: 0, Metadata: [ONNX Layer: conv1][ONNX Layer: conv1.relu]
Name: __myl_FcAddRelu_myl0_14, LayerType: runtime_fusion, Inputs: [ { Name: z, Dimensions: [-1,8], \
Datatype: Half, Format: x }], Constants: [], Outputs: [], TacticName: t, StreamId: 0, Metadata: \
[ONNX Layer: layer2.0.conv1]__gemm_from_conv1x1

I/O Tensors:
 Name: input, IOMode: Input, DataType: Float, Dimensions: [-1,3,224,224]
"""

DETAILED = """Engine Layer Information:
Layers:
Name: Reformatting CopyNode for Input Tensor 0 to conv1, LayerType: Reformat, Inputs: [ { Name: \
input, Location: Device, Dimensions: [1,3,224,224], Format/Datatype: Row major linear FP32 }], \
Outputs: [ { Name: r, Location: Device, Dimensions: [1,3,224,224], Format/Datatype: Channel major \
FP16 format where channel % 4 == 0 }], ParameterType: Reformat, TacticValue: 0x0
Name: conv1 + relu, LayerType: CaskConvolution, Inputs: [ { Name: r, Location: Device, Dimensions: \
[1,3,224,224], Format/Datatype: Thirty-two wide channel vectorized row major Int8 format }], \
Outputs: [ { Name: s, Format/Datatype: Channel major FP16 format }], ParameterType: Convolution, \
Kernel: [7,7], Metadata: [ONNX Layer: conv1]
Name: fc, LayerType: gemm, Inputs: [ { Name: s, Location: Device, Dimensions: [1,512], \
Format/Datatype: Channel major FP16 format where channel % 8 == 0 }], Outputs: []
"""

NAMES_ONLY = """Engine Layer Information:
Layer(Reformat): Reformatting CopyNode for Input Tensor 0 to Conv_0, Tactic: 0x00000000000003e8, \
input_0[Float(128,3,224,224)] -> Reformatted Input Tensor 0 to Conv_0[Int8(128,3,224,224)]
Layer(CaskConvolution): Conv_0, Tactic: 0x4727434768e46395, Reformatted Input Tensor 0 to \
Conv_0[Int8(128,3,224,224)] -> 191[Half(128,96,56,56)]
Layer(Constant): bias + (Unnamed Layer* 1) [Shuffle], Tactic: 0x0,  -> out[Half(1,1,256)]
Layer(FusedConvActConvolution): Conv_1, Tactic: 0x6f, 191[Half(128,96,56,56)] -> 1[Half(1,2)]
"""


def test_rtx() -> None:
    layers = read_layer_table(RTX)
    assert [layer.type for layer in layers] == ["other", "float", "int8", "half"]
    assert [layer.is_convolution for layer in layers] == [False, False, True, True]
    assert layers[2].nodes == ("conv1", "conv1.relu")
    assert LayerCounts.of(layers) == LayerCounts(total=4, int8=1, half=1, float=1)


def test_detailed() -> None:
    layers = read_layer_table(DETAILED)
    assert [layer.type for layer in layers] == ["float", "int8", "half"]
    assert [layer.is_convolution for layer in layers] == [False, True, False]


def test_names_only() -> None:
    layers = read_layer_table(NAMES_ONLY)
    assert [layer.kind for layer in layers] == [
        "Reformat",
        "CaskConvolution",
        "Constant",
        "FusedConvActConvolution",
    ]
    assert [layer.type for layer in layers] == ["float", "int8", "half", "half"]
    assert [layer.is_convolution for layer in layers] == [False, True, False, True]


def test_other_messages_are_no_table() -> None:
    assert is_layer_table(RTX) and is_layer_table(DETAILED) and is_layer_table(NAMES_ONLY)
    assert not is_layer_table("Layer(CaskConvolution): skipped tactic")
    assert read_layer_table("Layers:\nsomething else\n") == ()
