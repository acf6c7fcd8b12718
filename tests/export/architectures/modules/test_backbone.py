"""The feature maps of a network are found by running it, whatever its layers are called."""

import pytest
import torch
from torch import nn
from torchvision import models

from resdeploy.deploy.errors import InputError
from resdeploy.export.architectures.modules.backbone import backbone, find_features
from resdeploy.export.graph.trace import torch_export_graph, torchscript_graph

_LAYERS = {
    "resnet18": (64, ["relu", "layer1", "layer2", "layer3", "layer4"]),
    "mobilenet_v2": (64, [f"features.{i}" for i in (1, 3, 6, 13, 18)]),
    "mobilenet_v3_small": (64, [f"features.{i}" for i in (0, 1, 3, 8, 12)]),
    # layers without padding: 96 pixels become 47, 23, 11 and 5
    "squeezenet1_1": (96, [f"features.{i}" for i in (1, 4, 7, 12)]),
    "shufflenet_v2_x0_5": (64, ["conv1", "maxpool", "stage2", "stage3", "conv5"]),
    "densenet121": (64, ["relu0", "denseblock1", "denseblock2", "denseblock3", "norm5"]),
    "regnet_y_400mf": (64, ["stem", *(f"trunk_output.block{i}" for i in (1, 2, 3, 4))]),
}


@pytest.mark.parametrize("name", list(_LAYERS))
def test_stages_end_where_they_should(name: str) -> None:
    size_px, expected = _LAYERS[name]
    with torch.device("cpu"):
        network = models.get_model(name, weights=None).eval()
    found = find_features(network, (size_px, size_px))
    assert [point.spec.name for point in found] == [f"C{k + 1}" for k in range(len(expected))]
    assert [point.module.removeprefix("features.") for point in found] == [
        layer.removeprefix("features.") for layer in expected
    ]
    maps, specs = backbone(network, [point.spec.name for point in found], (size_px, size_px))
    with torch.no_grad():
        outputs = maps(torch.zeros(2, 3, size_px, size_px))
    assert [tuple(output.shape[1:]) for output in outputs] == [
        (spec.channels, spec.height, spec.width) for spec in specs
    ]


class _SharedActivation(nn.Module):
    """One ReLU, overwriting its input, is called at three resolutions; the head is functional."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.second = nn.Conv2d(4, 6, 3, 2, 1)
        self.third = nn.Conv2d(6, 8, 3, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(x))
        x = self.relu(self.second(x))
        x = self.relu(self.third(x))
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits


def test_a_module_called_several_times_gives_each_of_its_maps() -> None:
    network = _SharedActivation().eval()
    found = find_features(network, (16, 24))
    assert [(p.module, p.occurrence) for p in found] == [("relu", 0), ("relu", 1), ("relu", 2)]
    assert [(p.spec.height, p.spec.width) for p in found] == [(8, 12), (4, 6), (2, 3)]
    maps, _ = backbone(network, ["C1", "C3"], (16, 24))
    x = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        fine, coarse = maps(x)
        torch.testing.assert_close(fine, network.first(x).relu())
        torch.testing.assert_close(coarse, network.third(network.second(fine).relu()).relu())
    assert maps.parameters_read((16, 24)) == sum(
        p.numel() for part in (network.first, network.second, network.third)
        for p in part.parameters()
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "exporter", [torchscript_graph, pytest.param(torch_export_graph, marks=pytest.mark.slow)]
)
def test_both_exporters_keep_the_names_of_maps_and_weights(exporter: object) -> None:
    maps, _ = backbone(_SharedActivation().eval(), ["C1", "C2"], (16, 16))
    with torch.no_grad():
        model = exporter(maps, torch.zeros(2, 3, 16, 16), 18, ["C1", "C2"])  # type: ignore[operator]
    assert [value.name for value in model.graph.output] == ["C1", "C2"]
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert weights >= {"first.weight", "second.weight"}


def test_what_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(InputError, match=r"C5; at 16x16 pixels .* C1 \(stride 2\), .*C3 \(stride"):
        backbone(_SharedActivation().eval(), ["C1", "C5"], (16, 16))
