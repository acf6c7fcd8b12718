"""Chooses the preprocessing that labelled images speak for, where the user named none."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.images.normalizations import normalization_name
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.session import Session
from resdeploy.deploy.verification.preprocess_search import (
    PreprocessSearch,
    named_alternatives,
    search_preprocessing,
)
from resdeploy.export.proof.contracts import NORMALIZATION

_IMAGES = 200


def fit_preprocess(
    assumed: Preprocess, images: Images, session: Session, progress: Progress = silent
) -> tuple[Preprocess, str]:
    """Try the named preprocessings on labelled images; returns the one to use, and why.

    The assumed one is replaced only where another fits better by the standard of
    `PreprocessSearch.better`.

    Raises:
        InputError: more than 5 % of the images cannot be read.
    """
    alternatives = named_alternatives(assumed)
    few = images.spread(_IMAGES)
    search = search_preprocessing(few, assumed, alternatives, session, progress=progress)
    better = search.better()
    chosen = assumed if better is None else better.alternative.preprocess
    figures = ", ".join(
        f"{name} {top1:.1f} %"
        for name, top1 in [(assumed.name, search.top1), *((t.name, t.top1) for t in search.trials)]
    )
    return chosen, (
        f"preprocessing is {chosen.name!r}: {_reason(assumed, search)} (top-1 on {search.images} "
        f"of your labelled images: {figures}); change with --preprocess"
    )


def with_fitted_preprocess(
    manifest: Manifest, images: Images, session: Session, progress: Progress = silent
) -> Manifest:
    """The manifest with the preprocessing that labelled images speak for, which it says.

    Raises:
        InputError: more than 5 % of the images cannot be read.
    """
    chosen, sentence = fit_preprocess(manifest.preprocess, images, session, progress)
    others = (text for text in manifest.assumptions if not text.startswith("preprocessing is "))
    against = contradiction(manifest.proofs, chosen)
    return replace(manifest, preprocess=chosen, assumptions=(*others, sentence, *against))


def in_words(preprocess: Preprocess) -> str:
    """What it does, e.g. "shorter side to 256, centre crop 224x224, mean …"."""
    resize = preprocess.resize_px
    parts = []
    if isinstance(resize, tuple):
        parts.append(f"resize to {resize[1]}x{resize[0]}")
    elif resize is not None:
        parts.append(f"shorter side to {resize}")
    if preprocess.crop_px is not None:
        parts.append(f"centre crop {preprocess.crop_px[1]}x{preprocess.crop_px[0]}")
    mean, std = (
        ", ".join(f"{v:g}" for v in values) for values in (preprocess.mean, preprocess.std)
    )
    return ", ".join([*parts, f"mean {mean}", f"std {std}"])


def contradiction(proofs: Mapping[str, Any], chosen: Preprocess) -> tuple[str, ...]:
    """A sentence where labels chose another normalization than the batch-norm statistics did."""
    decided = proofs.get("batchnorm_statistics", {}).get("decided", {}).get(NORMALIZATION)
    got = normalization_name(chosen)
    if decided is None or decided == got:
        return ()
    return (
        f"labels and batch-norm statistics disagree: labels speak for normalization {got}, which "
        f"is taken, the statistics for {decided}; check which one the training used",
    )


def _reason(assumed: Preprocess, search: PreprocessSearch) -> str:
    better = search.better()
    if better is not None:
        return f"it fits significantly better than {assumed.name!r} (p = {better.p_holm:.2g})"
    if all(trial.top1 <= search.top1 for trial in search.trials):
        return "it fits best"
    return "no other fits significantly better"
