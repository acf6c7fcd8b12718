"""Finds the comparison target: what the variants of a bundle are compared with.

The best at hand is taken: a checkpoint live in PyTorch, else fp32.onnx on the CPU, else the logits
PyTorch gave at export.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from resdeploy.deploy.bundle.bundle import REFERENCE, recorded_by
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.model import Model, open_model, recorded_reference
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.errors import BundleError, InputError, MissingDependencyError
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.images.spread import Open
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.verification.candidates import Candidate, open_candidates, open_float

LIVE = "PyTorch"
FLOAT_GRAPH = "fp32.onnx"


@dataclass(frozen=True)
class LiveCheckpoint:
    """A checkpoint that runs in PyTorch; `remark` where it is not the one that was exported."""

    session: Session
    sentence: str
    remark: str | None = None


# opens the checkpoint for a bundle: torch lives above this package, so whoever has it hands it in
OpenLive = Callable[[Manifest], LiveCheckpoint]


@dataclass(frozen=True)
class ComparisonTarget:
    """What the variants are compared with; without a session, PyTorch's recorded logits alone.

    `name` is that of its session among those that run together.
    """

    name: str | None
    session: Session | None
    sentence: str
    notes: tuple[str, ...] = ()

    def named_on(
        self,
        images: int | None,
        recorded: int | None,
        whose: str,
        *,
        others: Sequence[str] = (),
    ) -> str:
        """The sentence with the numbers of images that were compared.

        `images` is None where nothing was compared with the session. `whose` logits the
        recorded ones are; `others` are phrases about what the variants were compared with besides.
        """
        parts = []
        if self.session is not None and images is not None:
            parts.append(f"{self.sentence} on {images} images")
        parts += others
        if recorded is not None and self.name != LIVE:
            parts.append(f"{whose} logits for the {recorded} inputs recorded in {REFERENCE}")
        if not parts:
            return "nothing" if self.session is not None else self.sentence
        return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def reference_name(session: str | None) -> str:
    """What a session that others are compared with is called in sentences."""
    return LIVE if session == LIVE else FLOAT_GRAPH


def find_target(
    model: Model,
    candidates: Sequence[Candidate],
    open_live: OpenLive | None,
    stack: ExitStack,
    *,
    needed: bool,
) -> ComparisonTarget:
    """The live checkpoint, else fp32.onnx on the CPU, else PyTorch's recorded logits alone.

    `needed` is False where there are no images, so that only recorded inputs are compared.
    """
    if open_live is not None:
        live = open_live(model.manifest)
        session = stack.enter_context(live.session)
        notes = () if live.remark is None else (live.remark,)
        return ComparisonTarget(LIVE, session, live.sentence, notes)
    if not needed:
        return ComparisonTarget(None, None, f"the logits recorded in {REFERENCE}")
    try:
        float_graph = open_float(model, candidates, stack)
    except MissingDependencyError as error:  # a device that only runs engines
        note = f"the answers to the images were compared with nothing: {error}"
        return ComparisonTarget(None, None, f"the logits recorded in {REFERENCE}", (note,))
    if float_graph is None:
        return ComparisonTarget(None, None, "nothing: there is no fp32 graph")
    sentence = f"{FLOAT_GRAPH} on ort-cpu"
    return ComparisonTarget(float_graph.name, float_graph.session, sentence)


def recorded_logits(model: Model, target: ComparisonTarget) -> Reference | None:
    """The recorded inputs with PyTorch's logits; a live checkpoint answers the inputs anew.

    Raises:
        BundleError: damaged, empty, or of another network.
    """
    recorded = recorded_reference(_with_its_bundle(model))
    if recorded is None or target.name != LIVE or target.session is None:
        return recorded
    return Reference(recorded.inputs, target.session.run(recorded.inputs))


def recorder(model: Model, target: ComparisonTarget) -> str:
    """What gave the logits of `recorded_logits`, as sentences name it."""
    return LIVE if target.name == LIVE else recorded_by(_with_its_bundle(model).manifest)


def check_workers(images: Images | None, options: Mapping[str, object]) -> None:
    """Refuse `options` that are given though only workers have the images.

    Raises:
        InputError: with the option.
    """
    for option, given in options.items():
        if given is not None and images is not None and images.workers is not None:
            raise InputError(f"{option} needs the images here: use --engine local")


def opened_by_workers(candidates: Sequence[Candidate]) -> Open[Mapping[str, Session]]:
    """How a worker opens all sessions of a comparison from its copy of the bundle."""
    return partial(
        _opened,
        precisions=tuple(dict.fromkeys(candidate.precision for candidate in candidates)),
        backends=tuple(dict.fromkeys(candidate.backend for candidate in candidates)),
    )


@contextmanager
def _opened(
    bundle: Path, *, precisions: Sequence[Precision], backends: Sequence[Backend]
) -> Iterator[Mapping[str, Session]]:
    model = open_model(bundle)
    with ExitStack() as stack:
        candidates = open_candidates(model, precisions, backends, stack)
        yield named_sessions(candidates, find_target(model, candidates, None, stack, needed=True))


def named_sessions(candidates: Sequence[Candidate], target: ComparisonTarget) -> dict[str, Session]:
    """All sessions by name, that of what they are compared with first."""
    sessions = {candidate.name: candidate.session for candidate in candidates}
    if target.name is not None and target.session is not None:
        sessions = {target.name: target.session, **sessions}
    return sessions


def _with_its_bundle(model: Model) -> Model:
    """The bundle that a lone ONNX file lies in, if it is of the same checkpoint; else the file."""
    if model.bundle is not None:
        return model
    try:
        beside = open_model(model.path.parent)
    except BundleError:
        return model
    checkpoints = {m.manifest.model.checkpoint_sha256 for m in (model, beside)}
    return beside if len(checkpoints) == 1 else model
