"""What variants are compared with: live PyTorch, else fp32.onnx, else the recorded logits."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import NEW_REFERENCE, read_bundle, write_manifest
from resdeploy.deploy.bundle.model import open_model, recorded_reference
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.verification.comparison_target import (
    ComparisonTarget,
    LiveCheckpoint,
    find_target,
    recorded_logits,
    recorder,
    reference_name,
)
from resdeploy.deploy.verification.reports.report import row
from resdeploy.deploy.verification.verify import verify
from tests.fakes import FakeSession, channel_means

WriteBundle = Callable[..., Path]


def test_a_live_checkpoint_goes_first_and_answers_the_recorded_inputs_anew(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    model = open_model(write_bundle(tmp_path / "b", {"fp32": identity}))
    live = FakeSession(lambda batch: channel_means(batch) + 1)
    checkpoint = LiveCheckpoint(live, "colours.pth in PyTorch", "not the one exported")
    with ExitStack() as stack:
        target = find_target(model, [], lambda manifest: checkpoint, stack, needed=True)
        assert (target.session, target.sentence) == (live, "colours.pth in PyTorch")
        assert target.notes == ("not the one exported",)
        anew, recorded = recorded_logits(model, target), recorded_reference(model)
        assert anew is not None and recorded is not None
        np.testing.assert_allclose(anew.logits, recorded.logits + 1, atol=1e-5)
    assert live.closed


def test_else_the_float_graph_or_the_recorded_logits(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    model = open_model(write_bundle(tmp_path / "b", {"fp32": identity}))
    with ExitStack() as stack:
        on_images = find_target(model, [], None, stack, needed=True)
        assert on_images.session is not None and "fp32.onnx on ort-cpu" in on_images.sentence
        alone = find_target(model, [], None, stack, needed=False)
        assert alone.session is None
        assert alone.sentence == "the logits recorded in reference.npz"


def test_pytorch_is_named_only_where_its_logits_were_used_and_with_their_number() -> None:
    graph = ComparisonTarget("fp32", FakeSession(), "fp32.onnx on ort-cpu")
    assert graph.named_on(367, None, "PyTorch's") == "fp32.onnx on ort-cpu on 367 images"
    assert graph.named_on(367, 32, "PyTorch's") == (
        "fp32.onnx on ort-cpu on 367 images and PyTorch's logits for the 32 inputs recorded in "
        "reference.npz"
    )
    live = ComparisonTarget("PyTorch", FakeSession(), "a.pth in PyTorch")
    assert live.named_on(367, 32, "PyTorch's") == "a.pth in PyTorch on 367 images"
    old = ["v1.bundle on 366 images"]
    assert graph.named_on(367, 32, "PyTorch's", others=old) == (
        "fp32.onnx on ort-cpu on 367 images, v1.bundle on 366 images and PyTorch's logits for the "
        "32 inputs recorded in reference.npz"
    )
    # fp32 alone is compared with the other release, not with itself
    assert graph.named_on(None, None, "PyTorch's", others=old) == "v1.bundle on 366 images"
    assert graph.named_on(None, None, "PyTorch's") == "nothing"
    assert (reference_name("PyTorch"), reference_name("reference")) == ("PyTorch", "fp32.onnx")


def test_a_lone_graph_is_held_to_what_its_bundle_says_was_recorded(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    """quantize records anew: then it is fp32.onnx's own logits, not PyTorch's."""
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    alone, nothing = open_model(bundle / "fp32.onnx"), ComparisonTarget(None, None, "nothing")
    assert recorder(alone, nothing) == "PyTorch"
    manifest = read_bundle(bundle).manifest
    write_manifest(bundle, replace(manifest, proofs={NEW_REFERENCE: {"images": 8}}))
    assert recorder(alone, nothing) == recorder(open_model(bundle), nothing) == "fp32.onnx"
    report = verify(bundle / "fp32.onnx")
    assert report.reference == "its own logits for the 8 inputs recorded in reference.npz"
    assert "dB from its own at quantization on 8 recorded inputs" in report.gates[0].sentence
    assert row(report.variants[0])[8:] == ("reference",) * 3
    assert recorder(alone, ComparisonTarget("PyTorch", FakeSession(), "a.pth")) == "PyTorch"


def test_else_nothing(tmp_path: Path, write_bundle: WriteBundle, identity: Float32s) -> None:
    model = open_model(write_bundle(tmp_path / "b", {"int8": identity}))
    with ExitStack() as stack:
        target = find_target(model, [], None, stack, needed=True)
    assert target.session is None and target.sentence.startswith("nothing")


def test_a_graph_in_its_bundle_is_held_to_what_was_recorded_there(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    """A lone graph elsewhere has nothing recorded; one that was damaged in its bundle is found."""
    bundle = write_bundle(tmp_path / "b", {"fp32": identity, "int8": identity})
    damaged = write_bundle(tmp_path / "c", {"fp32": 3 * np.ones((3, 3), np.float32)})
    shutil.copy(damaged / "fp32.onnx", bundle / "damaged.onnx")
    report = verify(bundle / "damaged.onnx")
    assert report.verdict == "fail" and "is broken" in report.gates[0].sentence
    assert verify(bundle / "fp32.onnx").verdict == "pass"
    shutil.copy(bundle / "fp32.onnx", tmp_path / "alone.onnx")
    with pytest.raises(InputError, match=r"no reference\.npz beside it"):
        verify(tmp_path / "alone.onnx")
