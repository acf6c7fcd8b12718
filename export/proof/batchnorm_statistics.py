"""Compares the statistics that batch norms have stored with those that real images give.

In training every batch norm kept the mean m and the variance v of each channel of its input. The
network as it was trained, fed as it was trained, gives them again. For image i and channel c let a
be the mean over the positions and w the variance over them; over n images

    V = mean_i w + n/(n-1) mean_i (a - mean a)²          without bias; ε is the batch norm's own
    z = [ (a - m) / √(2 (v + ε)),  ½ ln(V / v) + ½ (influence of image i on ln V) ]

are two numbers for each image and channel. The squared length of z's mean over the images is, to
second order, the Kullback-Leibler divergence between the two normal distributions. The plain square
also holds what sampling adds to it, about var(z) / n. Products of different images do not:

    D = Σ_{i≠j} <z_i, z_j> / (n (n - 1))      in nats, averaged over the channels of a batch norm

is zero on average where the statistics agree, at any number of images and of positions.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from resdeploy.deploy.arrays import Float32s, Float64s

# A channel that is nearly constant would turn rounding into distance: its variance counts as at
# least this share of the layer's median.
_LEAST_VARIANCE = 1e-3
# About seven standard deviations: a few wild channels should not outweigh all others.
_BEYOND = 5.0


@dataclass(frozen=True)
class Layer:
    """One batch norm: what it stored, and what n images give.

    Attributes:
        name: the module's.
        stored_mean, stored_variance: (C,) float64.
        eps: added to every variance.
        means, variances: (n, C) float32, over the positions of each image.
    """

    name: str
    stored_mean: Float64s
    stored_variance: Float64s
    eps: float
    means: Float32s
    variances: Float32s

    def vectors(self) -> Float32s:
        """(n, 2C) float32: z of every image, over √C; see the module's docstring."""
        count, channels = self.means.shape
        eps = self.eps + _LEAST_VARIANCE * float(np.median(self.stored_variance))
        stored = self.stored_variance + eps
        means = self.means.astype(np.float64)
        spread = self.variances + (means - means.mean(axis=0)) ** 2 * count / (count - 1)
        variance = spread.mean(axis=0) + eps
        influence = (spread + eps) / variance - 1
        # the logarithm of an estimate is too small by half the estimate's relative variance
        ratio = np.log(variance / stored) + influence.var(axis=0, ddof=1) / (2 * count)
        shift = (means - self.stored_mean) / np.sqrt(2 * stored)
        vectors = np.concatenate([shift, (ratio + influence) / 2], axis=1)
        bounded = np.nan_to_num(vectors, nan=_BEYOND).clip(-_BEYOND, _BEYOND)
        scaled: Float32s = (bounded / np.sqrt(channels)).astype(np.float32)
        return scaled


def trained_batchnorms(module: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """The batch norms that hold statistics of a training, by name.

    One whose mean is zero and whose variance is the same in every channel was never trained, or
    its statistics were folded into the convolution before it: it cannot tell anything.
    """
    found = {}
    for name, part in module.named_modules():
        if not isinstance(part, nn.BatchNorm2d):
            continue
        mean, variance = part.running_mean, part.running_var
        if mean is None or variance is None:
            continue
        if bool((mean != 0).any()) and not torch.allclose(variance, variance[:1]):
            found[name] = part
    return found


def observe(module: nn.Module, batches: Iterable[torch.Tensor]) -> tuple[Layer, ...]:
    """Run `module` once on every batch (n, 3, H, W) float32; its batch norms in their order.

    Only per-image means and variances are kept: 8 bytes for each image and channel.
    """
    norms = trained_batchnorms(module)
    seen: dict[str, list[tuple[Float32s, Float32s]]] = {}

    def hook_of(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(part: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            # torch.var_mean takes three times as long as the whole network around it
            mean = inputs[0].mean(dim=(2, 3))
            variance = inputs[0].square().mean(dim=(2, 3)).sub_(mean.square()).clamp_(min=0)
            seen.setdefault(name, []).append((mean.numpy(), variance.numpy()))

        return norms[name].register_forward_pre_hook(hook)

    handles = [hook_of(name) for name in norms]
    try:
        with torch.inference_mode():
            for batch in batches:
                module(batch)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(_layer(name, norms[name], parts) for name, parts in seen.items())


def _layer(name: str, norm: nn.BatchNorm2d, parts: list[tuple[Float32s, Float32s]]) -> Layer:
    assert norm.running_mean is not None and norm.running_var is not None
    return Layer(
        name=name,
        stored_mean=norm.running_mean.double().numpy(),
        stored_variance=norm.running_var.double().numpy(),
        eps=norm.eps,
        means=np.concatenate([mean for mean, _ in parts]),
        variances=np.concatenate([variance for _, variance in parts]),
    )
