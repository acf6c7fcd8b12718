"""Which tensors of a foreign graph are which, and every kind that is refused with its reason."""

from pathlib import Path

import onnx
import pytest

from resdeploy.deploy.errors import GraphError, InputError
from resdeploy.export.foreign.read import read_foreign
from tests.export.foreign.conftest import Draw

_NHWC = "[t] images = Transpose <perm = [0, 3, 1, 2]> (pixels)"


def test_the_logits_are_in_front_of_the_softmax(draw: Draw) -> None:
    found = read_foreign(draw())
    assert (found.input, found.logits, found.end, found.classes) == ("images", "z", "Softmax", 4)
    assert (found.layout, found.size_px, found.batch, found.opset) == ("NCHW", (16, 16), None, 17)


def test_channels_may_come_last_and_the_batch_may_be_fixed(draw: Draw) -> None:
    path = draw("float[2, 16, 16, 3] pixels", before=_NHWC, after="", answers="float[2, 4] z")
    found = read_foreign(path)
    assert (found.layout, found.batch, found.end, found.logits) == ("NHWC", 2, "", "z")


def test_an_open_size_is_the_users_or_the_usual_one(draw: Draw) -> None:
    path = draw("float[N, 3, H, W] images")
    assert read_foreign(path, size_px=(32, 48)).size_px == (32, 48)
    found = read_foreign(path)
    assert found.size_px == (224, 224) and found.assumed_size
    assert not read_foreign(draw()).assumed_size


def test_another_size_than_the_graphs_is_refused(draw: Draw) -> None:
    with pytest.raises(InputError, match=r"images of 16x16 pixels only, but 32x32 were asked for"):
        read_foreign(draw(), size_px=(32, 32))


def test_of_several_outputs_one_must_be_named(draw: Draw) -> None:
    path = draw(answers="float[N, 4] p, float[N, 6, 1, 1] g")
    with pytest.raises(InputError, match=r"2 outputs \(p, g\): say which .* --logits p"):
        read_foreign(path)
    assert read_foreign(path, logits="p").logits == "z"
    with pytest.raises(InputError, match=r"no output 'q' \(it has p, g\)"):
        read_foreign(path, logits="q")


@pytest.mark.parametrize(("image", "before", "message"), [
    ("float[N, 1, 16, 16] pixels", "[e] images = Expand (pixels, s)", "input pixels is"),
    ("uint8[N, 3, 16, 16] pixels", "[k] images = Cast <to = 1> (pixels)", "pixels is uint8"),
    ("float[N, 3, 16, 16] images, float[N] more", "", r"2 inputs \(images, more\)"),
])  # fmt: skip
def test_an_input_that_is_not_of_rgb_images_is_refused(
    draw: Draw, image: str, before: str, message: str
) -> None:
    if "Expand" in before:
        before = "[s] s = Constant <value = int64[4] {1, 3, 16, 16}> ()\n" + before
    with pytest.raises(InputError, match=message):
        read_foreign(draw(image, before=before))


def test_one_decision_for_each_class_is_not_a_choice_of_one(draw: Draw) -> None:
    with pytest.raises(InputError, match="output p comes from a sigmoid"):
        read_foreign(draw(after="[p] p = Sigmoid (z)"))


def test_an_answer_that_is_no_row_of_classes_is_refused(draw: Draw) -> None:
    with pytest.raises(InputError, match=r"output r1 has shape \(1, 6, 8, 8\) for 1 images"):
        read_foreign(draw(after="", answers="float[N, 6, 8, 8] r1"))


def test_a_quantized_graph_is_not_the_float_one(draw: Draw) -> None:
    after = (
        "[s] s = Constant <value = float {0.1}> ()\n[q] q = QuantizeLinear (z, s)\n"
        "[p] p = DequantizeLinear (q, s)"
    )
    with pytest.raises(GraphError, match=r"quantized already .*: adopt the float graph"):
        read_foreign(draw(after=after))


def test_one_runtimes_own_operators_are_refused(draw: Draw) -> None:
    path = draw(opset=17)
    model = onnx.load(path)
    model.opset_import.add(domain="com.microsoft", version=1)
    model.graph.node[2].op_type, model.graph.node[2].domain = "Gelu", "com.microsoft"
    onnx.save(model, path)
    with pytest.raises(GraphError, match=r"com\.microsoft\.Gelu is not standard ONNX"):
        read_foreign(path)


def test_half_precision_and_old_operator_sets_are_refused(draw: Draw) -> None:
    path = draw()
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    half = onnx.numpy_helper.to_array(weight).astype("float16")
    weight.CopyFrom(onnx.numpy_helper.from_array(half, "w1"))
    onnx.save(model, path)
    with pytest.raises(GraphError, match="w1 is float16, expected float32"):
        read_foreign(path)
    with pytest.raises(GraphError, match="operator set 10, expected 11 or newer"):
        read_foreign(draw(opset=10))


def test_weights_in_a_file_beside_the_graph_are_found(draw: Draw, tmp_path: Path) -> None:
    model = onnx.load(draw())
    path = tmp_path / "apart.onnx"
    onnx.save(model, path, save_as_external_data=True, location="apart.bin", size_threshold=0)
    assert read_foreign(path).classes == 4
    (tmp_path / "apart.bin").unlink()
    with pytest.raises(GraphError, match=r"without the file of its weights|cannot be read"):
        read_foreign(path)


def test_no_onnx_and_our_own_are_told_apart(tmp_path: Path, flower_bundle: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a graph")
    with pytest.raises(GraphError, match="not an ONNX file"):
        read_foreign(tmp_path / "text.onnx")
    with pytest.raises(GraphError, match="cannot be read: No such file"):
        read_foreign(tmp_path / "absent.onnx")
    with pytest.raises(InputError, match=r"written by resdeploy already: use it as it is"):
        read_foreign(flower_bundle / "fp32.onnx")
