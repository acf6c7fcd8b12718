"""Answers a request, whatever protocol brought it: decode, share a batch, pick the outputs.

Everything here runs on the event loop and hands work to threads. Cancelling it, when a client
leaves, takes the request out of the decoders' queue and out of its batch.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import InputError, ResdeployError
from resdeploy.deploy.inference.prediction import Prediction, best_classes, top_predictions
from resdeploy.deploy.serving.batching import Answer
from resdeploy.deploy.serving.decode import Decoded, decode
from resdeploy.deploy.serving.interrupt import Interruptible
from resdeploy.deploy.serving.limits import Bodies, Limits
from resdeploy.deploy.serving.metrics import Metrics
from resdeploy.deploy.serving.protocol.tensors import (
    InferRequest,
    InferResponse,
    InputTensor,
    OutputRequest,
    OutputTensor,
    malformed,
)
from resdeploy.deploy.serving.refusal import Refusal
from resdeploy.deploy.serving.repository import Repository
from resdeploy.deploy.serving.served_model import ServedModel
from resdeploy.deploy.serving.waiting import Waiting
from resdeploy.deploy.session import sizes_of

Result = TypeVar("Result")


@dataclass(frozen=True)
class Service:
    """What answering needs: the models, threads that decode and that load, counters, limits."""

    repository: Repository
    decoders: ThreadPoolExecutor
    loaders: ThreadPoolExecutor
    metrics: Metrics
    limits: Limits
    bodies: Bodies

    async def change(self, change: Callable[[str], None], name: str) -> None:
        """Load or unload a model, off the event loop and one at a time."""
        await asyncio.get_running_loop().run_in_executor(self.loaders, change, name)


@dataclass(frozen=True)
class Timing:
    """Where the time of one request went, in seconds; of several images the longest."""

    decode_s: float = 0.0
    preprocess_s: float = 0.0
    queue_s: float = 0.0
    inference_s: float = 0.0


@dataclass(frozen=True)
class Classified:
    """The best classes of one image and where the time went."""

    predictions: Sequence[Prediction]
    timing: Timing


async def infer(
    service: Service, name: str, version: str, request: InferRequest
) -> tuple[InferResponse, Timing]:
    """Answer a V2 inference request; all its rows go into one batch.

    Raises:
        Refusal: the request, the model or the inference is at fault.
    """
    with service.repository.lease(name, version) as model:
        tensor = _only_input(model, request)
        asked = _outputs(model, request)
        timing, answer = await _within(
            min(request.timeout_s, service.limits.answer_s),
            _infer_tensor(service, model, tensor, request),
        )
        outputs = tuple(_output_tensor(model, output, answer.logits) for output in asked)
        return InferResponse(model.name, model.version, request.id, outputs), Timing(
            timing.decode_s, timing.preprocess_s, answer.queue_s, answer.inference_s
        )


async def classify(service: Service, model: ServedModel, image: bytes, top: int) -> Classified:
    """The `top` classes of one encoded image; it may share a batch with any other.

    Raises:
        Refusal: not an image, too large, overloaded, or the network has no classes.
    """
    if model.manifest.model.classes is None:
        raise malformed(f"model {model.name!r} has no classes: ask for its features with infer")
    decoded, answer = await _within(service.limits.answer_s, _classified(service, model, image))
    try:
        predictions = top_predictions(answer.logits[0], model.manifest.labels, top)
    except ResdeployError as error:
        raise Refusal("inference_failed", str(error)) from error
    timing = Timing(decoded.decode_s, decoded.preprocess_s, answer.queue_s, answer.inference_s)
    return Classified(predictions, timing)


async def _classified(service: Service, model: ServedModel, image: bytes) -> tuple[Decoded, Answer]:
    """Decode in a thread and join a batch from there."""
    decoded = []

    def work() -> "Future[Answer]":
        decoded.append(_decode(service, model, image))
        return model.batcher.submit(decoded[0].pixels[None])

    waiting = Waiting[Answer]()
    service.decoders.submit(waiting.run, work)
    answer = await _answered(waiting)
    return decoded[0], answer


async def _infer_tensor(
    service: Service, model: ServedModel, tensor: InputTensor, request: InferRequest
) -> tuple[Timing, Answer]:
    timing = Timing()
    if isinstance(tensor.values, tuple):
        loop = asyncio.get_running_loop()
        images = await asyncio.gather(
            *(
                loop.run_in_executor(service.decoders, _decode, service, model, image)
                for image in tensor.values
            )
        )
        rows = np.stack([image.pixels for image in images])
        timing = Timing(
            max(image.decode_s for image in images), max(image.preprocess_s for image in images)
        )
    else:
        rows = tensor.values
    waiting = Waiting[Answer]()
    waiting.hold(model.batcher.submit(rows, priority=request.priority, timeout_s=request.timeout_s))
    return timing, await _answered(waiting)


def _decode(service: Service, model: ServedModel, image: bytes) -> Decoded:
    decoded = decode(image, model.manifest.preprocess, max_pixels=service.limits.pixels)
    service.metrics.decoded(model, decoded)
    return decoded


async def _answered(waiting: Waiting[Answer]) -> Answer:
    try:
        return await waiting.answer
    except InputError as error:
        raise malformed(str(error)) from error
    except Refusal:
        raise
    except ResdeployError as error:
        raise Refusal("inference_failed", str(error)) from error


async def _within(seconds: float, work: Awaitable[Result]) -> Result:
    with Interruptible(seconds, "timeout", f"no answer within {seconds:.3g} s"):
        return await work


def _only_input(model: ServedModel, request: InferRequest) -> InputTensor:
    """The one input of a classifier, checked against the model."""
    spec = model.manifest.input
    if len(request.inputs) != 1 or request.inputs[0].name != spec.name:
        got = ", ".join(repr(tensor.name) for tensor in request.inputs)
        raise malformed(f"inputs {got}, expected one named {spec.name!r}")
    tensor = request.inputs[0]
    sizes = sizes_of(spec)
    if isinstance(tensor.values, tuple):
        expected = "(N), one element for each image"
        good = len(tensor.shape) == 1 or tensor.shape[1:] == (1,)
    else:
        expected = f"(N, {', '.join(map(str, sizes))})"
        good = tensor.shape[1:] == sizes
    if not good:
        raise malformed(f"input {spec.name!r}: shape {list(tensor.shape)}, expected {expected}")
    if tensor.shape[0] > model.max_batch:
        raise malformed(f"{tensor.shape[0]} images in one request, limit: {model.max_batch}")
    if not isinstance(tensor.values, tuple) and not np.isfinite(tensor.values).all():
        raise malformed(f"input {spec.name!r} holds a value that is not finite")
    return tensor


def _outputs(model: ServedModel, request: InferRequest) -> tuple[OutputRequest, ...]:
    """The outputs that were asked for, checked against the model."""
    spec = model.manifest.output
    asked = request.outputs or (OutputRequest(spec.name, binary=request.binary_output),)
    if len(asked) != 1 or asked[0].name != spec.name:
        got = ", ".join(repr(output.name) for output in asked)
        raise malformed(f"outputs {got}, expected one named {spec.name!r}")
    return asked


def _output_tensor(model: ServedModel, output: OutputRequest, logits: Float32s) -> OutputTensor:
    if not np.isfinite(logits).all():
        raise Refusal("inference_failed", "the network answered a value that is not finite")
    if not output.classes:
        return OutputTensor(output.name, "FP32", logits.shape, logits, output.binary)
    most = min(output.classes, logits.shape[1])
    labels = model.manifest.labels
    texts = []
    for row in logits:
        values = row.tolist()  # an array's elements are slow to format
        for index in best_classes(row, most):
            label = f":{labels[index]}" if labels else ""
            texts.append(f"{values[index]:f}:{index}{label}".encode())
    return OutputTensor(output.name, "BYTES", (len(logits), most), tuple(texts), output.binary)
