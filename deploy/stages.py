"""Times the stages of one picture: decode, resize and normalise, inference, softmax and labels."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image

from resdeploy.deploy.classifier import top_predictions
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.manifest import Manifest
from resdeploy.deploy.output import Progress, silent
from resdeploy.deploy.pictures import find_pictures
from resdeploy.deploy.session import Session
from resdeploy.deploy.timing import time_in_turns

_PICTURES = 16
_SYNTHETIC_PX = (480, 640)
_TOP = 5


def time_stages(
    manifest: Manifest,
    sessions: Mapping[str, Session],
    encoded: Sequence[bytes],
    *,
    seconds: float,
    progress: Progress = silent,
) -> tuple[dict[str, float], dict[str, float]]:
    """Median ms of each stage, and by session of one picture from its bytes to its classes."""
    images = [Image.open(BytesIO(data)).convert("RGB") for data in encoded]
    tensors = [manifest.preprocess.apply(image)[None] for image in images]
    logits = next(iter(sessions.values())).run(tensors[0])
    classes = logits.shape[1]
    labels = manifest.labels or tuple(map(str, range(classes)))
    files, pixels = cycle(encoded), cycle(images)

    def decode() -> Image.Image:
        return Image.open(BytesIO(next(files))).convert("RGB")

    def postprocess() -> object:
        return top_predictions(logits[0], labels, _TOP)

    def whole(session: Session) -> object:
        tensor = manifest.preprocess.apply(decode())[None]
        return top_predictions(session.run(tensor)[0], labels, _TOP)

    runs: dict[str, Callable[[], object]] = {
        "decode": decode,
        "resize_and_normalise": lambda: manifest.preprocess.apply(next(pixels)),
        "postprocess": postprocess,
    }
    wholes = {name: partial(whole, session) for name, session in sessions.items()}
    samples = time_in_turns(
        [*runs.values(), *wholes.values()],
        seconds=seconds,
        progress=lambda done, total: progress("timing picture to classes", done, total),
    )
    medians = [found.percentile_ms(50) for found in samples]
    stages = dict(zip(runs, medians, strict=False))
    return stages, dict(zip(wholes, medians[len(runs) :], strict=True))


def read_encoded(data: str | Path | None) -> tuple[list[bytes], str]:
    """Encoded pictures and what to call them; at most 16, read into memory: disks are not timed."""
    if data is None:
        return [_synthetic()], "a synthetic JPEG of 640x480 pixels"
    paths = find_pictures([data])
    chosen = [paths[round(i)] for i in np.linspace(0, len(paths) - 1, min(len(paths), _PICTURES))]
    try:
        encoded = [path.read_bytes() for path in chosen]
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return encoded, f"{len(chosen)} pictures from {data}"


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
