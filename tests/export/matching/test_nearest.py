"""Where nothing fits, the nearest network is named, and what keeps it from fitting."""

from dataclasses import replace

import pytest
import torchvision

from resdeploy.export.matching.fitting import readings
from resdeploy.export.matching.nearest import (
    nearest,
    nearest_by_structure,
    readings_as,
    told_differences,
)


def _shapes(name: str = "resnet18") -> dict[str, tuple[int, ...]]:
    module = getattr(torchvision.models, name)(num_classes=7)
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def test_the_nearest_shares_most_tensors() -> None:
    shapes = _shapes()
    shapes["layer4.1.bn2.weight"] = (500,)
    found = nearest(readings(shapes), shapes)
    assert found.network.name == "resnet18"
    assert found.differences == ("layer4.1.bn2.weight is (500,), expected (512,)",)


def test_read_as_another_network_it_says_what_is_missing() -> None:
    shapes = _shapes("resnet18")
    found = nearest(readings_as("resnet34", shapes), shapes)
    assert found.network.name == "resnet34"
    assert found.differences[0].endswith("is missing") and found.shared == 102
    assert len(list(readings_as("no-such-network", shapes))) == 0


@pytest.mark.slow
def test_by_structure_names_are_left_aside() -> None:
    shapes = _shapes("resnet34")
    renamed = {f"x{place}.weight": shape for place, shape in enumerate(shapes.values())}
    candidates = [*readings_as("resnet18", _shapes()), *readings_as("resnet34", shapes)]
    alike = nearest_by_structure(candidates, renamed)
    assert alike.network.name == "resnet34" and alike.layers == alike.of == 37


def test_three_differences_are_told_and_the_rest_counted() -> None:
    reading = next(iter(readings(_shapes())))
    few = replace(reading, differences=("a", "b", "c"))
    assert told_differences(few) == "a, b, c"
    assert (
        told_differences(replace(few, differences=("a", "b", "c", "d", "e")))
        == "a, b, c and 2 more"
    )
