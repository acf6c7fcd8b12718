"""The data is what the constructors make, and finds a network whatever the order of its names."""

import pytest
import torchvision

from resdeploy.export.architectures.constructed.signatures import (
    TIMM_PREFIX,
    fingerprint,
    made_with,
    names,
    opening,
    signature,
    with_fingerprint,
    with_opening,
)
from resdeploy.export.architectures.modules.constructed import computed
from resdeploy.export.architectures.units import units_of

SAMPLE = (
    *("mobilenet_v3_small", "shufflenet_v2_x1_5", "squeezenet1_1", "regnet_y_400mf"),
    *("convnext_tiny", "timm:efficientnet_lite0", "timm:convnext_atto", "timm:resnet50_gn"),
)


def skip_where_the_library_is_another(name: str) -> None:
    library = "timm" if name.startswith(TIMM_PREFIX) else "torchvision"
    module = pytest.importorskip(library)
    if module.__version__.partition("+")[0] != made_with()[library]:
        pytest.skip(f"the data was made with {library} {made_with()[library]}")


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_the_data_is_what_the_constructor_makes(name: str) -> None:
    skip_where_the_library_is_another(name)
    found, again = signature(name), computed(name)
    assert found == again and found is not None
    assert list(found.tensors) == list(again.tensors if again else ())  # the order counts


@pytest.mark.slow
def test_every_network_of_torchvisions_is_what_its_constructor_makes() -> None:
    skip_where_the_library_is_another("torchvision's")
    own = [name for name in names() if not name.startswith(TIMM_PREFIX)]
    assert {name: signature(name) for name in own} == {name: computed(name) for name in own}


def test_every_classifier_of_torchvision_is_there_or_read_by_a_family() -> None:
    ours = ("alexnet", "googlenet", "inception", "mobilenet_v2", "resne", "vgg", "wide_resnet")
    every = torchvision.models.list_models(module=torchvision.models)
    assert {name for name in every if not name.startswith(ours)} == {
        name for name in names() if not name.startswith(TIMM_PREFIX) and not name.endswith("_32px")
    }


def test_the_number_of_classes_is_left_open() -> None:
    found = signature("mobilenet_v3_small")
    assert found is not None
    assert found.head == {"classifier.3.weight", "classifier.3.bias"}
    assert found.for_classes(5)["classifier.3.weight"] == (5, 1024)


def test_fingerprints_do_not_depend_on_the_order_of_names() -> None:
    """safetensors files are sorted by name."""
    found = signature("mobilenet_v3_small")
    assert found is not None
    units = units_of(dict(sorted(found.for_classes(7).items())))
    assert fingerprint(units) == (16, 576, 54)
    assert found in with_fingerprint(units)


def test_an_opening_is_shared_with_the_encoder() -> None:
    found = signature("regnet_y_400mf")
    assert found is not None
    shapes = found.for_classes(7)
    half = dict(list(shapes.items())[: len(shapes) // 2])
    assert opening(units_of(half)) == opening(units_of(shapes)) is not None
    assert found in with_opening(units_of(half))
    assert opening(units_of({"conv1.weight": (64, 3, 7, 7)})) is None
