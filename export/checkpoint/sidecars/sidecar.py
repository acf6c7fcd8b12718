"""What is said about a network beside its tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from resdeploy.deploy.images.preprocess import Preprocess

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Sidecar:
    """What is said about a network beside its tensors.

    Attributes:
        source: where, e.g. "config.json".
        architecture: the network's name there, or None.
        settings: assumption key -> value that is thereby known.
        preprocess: how images become inputs, or None.
        normalization: only the mean and the standard deviation of that, or None.
        labels: class names in the order of the classes, or None.
    """

    source: str
    architecture: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    normalization: tuple[Triple, Triple] | None = None


def joined(found: list[Sidecar]) -> Sidecar | None:
    """One sidecar that knows what any of them knows, the first one first."""
    if not found:
        return None
    settings = {key: value for one in reversed(found) for key, value in one.settings.items()}
    return Sidecar(
        " and ".join(one.source for one in found),
        next((one.architecture for one in found if one.architecture), None),
        settings,
        next((one.preprocess for one in found if one.preprocess), None),
        next((one.labels for one in found if one.labels), None),
        next((one.normalization for one in found if one.normalization), None),
    )


def shorter_side(
    name: str,
    resize_px: int,
    crop_px: int,
    mean: Triple,
    std: Triple,
    interpolation: str = "bilinear",
) -> Preprocess:
    """Resize the shorter side, then crop the centre.

    Raises:
        InputError: the numbers make no preprocessing.
    """
    crop = (crop_px, crop_px)
    return Preprocess(name, resize_px, crop, mean, std, interpolation).checked()


def triple(value: object, scale: float = 1.0) -> Triple:
    """Three numbers, each times `scale`.

    Raises:
        ValueError: they are not three numbers.
    """
    if isinstance(value, list | tuple) and len(value) == 3:
        # rounded, so that 0.406 · 255 / 255 is 0.406 again
        red, green, blue = (round(float(number) * scale, 9) for number in value)
        return red, green, blue
    raise ValueError(f"{value!r} is not a list of three numbers")
