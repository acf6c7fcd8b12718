"""Prefixes end where the stem convolution begins, and names come in the order of the layers."""

import pytest

from resdeploy.export.matching.prefixes import (
    by_number,
    candidate_prefixes,
    scopes,
    shared_prefix,
    without_prefix,
)

_STEM = (64, 3, 7, 7)


def test_a_prefix_stands_before_a_stem_of_three_channels() -> None:
    shapes = {
        "net.backbone.conv1.weight": _STEM,
        "net.layer1.0.conv1.weight": (64, 64, 3, 3),  # not three channels
        "conv1.weight": _STEM,
        "head.conv1.weight": (64, 3),  # not four dimensions
    }
    assert candidate_prefixes(shapes, ["conv1.weight"]) == ["", "net.backbone."]
    assert candidate_prefixes({}, ["conv1.weight"]) == [""]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("module.backbone.conv1.weight", "conv1.weight"),
        ("module.fc.weight", "fc.weight"),  # a head beside the backbone
        ("fc.weight", "fc.weight"),
        ("modules.fc.weight", "modules.fc.weight"),
    ],
)
def test_the_longest_part_that_matches_is_taken_off(name: str, expected: str) -> None:
    assert without_prefix(name, "module.backbone.") == expected


def test_what_all_names_share() -> None:
    names = ["module.net.a.0.weight", "module.net.b.weight", "n_averaged"]
    assert shared_prefix(names) == "module.net."
    assert shared_prefix(["a.weight", "b.weight"]) == shared_prefix(["p0", "p1"]) == ""
    assert shared_prefix([]) == ""


def test_scopes_go_from_the_outermost_inwards() -> None:
    assert scopes({"a.b.stem.weight": _STEM, "a.b.fc.weight": (5, 64)}) == ["a.", "a.b."]
    assert scopes({"stem.weight": _STEM}) == []  # the convolution itself is no module around it


def test_numbers_in_names_count_as_numbers_the_stem_comes_first_and_the_head_last() -> None:
    shapes = {
        "layers.10.weight": (8, 8, 3, 3),
        "layers.9.weight": (8, 8, 3, 3),
        "a_head.weight": (5, 8),
        "stem.conv.weight": (8, 3, 3, 3),
    }
    ordered = list(by_number(shapes))
    assert ordered == ["stem.conv.weight", "layers.9.weight", "layers.10.weight", "a_head.weight"]
    assert by_number(shapes) == shapes  # the same tensors
