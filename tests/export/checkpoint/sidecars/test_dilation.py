"""Where sidecars say which stages dilate."""

from typing import Any

import pytest

from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.sidecars.dilation import dilated_by_arguments, dilated_by_mmlab
from tests.export.checkpoint.conftest import Save, State


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"replace_stride_with_dilation": [False, True, True]}, "yes"),
        ({"replace_stride_with_dilation": (True, False, True)}, "layer2,layer4"),
        ({"replace_stride_with_dilation": [False, False, False]}, "no"),
        ({"replace_stride_with_dilation": None}, None),
        ({"replace_stride_with_dilation": "yes"}, None),
        ({"output_stride": 32}, "no"),
        ({"output_stride": 16}, "layer4"),
        ({"model_args": {"output_stride": 8}}, "yes"),
        ({"model_kwargs": {"drop": 0.1}, "output_stride": 8}, "yes"),
        ({"output_stride": 12}, None),
        ({"model": "deeplabv3_resnet50"}, "yes"),
        ({"model": "resnet50", "lr": 0.1}, None),
    ],
)
def test_arguments(fields: dict[str, Any], value: str | None) -> None:
    assert dilated_by_arguments(fields) == ({} if value is None else {"dilated": value})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("backbone=dict(dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1))", "yes"),
        ("backbone=dict(dilations=[1, 1, 1, 2])", "layer4"),
        ("backbone=dict(dilations=(1, 1, 1, 1))", "no"),
        ("backbone=dict(depth=50)", None),
    ],
)
def test_mmlab(text: str, value: str | None) -> None:
    assert dilated_by_mmlab(text) == ({} if value is None else {"dilated": value})


def test_a_network_that_cannot_dilate_says_so(save: Save, weights: State) -> None:
    """Of a stem of 3x3 it is not known; the choice would be missing without a word."""
    state = {**weights, "conv1.weight": weights["conv1.weight"][:, :, :3, :3]}
    checkpoint = save({"model": state, "args": {"output_stride": 16}})
    found = identify(checkpoint)
    assert "dilated" not in found.settings
    assert any("args says dilated=layer4, but this" in said for said in found.assumptions)
