"""Networks that many people have and no family reads, told by a name that only they use."""

import re
from collections.abc import Iterable

_OWN = "give your own network with --arch module:factory"
# (names of tensors, any of which tells it; what it is and the way on)
_STRANGERS = (
    (
        r"(^|\.)attnpool\.positional_embedding$",
        "the image encoder of a CLIP ResNet, which ends in attention pooling and gives an "
        "embedding instead of classes: with a classifier of your own behind it, " + _OWN,
    ),
    (
        r"(^|\.)visual\.transformer\.resblocks\.|(^|\.)vision_model\.encoder\.layers\.",
        "CLIP with a vision transformer, which gives embeddings instead of classes: for its image "
        "encoder with a classifier behind it, " + _OWN,
    ),
    (
        r"(^|\.)layer1\.0\.prelu\.weight$",
        "insightface's iresnet (PReLU, batch norms on both sides), which gives an embedding of a "
        "face instead of classes: " + _OWN,
    ),
    (
        r"(^|\.)conv2_x\.0\.residual\.0\.",
        "weiaicunzai's ResNet with stochastic depth, which multiplies each residual by a number "
        "that no weight tells: " + _OWN,
    ),
    (
        r"(^|\.)output\.fc1\.fc\.weight$",
        "pytorchcv's AlexNet or ZFNet, some of which normalize across channels and some not, which "
        "no weight tells: " + _OWN,
    ),
    (
        r"(^|\.)inception_3a_1x1\.weight$",
        "BN-Inception under Caffe's names, which is not among the families: " + _OWN,
    ),
    (
        r"(^|\.)cell_\d+\.comb_iter_\d+_(left|right)\.|(^|\.)cell_stem_\d+\.",
        "a NASNet or PNASNet that timm does not construct: " + _OWN,
    ),
    (
        r"(^|\.)stage_[abc]\.\d+\.path1\.|(^|\.)stage_a\.0\.blocks\.",
        "PolyNet, which is not among the families: " + _OWN,
    ),
    (
        r"(^|\.)model\.\d+\.(dfl|m\.\d+|cv\d+\.\d+\.\d+)\..*|(^|\.)model\.\d+\.anchors?$",
        "a YOLO detector: export it with its own tool, e.g. yolo export format=onnx",
    ),
    (
        r"(^|\.)(rpn|roi_heads|bbox_head|class_embed|head\.classification_head)\.",
        "a detector, not a classifier, around an encoder that is none of the known ones: " + _OWN,
    ),
    (
        r"(^|\.)(blocks|layers|encoder\.layer)\.\d+\.(attn|attention)\.",
        "a vision transformer that neither torchvision nor timm constructs so: " + _OWN,
    ),
)


def stranger(names: Iterable[str]) -> str | None:
    """What a checkpoint with tensors of these names is and the way on; None where nobody knows."""
    every = tuple(names)
    for pattern, told in _STRANGERS:
        if any(re.search(pattern, name) for name in every):
            return told
    return None
