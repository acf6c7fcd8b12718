"""`load(...)`: images in, labelled probabilities out, from a bundle on any backend."""

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.model import Model, open_model
from resdeploy.deploy.defaults import PREDICTION_BATCH, TOP_CLASSES
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.images.prefetch import in_order
from resdeploy.deploy.images.sources import Channels, ImageSource, as_rgb
from resdeploy.deploy.inference.open import open_session
from resdeploy.deploy.inference.prediction import Prediction, top_predictions
from resdeploy.deploy.machine import cores
from resdeploy.deploy.reading import StrPath
from resdeploy.deploy.session import ClosesOnExit, Session
from resdeploy.deploy.specs import Backend, Precision

if TYPE_CHECKING:
    from resdeploy.deploy.inference.auto import AutoChoice

# A one-thread run on a CPU gains nothing from more images (MobileNetV2 and ResNet-50, 1 to 16
# of them: the same time per image), while every thread holds the activations of all of them.
_CPU_BATCH_MAX = 4


class Classifier(ClosesOnExit):
    """Predicts with one precision of one bundle; close it, or use it in a `with` block.

    Safe to use from several threads. Made by `load`.
    """

    def __init__(
        self,
        model: Model,
        session: Session,
        *,
        precision: Precision,
        auto: "AutoChoice | None" = None,
    ) -> None:
        self._model = model
        self._session = session
        self._precision = precision
        self._auto = auto
        self._one_thread: Session | None = None
        self._opening = Lock()

    @property
    def manifest(self) -> Manifest:
        """Labels, preprocessing, proofs and everything else known of the bundle."""
        return self._model.manifest

    @property
    def session(self) -> Session:
        """The session that answers `predict` and `logits`."""
        return self._session

    @property
    def precision(self) -> Precision:
        """The precision that answers."""
        return self._precision

    @property
    def auto(self) -> "AutoChoice | None":
        """What precision "auto" chose and on what evidence; None where a precision was given."""
        return self._auto

    def predict(
        self, image: ImageSource, *, top: int = TOP_CLASSES, channels: Channels = "RGB"
    ) -> list[Prediction]:
        """The `top` most probable classes of one image, most probable first.

        Args:
            image: a path, the bytes of an image file, an array (H, W, 3) uint8, or a PIL image.
            channels: the order of an array's channels; OpenCV gives "BGR".

        Raises:
            InputError: the image cannot be read, or the network has no classes.
        """
        self._check_classes()
        preprocess = self.manifest.preprocess
        if isinstance(image, str | os.PathLike):
            pixels = read_input(os.fspath(image), preprocess)
        else:
            pixels = preprocess.apply(as_rgb(image, channels=channels))
        logits = self.logits(pixels[None])
        return top_predictions(logits[0], self.manifest.labels, top)

    @overload
    def predict_many(
        self,
        paths: Iterable[StrPath],
        *,
        batch: int = PREDICTION_BATCH,
        top: int = TOP_CLASSES,
        errors: Literal["raise"] = "raise",
    ) -> Generator[list[Prediction], None, None]: ...

    @overload
    def predict_many(
        self,
        paths: Iterable[StrPath],
        *,
        batch: int = PREDICTION_BATCH,
        top: int = TOP_CLASSES,
        errors: Literal["yield"],
    ) -> Generator[list[Prediction] | InputError, None, None]: ...

    def predict_many(
        self,
        paths: Iterable[StrPath],
        *,
        batch: int = PREDICTION_BATCH,
        top: int = TOP_CLASSES,
        errors: Literal["raise", "yield"] = "raise",
    ) -> Generator[list[Prediction] | InputError, None, None]:
        """`predict` for every path, in order, decoding and inferring ahead in threads.

        `batch` is the largest number of images in one run; where more images would only cost
        memory, a run takes fewer. With `errors="yield"` an image that cannot be read yields its
        InputError and the rest go on; with "raise" it is raised when its turn comes.
        """
        self._check_classes()
        for answer in self.logits_many(paths, batch=batch):
            if not isinstance(answer, InputError):
                yield top_predictions(answer, self.manifest.labels, top)
            elif errors == "yield":
                yield answer
            else:
                raise answer

    def logits_batch(self, paths: Sequence[StrPath]) -> list[Float32s | InputError]:
        """What `logits_many` yields, of a few paths in one run, in this thread."""
        self._check_classes()
        return self._answer_chunk(self._session, [os.fspath(path) for path in paths])

    def logits(self, batch: Float32s) -> Float32s:
        """(N, 3, H, W) float32, preprocessed, to (N, classes) float32.

        Raises:
            InputError: wrong shape or dtype, or a backbone: see `features`.
        """
        if self.manifest.features:
            self._check_classes()
        return self._session.run(batch)

    def features(self, batch: Float32s) -> dict[str, Float32s]:
        """(N, 3, H, W) float32, preprocessed, to a backbone's maps: name -> (N, C, h, w) float32.

        Raises:
            InputError: wrong shape or dtype, or the bundle is no backbone.
        """
        if not self.manifest.features:
            raise InputError(
                f"{self._model.path}: gives logits, no feature maps: "
                "make a backbone with resdeploy export CHECKPOINT --features C2,C3,C4,C5"
            )
        return self._session.run_all(batch)

    def logits_many(
        self, paths: Iterable[StrPath], *, batch: int = PREDICTION_BATCH
    ) -> Iterator[Float32s | InputError]:
        """(classes,) float32 for every path in order, or the InputError of an unreadable one.

        Every thread decodes a batch and runs it. On a CPU each run has one thread: with whole
        images to share, that leaves no core waiting, where splitting every layer over all
        cores does.
        """
        if batch < 1:
            raise InputError(f"batch {batch} is not at least 1")
        files = _several(paths)
        threads = cores()
        session = self._throughput_session(len(files))
        if _cpu_threads(session) is not None:
            batch = min(batch, _CPU_BATCH_MAX)

        def answer(chunk: Sequence[str]) -> list[Float32s | InputError]:
            return self._answer_chunk(session, chunk)

        for answers in in_order(answer, _chunks(files, batch, threads), threads=threads):
            yield from answers

    def _answer_chunk(self, session: Session, chunk: Sequence[str]) -> list[Float32s | InputError]:
        preprocess = self.manifest.preprocess
        inputs = np.empty((len(chunk), 3, *preprocess.input_size_px), np.float32)
        answers: list[Float32s | InputError] = []
        good: list[int] = []
        for position, path in enumerate(chunk):
            try:
                read_input(path, preprocess, out=inputs[len(good)])
            except InputError as error:
                answers.append(error)
            else:
                answers.append(inputs[0, 0, 0])  # replaced below, once the batch has run
                good.append(position)
        if good:
            for position, logits in zip(good, session.run(inputs[: len(good)]), strict=True):
                answers[position] = logits
        return answers

    def _throughput_session(self, images: int) -> Session:
        if images < 2 or cores() == 1 or _cpu_threads(self._session) in (None, 1):
            return self._session
        with self._opening:
            if self._one_thread is None:
                self._one_thread = open_session(
                    self._model, precision=self._precision, backend="ort-cpu", threads=1
                )
            return self._one_thread

    def _check_classes(self) -> None:
        if self.manifest.features:
            names = ", ".join(feature.name for feature in self.manifest.features)
            raise InputError(
                f"{self._model.path}: a backbone, which gives the feature maps {names} and no "
                "classes: use classifier.features(batch)"
            )
        if self.manifest.model.classes is None:
            raise InputError(
                f"{self._model.path}: a network without a classification head; it yields "
                f"{self.manifest.output.shape[1]} pooled features: use classifier.logits(batch)"
            )

    def close(self) -> None:
        """Release the sessions."""
        self._session.close()
        if self._one_thread is not None:
            self._one_thread.close()


def load(
    path: StrPath,
    *,
    precision: Precision | Literal["auto"] | None = None,
    backend: Backend | Literal["auto"] = "auto",
    threads: int | None = None,
) -> Classifier:
    """Open a bundle, or a lone `.onnx` or engine of ours, for prediction. Never imports torch.

    Args:
        path: the bundle's folder, the ONNX file, or the engine with its sidecar beside it.
        precision: "fp32" (or what a lone file holds, the default), "fp16", "int8", or "auto":
            the fastest that passes the bundle's self check here; see `Classifier.auto`.
        backend: "auto" or one of `resdeploy.deploy.specs.BACKENDS`.
        threads: CPU threads for one image; default all cores. `predict_many` shares images
            among the cores instead, whatever this is.

    Raises:
        BundleError: not a bundle, or a file in it was altered.
        BackendError: the backend is not usable on this machine, or nothing passes the check.
    """
    model = open_model(path)
    auto = None
    if precision == "auto":
        from resdeploy.deploy.inference.auto import choose

        auto = choose(model, backend=backend, threads=threads)
        precision, backend = auto.precision, auto.backend
    session = open_session(model, precision=precision, backend=backend, threads=threads)
    return Classifier(model, session, precision=precision or model.precision, auto=auto)


def _chunks(paths: Sequence[str], batch: int, threads: int) -> Iterator[Sequence[str]]:
    """Batches of at most `batch`, smaller towards the end, so that all threads end together."""
    start = 0
    while start < len(paths):
        share = -(-(len(paths) - start) // (2 * threads))
        size = min(batch, share)
        yield paths[start : start + size]
        start += size


def _cpu_threads(session: Session) -> int | None:
    """Threads of one run on ONNX Runtime's CPU provider (0: all cores); None on anything else."""
    return session.threads or 0 if session.backend == "ort-cpu" else None


def _several(paths: Iterable[StrPath]) -> list[str]:
    """Raise InputError where one image was given for several, or what is no path."""
    if isinstance(paths, str | bytes | os.PathLike):
        raise InputError("predict_many takes several paths, got one: use predict for one image")
    found = list(paths)
    for number, path in enumerate(found):
        if not isinstance(path, str | os.PathLike):
            raise InputError(
                f"path {number} is a {type(path).__name__}, expected a path: predict takes "
                "arrays, bytes and PIL images, one at a time"
            )
    return [os.fspath(path) for path in found]
