"""The parts that all architecture files are written with."""

import re

import pytest

from resdeploy.export.architectures.family import (
    BN_EPS,
    EVERY_NETWORK,
    Linear,
    activation,
    choice,
    conv_bn,
    head_assumptions,
    head_shapes,
    is_conv,
    no_habits,
    no_positions,
    read_head,
    room_between,
    strides,
    translate_head,
)


def test_a_choice_takes_its_values_and_no_others() -> None:
    found = choice("range", ("1", "2.5"), "up to {}")
    assert (found.default, found.other) == ("1", "2.5")
    assert re.fullmatch(found.pattern, "2.5") and not re.fullmatch(found.pattern, "2x5")
    assert found.with_default("2.5").values == ("2.5", "1")
    assert activation("relu6").values == ("relu6", "relu")


@pytest.mark.parametrize(("text", "fits"), [("1e-3", True), ("0.001", True), ("tiny", False)])
def test_eps(text: str, fits: bool) -> None:
    assert bool(re.fullmatch(BN_EPS.pattern, text)) == fits


def test_strides_have_as_many_digits_as_stages() -> None:
    found = strides("1,2,2", "2,2,2", "1,2", "1,2,1")
    assert found.values == ("1,2,2", "2,2,2", "1,2,1")
    assert re.fullmatch(found.pattern, "2,1,2") and not re.fullmatch(found.pattern, "1,2,2,2")
    assert not re.fullmatch(found.pattern, "1,3,2")


def test_every_assumption_is_a_sentence_with_a_place_for_its_value() -> None:
    for assumption in (*EVERY_NETWORK, BN_EPS, strides("1,2"), activation("relu")):
        assert assumption.sentence.count("{}") == 1
        assert all(re.fullmatch(assumption.pattern, value) for value in assumption.values)


@pytest.mark.parametrize("called", ["fc", "classifier", "linear", "head", "last_linear"])
def test_a_head_of_any_name(called: str) -> None:
    shapes = {"conv.weight": (8, 3, 3, 3), f"{called}.4.weight": (5, 6), f"{called}.4.bias": (5,)}
    shapes |= {f"{called}.1.weight": (6, 8, 1, 1), f"x.{called}.9.weight": (1, 1)}
    names = translate_head(shapes, "fc")
    assert set(names) == {"fc.4.weight", "fc.4.bias", "fc.1.weight"}
    head = read_head({ours: shapes[name] for ours, name in names.items()}, "fc")
    assert head == (Linear("1", 8, 6, False), Linear("4", 6, 5, True))
    assert dict(head_shapes(head, "fc", 8)) == {
        "fc.1.weight": (6, 8),
        "fc.4.weight": (5, 6),
        "fc.4.bias": (5,),
    }
    assert [asked.key for asked in head_assumptions(head)] == ["head_activation"]


@pytest.mark.parametrize(
    ("first", "second", "room"), [("0", "1", False), ("0", "3", True), ("a", "b", True)]
)
def test_numbers_tell_whether_something_stands_between(first: str, second: str, room: bool) -> None:
    layers = Linear(first, 8, 6, True), Linear(second, 6, 5, True)
    assert room_between(*layers) == room
    assert bool(head_assumptions(layers)) == room and head_assumptions(layers[:1]) == ()


def test_a_convolution_and_its_norm() -> None:
    shapes = dict(conv_bn("conv1", "bn1", 8, 3, 7))
    assert shapes["conv1.weight"] == (8, 3, 7, 7) and shapes["bn1.running_var"] == (8,)
    assert len(shapes) == 5 and is_conv(shapes, "conv1.weight")
    assert not is_conv(shapes, "bn1.weight") and not is_conv({"x": (8, 0, 3, 3)}, "x")


def test_a_family_without_habits_or_an_order() -> None:
    assert list(no_positions(())) == [] and no_habits({}).settings == {}
