"""Names first, then the order of the layers; what two networks share is not decided."""

import json
from functools import reduce

import pytest
import timm
import torch
import torchvision.models as models
from torchvision.models.resnet import BasicBlock

from resdeploy.deploy.errors import CheckpointError
from resdeploy.export.architectures.constructed.signatures import signature
from resdeploy.export.architectures.units import Shapes, in_order, units_of
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.matching.fitting import fit, fits
from tests.export.checkpoint.conftest import Save, save, small, weights  # noqa: F401  fixtures


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def nameless(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    modules: dict[str, str] = {}
    renamed = {}
    for name, shape in shapes.items():
        holder, _, part = name.rpartition(".")
        renamed[f"{modules.setdefault(holder, f'm{len(modules)}')}.{part}"] = shape
    return renamed


@pytest.fixture(scope="module")
def resnet18() -> Shapes:
    with torch.device("meta"):
        return shapes_of(models.resnet18(num_classes=7))


def test_an_encoder_is_read_with_its_surroundings_named(resnet18: Shapes) -> None:
    inside = {f"enc.{name}": shape for name, shape in resnet18.items() if "fc." not in name}
    around = {"decoder.0.weight": (64, 512, 3, 3), "decoder.0.bias": (64,)}
    (found,) = fits({**inside, **around})
    assert (found.network.name, found.prefix, found.network.classes) == ("resnet18", "enc.", None)
    assert set(found.surroundings) == set(around)


def test_a_bias_of_a_convolution_is_no_difference(resnet18: Shapes) -> None:
    (found,) = fits({**resnet18, "conv1.bias": (64,)})
    assert found.biases == ("conv1.bias",)
    assert not fits({**resnet18, "conv1.bias": (63,)})


def test_tensors_without_a_place_are_a_difference(resnet18: Shapes) -> None:
    assert not fits({**resnet18, "prototypes.weight": (300, 512)})


def test_a_head_may_be_a_convolution(resnet18: Shapes) -> None:
    (found,) = fits({**resnet18, "fc.weight": (7, 512, 1, 1)})
    assert found.network.classes == 7


def test_alphabetical_order_of_unknown_names(resnet18: Shapes) -> None:
    renamed = {f"q.{name}".replace("layer", "lay"): shape for name, shape in resnet18.items()}
    (found,) = fits(dict(sorted(renamed.items())))
    assert (found.network.name, found.matched_by) == ("resnet18", "structure")


def test_block_ten_comes_after_block_nine() -> None:
    with torch.device("meta"):
        shapes = shapes_of(models.resnet101(num_classes=7))
    renamed = {name.replace("layer", "lay"): shape for name, shape in shapes.items()}
    ordered = dict(sorted(renamed.items()))
    names = list(ordered)
    assert names.index("lay3.10.conv1.weight") < names.index("lay3.9.conv1.weight")
    (found,) = fits(ordered)
    assert found.names["layer3.10.conv1.weight"] == "lay3.10.conv1.weight"


def test_tensors_whose_names_say_nothing(resnet18: Shapes) -> None:
    kept = [shape for name, shape in resnet18.items() if not name.endswith("tracked")]
    (found,) = fits({f"p{index}": shape for index, shape in enumerate(kept)})
    assert found.network.name == "resnet18" and found.names["bn1.running_var"] == "p4"


def test_two_networks_of_one_sequence_are_both_named(save: Save) -> None:  # noqa: F811
    module = timm.create_model("resnet18d", num_classes=7)
    modules: dict[str, str] = {}
    state = {}
    for name, value in module.state_dict().items():
        holder, _, part = name.rpartition(".")
        state[f"{modules.setdefault(holder, f'm{len(modules)}')}.{part}"] = value
    checkpoint = save(state)
    with pytest.raises(CheckpointError) as caught:
        identify(checkpoint)
    assert "resnet (resnet18c) and resnet (resnet18d)" in str(caught.value)
    assert identify(checkpoint, arch="resnet18d").settings["shortcut_pool"] == "yes"
    assert identify(checkpoint, arch="resnet18c").settings["shortcut_pool"] == "no"
    told = save({"state_dict": state, "arch": "resnet18d"})
    assert (identify(told).name, identify(told).matched_by) == ("resnet18d", "sidecar")


def test_layers_in_order_need_not_have_their_norms_beside_them() -> None:
    block = BasicBlock(4, 4)
    expected = shapes_of(block)
    apart = sorted(expected, key=lambda name: "bn" in name)
    (names,) = in_order(expected, units_of({f"x.{name}": expected[name] for name in apart}))
    assert names == {name: f"x.{name}" for name in ("conv1", "conv2", "bn1", "bn2")}
    assert not list(in_order(expected, units_of({"x.weight": (4, 4, 3, 3)})))
    assert json.dumps(names)


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
def test_by_names_behind_any_prefix(prefix: str, resnet18: Shapes) -> None:
    found = fit({prefix + name: shape for name, shape in resnet18.items()})
    assert found is not None
    assert (found.prefix, found.network.name, found.matched_by) == (prefix, "resnet18", "names")
    assert found.differences == () and found.shared == len(found.network.expected)
    assert found.names["fc.weight"] == f"{prefix}fc.weight"


def test_habits_are_those_of_the_names_behind_a_prefix_also_where_the_order_decides() -> None:
    """kuangliu's training script saves from DataParallel."""
    with torch.device("meta"):
        state = shapes_of(models.shufflenet_v2_x0_5(num_classes=7))
    known = {"conv5.0.": "conv2.", "stage2.0.branch1.0.": "layer1.0.conv5."}
    renamed = {
        f"module.{reduce(lambda n, old: n.replace(old, known[old]), known, name)}": shape
        for name, shape in state.items()
    }
    (found,) = fits(renamed)
    assert (found.prefix, found.matched_by) == ("module.", "structure")
    assert found.habits.origin == "kuangliu"


def test_counters_are_ignored_and_a_stranger_is_a_difference(resnet18: Shapes) -> None:
    shapes = dict(resnet18)
    found = fit({**shapes, "total_ops": (1,)})
    assert found is not None and found.network.name == "resnet18"
    assert fits({**shapes, "layer5.0.conv1.weight": (512, 512, 3, 3)}) == ()
    del shapes["layer3.1.conv2.weight"]
    assert fit(shapes) is None


def test_a_network_with_a_name_outranks_odd_widths() -> None:
    """The layers of a small RegNet could be those of a CIFAR ResNet that nobody has."""
    found = signature("timm:regnetx_002")
    assert found is not None
    shapes = nameless(found.for_classes(7))
    assert [reading.network.name for reading in fits(shapes)] == ["timm:regnetx_002"]


def test_a_classifier_that_ends_in_convolutions_is_no_encoder() -> None:
    found = signature("mobilenet_v3_small")
    assert found is not None
    body = {
        f"features.{name}": shape
        for name, shape in nameless(found.for_classes(7)).items()
        if shape not in ((7, 1024), (7,), (1024, 576), (1024,))
    }
    head = {"output.conv1.weight": (1000, 576, 1, 1), "output.conv2.weight": (7, 1000, 1, 1)}
    assert not fits({**body, **head})
    decoder = {"decoder.0.weight": (64, 576, 3, 3), "decoder.1.weight": (7, 64, 1, 1)}
    (encoder,) = fits({**body, **decoder})
    assert encoder.network.name == "mobilenet_v3_small" and encoder.network.maps_only


def test_names_under_an_inner_module_come_before_the_order_of_the_outer_one() -> None:
    """timm's MobileNetV3 and torchvision's have the same layers, but another eps."""
    found = signature("timm:mobilenetv3_large_100")
    assert found is not None
    body = {
        f"encoder.model.{name}": shape
        for name, shape in found.for_classes(7).items()
        if not name.startswith(("conv_head", "classifier"))
    }
    (encoder,) = fits({**body, "decoder.0.weight": (64, 960, 3, 3)})
    assert (encoder.network.name, encoder.matched_by) == (found.name, "names")
