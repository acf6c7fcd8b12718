"""Writes images with the answer on them, for people to look through."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.inference.prediction import Prediction

_LARGEST_PX = 1600
_SMALLEST_PX = 240  # below it a label has no room
_LETTERS = 28  # in one line across the image


def annotated(image: Image.Image, answer: Sequence[Prediction]) -> Image.Image:
    """The RGB image, at most 1600 pixels long, with a strip below it that says the answer."""
    longer = max(image.size)
    scale = min(1.0, _LARGEST_PX / longer)
    scale = max(scale, _SMALLEST_PX / image.width)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    shown = image.resize(size) if size != image.size else image
    height_px = max(14, shown.width // _LETTERS)
    font = ImageFont.load_default(size=height_px)
    lines = [f"{p.label} {p.probability:.1%}" for p in answer] or ["no answer that certain"]
    strip = round(1.4 * height_px) * len(lines) + height_px // 2
    page = Image.new("RGB", (shown.width, shown.height + strip), "white")
    page.paste(shown)
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        position = (height_px // 2, shown.height + round(1.4 * height_px) * number + height_px // 4)
        draw.text(position, line, fill="black", font=font)
    return page


def unique_name(stem: str, taken: set[str]) -> str:
    """A JPEG's name for an image, which no other has; `taken` learns it."""
    name, number = f"{stem}.jpg", 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}.jpg"
    taken.add(name.lower())
    return name


def make_folder(folder: Path) -> None:
    """Raise InputError where the folder cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
