"""Times the stages of one image: decode, resize and normalise, inference, softmax and labels."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image

from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.defaults import TOP_CLASSES
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import evenly_spaced
from resdeploy.deploy.images.files import decoded, find_images
from resdeploy.deploy.inference.prediction import top_predictions
from resdeploy.deploy.metrics.timing import time_in_turns
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.reading import StrPath, open_regular
from resdeploy.deploy.session import Session

_IMAGES = 16
_SYNTHETIC_PX = (480, 640)


def time_stages(
    manifest: Manifest,
    sessions: Mapping[str, Session],
    encoded: Sequence[bytes],
    seconds: float,
    progress: Progress = silent,
) -> tuple[dict[str, float], dict[str, float]]:
    """Median ms of each stage, and for each session of one image from its bytes to its answer."""
    images = [Image.open(BytesIO(data)).convert("RGB") for data in encoded]
    tensors = [manifest.preprocess.apply(image)[None] for image in images]
    logits = next(iter(sessions.values())).run(tensors[0])
    labels = manifest.labels or tuple(map(str, range(logits.shape[1])))
    files, pixels = cycle(encoded), cycle(images)

    def decode() -> Image.Image:
        return Image.open(BytesIO(next(files))).convert("RGB")

    def postprocess() -> object:
        return top_predictions(logits[0], labels, TOP_CLASSES)

    def whole(session: Session) -> object:
        tensor = manifest.preprocess.apply(decode())[None]
        if manifest.features:
            return session.run_all(tensor)
        return top_predictions(session.run(tensor)[0], labels, TOP_CLASSES)

    runs: dict[str, Callable[[], object]] = {
        "decode": decode,
        "resize_and_normalise": lambda: manifest.preprocess.apply(next(pixels)),
        **({} if manifest.features else {"postprocess": postprocess}),
    }
    wholes = {name: partial(whole, session) for name, session in sessions.items()}
    samples = time_in_turns(
        [*runs.values(), *wholes.values()],
        seconds=seconds,
        progress=lambda done, total: progress("timing image to classes", done, total),
    )
    medians = [found.percentile_ms(50) for found in samples]
    stages = dict(zip(runs, medians, strict=False))
    return stages, dict(zip(wholes, medians[len(runs) :], strict=True))


def read_encoded(data: StrPath | None) -> tuple[list[bytes], str]:
    """At most 16 encoded images, in memory so that no disk is timed, and a phrase for them."""
    if data is None:
        return [_synthetic()], "a synthetic JPEG of 640x480 pixels"
    paths = find_images([Path(data)])
    chosen = [paths[i] for i in evenly_spaced(len(paths), _IMAGES)]
    try:
        encoded = [_bytes_of(path) for path in chosen]
        for content, path in zip(encoded, chosen, strict=True):
            decoded(
                BytesIO(content), str(path)
            )  # one that cannot be read would be timed as nothing
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return encoded, f"{len(chosen)} images from {data}"


def _bytes_of(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read()


def _synthetic() -> bytes:
    """A JPEG whose detail is about that of a photograph: smooth shapes and some noise."""
    height, width = _SYNTHETIC_PX
    y, x = np.mgrid[0:height, 0:width] / width
    waves = [np.sin(2 * np.pi * (f * x + f * y * y + c)) for c, f in ((0, 5), (0.3, 9), (0.6, 13))]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    pixels = np.clip(128 + 90 * np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()
