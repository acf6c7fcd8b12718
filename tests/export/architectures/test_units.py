"""Tensors of a file as layers, whatever their names."""

import pytest
import torch
import torchvision.models as models

from resdeploy.export.architectures.units import in_order, squeezed, units_of


def test_tensors_of_one_layer_share_what_stands_before_the_last_dot() -> None:
    with torch.device("meta"):
        state = models.resnet18(num_classes=7).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    units = units_of({**shapes, "total_ops": (1,), "layer1.total_params": (1,)})
    assert [unit.kind for unit in units[:3]] == ["conv", "norm", "conv"]
    assert sum(unit.kind == "conv" for unit in units) == 20
    last = units[-1]
    assert (last.kind, last.name, last.shape) == ("linear", "fc", (7, 512))
    assert last.parts == {"weight": "fc.weight", "bias": "fc.bias"}
    assert set(units[1].parts) == {"weight", "bias", "running_mean", "running_var"}


def test_a_layer_stands_where_its_first_tensor_does() -> None:
    shapes = {"b.bias": (4,), "a.weight": (4, 3, 1, 1), "b.weight": (4,), "c.weight": (2, 4, 0, 1)}
    assert [(u.name, u.kind) for u in units_of(shapes)] == [
        ("b", "norm"),
        ("a", "conv"),
        ("c", "other"),
    ]


@pytest.mark.parametrize(
    ("vectors", "bias", "norms"), [(0, False, 0), (1, True, 0), (4, False, 1), (5, True, 1)]
)
def test_vectors_without_names_belong_to_the_weight_before(
    vectors: int, bias: bool, norms: int
) -> None:
    shapes = {"0": (4, 3, 3, 3), **{str(n): (4,) for n in range(1, vectors + 1)}}
    first, *rest = units_of({**shapes, "99": (2, 4)})
    assert (first.kind, "bias" in first.parts) == ("conv", bias)
    assert [unit.kind for unit in rest] == ["norm"] * norms + ["linear"]


def test_weights_and_norms_are_compared_in_order_each() -> None:
    expected = {"c1.weight": (4, 3, 3, 3), "n1.weight": (4,), "c2.weight": (6, 4, 1, 1)}
    expected |= {"n2.weight": (6,), "fc.weight": (2, 6)}
    file = {"a.weight": (4, 3, 3, 3), "b.weight": (6, 4, 1, 1), "x.weight": (4,), "y.weight": (6,)}
    file |= {"z.weight": (2, 6, 1, 1)}
    names = {"c1": "a", "n1": "x", "c2": "b", "n2": "y", "fc": "z"}
    assert list(in_order(expected, units_of(file))) == [names]
    file["y.weight"] = (5,)
    assert list(in_order(expected, units_of(file))) == []


def test_a_convolution_along_the_channels_is_no_norm() -> None:
    """Efficient channel attention has (1, 1, 3); a vector may be saved as (3, 1, 1)."""
    shapes = {"a.weight": (1, 1, 3), "b.weight": (3, 1, 1), "c.weight": (1, 1, 1, 3)}
    assert [unit.kind for unit in units_of(shapes)] == ["conv1d", "norm", "norm"]


def test_squeezed() -> None:
    assert squeezed((10, 64, 1, 1)) == (10, 64) == squeezed((10, 64))
    assert squeezed((1, 3, 3, 1)) == (1, 3, 3)
    assert squeezed((1, 1, 1, 40)) == squeezed((40, 1, 1)) == squeezed((40,)) == (40,)
    assert squeezed((40, 1, 3, 3)) == (40, 1, 3, 3) and squeezed(()) == ()
