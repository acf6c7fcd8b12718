"""The demo's images: scikit-learn's handwritten digits, with one fixed split into train and test.

Training and the demo both take the split from here, so the images that the demo measures on
are certain not to be among those that the network was trained on.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGE_PX = 64

Part = Literal["train", "test"]


def digit_images(part: Part) -> list[tuple[Image.Image, int]]:
    """The 1437 images of "train" or the 360 of "test" as (grey 64×64 image, class index).

    The originals are 8×8 pixels of 0 to 16. They are enlarged once, here, so that what lies on
    disk is exactly what the network was trained on, and large enough to look at.
    """
    digits = load_digits()
    numbers = np.arange(len(digits.target))
    train, test = train_test_split(
        numbers, test_size=0.2, random_state=0, shuffle=True, stratify=digits.target
    )
    chosen = train if part == "train" else test
    return [(_image(digits.images[i]), int(digits.target[i])) for i in sorted(chosen)]


def write_images(part: Part, folder: Path) -> dict[Path, int]:
    """Write one part as `folder/<class>/<number>.png`; returns each file's class index."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    written = {}
    for number, (image, label) in enumerate(digit_images(part)):
        path = folder / CLASSES[label] / f"{number:04d}.png"
        image.save(path)
        written[path] = label
    return written


def _image(pixels: np.ndarray) -> Image.Image:
    grey = Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8))
    return grey.resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BICUBIC)
