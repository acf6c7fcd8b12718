"""The architectures a checkpoint can be recognised as: one file each, and one line here."""

from resdeploy.export.architectures import (
    cifar_resnet,
    densenet,
    mobilenet_v1,
    mobilenet_v2,
    resnet,
)
from resdeploy.export.architectures.constructed import by_constructor
from resdeploy.export.architectures.family import Family
from resdeploy.export.architectures.inception import googlenet, inception_v3, xception
from resdeploy.export.architectures.plain import alexnet, vgg
from resdeploy.export.architectures.preact import resnet as preact_resnet

FAMILIES: tuple[Family, ...] = (
    resnet.FAMILY,
    mobilenet_v2.FAMILY,
    cifar_resnet.FAMILY,
    preact_resnet.FAMILY,
    googlenet.FAMILY,
    inception_v3.FAMILY,
    xception.FAMILY,
    mobilenet_v1.FAMILY,
    vgg.FAMILY,
    alexnet.FAMILY,
    densenet.FAMILY,
    by_constructor.FAMILY,
)
"""Each reads what the ones before it leave; the order decides nothing else."""
