"""What else a reader should know, in sentences that a person would say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.metrics.logits import answers
from resdeploy.deploy.verification.baseline import EarlierComparison
from resdeploy.deploy.verification.evaluation import Evaluation
from resdeploy.deploy.verification.judge import Answered
from resdeploy.deploy.verification.notes import notes_on_earlier, notes_on_images
from resdeploy.deploy.verification.verify import verify

WriteBundle = Callable[..., Path]


def test_unreadable_images_and_classes_without_images_are_said(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    manifest = read_bundle(write_bundle(tmp_path / "b", {"fp32": identity})).manifest
    truth = np.array([0, 0])
    found = {"fp32": answers(np.eye(3, dtype=np.float32)[[0, 0]], truth)}
    bad = ((Path("x.png"), "the file is empty"),)
    evaluation = Evaluation((), (), truth, found, {}, None, bad, {})
    assert notes_on_images(manifest, Answered(evaluation, None)) == [
        "there is no reference.npz, so no recorded logits were replayed",
        "1 image could not be read and took no part; the first is x.png: the file is empty",
        "2 of 3 classes have no images, so their accuracy is unknown: green, blue",
    ]
    assert notes_on_images(manifest, Answered(None, evaluation)) == []


def test_the_reference_is_not_said_to_be_not_run(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    weights = {"fp32": identity, "int8": identity, "int8-fp16": identity}
    bundle = write_bundle(tmp_path / "b", weights)
    said = "not run, only compared with the manifest's SHA-256: "
    (on_images,) = (n for n in verify(bundle, data=colours, precisions=["int8"]).notes if said in n)
    assert on_images == f"{said}int8-fp16.onnx"
    (recorded,) = (n for n in verify(bundle, precisions=["int8"]).notes if said in n)
    assert recorded == f"{said}fp32.onnx, int8-fp16.onnx"


def test_changes_since_the_baseline_are_counted() -> None:
    since = EarlierComparison(Path("ci/b.json"), 298, 1, 0, {}, ("int8",))
    assert notes_on_earlier(since) == [
        "b.json: compared on 298 images; new: 1, gone: 0",
        "b.json has no answers of int8",
    ]
    other = replace(since, remarks=("its classes lack cat",), missing=())
    assert notes_on_earlier(other) == ["b.json: compared on 298 images; its classes lack cat"]
    same = EarlierComparison(Path("ci/b.json"), 298, 0, 0, {}, ())
    assert notes_on_earlier(same) == []
