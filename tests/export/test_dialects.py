"""State_dicts among other things, names with something before them, class names."""

import torch

from resdeploy.export.dialects import (
    candidate_prefixes,
    find_labels,
    find_state_dict,
    without_prefix,
)

WEIGHTS = {"conv.weight": torch.ones(2, 3, 1, 1), "conv.bias": torch.ones(2)}


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
    moments = {"exp_avg": torch.ones(2, 2), "step": torch.tensor(3.0)}
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
