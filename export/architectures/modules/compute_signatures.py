"""Computes `signatures.json.gz` from our constructors and those of the installed libraries.

    python -m resdeploy.export.architectures.modules.compute_signatures

It asks each constructor for two numbers of classes, without memory for the weights. What differs
between the two is where that number goes. Left out are networks that a family of ours reads, and
names for a network that has one already: of several names, torchvision's is kept, then the
shortest that is not of TensorFlow's weights.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from typing import Any

import timm
import torchvision
import torchvision.models

from resdeploy.export.architectures import FAMILIES
from resdeploy.export.architectures.constructed import by_constructor
from resdeploy.export.architectures.constructed.signatures import (
    DATA,
    TIMM_PREFIX,
    to_entry,
)
from resdeploy.export.architectures.modules.constructed import computed
from resdeploy.export.architectures.modules.small_images.networks import NETWORKS
from resdeploy.export.architectures.units import Shape, Shapes, squeezed, units_of

_PROBE = 11  # classes
_TIMM_MODULES = (
    *("byobnet", "convnext", "cspnet", "densenet", "dla", "dpn", "efficientnet"),
    *("fasternet", "ghostnet", "hardcorenas", "hgnet", "hrnet", "inception_next"),
    *("inception_resnet_v2", "inception_v4", "mobilenetv3", "nasnet", "nfnet", "pnasnet", "regnet"),
    *("repghost", "repvit", "res2net", "resnest", "resnet", "resnetv2", "rexnet", "selecsls"),
    *("senet", "sknet", "starnet", "tresnet", "vovnet", "xception_aligned"),
)


def all_names() -> Iterator[str]:
    """Of torchvision, of timm, ours; the first of several names for one network is the one kept."""
    yield from torchvision.models.list_models(module=torchvision.models)
    timms = [name for module in _TIMM_MODULES for name in timm.list_models(module=module)]
    for name in sorted(timms, key=lambda name: (name.startswith("tf_"), len(name), name)):
        if not name.startswith("test_"):
            yield f"{TIMM_PREFIX}{name}"
    yield from NETWORKS


def entries(names: Iterable[str]) -> dict[str, Any]:
    """name -> what the data holds of it, for every network that is to be kept."""
    kept: dict[str, Any] = {}
    seen: set[tuple[tuple[str, Shape], ...]] = set()
    for name in names:
        found = computed(name)
        if found is None:
            continue
        shapes, key = found.for_classes(_PROBE), tuple(found.tensors.items())
        if key in seen or _read_by_a_family(shapes):
            continue
        seen.add(key)
        kept[name] = to_entry(found, units_of(shapes))
    return kept


def _read_by_a_family(shapes: Shapes) -> bool:
    """Whether one of the other families makes this network, up to biases under batch norms."""
    for family in FAMILIES:
        if family.name == by_constructor.FAMILY.name:
            continue
        names = family.translate(shapes)
        network = family.read({name: shapes[own] for name, own in names.items()})
        if network is None:
            continue
        extra = names.keys() - network.expected.keys()
        same = all(
            name in names and squeezed(shape) == squeezed(shapes[names[name]])
            for name, shape in network.expected.items()
        )
        if same and all(name.endswith(".bias") for name in extra):
            return True
    return False


def to_bytes(networks: dict[str, Any]) -> bytes:
    """The file, the same bytes for the same networks and versions."""
    versions = {"torchvision": torchvision.__version__.partition("+")[0], "timm": timm.__version__}
    text = json.dumps({"made_with": versions, "networks": networks}, separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def main() -> None:
    """Write the file anew."""
    DATA.write_bytes(to_bytes(entries(all_names())))


if __name__ == "__main__":
    main()
