"""Networks that tests train, export and quantize: as deep as the real ones, but cheap to run."""

from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


class NarrowResNet(ResNet):  # type: ignore[misc] # torchvision has no types
    """torchvision's ResNet with a quarter of its channels: all of its layers, little work."""

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: list[int],
        classes: int = 10,
        **settings: int,
    ) -> None:
        super().__init__(block, layers, **settings)
        self.fc = nn.Linear(512 // 4 * block.expansion, classes)

    def _make_layer(
        self, block: type[BasicBlock | Bottleneck], planes: int, *settings: Any, **more: Any
    ) -> Any:
        if planes == 64:  # the first one: what leads to it is narrow, too
            self.inplanes = 16
            self.conv1 = nn.Conv2d(3, 16, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
        return super()._make_layer(block, planes // 4, *settings, **more)
