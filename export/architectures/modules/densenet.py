"""DenseNets for small images."""

import torch
from torch import nn

from resdeploy.export.architectures.densenet_layout import DenseLayout
from resdeploy.export.architectures.family import Head, Settings
from resdeploy.export.architectures.modules.head import build_head


class DenseLayer(nn.Module):
    """(N, inputs, H, W) -> (N, inputs + growth, H, W)."""

    def __init__(self, inputs: int, layout: DenseLayout, *, before: bool) -> None:
        super().__init__()
        self.before = before
        inner, growth = layout.inner, layout.growth
        self.bottleneck = bool(inner)
        self.norm1, self.relu1 = nn.BatchNorm2d(inputs), nn.ReLU()
        if self.bottleneck:
            self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
            self.norm2, self.relu2 = nn.BatchNorm2d(inner), nn.ReLU()
            self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What came in and the new channels, on the side where the authors put them."""
        y = self.conv1(self.relu1(self.norm1(x)))
        if self.bottleneck:
            y = self.conv2(self.relu2(self.norm2(y)))
        return torch.cat([y, x] if self.before else [x, y], 1)


class Transition(nn.Module):
    """(N, inputs, H, W) -> (N, out, H / 2, W / 2)."""

    def __init__(self, inputs: int, out: int, *, relu: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.conv = nn.Conv2d(inputs, out, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Narrowed, then averaged."""
        pooled: torch.Tensor = self.pool(self.conv(self.relu(self.norm(x))))
        return pooled


class DenseNet(nn.Module):
    """(N, 3, H, W) -> (N, classes); see `architectures.densenet`."""

    def __init__(self, layout: DenseLayout, head: Head, settings: Settings) -> None:
        super().__init__()
        self.features = nn.Sequential()
        stride = int(settings["stem_stride"])
        self.features.add_module("conv0", nn.Conv2d(3, layout.stem, 3, stride, 1, bias=False))
        if layout.normed:
            self.features.add_module("norm0", nn.BatchNorm2d(layout.stem))
            self.features.add_module("relu0", nn.ReLU())
        if settings["pool"] == "yes":
            self.features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        before = settings["joins"] == "before"
        for block, (width, count) in enumerate(zip(layout.entering, layout.counts, strict=True), 1):
            layers = nn.Sequential()
            for number in range(count):
                layer = DenseLayer(width + number * layout.growth, layout, before=before)
                layers.add_module(f"denselayer{number + 1}", layer)
            self.features.add_module(f"denseblock{block}", layers)
            if block <= len(layout.transitions):
                wide, narrow = width + count * layout.growth, layout.transitions[block - 1]
                narrowed = Transition(wide, narrow, relu=settings["transition_relu"] == "yes")
                self.features.add_module(f"transition{block}", narrowed)
        self.features.add_module("norm5", nn.BatchNorm2d(layout.features))
        self.features.add_module("relu5", nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = build_head(head, settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits, or pooled features where the head is absent."""
        pooled = self.avgpool(self.features(x))
        logits: torch.Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits
