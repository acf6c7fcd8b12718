"""Cadene's names of the layers of AlexNet and VGG, as torchvision's."""

from resdeploy.export.architectures.plain import alexnet, vgg
from resdeploy.export.architectures.plain.names import translate_plain


def test_alexnet_as_cadene_calls_it() -> None:
    names = ("_features.10.weight", "linear0.bias", "linear1.weight", "last_linear.weight")
    ours = ("features.10.weight", "classifier.1.bias", "classifier.4.weight", "classifier.6.weight")
    assert alexnet.FAMILY.translate({name: () for name in names}) == dict(
        zip(ours, names, strict=True)
    )


def test_vgg_as_cadene_calls_it() -> None:
    names = ("_features.0.weight", "linear0.bias", "linear1.weight", "last_linear.weight")
    ours = ("features.0.weight", "classifier.0.bias", "classifier.3.weight", "classifier.6.weight")
    assert vgg.FAMILY.translate({name: () for name in names}) == dict(zip(ours, names, strict=True))


def test_names_that_are_nobody_s_stay() -> None:
    names = {"features.0.weight": (), "x._features.1.bias": (), "last.weight": ()}
    found = translate_plain(names, {"last": "classifier.6"})
    assert found == {
        "features.0.weight": "features.0.weight",
        "x._features.1.bias": "x._features.1.bias",
        "classifier.6.weight": "last.weight",
    }
