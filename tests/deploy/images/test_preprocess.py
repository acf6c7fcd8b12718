"""Preprocessing gives torchvision's pixels, bit for bit, on every size and mode of image."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.files import open_image, read_input
from resdeploy.deploy.images.preprocess import (
    Preprocess,
    named,
    names_file,
    override,
    read_preprocess,
)

_JSON_ONES = {
    "bicubic": {
        "resize_px": 236,
        "crop_px": [224, 224],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
    },
    "lanczos": {
        "resize_px": [96, 160],
        "mean": [0, 0.1, 0.9],
        "std": [1, 2, 0.3],
        "interpolation": "lanczos",
    },
    "nearest": {
        "resize_px": 40,
        "crop_px": [33, 64],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "nearest",
    },
    "crop-only": {"crop_px": [181, 250], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
}
_ALL = {
    **{name: named(name) for name in ("imagenet", "half", "cifar")},
    "imagenet-299": named("imagenet", 299),
    "cifar-32": named("cifar", 32),
    **{name: Preprocess.from_json(fields, source=name) for name, fields in _JSON_ONES.items()},
}
# width, height: slivers, smaller than the crop, one pixel off, odd differences to the crop
_SIZES = [
    (1, 1), (1, 41), (41, 1), (3, 2), (32, 32), (37, 501), (223, 225), (224, 224),
    (225, 223), (256, 255), (255, 256), (341, 256), (640, 427), (427, 640),
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small are faster without waiting for other threads
    yield
    torch.set_num_threads(before)


def _torchvision(preprocess: Preprocess, path: Path) -> np.ndarray:
    """What a training script does: `ImageFolder`'s loader, then its transforms."""
    steps: list[object] = []
    if preprocess.resize_px is not None:
        mode = InterpolationMode(preprocess.interpolation)
        steps.append(transforms.Resize(preprocess.resize_px, mode))
    if preprocess.crop_px is not None:
        steps.append(transforms.CenterCrop(preprocess.crop_px))
    steps += [transforms.ToTensor(), transforms.Normalize(preprocess.mean, preprocess.std)]
    with path.open("rb") as file:
        image = Image.open(file).convert("RGB")
    tensor: np.ndarray = transforms.Compose(steps)(image).numpy()
    return tensor


def _assert_same(preprocess: Preprocess, path: Path) -> None:
    expected = _torchvision(preprocess, path)
    found = read_input(path, preprocess)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected), f"{preprocess.name}: {path.name}"
    out = np.full_like(expected, np.nan)
    assert read_input(path, preprocess, out) is out
    assert np.array_equal(out, expected)


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory, photographs: list[Image.Image]) -> list[Path]:
    """The photographs at every size, saved without compression, which costs most."""
    folder = tmp_path_factory.mktemp("sizes")
    for number, size in enumerate(_SIZES):
        resized = photographs[number % 2].resize(size, Image.Resampling.BOX)
        resized.save(folder / f"{number}.png", compress_level=0)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", _ALL)
def test_same_bits_as_torchvision_at_every_size(name: str, sizes: list[Path]) -> None:
    for path in sizes:
        _assert_same(_ALL[name], path)


@pytest.fixture(scope="module")
def modes(tmp_path_factory: pytest.TempPathFactory, photographs: list[Image.Image]) -> list[Path]:
    """The same photograph as people's cameras, scanners and drawing programs save it."""
    folder = tmp_path_factory.mktemp("modes")
    image = photographs[1].crop((0, 0, 301, 233))
    alpha = image.convert("L").point(lambda v: 255 - v)
    with_alpha = image.convert("RGBA")
    with_alpha.putalpha(alpha)
    grey_alpha = image.convert("LA")
    grey_alpha.putalpha(alpha)
    sixteen = np.asarray(image.convert("L")).astype(np.uint16) * 257
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a camera held upright
    image.convert("L").save(folder / "grey.jpg")
    image.convert("L").save(folder / "grey.png")
    grey_alpha.save(folder / "grey_alpha.png")
    with_alpha.save(folder / "rgba.png")
    with_alpha.save(folder / "rgba.webp", lossless=True)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("CMYK").save(folder / "cmyk.tif")
    image.convert("YCbCr").save(folder / "ycbcr.tif")
    image.quantize(64).save(folder / "palette.png")
    image.quantize(64).save(folder / "palette_transparent.png", transparency=bytes(range(64)))
    image.quantize(64).save(folder / "palette_index.png", transparency=3)
    Image.fromarray(sixteen).save(folder / "sixteen.png")
    Image.fromarray(sixteen).save(folder / "sixteen.tif")
    Image.fromarray(np.asarray(image.convert("L"), np.float32)).save(folder / "float.tif")
    image.convert("1").save(folder / "one_bit.png")
    image.save(folder / "rotated.jpg", exif=exif)
    image.save(folder / "progressive.jpg", progressive=True, quality=70)
    image.save(folder / "subsampled.jpg", subsampling=2, quality=30)
    image.save(folder / "image.bmp")
    image.save(folder / "animated.gif", save_all=True, append_images=[image.rotate(90)])
    (folder / "gif_named.jpg").write_bytes((folder / "animated.gif").read_bytes())
    return sorted(folder.iterdir())


@pytest.mark.filterwarnings("ignore:Palette images")
@pytest.mark.parametrize("name", ["imagenet", "half", "cifar-32", "bicubic"])
def test_same_bits_as_torchvision_in_every_mode(name: str, modes: list[Path]) -> None:
    assert len(modes) == 21
    for path in modes:
        _assert_same(_ALL[name], path)


def test_exif_rotation_is_not_applied(photographs: list[Image.Image], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photographs[0].save(tmp_path / "a.png", exif=exif)
    assert open_image(tmp_path / "a.png").size == photographs[0].size


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["imagenet", "half", "bicubic", "crop-only"])
def test_same_bits_on_real_photographs(name: str, shared_data: Path) -> None:
    """35 photographs of ImageNet and flowers, as they were taken."""
    paths = sorted((shared_data / "imagenet-sample").rglob("*.JPEG"))[::25]
    paths += sorted((shared_data / "flowers" / "val").rglob("*.jpg"))[::25]
    assert len(paths) == 35
    for path in paths:
        _assert_same(_ALL[name], path)


@pytest.mark.realdata
def test_cifar_images_are_not_resized(shared_data: Path) -> None:
    path = next(iter(sorted((shared_data / "cifar10" / "val").rglob("*.jp*g"))))
    pixels = np.asarray(open_image(path), np.float32).transpose(2, 0, 1) / np.float32(255)
    preprocess = named("cifar", 32)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (preprocess.mean, preprocess.std))
    assert np.array_equal(read_input(path, preprocess), (pixels - mean) / std)
    _assert_same(preprocess, path)


def test_a_sliver_is_refused_before_it_takes_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "sliver.png"
    Image.new("RGB", (1, 60_000)).save(path)
    with pytest.raises(InputError, match=r"sliver\.png: image of 1x60000 .* 256x15360000") as info:
        read_input(path, named("imagenet"))
    assert "\n" not in str(info.value)
    assert read_input(path, named("half")).shape == (3, 224, 224)


@pytest.mark.parametrize("preprocess", _ALL.values(), ids=_ALL)
def test_json_round_trip(preprocess: Preprocess) -> None:
    fields = json.loads(json.dumps(preprocess.to_json()))
    assert Preprocess.from_json(fields, source="x") == preprocess


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": None}, "not a preprocessing description"),
        ({"mean": [0.5, 0.5]}, "not a preprocessing description"),
        ({"mean": "123"}, "three numbers"),
        ({"std": [1, 1, 0]}, "must be finite and std positive"),
        ({"std": [1, 1, 1e-50]}, "must be finite and std positive"),
        ({"mean": [float("nan"), 0, 0]}, "must be finite"),
        ({"interpolation": "cubic"}, "'cubic' is not one of nearest, bilinear"),
        ({"resize_px": 0}, "at least 1 pixel"),
        ({"resize_px": 224.5}, "not a preprocessing description"),
        ({"resize_px": [True, 224]}, "whole pixels"),
        ({"crop_px": True}, "true or false"),
        ({"crop_px": None}, "does not fix the input size"),
        ({"size": 224}, "unknown preprocessing field 'size'"),
    ],
)
def test_wrong_descriptions_are_one_line(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as info:
        Preprocess.from_json({**named("imagenet").to_json(), **change}, source="p.json")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("content", [[], "imagenet", 3, None, {}])
def test_json_of_another_shape_is_refused(content: object) -> None:
    with pytest.raises(InputError, match=r"p\.json: not a preprocessing description"):
        Preprocess.from_json(content, source="p.json")


def test_a_name_is_told_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    assert names_file("mine.JSON") and names_file(str(tmp_path / "mine"))
    assert not names_file("half") and not names_file("imagnet")
    with pytest.raises(InputError, match="neither a known name"):
        named("imagnet")


def test_a_file_is_read_and_its_input_size_is_law(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(_JSON_ONES["bicubic"]))
    assert read_preprocess(file).interpolation == "bicubic"
    assert read_preprocess(file, 224).name == "mine"
    with pytest.raises(InputError, match="--input-size asks for 160"):
        read_preprocess(file, 160)
    with pytest.raises(InputError, match=r"absent\.json: cannot be read"):
        read_preprocess(tmp_path / "absent.json")
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_preprocess(file)


def test_override_replaces_single_values_and_keeps_the_input_size() -> None:
    imagenet = named("imagenet")
    assert override(imagenet) is imagenet
    changed = override(named("half"), resize_px=256)
    assert (changed.resize_px, changed.crop_px, changed.name) == (256, (224, 224), "half (changed)")
    assert override(imagenet, mean=(0.0, 0.0, 0.0)).mean == (0, 0, 0)
    with pytest.raises(InputError, match="std positive"):
        override(imagenet, std=(1, 1, -1))


def test_a_image_of_another_size_is_refused_where_nothing_resizes() -> None:
    preprocess = Preprocess("none", None, None, (0, 0, 0), (1, 1, 1))
    with pytest.raises(InputError, match="does not fix the input size"):
        preprocess.checked()
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4)).save(buffer, "PNG")
    crop = Preprocess("crop", None, (2, 2), (0, 0, 0), (1, 1, 1))
    assert crop.apply(Image.open(buffer)).shape == (3, 2, 2)


def test_sizes_that_would_take_gigabytes_are_refused() -> None:
    for size_px in (4097, 100_000):
        with pytest.raises(InputError, match="limit: 4096 for the input"):
            named("imagenet", size_px)
    with pytest.raises(InputError, match="limit: 4096 for the input and 8192 for the resized"):
        override(named("imagenet"), resize_px=20_000)
    tall = Image.new("1", (1, 60_000)).convert("RGB")
    with pytest.raises(InputError, match=r"1x60000 pixels would be resized to 4000x60000"):
        replace(named("imagenet", 4000), resize_px=None).apply(tall)
