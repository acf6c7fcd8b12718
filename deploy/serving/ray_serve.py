"""A bundle as an application of Ray Serve: an image in, its best classes out.

Each replica has one core (or GPU) and one session, ready once it has given the recorded answers.
Requests share inferences by Ray Serve's own batching, and it adds and removes replicas.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.defaults import SERVED_BATCH, SERVED_WAIT_MS, TOP_CLASSES
from resdeploy.deploy.errors import BackendError, InputError, ResdeployError
from resdeploy.deploy.inference.classifier import load
from resdeploy.deploy.inference.prediction import top_predictions
from resdeploy.deploy.optional import needs
from resdeploy.deploy.reading import StrPath
from resdeploy.deploy.serving.decode import decode
from resdeploy.deploy.serving.limits import Limits
from resdeploy.deploy.serving.refusal import CODES, Refusal
from resdeploy.deploy.serving.served_model import check_answers
from resdeploy.deploy.specs import GPU_BACKENDS, Backend, Precision


def ray_serve_app(
    bundle: StrPath,
    *,
    precision: Precision | None = None,
    backend: Backend | Literal["auto"] = "auto",
    max_batch: int = SERVED_BATCH,
    max_wait_ms: float = SERVED_WAIT_MS,
    min_replicas: int = 1,
    max_replicas: int = 4,
) -> Any:
    """An application for `ray.serve.run`, or for the import path of `serve run` and `serve deploy`.

    POST an image to it: the answer is {"predictions": [{"label", "index", "probability"}, …]} or
    {"error": text}, as at /v1/classify; `?top=k` asks for k classes. From Python,
    `handle.classify.remote(image, top)` gives the same list.

    Args:
        bundle: must be at this path on every node.
        max_batch: images of one inference. max_wait_ms: how long an image waits for others.
        min_replicas, max_replicas: between these Ray Serve keeps `max_batch` requests each.

    Raises:
        MissingDependencyError: Ray Serve is not installed.
        InputError: no bundle at this path of this machine.
    """
    with needs("ray_serve_app"):
        from ray import serve
    path = Path(bundle).absolute()
    if not path.exists():
        raise InputError(f"{path}: no such bundle; make a bundle with resdeploy export CHECKPOINT")
    batched = serve.batch(max_batch_size=max_batch, batch_wait_timeout_s=max_wait_ms / 1000)
    gpu = backend in GPU_BACKENDS
    return serve.deployment(
        type("ImageClassifier", (Replica,), {"infer": batched(Replica.infer)}),
        name=path.name.removesuffix(".bundle"),
        ray_actor_options={"num_cpus": 0 if gpu else 1, "num_gpus": int(gpu)},
        max_ongoing_requests=4 * max_batch,
        max_queued_requests=Limits().requests,
        autoscaling_config=_scaling(min_replicas, max_replicas, max_batch),
    ).bind(path, precision, backend)


def _scaling(least: int, most: int, requests: int) -> dict[str, int]:
    """Between how many replicas, with how many requests each."""
    return {
        "min_replicas": least,
        "max_replicas": most,
        "target_ongoing_requests": requests,
    }


class Replica:
    """One session and what is around it; Ray Serve makes and ends it."""

    def __init__(
        self, path: Path, precision: Precision | None, backend: Backend | Literal["auto"]
    ) -> None:
        """Open the bundle and let it answer its reference images here."""
        self._classifier = load(path, precision=precision, backend=backend, threads=1)
        check_answers(self._classifier, path)
        self._failure = ""

    def check_health(self) -> None:
        """Tell Ray Serve to replace this replica when its backend is gone."""
        if self._failure:
            raise BackendError(self._failure)

    async def __call__(self, request: Any) -> Any:
        """Answer a request of HTTP."""
        from starlette.responses import JSONResponse

        try:
            top = _number(request.query_params.get("top", str(TOP_CLASSES)))
            predictions = await self.classify(await request.body(), top)
        except Refusal as refusal:
            return JSONResponse({"error": str(refusal)}, CODES[refusal.reason].http)
        except ResdeployError as error:
            return JSONResponse({"error": str(error)}, CODES["inference_failed"].http)
        return JSONResponse({"predictions": predictions})

    async def classify(self, image: bytes, top: int = TOP_CLASSES) -> list[dict[str, Any]]:
        """The `top` classes of one encoded image.

        Raises:
            Refusal: not an image, or too large.
        """
        manifest = self._classifier.manifest

        def pixels() -> Float32s:
            return decode(image, manifest.preprocess, max_pixels=Limits().pixels).pixels

        # batched by Ray Serve: one input in, its logits out, which the signature cannot say
        infer: Callable[[Float32s], Awaitable[Float32s]]
        infer = self.infer  # type: ignore[assignment]  # see above
        logits = await infer(await _in_thread(pixels))
        return [vars(found) for found in top_predictions(logits, manifest.labels, top)]

    async def infer(self, rows: Sequence[Float32s]) -> list[Float32s]:
        """Logits of several inputs; Ray Serve makes this a method of one input."""
        try:
            logits = await _in_thread(lambda: self._classifier.logits(np.stack(rows)))
        except BackendError as error:
            self._failure = str(error)
            raise
        return list(logits)


async def _in_thread(work: Callable[[], Float32s]) -> Float32s:
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text[:9]) >= 1):
        raise Refusal("malformed", f"top {text[:20]!r} is not a whole number from 1")
    return int(text[:9])
