"""Whose answers a bundle is held to."""

from dataclasses import replace
from pathlib import Path

from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.origin import (
    ADOPTION,
    NEW_REFERENCE,
    is_adopted,
    original_name,
    recorded_by,
)


def test_an_adopted_graph_is_named_instead_of_pytorch(flower_bundle: Path) -> None:
    manifest = read_bundle(flower_bundle).manifest
    assert not is_adopted(manifest) and original_name(manifest) == "PyTorch"
    adopted = replace(manifest, proofs={ADOPTION: {"file": "a.onnx"}})
    assert is_adopted(adopted) and original_name(adopted) == "the adopted graph"


def test_recorded_logits_are_the_originals_until_replaced(
    flower_bundle: Path,
) -> None:
    manifest = read_bundle(flower_bundle).manifest
    assert recorded_by(manifest) == "PyTorch"
    replaced = replace(manifest, proofs={NEW_REFERENCE: {"logits": "those of fp32.onnx"}})
    assert recorded_by(replaced) == "fp32.onnx"
    assert original_name(replaced) == "PyTorch"  # what the export was compared with
