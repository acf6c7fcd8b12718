"""Images whose right answer depends on the preprocessing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def faint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images of each colour, so faint that ImageNet's mean and std hide red and green."""
    folder = tmp_path_factory.mktemp("faint")
    for index, label in enumerate(("red", "green", "blue")):
        (folder / label).mkdir()
        for number in range(30):
            pixels = np.full((8, 8, 3), 100, np.uint8)
            pixels[:, :, index] += number + 1
            Image.fromarray(pixels).save(folder / label / f"{number:02d}.png")
    return folder
