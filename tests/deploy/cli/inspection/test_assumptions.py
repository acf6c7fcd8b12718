"""A dozen assumptions are one sentence, from which each can still be changed."""

from resdeploy.deploy.cli.inspection.assumptions import in_short

_STRIDES = "the stages have strides 1,2,2,2 (change with --assume strides=1,2,2,1)"
_POOL = "the max pool pads by 1 (0: Caffe's) (change with --assume pool_padding=0)"
_NAMES = "class names are not known; name them with --classes class_indices.json"


def test_what_assume_changes_is_one_sentence() -> None:
    assert in_short([_STRIDES, _NAMES, _POOL]) == [
        _NAMES,
        "the stages have strides 1,2,2,2; the max pool pads by 1 (0: Caffe's) "
        "(change with --assume KEY=VALUE; keys, in this order: strides, pool_padding)",
    ]


def test_one_stays_as_it_is() -> None:
    assert in_short([_NAMES, _POOL]) == [_NAMES, _POOL]
