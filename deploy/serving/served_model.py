"""One version of one model, checked and ready to answer, with its session and its batcher."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.errors import BackendError, BundleError
from resdeploy.deploy.inference.classifier import Classifier, load
from resdeploy.deploy.inference.self_check import first_references, self_check
from resdeploy.deploy.machine import cores
from resdeploy.deploy.serving.batching import Batcher, BatchRecord, BatchRules
from resdeploy.deploy.specs import Backend, Precision, Variant

# as many as a TensorRT session has contexts: one copies while the other computes
_GPU_WORKERS = 2

Observer = Callable[["ServedModel", BatchRecord], None]


@dataclass(frozen=True)
class Source:
    """Where a model comes from: a bundle, a lone ONNX file, or a folder of numbered versions.

    `precision` None is the bundle's own default.
    """

    name: str
    path: Path
    precision: Precision | Literal["auto"] | None
    backend: Backend | Literal["auto"]

    def versions(self) -> dict[str, Path]:
        """Version → bundle, lowest first; what has no numbered folders is version 1."""
        numbered = {}
        if self.path.is_dir() and not (self.path / "manifest.json").is_file():
            numbered = {
                folder.name: folder
                for folder in self.path.iterdir()
                if folder.is_dir() and folder.name.isdecimal() and folder.name.isascii()
            }
        return dict(sorted(numbered.items(), key=lambda item: int(item[0]))) or {"1": self.path}


Fingerprint = tuple[tuple[str, int, int], ...]


def fingerprint(path: Path) -> Fingerprint:
    """Names, sizes and times of a bundle's files: whatever tells that it changed."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        found = [(file.name, file.stat()) for file in files if file.is_file()]
    except OSError:
        return ()
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in found)


class ServedModel:
    """Answers requests through a batcher; `close` answers what waits, then frees the session."""

    def __init__(
        self,
        source: Source,
        version: str,
        path: Path,
        *,
        rules: BatchRules,
        observe: Observer,
    ) -> None:
        """Open a bundle and let it answer its reference images here.

        Raises:
            ResdeployError: it cannot be opened, or it gives other answers than those recorded.
        """
        self.name = source.name
        self.version = version
        self.path = path
        self.fingerprint = fingerprint(path)
        self.failure = ""
        # one thread for each run and as many runs as cores: for small CNNs the most images a second
        self._classifier = load(path, precision=source.precision, backend=source.backend, threads=1)
        try:
            check_answers(self._classifier, path)
            on_cpu = self.backend == "ort-cpu"
            workers = cores() if on_cpu else _GPU_WORKERS
            self.batcher = Batcher(
                self._run,
                replace(rules, workers=workers, spread=on_cpu),
                name=f"{self.name}-{version}",
                observe=lambda record: observe(self, record),
            )
        except BaseException:
            self._classifier.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self._classifier.manifest

    @property
    def precision(self) -> Precision:
        """The precision that answers."""
        return self._classifier.precision

    @property
    def backend(self) -> Backend:
        """What runs the network."""
        found = self._classifier.session.backend
        return "ort-cpu" if found == "pytorch" else found

    @property
    def variant(self) -> Variant:
        """The file of the bundle that answers."""
        return self._classifier.session.variant

    @property
    def max_batch(self) -> int:
        """Rows of one request at most."""
        return self.batcher.rules.max_batch

    def facts(self) -> Mapping[str, str]:
        """What distinguishes this version, for a metric's labels and the model's card."""
        return {
            "architecture": self.manifest.model.architecture,
            "precision": self.precision,
            "backend": self.backend,
        }

    def _run(self, rows: Float32s) -> Float32s:
        try:
            logits = self._classifier.logits(rows)
        except BackendError as error:
            self.failure = str(error)  # a GPU that disappeared, say: not ready until a run succeeds
            raise
        self.failure = ""
        return logits

    def close(self) -> None:
        """Answer what waits, then release the session."""
        self.batcher.close()
        self._classifier.close()


def check_answers(classifier: Classifier, path: Path) -> None:
    """Answer the bundle's reference images, which is also a real inference here.

    Raises:
        BundleError: other answers than those recorded, or feature maps.
    """
    if classifier.manifest.features:
        raise BundleError(
            f"{path}: a backbone, whose feature maps are not served: use it from Python "
            "with classifier.features(batch)"
        )
    session = classifier.session
    outcome = self_check(session, classifier.precision, first_references(open_model(path)))
    if not outcome.passed:
        raise BundleError(
            f"{path}: {classifier.precision} on {session.backend} gives other answers than "
            f"recorded ({outcome}): look into it with resdeploy verify {path}"
        )
