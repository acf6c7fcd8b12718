"""Wrong labels and a manifest that contradicts its graphs are found without anyone being asked."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from resdeploy.deploy.compare import answers
from resdeploy.deploy.contract import labels_gate
from resdeploy.deploy.evaluation import Evaluation
from resdeploy.deploy.verification import verify

Weights = NDArray[np.float32]
WriteBundle = Callable[..., Path]


def _edit_manifest(bundle: Path, **changes: object) -> None:
    file = bundle / "manifest.json"
    fields = json.loads(file.read_text())
    fields.pop("sha256", None)  # what a person is told to do after an edit
    file.write_text(json.dumps({**fields, **changes}))


def test_labels_permuted_in_the_manifest_fail_twice_over(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    _edit_manifest(bundle, labels=["green", "red", "blue"])
    report = verify(bundle, data=colours)
    assert report.verdict == "fail"
    by_name = {gate.name: gate.sentence for gate in report.gates if gate.verdict == "fail"}
    assert "class 0 is 'green' there and 'red' in the graph" in by_name["contract"]
    assert "'green' is 'red', 'red' is 'green'" in by_name["labels"]
    assert "top-1 is 33.3 %, renamed it is 100.0 %" in by_name["labels"]


def test_labels_wrong_from_the_start_fail_by_their_answers(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity}, labels=("blue", "red", "green"))
    report = verify(bundle, data=colours)
    assert [gate.name for gate in report.gates if gate.verdict == "fail"] == ["labels"]


def test_another_preprocessing_in_the_manifest_fails(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    fields = json.loads((bundle / "manifest.json").read_text())["preprocess"]
    _edit_manifest(bundle, preprocess={**fields, "mean": [0.485, 0.456, 0.406]})
    report = verify(bundle, data=colours)
    (gate,) = (gate for gate in report.gates if gate.verdict == "fail")
    assert gate.name == "contract"
    assert "mean is (0.485, 0.456, 0.406) there and (0.5, 0.5, 0.5) in the graph" in gate.sentence


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_an_honest_network_is_never_accused(classes: int) -> None:
    # 60 % right, errors anywhere or with one favourite confusion, one to many pictures per class
    random = np.random.default_rng(classes)
    for images in (20, 300, 1000):
        for favourite in (False, True):
            truth = random.integers(0, classes, images)
            wrong = (truth + 1) % classes if favourite else random.integers(0, classes, images)
            got = np.where(random.random(images) < 0.6, truth, wrong)
            logits = np.eye(classes, dtype=np.float32)[got]
            evaluation = Evaluation(
                (), (), truth, {"fp32": answers(logits, truth)}, {}, "fp32", (), {}
            )
            assert labels_gate(evaluation, [str(k) for k in range(classes)]) is None
