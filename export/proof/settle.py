"""Settles what a checkpoint leaves open, as far as its batch-norm statistics can tell.

Without images nothing is settled: the built-in ones show that arithmetic is right, but no network
was trained on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from resdeploy.deploy.bundle.manifest import Manifest, input_spec
from resdeploy.deploy.images.preprocess import Preprocess, named
from resdeploy.deploy.progress import Progress, silent
from resdeploy.export.checkpoint.architecture import Architecture
from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.describe import describe_checkpoint, told_preprocess
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import Checkpoint, read_checkpoint
from resdeploy.export.proof.contract_search import FEWEST_IMAGES, testify
from resdeploy.export.proof.contracts import INPUT_SIZE, NORMALIZATION, PREPROCESS_KEYS, Contract
from resdeploy.export.proof.testimony import Testimony

_NO_STATISTICS = (
    "preprocessing and strides are unproven: the batch norms hold no statistics of a training "
    "(folded or never trained); check the accuracy on labelled images"
)


@dataclass(frozen=True)
class Settled:
    """The architecture and preprocessing to export.

    Attributes:
        unproven: a sentence where there was nothing to go by.
        testimony: None then.
    """

    architecture: Architecture
    preprocess: Preprocess
    unproven: tuple[str, ...] = ()
    testimony: Testimony | None = None

    def applied_to(self, manifest: Manifest, assumed: Architecture) -> Manifest:
        """`manifest` of the `assumed` architecture, with what was decided and what is unproven."""
        height, width = self.preprocess.input_size_px
        others = (
            said
            for said in manifest.assumptions
            if said not in assumed.assumptions and not said.startswith(self._answered)
        )
        return replace(
            manifest,
            model=replace(manifest.model, settings=dict(self.architecture.settings)),
            input=input_spec(height, width),
            preprocess=self.preprocess,
            assumptions=(*self.unproven, *self.architecture.assumptions, *others),
            proofs={**manifest.proofs, **self.proof},
        )

    @property
    def proof(self) -> Mapping[str, Any]:
        """`batchnorm_statistics` for the manifest's proofs; empty without a testimony."""
        found = self.testimony
        return {} if found is None else {"batchnorm_statistics": found.to_json()}

    @property
    def _answered(self) -> tuple[str, ...]:
        """How sentences begin that need not be said any more, since they are decided."""
        decided = () if self.testimony is None else self.testimony.decided
        changed = () if self.testimony is None else self.testimony.changed
        said = {NORMALIZATION: "preprocessing is ", INPUT_SIZE: "input size is "}
        return tuple(text for key, text in said.items() if key in decided or key in changed)


def settle(
    checkpoint: Checkpoint,
    architecture: Architecture,
    preprocess: Preprocess,
    paths: Sequence[Path],
    *,
    given: frozenset[str] = frozenset(),
    progress: Progress = silent,
) -> Settled:
    """Let the batch norms testify on the images `paths`; what the user has `given` stays.

    Raises:
        InputError: too many images cannot be read.
    """
    if len(paths) < FEWEST_IMAGES:
        return Settled(architecture, preprocess, (_too_few(len(paths)),))

    def build(settings: Mapping[str, str]) -> nn.Module:
        return build_module(checkpoint, replace(architecture, settings=settings))

    found = testify(
        build,
        Contract(architecture.settings, preprocess),
        () if architecture.fit is None else architecture.fit.network.assumptions,
        paths,
        given=given,
        progress=progress,
    )
    if found is None:
        return Settled(architecture, preprocess, (_NO_STATISTICS,))
    left = [key for key in found.contract.settings if key not in found.decided]
    settled = replace(
        architecture,
        settings=found.contract.settings,
        assumptions=_still_assumed(architecture.assumptions, left),
    )
    return Settled(settled, found.contract.preprocess, testimony=found)


def describe_on_images(path: Path, paths: Sequence[Path]) -> dict[str, Any]:
    """What `describe_checkpoint` tells, and what the batch norms say on images without labels.

    Raises:
        CheckpointError: the file is no checkpoint, or no architecture fits it.
        InputError: too many images cannot be read.
    """
    description = describe_checkpoint(path)
    checkpoint = read_checkpoint(path)
    architecture = identify(checkpoint)
    usual = named(architecture.preprocess, architecture.input_size_px)
    preprocess = told_preprocess(architecture, checkpoint.sidecar) or usual
    found = settle(checkpoint, architecture, preprocess, paths)
    return {
        **description,
        "assumptions": [*found.unproven, *found.architecture.assumptions],
        "proofs": dict(found.proof),
    }


def keys_given(
    assumed: Mapping[str, str], *, preprocess: bool, normalization: bool, resize: bool, size: bool
) -> frozenset[str]:
    """The keys a user has answered, by the options that were given."""
    answered = zip(
        PREPROCESS_KEYS,
        (preprocess or normalization, preprocess or resize, preprocess or size),
        strict=True,
    )
    return frozenset(assumed) | {key for key, known in answered if known}


def _too_few(count: int) -> str:
    got = f"of {count} images" if count else "without images"
    return (
        f"preprocessing and strides are unproven {got}: give at least {FEWEST_IMAGES} real ones, "
        "better 64, with --data DIR or --calib DIR; labels are not needed"
    )


def _still_assumed(sentences: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    """The sentences that say how to change one of `keys`, or nothing that is a key."""
    return tuple(
        text
        for text in sentences
        if "--assume " not in text or any(f"--assume {key}=" in text for key in keys)
    )
