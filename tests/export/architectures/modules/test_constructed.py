"""What constructors make is told without their numbers, and without memory for them."""

import pytest
import torch
from torch import nn

from resdeploy.deploy.errors import CheckpointError, MissingDependencyError
from resdeploy.export.architectures.constructed.signatures import signature
from resdeploy.export.architectures.modules import constructed
from resdeploy.export.architectures.modules.constructed import (
    computed,
    construct,
    construct_as,
    set_stem,
)


@pytest.mark.parametrize("name", ["vit_b_16", "resnet18", "googlenet"])
def test_any_classifier_of_torchvision_may_be_named(name: str) -> None:
    found = computed(name)
    assert found is not None and found.input_size_px == 224
    assert list(found.for_classes(5).values())[-1] == (5,)
    assert computed("no_such_network") is None


def test_eps_is_told_as_a_user_writes_it() -> None:
    for name, eps in {"mobilenet_v3_small": "1e-3", "regnet_y_400mf": "1e-5"}.items():
        found = computed(name)
        assert found is not None and found.eps == eps


def test_constructing_takes_no_memory_for_weights() -> None:
    module = construct("regnet_y_400mf", 7)
    assert module is not None and not module.training
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}
    assert construct("timm:no_such_network", 7) is None


@pytest.mark.slow
def test_the_usual_input_is_the_librarys_own() -> None:
    pytest.importorskip("timm")
    names = ("efficientnet_v2_s", "timm:xception41")
    usual = [(found.input_size_px, found.preprocess) for n in names if (found := computed(n))]
    assert usual == [(384, "imagenet"), (299, "half")]


def test_the_constructor_must_agree_when_the_network_is_built() -> None:
    found = signature("mobilenet_v3_small")
    assert found is not None
    shapes = found.for_classes(7)
    last = construct_as("mobilenet_v3_small", shapes, ()).get_submodule("classifier.3")
    assert last.out_features == 7
    other = {**shapes, "features.0.0.weight": (8, 3, 3, 3)}
    with pytest.raises(CheckpointError, match="pip install torchvision=="):
        construct_as("mobilenet_v3_small", other, ())


def test_missing_layers_hand_on_what_they_get() -> None:
    found = signature("mobilenet_v3_small")
    assert found is not None
    left = {name: shape for name, shape in found.for_classes(1).items() if name not in found.head}
    module = construct_as("mobilenet_v3_small", left, found.head)
    assert isinstance(module.get_submodule("classifier.3"), torch.nn.Identity)


def test_timm_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constructed, "construct", lambda *_, **__: None)
    monkeypatch.setattr(constructed, "installed_version", lambda library: None)
    with pytest.raises(MissingDependencyError, match="pip install timm"):
        construct_as("timm:efficientnet_lite0", {}, ())


def test_what_is_set_in_a_finished_network() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.LeakyReLU(), nn.MaxPool2d(2))
    set_stem(module, {"stem_stride": "1", "pool": "no", "negative_slope": "0.1"})
    conv, leaky, pool = module
    assert conv.stride == (1, 1) and leaky.negative_slope == 0.1
    assert isinstance(pool, nn.Identity)
