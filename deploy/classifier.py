"""`load(...)`: pictures in, labelled probabilities out, from a bundle on any backend."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resdeploy.deploy.errors import GraphError, InputError
from resdeploy.deploy.machine import cores
from resdeploy.deploy.manifest import Manifest
from resdeploy.deploy.pictures import in_order, read_input
from resdeploy.deploy.session import Model, Session, open_model, open_session
from resdeploy.deploy.specs import Backend, Precision

if TYPE_CHECKING:
    from resdeploy.deploy.choice import Choice

PathLike = str | Path

# A one-thread run on a CPU gains nothing from more pictures (MobileNetV2 and ResNet-50, 1 to 16
# of them: the same time per picture), while every thread holds the activations of all of them.
_CPU_BATCH_MAX = 4


@dataclass(frozen=True)
class Prediction:
    """One class of an answer; `probability` is the softmax over all classes."""

    label: str
    index: int
    probability: float


class Classifier:
    """Predicts with one precision of one bundle; close it, or use it in a `with` block.

    Safe to use from several threads. Made by `load`.
    """

    def __init__(
        self,
        model: Model,
        session: Session,
        *,
        precision: Precision,
        choice: "Choice | None" = None,
    ) -> None:
        self._model = model
        self._session = session
        self._precision = precision
        self._choice = choice
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
    def choice(self) -> "Choice | None":
        """What precision "auto" chose and on what evidence; None where a precision was given."""
        return self._choice

    def predict(self, picture: PathLike | Image.Image, *, top: int = 5) -> list[Prediction]:
        """The `top` most probable classes of one picture, most probable first.

        Raises:
            InputError: the picture cannot be read, or the network has no classes.
        """
        self._check_classes()
        _check_top(top)
        preprocess = self.manifest.preprocess
        if isinstance(picture, Image.Image):
            pixels = preprocess.apply(picture.convert("RGB"))
        else:
            pixels = read_input(picture, preprocess)
        logits = self.logits(pixels[None])
        return top_predictions(logits[0], self.manifest.labels, top)

    @overload
    def predict_many(
        self,
        paths: Iterable[PathLike],
        *,
        batch: int = 8,
        top: int = 5,
        errors: Literal["raise"] = "raise",
    ) -> Iterator[list[Prediction]]: ...

    @overload
    def predict_many(
        self,
        paths: Iterable[PathLike],
        *,
        batch: int = 8,
        top: int = 5,
        errors: Literal["yield"],
    ) -> Iterator[list[Prediction] | InputError]: ...

    def predict_many(
        self,
        paths: Iterable[PathLike],
        *,
        batch: int = 8,
        top: int = 5,
        errors: Literal["raise", "yield"] = "raise",
    ) -> Iterator[list[Prediction] | InputError]:
        """`predict` for every path, in order, decoding and inferring ahead in threads.

        `batch` is the most pictures of one run; fewer go into one where more would only cost
        memory. With `errors="yield"` a picture that cannot be read yields its InputError and the
        rest go on; with "raise" it is raised when its turn comes.
        """
        self._check_classes()
        _check_top(top)
        for answer in self.logits_many(paths, batch=batch):
            if not isinstance(answer, InputError):
                yield top_predictions(answer, self.manifest.labels, top)
            elif errors == "yield":
                yield answer
            else:
                raise answer

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3, H, W) float32, preprocessed, to (N, classes) float32.

        Raises:
            InputError: wrong shape or dtype.
        """
        return self._session.run(batch)

    def logits_many(
        self, paths: Iterable[PathLike], *, batch: int = 8
    ) -> Iterator[NDArray[np.float32] | InputError]:
        """(classes,) float32 for every path in order, or the InputError of an unreadable one.

        Every thread decodes a batch and runs it. On a CPU each run has one thread: with whole
        pictures to share, that leaves no core waiting, where splitting every layer over all
        cores does.
        """
        if batch < 1:
            raise InputError(f"batch {batch} is not at least 1")
        if isinstance(paths, str):
            raise TypeError(f"paths is one path ({paths!r}), expected several")
        paths = list(paths)
        threads = cores()
        session = self._throughput_session(len(paths))
        if _cpu_threads(session) is not None:
            batch = min(batch, _CPU_BATCH_MAX)

        def answer(chunk: Sequence[PathLike]) -> list[NDArray[np.float32] | InputError]:
            return self._answer_chunk(session, chunk)

        for answers in in_order(answer, _chunks(paths, batch, threads), threads=threads):
            yield from answers

    def _answer_chunk(
        self, session: Session, chunk: Sequence[PathLike]
    ) -> list[NDArray[np.float32] | InputError]:
        preprocess = self.manifest.preprocess
        inputs = np.empty((len(chunk), 3, *preprocess.input_size_px), np.float32)
        answers: list[NDArray[np.float32] | InputError] = []
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

    def _throughput_session(self, pictures: int) -> Session:
        if pictures < 2 or cores() == 1 or _cpu_threads(self._session) in (None, 1):
            return self._session
        with self._opening:
            if self._one_thread is None:
                self._one_thread = open_session(
                    self._model, precision=self._precision, backend="ort-cpu", threads=1
                )
            return self._one_thread

    def _check_classes(self) -> None:
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

    def __enter__(self) -> "Classifier":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def load(
    path: PathLike,
    *,
    precision: Precision | Literal["auto"] | None = None,
    backend: Backend | Literal["auto"] = "auto",
    threads: int | None = None,
) -> Classifier:
    """Open a bundle, or a lone `.onnx` written by resdeploy, for prediction. Never imports torch.

    Args:
        path: the bundle's folder or the ONNX file.
        precision: "fp32" (or what a lone ONNX file holds, the default), "fp16", "int8", or "auto":
            the fastest that passes the bundle's reference check here; see `Classifier.choice`.
        backend: "auto" or one of `resdeploy.deploy.specs.BACKENDS`.
        threads: CPU threads for one picture; default all cores. `predict_many` shares pictures
            among the cores instead, whatever this is.

    Raises:
        BundleError: not a bundle, or a file in it was altered.
        BackendError: the backend is not usable on this machine, or nothing passes the check.
    """
    model = open_model(path)
    choice = None
    if precision == "auto":
        from resdeploy.deploy.choice import choose

        choice = choose(model, backend=backend, threads=threads)
        precision, backend = choice.precision, choice.backend
    session = open_session(model, precision=precision, backend=backend, threads=threads)
    return Classifier(model, session, precision=precision or model.precision, choice=choice)


def top_predictions(
    logits: NDArray[np.float32], labels: Sequence[str], top: int
) -> list[Prediction]:
    """The `top` classes of (classes,) logits with softmax probabilities, ties by class index.

    Raises:
        GraphError: a logit is not finite, so there is no answer.
    """
    if not np.isfinite(logits).all():
        raise GraphError(
            f"the network answered {logits[~np.isfinite(logits)][0]} for class "
            f"{labels[int(np.argmin(np.isfinite(logits)))]!r}, expected finite logits: "
            "try --precision fp32, or export again"
        )
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = shifted / shifted.sum()
    order = np.argsort(-logits, kind="stable")[:top]
    return [Prediction(labels[i], int(i), float(probabilities[i])) for i in order]


def _chunks(paths: Sequence[PathLike], batch: int, threads: int) -> Iterator[Sequence[PathLike]]:
    """Batches of at most `batch`, smaller towards the end, so that all threads end together."""
    start = 0
    while start < len(paths):
        share = -(-(len(paths) - start) // (2 * threads))
        size = min(batch, share)
        yield paths[start : start + size]
        start += size


def _cpu_threads(session: Session) -> int | None:
    """Threads of one run on ONNX Runtime's CPU provider (0: all cores); None on anything else."""
    if getattr(session, "backend", "") != "ort-cpu":
        return None
    return getattr(session, "threads", None) or 0


def _check_top(top: int) -> None:
    if top < 1:
        raise InputError(f"top {top} is not at least 1")
