"""The architectures a checkpoint can be recognised as: one file each, and one line here."""

from resdeploy.export.architectures import cifar_resnet, mobilenet_v2, resnet
from resdeploy.export.architectures.network import Family

FAMILIES: tuple[Family, ...] = (
    resnet.FAMILY,
    mobilenet_v2.FAMILY,
    cifar_resnet.FAMILY,
)
