"""The ways in which networks are trained to see pixels: mean and std, for values in 0..1."""

from resdeploy.deploy.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

Triple = tuple[float, float, float]

_ZERO, _HALF, _ONE = (0.0,) * 3, (0.5,) * 3, (1.0,) * 3
# as a std it leaves pixels as they are, 0..255
_BYTE = (1 / 255,) * 3

NORMALIZATIONS: dict[str, tuple[Triple, Triple]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "-1..1": (_HALF, _HALF),
    "0..1": (_ZERO, _ONE),
    "0..1 minus mean": (IMAGENET_MEAN, _ONE),
    "0..255": (_ZERO, _BYTE),
    "0..255 minus mean": (IMAGENET_MEAN, _BYTE),
}


def normalization_name(own: Preprocess) -> str:
    """What mean and std make of pixels, e.g. "imagenet" or "-1..1"."""
    for name, (mean, std) in NORMALIZATIONS.items():
        if _near(own.mean, mean) and _near(own.std, std):
            return name
    mean_text, std_text = (",".join(f"{v:g}" for v in part) for part in (own.mean, own.std))
    return f"mean {mean_text} std {std_text}"


def _near(first: Triple, second: Triple) -> bool:
    return all(abs(a - b) < 1e-3 * max(abs(b), 1e-3) for a, b in zip(first, second, strict=True))
