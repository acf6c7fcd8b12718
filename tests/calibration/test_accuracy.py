"""INT8 graphs against float32: figures that follow from a known change of the weights."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from resdeploy.calibration.accuracy import (
    confidence_on_calibration,
    measure_graphs,
    promised_figures,
)
from resdeploy.calibration.job import Job
from resdeploy.calibration.observe.gather import Observations
from resdeploy.calibration.repair.recipes import Measurements
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.specs import Variant


@pytest.fixture
def held(job: Job) -> Reference:
    """The images that judge, and float32's logits."""
    preprocess = job.bundle.manifest.preprocess
    inputs = np.stack([read_input(path, preprocess) for path in job.held.paths])
    with OrtSession(job.graph) as session:
        return Reference(inputs, session.run(inputs))


def _louder(job: Job, gain: float) -> onnx.ModelProto:
    """The float graph with logits `gain` times as large: the same answers, a known SQNR."""
    model = onnx.load(job.graph)
    for tensor in model.graph.initializer:
        if tensor.name in ("w3", "b3"):
            values = np.float32(gain) * numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def test_without_data_the_images_held_back_judge(job: Job, held: Reference) -> None:
    found = measure_graphs(job, {"int8": _louder(job, 1.1), "int8-cpu": _louder(job, 1)}, held)
    louder, same = found.accuracy["int8"], found.accuracy["int8-cpu"]
    assert louder.images == same.images == 12 and louder.truthful is None
    assert louder.agreement == same.agreement == 100
    assert louder.numbers is not None and same.numbers is not None
    assert louder.numbers.sqnr_db == pytest.approx(20, abs=0.1)
    assert same.numbers.sqnr_db > 100
    assert set(found.ms_per_image) == {"fp32", "int8", "int8-cpu"}
    assert all(value >= 0 for value in found.ms_per_image.values())


def test_a_float_graph_that_computes_something_else_does_not_stand_for_one_in_half(
    job: Job, held: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = "resdeploy.calibration.accuracy.half_in_float"
    monkeypatch.setattr(target, lambda graph: _louder(job, 2))
    found = measure_graphs(job, {"int8-fp16": _louder(job, 1)}, held).accuracy["int8-fp16"]
    assert found.numbers is not None and found.numbers.sqnr_db > 100


def _percent(logits: Float32s) -> Float32s:
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(100 * (chances / chances.sum(axis=1, keepdims=True)).max(axis=1))


def test_the_confidence_is_that_of_float_on_images_in_memory(job: Job, held: Reference) -> None:
    measurements = Measurements(
        observed=Observations(onnx.load(job.graph), 0, {}, {}, {}, {}),
        observe_equalized=lambda: measurements.observed,
        held=[held.inputs[:8]],
        expected=held.logits[:8],
        fitting=[held.inputs[8:]],
        threads=1,
    )
    for calibrate, seen in ((job.held, 8), (replace(job.held, paths=job.held.paths[8:]), 12)):
        found = confidence_on_calibration(replace(job, calibrate=calibrate), measurements)
        percent = _percent(held.logits[:seen])
        assert found is not None and found["images"] == seen
        assert found["mean"] == pytest.approx(percent.mean(), abs=0.01)
        assert found["deviation"] == pytest.approx(percent.std(ddof=1), abs=0.01)


def test_labelled_data_count(job: Job, held: Reference) -> None:
    truth = np.zeros(5, np.int64)
    labelled = replace(job, data=Images(job.held.paths[:5], truth))
    found = measure_graphs(labelled, {"int8": _louder(job, 1.1)}, held).accuracy["int8"]
    assert found.images == 5 and found.counts is not None
    assert found.counts.drop == 0 and found.truthful is not None


def test_what_is_promised_names_the_images_it_was_measured_on(job: Job, held: Reference) -> None:
    graphs: dict[Variant, onnx.ModelProto] = {"int8": _louder(job, 1.1)}
    accuracy = measure_graphs(job, graphs, held).accuracy
    promised = promised_figures(job, graphs, accuracy)["int8"]
    assert promised["images"]["of"] == "12 calibration images"  # so few that none are held back
    assert promised["images"]["sqnr_db"] == pytest.approx(20, abs=0.1)
    assert promised["recorded"] is None  # this bundle has no reference.npz
    fewer = replace(job, calibrate=replace(job.held, paths=job.held.paths[:4]))
    of = promised_figures(fewer, graphs, accuracy)["int8"]["images"]["of"]
    assert of == "12 images held back from calibration until its recipe was chosen"


def test_files_that_were_refitted_are_measured_on_the_recorded_inputs_themselves(
    job: Job, held: Reference
) -> None:
    graphs: dict[Variant, onnx.ModelProto] = {"int8": _louder(job, 1.1)}
    before = measure_graphs(job, graphs, held).accuracy
    fewer = replace(job, calibrate=replace(job.held, paths=job.held.paths[:4]))
    after: dict[Variant, onnx.ModelProto] = {"int8": _louder(job, 1.01)}
    promised = promised_figures(fewer, after, before, held)["int8"]
    assert promised["images"]["sqnr_db"] == pytest.approx(20, abs=0.1)
    assert promised["recorded"]["sqnr_db"] == pytest.approx(40, abs=0.1)


def test_on_recorded_inputs_that_are_the_images_held_back_nothing_is_run_again(
    job: Job, held: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: dict[Variant, onnx.ModelProto] = {"int8": _louder(job, 1.1)}
    accuracy = measure_graphs(job, graphs, held).accuracy
    again = promised_figures(job, graphs, accuracy, Reference(held.inputs[:6], held.logits[:6]))
    assert again["int8"]["recorded"]["count"] == 6
    monkeypatch.delattr("resdeploy.calibration.accuracy.OrtSession")
    same = promised_figures(job, graphs, accuracy, held)["int8"]
    assert same["recorded"] == {**same["images"], "of": "the recorded inputs"}
