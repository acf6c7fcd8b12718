"""State_dicts among other things, names with something before them, class names."""

from pathlib import Path

import pytest
import torch

from resdeploy.deploy.errors import CheckpointError
from resdeploy.export.checkpoint.formats.stored import whole
from resdeploy.export.checkpoint.read import read_checkpoint
from resdeploy.export.checkpoint.state_dict import find_labels, find_state_dict
from resdeploy.export.matching.prefixes import candidate_prefixes, without_prefix

WEIGHTS = {
    "conv.weight": whole("float32", (2, 3, 1, 1), bytes(24)),
    "conv.bias": whole("float32", (2,), bytes(8)),
}


def test_a_bare_state_dict_has_no_wrapper() -> None:
    found = find_state_dict({**WEIGHTS, "_extra_state": 3})
    assert found is not None and found.wrapper is None
    assert list(found.tensors) == ["conv.weight", "conv.bias"]
    assert found.notes == ("ignored, not tensors: _extra_state",)


def test_wrappers_nest_and_lists_count() -> None:
    found = find_state_dict({"model": {"state_dict": WEIGHTS}, "step": 4})
    assert found is not None and found.wrapper == "model.state_dict"
    found = find_state_dict([WEIGHTS, 7])
    assert found is not None and found.wrapper == "0"


def test_an_optimizer_is_no_state_dict() -> None:
    moments = {"exp_avg": whole("float32", (2, 2), bytes(16)), "step": 3.0}
    assert find_state_dict({"optimizer": {"state": {0: moments}, "param_groups": []}}) is None
    assert find_state_dict({"epoch": 3}) is None
    assert find_state_dict(None) is None


def test_a_prefix_is_what_stands_before_a_stem() -> None:
    shapes = {
        "net.conv1.weight": (64, 3, 7, 7),
        "net.layer1.0.conv1.weight": (64, 64, 3, 3),
        "net.conv1.bias": (64,),
    }
    assert candidate_prefixes(shapes, ["conv1.weight"]) == ["", "net."]


def test_the_part_of_a_prefix_that_matches_is_removed() -> None:
    assert without_prefix("module.backbone.conv1.weight", "module.backbone.") == "conv1.weight"
    assert without_prefix("module.fc.weight", "module.backbone.") == "fc.weight"
    assert without_prefix("criterion.weight", "module.backbone.") == "criterion.weight"
    assert without_prefix("conv1.weight", "") == "conv1.weight"


def test_class_names_must_be_complete() -> None:
    assert find_labels({"class_to_idx": {"b": 1, "a": 0}}) == ("a", "b")
    assert find_labels({"idx_to_class": {"0": "a", "1": "b"}}) == ("a", "b")
    assert find_labels({"hyper_parameters": {"class_names": ["a", "b"]}}) == ("a", "b")
    assert find_labels({"idx_to_class": {0: "a", 2: "c"}}) is None
    assert find_labels({"classes": {"a": "b"}}) is None
    assert find_labels([1]) is None


def test_a_small_file_that_declares_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"a.weight": torch.zeros(1).expand(30_000, 40_000)}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"declares tensors of 4\.8 GB in a file of"):
        read_checkpoint(path)
    one = torch.zeros(2, 2)
    torch.save({f"a{i}.weight": one for i in range(10_001)}, path)
    with pytest.raises(CheckpointError, match="state_dict of 10001 tensors, limit: 10000"):
        read_checkpoint(path)


def test_what_is_shared_is_looked_into_once(tmp_path: Path) -> None:
    """2000 keys on each of four levels lead to the same dictionary: 2000⁴ ways."""
    wrapped: dict[str, object] = {"x": 1}
    for _ in range(4):
        wrapped = {f"k{i}": wrapped for i in range(2000)}
    assert find_state_dict(wrapped) is None
    weights = {"a.weight": whole("float32", (2, 2), bytes(16))}
    found = find_state_dict({"other": weights, "state_dict": weights})
    assert found is not None and found.wrapper == "state_dict"
