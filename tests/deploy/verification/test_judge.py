"""Figures and gates of every variant, from answers that are already there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.images.dataset import read_data
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.checks.limits import Limits
from resdeploy.deploy.verification.evaluation import evaluate, replay
from resdeploy.deploy.verification.judge import Answered, judge_variants
from tests.fakes import FakeSession, channel_means

WriteBundle = Callable[..., Path]


def _broken(batch: Float32s) -> Float32s:
    return channel_means(batch)[:, ::-1]


def test_images_and_recorded_inputs_each_have_their_gates(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    model = open_model(write_bundle(tmp_path / "b", {"fp32": identity, "int8": identity}))
    candidates = [
        Candidate("fp32", "fp32", "fp32", "ort-cpu", FakeSession()),
        Candidate("int8", "int8", "int8", "ort-cpu", FakeSession(_broken, variant="int8")),
    ]
    sessions = {candidate.name: candidate.session for candidate in candidates}
    inputs = np.random.default_rng(0).random((8, 3, 8, 8), np.float32)
    images = read_data(colours, model.manifest.labels)
    answered = Answered(
        evaluate(images, model.manifest.preprocess, sessions, reference="fp32"),
        replay(Reference(inputs, channel_means(inputs)), sessions),
    )
    judged = judge_variants(model, candidates, answered, Limits(), seed=0)
    assert [(v.name, v.verdict) for v in judged.variants] == [("fp32", "pass"), ("int8", "fail")]
    assert [(g.variant, g.name, g.verdict) for g in judged.gates] == [
        ("fp32", "logits", "pass"),
        ("int8", "logits", "fail"),
        ("int8", "max-drop", "fail"),
        ("int8", "max-class-drop", "fail"),
        ("int8", "calibration", "pass"),  # always wrong, but no surer of it than before
    ]
    float_row, int8_row = judged.variants
    assert float_row.is_reference and float_row.compared_with is None
    assert (int8_row.compared_with, int8_row.is_reference) == ("fp32.onnx", False)
    only = judge_variants(model, candidates, Answered(None, answered.replayed), Limits(), seed=0)
    assert [v.on_images for v in only.variants] == [None, None]
    assert [g.name for g in only.gates] == ["logits", "logits"]
