"""MobileNetV2 of any width and setting: recognised, rebuilt bit for bit."""

from pathlib import Path

import pytest
import torch
import torchvision.models as models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision.models._utils import _make_divisible
from torchvision.models.mobilenetv2 import MobileNetV2

from resdeploy.export.matching.fitting import fit
from tests.builders import randomize_batch_norms
from tests.export.architectures.rebuilding import assert_same_function, rebuilt


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75, 1.3, 2.0])
def test_mobilenet_v2_widths_are_recognised_by_their_shapes(width: float) -> None:
    with torch.device("meta"):
        module = models.mobilenet_v2(num_classes=7, width_mult=width)
    found = fit({key: tuple(value.shape) for key, value in module.state_dict().items()})
    assert found is not None and found.network.name == f"mobilenet_v2_w{width:g}"


@pytest.mark.parametrize("width", [0.1, 0.35, 1.4])
def test_mobilenet_v2_of_any_width_is_rebuilt(width: float, tmp_path: Path) -> None:
    module = randomize_batch_norms(models.mobilenet_v2(num_classes=7, width_mult=width))
    architecture, other = rebuilt(module, tmp_path)
    assert architecture.name == f"mobilenet_v2_w{width}"
    assert_same_function(module, other)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    stages=st.lists(
        st.tuples(st.integers(1, 6), st.integers(4, 40), st.integers(1, 3), st.integers(1, 2)),
        min_size=1,
        max_size=8,
    ),
    width=st.sampled_from([0.25, 0.5, 1.0, 1.1]),
)
def test_any_mobilenet_v2_setting_is_rebuilt_once_its_strides_are_told(
    stages: list[tuple[int, int, int, int]],
    width: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # Neighbours that agree in t and c are one stage: nothing in the weights parts them.
    seen = [(t, _make_divisible(c * width, 8)) for t, c, _, _ in stages]
    stages = [row for i, row in enumerate(stages) if i == 0 or seen[i] != seen[i - 1]]
    module = randomize_batch_norms(MobileNetV2(5, width, [list(row) for row in stages]))
    strides = ",".join(str(stride) for *_, stride in stages)
    folder = tmp_path_factory.mktemp("mobilenet")
    _, other = rebuilt(module, folder, {"strides": strides})
    assert_same_function(module, other, size_px=32)
