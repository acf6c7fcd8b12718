"""Wrong labels and a manifest that contradicts its graphs are found without anyone being asked."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.files import sealed, sha256_file
from resdeploy.deploy.metrics.logits import answers
from resdeploy.deploy.verification.checks.consistency import labels_gate
from resdeploy.deploy.verification.evaluation import Evaluation
from resdeploy.deploy.verification.verify import verify

WriteBundle = Callable[..., Path]


def _edit_manifest(bundle: Path, **changes: object) -> None:
    file = bundle / "manifest.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(sealed({**fields, **changes})))


def test_labels_permuted_in_the_manifest_fail_twice_over(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    _edit_manifest(bundle, labels=["green", "red", "blue"])
    report = verify(bundle, data=colours)
    assert report.verdict == "fail"
    by_name = {gate.name: gate.sentence for gate in report.gates if gate.verdict == "fail"}
    assert "class 0 is 'green' in the manifest and 'red' in the graph" in by_name["consistency"]
    assert "'green' is 'red', 'red' is 'green'" in by_name["labels"]
    assert "top-1 is 33.3 %, with the labels renamed 100.0 %" in by_name["labels"]


def test_labels_wrong_from_the_start_fail_by_their_answers(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity}, labels=("blue", "red", "green"))
    report = verify(bundle, data=colours)
    assert [gate.name for gate in report.gates if gate.verdict == "fail"] == ["labels"]


def test_another_preprocessing_in_the_manifest_fails(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    fields = json.loads((bundle / "manifest.json").read_text())["preprocess"]
    _edit_manifest(bundle, preprocess={**fields, "mean": [0.485, 0.456, 0.406]})
    report = verify(bundle, data=colours)
    (gate,) = (gate for gate in report.gates if gate.verdict == "fail")
    assert gate.name == "consistency"
    assert (
        "mean is [0.485, 0.456, 0.406] in the manifest and [0.5, 0.5, 0.5] in the graph"
        in gate.sentence
    )


def test_other_settings_in_the_manifest_fail(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    file = bundle / "fp32.onnx"
    model = onnx.load(file)
    onnx.helper.set_model_props(
        model,
        {**{p.key: p.value for p in model.metadata_props}, "settings": '{"stride": "3x3"}'},
    )
    onnx.save(model, file)
    fields = json.loads((bundle / "manifest.json").read_text())
    fields["variants"]["fp32"]["sha256"] = sha256_file(file)
    fields["variants"]["fp32"]["bytes"] = file.stat().st_size
    fields["model"]["settings"] = {"stride": "1x1"}
    _edit_manifest(bundle, variants=fields["variants"], model=fields["model"])
    (gate,) = (gate for gate in verify(bundle, data=colours).gates if gate.verdict == "fail")
    assert gate.name == "consistency"
    assert "stride is 1x1 in the manifest and 3x3 in the graph" in gate.sentence


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_an_honest_network_is_never_accused(classes: int) -> None:
    # 60 % right, errors anywhere or with one favourite confusion, one to many images per class
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


@pytest.mark.parametrize("strict", [True, False])
def test_what_quantize_refused_and_was_forced_to_write_is_undecided_however_good(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path, strict: bool
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity, "int8": identity})
    reason = "SQNR 12.1 dB, at least 20 are asked for"
    _edit_manifest(bundle, calibration={"images": 8, "refused": {"int8": reason}})
    report = verify(bundle, data=colours, strict=strict)
    verdicts = {
        g.name: g.verdict for g in report.gates if (g.variant, g.verdict) != ("int8", "pass")
    }
    assert verdicts["refused"] == report.verdict == ("fail" if strict else "inconclusive")
    assert any(
        gate.sentence.startswith(f"quantize refused it, and --force wrote it: {reason}")
        for gate in report.gates
    )
    assert "int8 was refused by quantize and written with --force" in report.reason
    assert [v.verdict for v in report.variants] == ["pass", report.verdict]


@pytest.mark.parametrize("far", [True, False])
def test_statistics_far_from_those_of_the_training_fail(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path, far: bool
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    found = {"images": 32, "score": 0.4, "interval": [0.35, 0.45], "far": far}
    _edit_manifest(bundle, proofs={"batchnorm_statistics": found})
    report = verify(bundle, data=colours)
    failed = [gate for gate in report.gates if gate.verdict == "fail"]
    assert [gate.name for gate in failed] == (["batchnorm-statistics"] if far else [])
    assert report.verdict == ("fail" if far else report.verdict)
    assert all(gate.value == 0.4 and "0.4 nats per channel" in gate.sentence for gate in failed)
