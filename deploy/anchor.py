"""Finds what the variants of a bundle are compared with: the best reference that is at hand."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from resdeploy.deploy.bundle import REFERENCE
from resdeploy.deploy.candidates import Candidate, open_float
from resdeploy.deploy.errors import BundleError, MissingDependencyError
from resdeploy.deploy.recording import Reference, read_reference
from resdeploy.deploy.session import Model, Session, sizes_of

_LIVE = "PyTorch"


@dataclass(frozen=True)
class Anchor:
    """What the variants are compared with; `name` and `session` None for recorded logits alone."""

    name: str | None
    session: Session | None
    sentence: str
    notes: tuple[str, ...] = ()


def find_anchor(
    model: Model,
    candidates: Sequence[Candidate],
    checkpoint: str | Path | None,
    stack: ExitStack,
    *,
    needed: bool,
) -> Anchor:
    """The live checkpoint, else fp32.onnx on the CPU, else PyTorch's recorded logits alone.

    `needed` is False where there are no pictures, so that only recorded inputs are compared.
    """
    if checkpoint is not None:
        # torch lives above this package: named as text, not imported
        live = import_module("resdeploy.export.live")
        session, remark = live.open_checkpoint(Path(checkpoint), model.manifest)
        notes = () if remark is None else (remark,)
        return Anchor(_LIVE, stack.enter_context(session), f"{checkpoint} in PyTorch", notes)
    if not needed:
        return Anchor(None, None, f"PyTorch's answers recorded in {REFERENCE}")
    try:
        reference = open_float(model, candidates, stack)
    except MissingDependencyError as error:  # a device that only runs engines
        note = f"the pictures were compared with nothing: {error}"
        return Anchor(None, None, f"PyTorch's answers recorded in {REFERENCE}", (note,))
    if reference is None:
        return Anchor(None, None, "nothing: there is no fp32 graph")
    sentence = "fp32.onnx on ort-cpu, proven equal to PyTorch at export"
    return Anchor(reference.name, reference.session, sentence)


def recorded_answers(model: Model, anchor: Anchor | None = None) -> Reference | None:
    """The recorded inputs and logits; a live checkpoint's logits take the place of the recorded.

    Raises:
        BundleError: damaged, empty, or of another network.
    """
    if model.bundle is None or not (model.path / REFERENCE).is_file():
        return None
    recorded = read_reference(model.path / REFERENCE)
    got = (recorded.inputs.shape[1:], recorded.logits.shape[1:])
    expected = (sizes_of(model.manifest.input), (model.manifest.output.shape[1],))
    if got != expected or not len(recorded.inputs):
        raise BundleError(
            f"{model.path / REFERENCE}: of another bundle: {len(recorded.inputs)} inputs of shape "
            f"{got[0]} and {got[1][0]} logits, expected {expected[0]} and {expected[1][0]}: "
            "export again"
        )
    if anchor is not None and anchor.name == _LIVE and anchor.session is not None:
        return Reference(recorded.inputs, anchor.session.run(recorded.inputs))
    return recorded
