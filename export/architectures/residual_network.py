"""A residual network's reading as a `Network` that can be built."""

from functools import partial
from typing import TYPE_CHECKING

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Head, Network, Settings
from resdeploy.export.architectures.residual import (
    Residual,
    dilation,
    residual_assumptions,
    residual_evidence,
    residual_shapes,
)

if TYPE_CHECKING:
    from torch import nn


def residual_network(name: str, spec: Residual, head: Head) -> Network:
    """The network of `spec`, called `name`."""
    expected = dict(residual_shapes(spec))
    doubled = bool(head) and head[0].inputs == 2 * spec.features
    features = spec.features * (2 if doubled else 1)
    expected.update(network.head_shapes(head, "fc", features))
    return Network(
        name=name,
        features=features,
        head=head,
        expected=expected,
        build=partial(_build, spec, head),
        assumptions=(
            *residual_assumptions(spec),
            # nobody is known to dilate a classifier of small images
            *(() if head and spec.small_stem else (dilation(spec),)),
            *network.head_assumptions(head),
        ),
        evidence=residual_evidence(spec),
    )


def _build(spec: Residual, head: Head, settings: Settings) -> "nn.Module":
    from resdeploy.export.architectures.modules.residual import ResidualNet

    return ResidualNet(spec, head, settings)
