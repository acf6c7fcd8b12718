"""Tensors and feature maps go into JSON and come back; what is none of them is refused."""

import json
from typing import Any

import pytest

from resdeploy.deploy.bundle.spec_json import (
    check_types,
    features_from_json,
    spec_from_json,
    spec_to_json,
)
from resdeploy.deploy.specs import FeatureSpec, TensorSpec


def test_a_tensor_comes_back_from_json_text() -> None:
    spec = TensorSpec("input", ("batch", 3, 224, 200), "float32")
    fields = json.loads(json.dumps(spec_to_json(spec)))
    assert fields == {"name": "input", "shape": ["batch", 3, 224, 200], "dtype": "float32"}
    assert spec_from_json(fields) == spec


@pytest.mark.parametrize("shape", [[1, 3], ["N", 3], ["batch", 0], ["batch", -1], ["batch", 1.0]])
def test_sizes_are_whole_numbers_behind_a_batch_axis(shape: list[Any]) -> None:
    with pytest.raises(ValueError, match="logits of shape"):
        spec_from_json({"name": "logits", "shape": shape, "dtype": "float32"})


def test_feature_maps_come_back() -> None:
    maps = (FeatureSpec("C2", 4, 8, 16, 12), FeatureSpec("C5", 32, 64, 2, 2))
    assert features_from_json(json.loads(json.dumps([vars(one) for one in maps]))) == maps
    with pytest.raises(TypeError, match="stride is '4'"):
        features_from_json([{**vars(maps[0]), "stride": "4"}])


def test_a_flag_is_no_number_and_a_list_no_object() -> None:
    assert check_types({"bytes": 3, "more": None}, {"bytes": int}) == {"bytes": 3, "more": None}
    with pytest.raises(TypeError, match="bytes is True"):
        check_types({"bytes": True}, {"bytes": int})
    with pytest.raises(TypeError, match="where an object is expected"):
        check_types([3], {"bytes": int})
    with pytest.raises(KeyError, match="bytes"):
        check_types({}, {"bytes": int})
