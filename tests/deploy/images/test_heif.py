"""HEIC files are read with the plugin, and without it named as skipped."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images import heif
from resdeploy.deploy.images.files import find_images, open_image
from resdeploy.deploy.images.gather import gather


@pytest.fixture
def heic(tmp_path: Path) -> Path:
    """A smooth HEIC image in a folder of its own, with a JPEG beside it."""
    plugin = pytest.importorskip("pillow_heif")
    column = np.linspace(0, 255, 64).astype(np.uint8)
    image = Image.fromarray(np.stack([np.tile(column, (64, 1))] * 3, axis=-1))
    folder = tmp_path / "photos"
    folder.mkdir()
    image.save(folder / "b.jpg")
    plugin.from_pillow(image).save(folder / "a.HEIC", quality=95)
    return folder / "a.HEIC"


@pytest.fixture
def without_plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine where pillow-heif is not installed."""
    heif.can_read_heif.cache_clear()

    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    with monkeypatch.context() as patched:
        patched.setattr(heif, "import_module", absent)
        yield
    heif.can_read_heif.cache_clear()


def test_with_the_plugin_it_is_an_image_like_any_other(heic: Path) -> None:
    image = open_image(heic)
    assert image.mode == "RGB" and image.size == (64, 64)
    column = np.linspace(0, 255, 64)
    assert np.abs(np.asarray(image)[32, :, 0] - column).mean() < 6
    assert [path.name for path in find_images([heic.parent])] == ["a.HEIC", "b.jpg"]


@pytest.mark.usefixtures("without_plugin")
def test_without_it_the_file_is_named_as_skipped(heic: Path, tmp_path: Path) -> None:
    assert [path.name for path in find_images([heic.parent])] == ["b.jpg"]
    found = gather([str(heic.parent)], tmp_path, BytesIO())
    assert [Path(image.name).name for image in found.images] == ["b.jpg"]
    (remark,) = found.remarks
    assert "1 HEIC file skipped; to read them: pip install" in remark and "[heic]" in remark
    with pytest.raises(InputError, match=r"a HEIC image, which needs pillow-heif: pip install"):
        open_image(heic)
