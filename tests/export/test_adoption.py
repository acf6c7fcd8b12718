"""A classifier that another tool exported becomes a bundle on which every other step works."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from resdeploy.calibration import quantize
from resdeploy.deploy import load, verify
from resdeploy.deploy.benchmark.bench import bench
from resdeploy.deploy.bundle.bundle import REFERENCE, is_adopted, original_name, read_bundle
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.bundle.reference import read_reference
from resdeploy.deploy.engine.build import build_engine
from resdeploy.deploy.engine.flavor import is_installed
from resdeploy.deploy.engine.request import BuildOptions
from resdeploy.deploy.engine.store import describe_engine
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.serving.batching import BatchRules
from resdeploy.deploy.serving.served_model import ServedModel, Source, check_answers
from resdeploy.export.adoption import AdoptOptions, adopt
from resdeploy.export.graph.onnx_file import load_graph, operators
from resdeploy.export.proof.live import open_checkpoint
from resdeploy.export.report import ExportReport
from tests.builders import add_variant
from tests.export.foreign.conftest import Draw, by_hand, draw

__all__ = ["draw"]

_RESCALED = """[t] planes = Transpose <perm = [0, 3, 1, 2]> (pixels)
[h] half = Constant <value = float {2.0}> ()
[o] one = Constant <value = float {1.0}> ()
[m] twice = Mul (planes, half)
[u] images = Sub (twice, one)"""


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    file = tmp_path / "labels.txt"
    file.write_text("ant\nbee\ncat\ndog\n")
    return file


def adopted(path: Path, labels: Path, **options: Any) -> ExportReport:
    chosen = AdoptOptions(output=path.with_suffix(".bundle"), classes=labels, preprocess="half")
    return adopt(path, AdoptOptions(**{**vars(chosen), **options}))


@pytest.mark.slow
def test_the_bundle_answers_as_the_file_did_and_says_whose_answers_they_are(
    draw: Draw, labels: Path
) -> None:
    report = adopted(draw(), labels)
    manifest = read_bundle(report.bundle).manifest
    assert manifest.labels == ("ant", "bee", "cat", "dog") and set(manifest.variants) == {
        "fp32", "fp16",
    }  # fmt: skip
    assert manifest.variants["fp32"].made_from == "graph"
    assert manifest.proofs["batchnorm_fold"]["folded"] == 1
    assert manifest.proofs["parity"]["max_abs"] < 1e-5
    assert manifest.proofs["adoption"]["taken_off"] == "Softmax"
    assert is_adopted(manifest) and original_name(manifest) == "the adopted graph"
    assert "its own answers are the reference" in manifest.assumptions[0]
    reference = read_reference(report.bundle / REFERENCE)
    np.testing.assert_allclose(reference.logits, by_hand(reference.inputs), rtol=0, atol=1e-5)
    assert set(operators(load_graph(report.bundle / "fp32.onnx"))) == {
        "Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm",
    }  # fmt: skip


def test_a_graph_that_scales_its_own_pixels_leaves_that_to_the_preprocessing(
    draw: Draw, labels: Path
) -> None:
    path = draw("float[N, 16, 16, 3] pixels", before=_RESCALED)
    report = adopted(path, labels)
    # half makes p' = (p - 0.5) / 0.5, the graph 2 p' - 1: together (p - 0.75) / 0.25
    assert report.manifest.preprocess.mean == pytest.approx((0.75,) * 3)
    assert report.manifest.preprocess.std == pytest.approx((0.25,) * 3)
    reference = read_reference(report.bundle / REFERENCE)
    np.testing.assert_allclose(reference.logits, by_hand(reference.inputs), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_quantize_verify_and_predict_work_on_it(
    draw: Draw, labels: Path, image_folder: Path
) -> None:
    path = draw("float[1, 3, 16, 16] images", after="[p] p = Softmax <axis = 1> (z)", opset=11)
    report = adopted(path, labels, data=image_folder)
    quantized = quantize(report.bundle, image_folder, images=16)
    assert {"int8", "int8-cpu"} <= set(quantized.manifest.variants)
    verified = verify(report.bundle, data=image_folder)
    assert verified.verdict == "pass"
    assert "the adopted graph's logits for the 24 inputs recorded" in verified.reference
    assert "PyTorch" not in json.dumps(verified.to_json())
    with load(report.bundle, precision="int8") as classifier:
        first = classifier.predict(next(iter(sorted(image_folder.iterdir()))))[0]
    assert first.label in ("ant", "bee", "cat", "dog")


@pytest.mark.slow
def test_bench_and_serve_work_on_it(draw: Draw, labels: Path) -> None:
    report = adopted(draw(), labels)
    timed = bench(report.bundle, precisions=["fp16"], batches=[1], seconds=0.02, threads=1)
    assert [(found.variant, found.batch) for found in timed.results] == [("fp16", 1)]

    reference = read_reference(report.bundle / REFERENCE)
    source = Source("net", report.bundle, None, "auto")
    rules = BatchRules(max_wait_s=0)
    served = ServedModel(source, "1", report.bundle, rules=rules, observe=lambda _, __: None)
    try:  # opening has compared the answers with those of the file that was adopted
        answers = served.batcher.submit(reference.inputs[:2]).result(timeout=60)
    finally:
        served.close()
    np.testing.assert_allclose(answers.logits, by_hand(reference.inputs[:2]), rtol=0, atol=1e-5)


def test_other_weights_than_those_adopted_are_not_served(draw: Draw, labels: Path) -> None:
    bundle = adopted(draw(), labels).bundle
    graph = onnx.load(bundle / "fp32.onnx")
    for tensor in graph.graph.initializer:
        if tensor.dims:
            values = -onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    add_variant(bundle, "fp32", graph)
    with load(bundle) as classifier, pytest.raises(BundleError, match="other answers than rec"):
        check_answers(classifier, bundle)


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("tensorrt-rtx"), reason="needs tensorrt-rtx")
def test_an_engine_is_built_of_it(draw: Draw, labels: Path) -> None:
    report = adopted(draw(), labels)
    options = BuildOptions(compute_capabilities=("8.6",))
    engine = build_engine(
        report.bundle, precision="fp32", flavor="tensorrt-rtx", options=options
    ).path
    assert describe_engine(engine)["state"] == "intact"
    assert open_model(engine).manifest.labels == ("ant", "bee", "cat", "dog")


def test_labelled_images_choose_the_preprocessing_and_count_the_accuracy(
    draw: Draw, labels: Path, image_folder: Path, tmp_path: Path
) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "val" / name).mkdir(parents=True)
        for image in sorted(image_folder.iterdir())[:4]:
            (tmp_path / "val" / name / image.name).write_bytes(image.read_bytes())
    report = adopted(draw(), labels, data=tmp_path / "val", preprocess=None)
    assert set(report.accuracy) == {"original", "fp32", "fp16"}
    assert any("top-1 on 8 of your labelled images" in text for text in report.manifest.assumptions)


def test_no_checkpoint_can_be_compared_with_it(draw: Draw, labels: Path) -> None:
    manifest = adopted(draw(), labels).manifest
    with pytest.raises(InputError, match=r"adopted from an ONNX graph.*leave --checkpoint out"):
        open_checkpoint(Path("any.pth"), manifest)


def test_a_square_preprocessing_does_not_fit_an_oblong_input(draw: Draw, labels: Path) -> None:
    path = draw("float[N, 3, 16, 24] images")
    with pytest.raises(InputError, match=r"images of 24x16 pixels, but 'half' makes square ones"):
        adopted(path, labels)
    own = labels.with_name("own.json")
    own.write_text(json.dumps({"resize_px": [16, 24], "mean": [0, 0, 0], "std": [1, 1, 1]}))
    assert adopted(path, labels, preprocess=str(own)).manifest.input.shape[2:] == (16, 24)


def test_what_is_assumed_is_said(draw: Draw) -> None:
    path = draw("float[1, 3, H, W] images")
    report = adopt(path, AdoptOptions(output=path.with_suffix(".bundle"), input_size_px=None))
    said = "\n".join(report.manifest.assumptions)
    for words in ("takes batches of 1 only", "input size is 224x224", "preprocessing is 'imagenet'",
                  "class names are not known"):  # fmt: skip
        assert words in said
