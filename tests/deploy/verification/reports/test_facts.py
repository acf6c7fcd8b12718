"""How a bundle was made, in words."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.verification.reports.facts import facts
from resdeploy.deploy.verification.verify import verify

WriteBundle = Callable[..., Path]


def test_proofs_and_calibration_are_sentences(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    report = verify(write_bundle(tmp_path / "b", {"fp32": identity}))
    manifest = replace(
        report.manifest,
        proofs={
            "batchnorm_fold": {"folded": 52, "left": 0},
            "parity": {"images": 367, "max_abs": 2.19e-05, "top1_agreement": 100.0},
            "promised": {"fp32": {}},
        },
        calibration={
            "images": 96, "held_back": 32, "method": "mse",
            "repairs": [{"rung": "pad", "accepted": True}, {"rung": "x", "accepted": False}],
        },
        tools={"torch": "2.14.1"},
    )  # fmt: skip
    found = dict(facts(replace(report, manifest=manifest)))
    assert found["network"] == "tiny, 12 parameters, 3 classes"
    assert found["batch norm"] == "52 folded into convolutions, 0 left"
    assert found["fp32 at export"] == (
        "logits at most 2.19e-05 from PyTorch's, 100 % the same answers"
    )
    assert found["INT8"] == (
        "ranges from 96 images, judged on 32 others, method mse, "
        "repaired by centring what padded layers read"
    )
    assert found["preprocessing"].startswith("half: resize to 8×8, mean 0.5, 0.5, 0.5")
    assert found["exported with"] == "torch 2.14.1"
    assert not any("{" in text for text in found.values())
