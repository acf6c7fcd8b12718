"""The models a server has: loaded, replaced and unloaded while requests go on.

A version is ready after its bundle's own check and a real inference passed here; that is kept, not
asked anew by every probe. A new state of a bundle is opened beside the old one, which answers
until the new one has passed; requests that hold the old one finish on it. The highest ready version
answers requests that name none.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resdeploy.deploy.bundle.hub import bundle_name
from resdeploy.deploy.errors import InputError, ResdeployError
from resdeploy.deploy.serving.batching import BatchRules
from resdeploy.deploy.serving.refusal import Refusal
from resdeploy.deploy.serving.served_model import (
    Fingerprint,
    Observer,
    ServedModel,
    Source,
    fingerprint,
)
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.system.memory import return_freed_memory

State = Literal["READY", "LOADING", "UNAVAILABLE"]
_Key = tuple[str, str]


@dataclass(frozen=True)
class ModelState:
    """One line of the repository's index; `reason` says why a model is not ready."""

    name: str
    version: str
    state: State
    reason: str = ""


def sources(
    paths: Sequence[Path],
    precisions: Sequence[Precision | Literal["auto"]] = (),
    backend: Backend | Literal["auto"] = "auto",
) -> tuple[Source, ...]:
    """Name what is to be served: flowers.bundle is "flowers", a further precision "flowers-int8".

    Raises:
        InputError: two of one name.
    """
    found = []
    for path in paths:
        name = bundle_name(path)
        first, *further = precisions or (None,)
        found.append(Source(name, path, first, backend))
        found += [Source(f"{name}-{other}", path, other, backend) for other in further]
    for name, count in Counter(source.name for source in found).items():
        if count > 1:
            same = ", ".join(str(source.path) for source in found if source.name == name)
            raise InputError(f"{same}: {count} models named {name!r}: rename one of them")
    return tuple(found)


class Repository:
    """Models by name and version; safe to use from several threads; close it."""

    def __init__(
        self, found: Sequence[Source], *, rules: BatchRules, observe: Observer, keep_going: bool
    ) -> None:
        """Remember what may be served; `load` does the work.

        Args:
            keep_going: whether the server is ready while some of its models are not.
        """
        self._sources = {source.name: source for source in found}
        self._rules = rules
        self._observe = observe
        self._keep_going = keep_going
        self._loading = threading.Lock()  # one load at a time: memory and cores are few
        self._lock = threading.Lock()
        self._served: dict[_Key, ServedModel] = {}
        self._states: dict[_Key, ModelState] = {}
        self._tried: dict[_Key, Fingerprint] = {}
        self._users: Counter[ServedModel] = Counter()
        self._retired: set[ServedModel] = set()
        self._unloaded: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The models that may be served, loaded or not."""
        return tuple(self._sources)

    def load(self, name: str) -> None:
        """Load or load again all versions of a model.

        Raises:
            Refusal: no such model, or a version failed its check; the one before it still answers.
        """
        with self._loading:
            self._unloaded.discard(name)
            self._load(self._source(name), again=True)

    def refresh(self, *, watch: bool) -> None:
        """Try failed models again and, with `watch`, load what changed on disk; never raises."""
        with self._loading:
            for name in self._sources.keys() - self._unloaded:
                lost = [m for m in self.ready_models() if m.name == name and m.failure]
                if watch or lost:
                    with suppress(Refusal):
                        self._load(self._sources[name], again=False)

    def unload(self, name: str) -> None:
        """Take a model out; requests that have it finish.

        Raises:
            Refusal: no such model.
        """
        self._source(name)
        with self._loading:
            self._unloaded.add(name)
            for key in [key for key in self._states if key[0] == name]:
                self._set(key, "UNAVAILABLE", "unloaded")
                self._replace(key, None)

    @contextmanager
    def lease(self, name: str, version: str = "") -> Iterator[ServedModel]:
        """Hold a ready version; it stays open until it is given back, whatever is loaded meanwhile.

        Raises:
            Refusal: no such model or version, or it is not ready.
        """
        with self._lock:
            model = self._find(name, version)
            self._users[model] += 1
        try:
            yield model
        finally:
            with self._lock:
                self._users[model] -= 1
                last = not self._users[model] and model in self._retired
            if last:
                self._dispose(model)

    def is_ready(self, name: str, version: str = "") -> bool:
        """Whether a version, or any when none is named, answers.

        Raises:
            Refusal: no such model or version.
        """
        try:
            with self._lock:
                self._find(name, version)
        except Refusal as refusal:
            if refusal.reason == "unknown_model":
                raise
            return False
        return True

    def all_ready(self) -> bool:
        """Whether the server is ready: never without a model."""
        ready = {model.name for model in self.ready_models() if not model.failure}
        wanted = self._sources.keys() - self._unloaded
        return bool(ready) and (self._keep_going or wanted <= ready)

    def ready_models(self) -> tuple[ServedModel, ...]:
        """What is loaded, in the order of the command line, then of version."""
        with self._lock:
            served = dict(self._served)
        order = list(self._sources)
        return tuple(
            served[key] for key in sorted(served, key=lambda k: (order.index(k[0]), int(k[1])))
        )

    def index(self) -> tuple[ModelState, ...]:
        """Every model and version with its state; one never loaded is listed without a version."""
        with self._lock:
            failures = {key: model.failure for key, model in self._served.items()}
            states = list(self._states.values())
        known = {state.name for state in states}
        states += [ModelState(name, "", "UNAVAILABLE") for name in self.names if name not in known]
        lost = [
            ModelState(s.name, s.version, "UNAVAILABLE", failure)
            if (failure := failures.get((s.name, s.version)))
            else s
            for s in states
        ]
        return tuple(lost)

    def close(self) -> None:
        """Answer what waits and release every model."""
        with self._loading:
            for key in list(self._served):
                model = self._served.pop(key)
                model.close()

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            raise Refusal(
                "unknown_model", f"no model {name!r} here; there are {', '.join(self.names)}"
            )
        return self._sources[name]

    def _find(self, name: str, version: str) -> ServedModel:
        self._source(name)
        versions = sorted((v for n, v in self._states if n == name), key=int)
        if version and version not in versions:
            held = ", ".join(versions) or "none"
            raise Refusal(
                "unknown_model", f"model {name!r} has no version {version!r}; it has {held}"
            )
        for candidate in [version] if version else reversed(versions):
            model = self._served.get((name, candidate))
            if model is not None and not model.failure:
                return model
        raise Refusal("not_ready", f"model {name!r} is not ready", retry_after_s=1)

    def _load(self, source: Source, *, again: bool) -> None:
        """Bring the loaded versions of a model to what is on disk."""
        found = source.versions()
        problems = []
        for version, path in found.items():
            key = (source.name, version)
            served = self._served.get(key)
            lost = served is not None and bool(served.failure)
            if again or lost or fingerprint(path) != self._tried.get(key):
                problems += self._open(source, version, path)
        for key in [k for k in self._states if k[0] == source.name and k[1] not in found]:
            with self._lock:
                del self._states[key]
            self._replace(key, None)
        if problems:
            raise Refusal("failed_check", "; ".join(problems))

    def _open(self, source: Source, version: str, path: Path) -> list[str]:
        """Open one version and let it take over; the reason in a list when it failed."""
        key = (source.name, version)
        held = key in self._served
        if not held:
            self._set(key, "LOADING")
        self._tried[key] = fingerprint(path)
        try:
            model = ServedModel(source, version, path, rules=self._rules, observe=self._observe)
        except Exception as error:  # a neighbour must not suffer, whatever it is
            text = str(error) if isinstance(error, ResdeployError) else f"{path}: {error!r}"
            if held:
                reason = f"the version loaded before answers; the new one failed: {text}"
                self._set(key, "READY", reason)
            else:
                self._set(key, "UNAVAILABLE", text)
            return [text]
        self._set(key, "READY")
        self._replace(key, model)
        return []

    def _set(self, key: _Key, state: State, reason: str = "") -> None:
        with self._lock:
            self._states[key] = ModelState(*key, state, reason)

    def _replace(self, key: _Key, model: ServedModel | None) -> None:
        """Let `model` answer from now on; the one before closes when its last user has left."""
        with self._lock:
            before = self._served.pop(key, None)
            if model is not None:
                self._served[key] = model
            if before is None:
                return
            self._retired.add(before)
            free = not self._users[before]
        if free:
            self._dispose(before)

    def _dispose(self, model: ServedModel) -> None:
        with self._lock:
            if model not in self._retired:
                return
            self._retired.discard(model)
            del self._users[model]
        # joining threads is nothing for the event loop, from which the last user may leave
        threading.Thread(target=_released, args=(model,), name=f"close-{model.name}").start()


def _released(model: ServedModel) -> None:
    """Close a model and give its memory back to the system, which glibc would rather keep."""
    model.close()
    return_freed_memory()
