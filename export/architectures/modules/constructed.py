"""What torchvision's and timm's constructors make, and ours of networks that neither has."""

import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

import torch
import torchvision.models
from torch import nn
from torch.overrides import TorchFunctionMode

from resdeploy.deploy.errors import CheckpointError, MissingDependencyError
from resdeploy.deploy.optional import installed_version
from resdeploy.export.architectures.constructed.signatures import (
    CLASSES,
    TIMM_PREFIX,
    Signature,
    made_with,
    signature,
)
from resdeploy.export.architectures.family import Settings
from resdeploy.export.architectures.modules.small_images.networks import NETWORKS
from resdeploy.export.architectures.units import Shape, Shapes

_CACHED = 64  # signatures are a few hundred names each
_PROBES = (11, 13)  # numbers of classes that are no width of any network


class _ParametersWithoutMemory(TorchFunctionMode):
    """Parameters are made on the meta device; numbers that decide widths are still computed.

    RegNet computes its widths with tensors, which the meta device cannot.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """As the base class says."""
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def construct(name: str, classes: int, *, dilated: bool = False) -> nn.Module | None:
    """The network in evaluation mode, parameters on the meta device; None for an unknown name.

    A `name` that begins with "timm:" is timm's, one in `NETWORKS` ours, any other torchvision's.
    Only torchvision's MobileNetV3 can be `dilated`.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # the innermost device counts, whatever the caller builds on
        stack.enter_context(torch.device("cpu"))
        stack.enter_context(_ParametersWithoutMemory())
        if name.startswith(TIMM_PREFIX):
            return _timms(name.removeprefix(TIMM_PREFIX), classes)
        if name in NETWORKS:
            return NETWORKS[name](classes).eval()
        return _torchvisions(name, classes, dilated=dilated)


def _torchvisions(name: str, classes: int, *, dilated: bool) -> nn.Module | None:
    if name not in torchvision.models.list_models(module=torchvision.models):
        return None
    slow_init = name in ("googlenet", "inception_v3") or name.startswith("vgg")
    options: dict[str, Any] = {"init_weights": False} if slow_init else {}
    if name in ("googlenet", "inception_v3"):
        options["aux_logits"] = False
    if dilated:
        options["dilated"] = True
    module: nn.Module = torchvision.models.get_model(name, num_classes=classes, **options)
    return module.eval()


def _timms(name: str, classes: int) -> nn.Module | None:
    try:
        import timm
    except ImportError:
        return None
    if name not in timm.list_models():
        return None
    module: nn.Module = timm.create_model(name, num_classes=classes)
    return module.eval()


@lru_cache(maxsize=_CACHED)
def computed(name: str) -> Signature | None:
    """What the constructor makes; None for an unknown name, or one without a classifier.

    It is asked for two numbers of classes: what differs between the two is where they go.
    """
    module, other = (construct(name, classes) for classes in _PROBES)
    if module is None or other is None:
        return None
    first, second = _shapes(module), _shapes(other)
    if first == second or first.keys() != second.keys():
        return None
    tensors = {
        tensor: tuple(
            one if one == two else CLASSES for one, two in zip(shape, second[tensor], strict=True)
        )
        for tensor, shape in first.items()
    }
    norms = {part.eps for part in module.modules() if isinstance(part, nn.BatchNorm2d)}
    eps = _in_words(norms.pop()) if len(norms) == 1 else None
    features = [shape for shape in first.values() if len(shape) in (2, 4)][-1][1]
    return Signature(name, tensors, features, eps, *_usual(name, module))


def construct_as(
    name: str, expected: Shapes, missing: Iterable[str], *, dilated: bool = False
) -> nn.Module:
    """The network that has exactly the tensors `expected`; layers of those `missing` do nothing.

    Raises:
        CheckpointError: the installed library's constructor makes another network.
        MissingDependencyError: the library is not installed.
    """
    classes = _classes_of(name, expected)
    module = construct(name, classes, dilated=dilated)
    if module is None and name.startswith(TIMM_PREFIX) and installed_version("timm") is None:
        raise MissingDependencyError(
            f"{name.removeprefix(TIMM_PREFIX)} is a network of timm's, which is not installed: "
            "pip install timm"
        )
    made = {} if module is None else _shapes(module)
    left = {tensor: shape for tensor, shape in made.items() if tensor not in set(missing)}
    if module is None or left != dict(expected):
        library = "timm" if name.startswith(TIMM_PREFIX) else "torchvision"
        raise CheckpointError(
            f"the {name} that {library} {installed_version(library)} makes is not the one of "
            f"{library} {made_with()[library]}, whose names and shapes the checkpoint has: "
            f"pip install {library}=={made_with()[library]}"
        )
    for layer in dict.fromkeys(tensor.rpartition(".")[0] for tensor in missing):
        parent, _, child = layer.rpartition(".")
        setattr(module.get_submodule(parent), child, nn.Identity())
    return module


def set_stem(module: nn.Module, settings: Settings) -> None:
    """The stride of the first convolution, no max pool where `pool` is "no", the leaky slope."""
    for part in module.modules():
        if isinstance(part, nn.LeakyReLU) and "negative_slope" in settings:
            part.negative_slope = float(settings["negative_slope"])
    if "stem_stride" in settings:
        first = next(part for part in module.modules() if isinstance(part, nn.Conv2d))
        first.stride = (int(settings["stem_stride"]),) * 2
    if settings.get("pool") == "no":
        pools = (name for name, part in module.named_modules() if isinstance(part, nn.MaxPool2d))
        parent, _, child = next(pools).rpartition(".")
        setattr(module.get_submodule(parent), child, nn.Identity())


def _classes_of(name: str, expected: Shapes) -> int:
    """As many as `expected` has where the signature leaves them open; 1 for an encoder."""
    found = signature(name) or computed(name)
    tensors = {} if found is None else found.tensors
    open_sizes = (
        size
        for tensor, shape in tensors.items()
        for size, template in zip(expected.get(tensor, ()), shape, strict=False)
        if template == CLASSES
    )
    return next(open_sizes, 1)


def _shapes(module: nn.Module) -> dict[str, Shape]:
    return {
        key: tuple(value.shape)
        for key, value in module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def _in_words(eps: float) -> str:
    """As a user writes it: 1e-5, 1e-3, 1.001e-5."""
    digits, _, exponent = f"{eps:.10e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}"


def _usual(name: str, module: nn.Module) -> tuple[int, str]:
    """Pixels and the preprocessing's name."""
    if name in NETWORKS:
        return 32, "cifar"
    return _timm_usual(module) if name.startswith(TIMM_PREFIX) else _torchvision_usual(name)


def _torchvision_usual(name: str) -> tuple[int, str]:
    weights = torchvision.models.get_model_weights(name)
    default = next(iter(weights), None)
    size: int = default.transforms.keywords["crop_size"] if default is not None else 224
    return size, "imagenet"


def _timm_usual(module: Any) -> tuple[int, str]:
    described = module.pretrained_cfg
    centred = tuple(described.get("mean", ())) == (0.5, 0.5, 0.5)
    return int(described["input_size"][-1]), "half" if centred else "imagenet"
