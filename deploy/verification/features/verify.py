"""`verify` of a backbone: every feature map of every variant against PyTorch's."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

from resdeploy.deploy.bundle.bundle import REFERENCE
from resdeploy.deploy.bundle.model import Model, recorded_maps
from resdeploy.deploy.bundle.reference import FeatureReference
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.progress import Progress
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.checks.consistency import (
    metadata_gate,
    refused_gate,
    statistics_gate,
)
from resdeploy.deploy.verification.checks.gate import Gate, strictly, worst
from resdeploy.deploy.verification.checks.limits import Limits
from resdeploy.deploy.verification.checks.logits import finite_gate, nothing_gate
from resdeploy.deploy.verification.comparison_target import (
    LIVE,
    ComparisonTarget,
    OpenLive,
    find_target,
    reference_name,
)
from resdeploy.deploy.verification.features.compare import (
    FeatureComparison,
    compare_on_images,
    measured,
    replay_maps,
)
from resdeploy.deploy.verification.features.gates import image_gates, recorded_gates
from resdeploy.deploy.verification.reports.closing import closing_sentence
from resdeploy.deploy.verification.reports.report import VariantReport, VerifyReport


@dataclass(frozen=True)
class _Compared:
    """The comparisons on the images and on the recorded inputs; one of them is there."""

    on_images: FeatureComparison | None
    recorded: FeatureComparison | None
    target: ComparisonTarget


def verify_backbone(
    model: Model,
    images: Images | None,
    live: OpenLive | None,
    candidates: Sequence[Candidate],
    stack: ExitStack,
    *,
    strict: bool,
    seed: int,
    progress: Progress,
) -> VerifyReport:
    """Compare and judge; arguments as `verification.verify.verify` has them.

    `candidates` are open; `stack` closes what is opened besides.

    Raises:
        InputError: neither images nor recorded maps, or the images cannot be used.
        BackendError, BundleError: as `verify`.
    """
    target = find_target(model, candidates, live, stack, needed=images is not None)
    compared = _compared(model, images, candidates, target, progress)
    variants = [_variant(candidate, compared, seed) for candidate in candidates]
    gates = [
        gate
        for candidate, variant in zip(candidates, variants, strict=True)
        for gate in _gates(model, candidate, variant, compared)
    ]
    about_all = statistics_gate(model.manifest)
    gates += [] if about_all is None else [about_all]
    return _report(model, variants, strictly(gates) if strict else gates, compared, strict=strict)


def refuse_about_classes(
    model: Model, limits: Limits, further: Mapping[str, object | None]
) -> None:
    """Refuse what is about classes: limits on answers, and `further` options that were given.

    Raises:
        InputError: the first of them.
    """
    given = [f"--{name.replace('_', '-')}" for name, v in asdict(limits).items() if v is not None]
    given += [option for option, value in further.items() if value is not None]
    if given:
        raise InputError(
            f"{given[0]} is about classes, but {model.path} is a backbone, whose feature maps are "
            "judged by SQNR and cosine: leave it out"
        )


def _compared(
    model: Model,
    images: Images | None,
    candidates: Sequence[Candidate],
    target: ComparisonTarget,
    progress: Progress,
) -> _Compared:
    sessions = {candidate.name: candidate.session for candidate in candidates}
    recorded = recorded_maps(model)
    if recorded is not None and target.name == LIVE and target.session is not None:
        recorded = FeatureReference(recorded.inputs, target.session.run_all(recorded.inputs))
    replayed = None if recorded is None else replay_maps(recorded, sessions, progress=progress)
    if images is None or target.name is None or target.session is None:
        if replayed is None:
            advice = "give images with --data" if images is None else "give --checkpoint"
            raise InputError(f"{model.path}: no {REFERENCE} beside it: {advice}")
        return _Compared(None, replayed, target)
    found = compare_on_images(
        images,
        model.manifest.preprocess,
        {target.name: target.session, **sessions},
        reference=target.name,
        progress=progress,
    )
    return _Compared(found, replayed, target)


def _variant(candidate: Candidate, compared: _Compared, seed: int) -> VariantReport:
    name, target = candidate.name, compared.target.name
    is_reference = compared.on_images is not None and name == target
    on_images = None
    if compared.on_images is not None:
        on_images = measured(compared.on_images, name, seed=seed)
        if is_reference:  # it is compared with itself
            on_images = Accuracy(on_images.images, on_images.not_finite, None)
    return VariantReport(
        name=name,
        precision=candidate.precision,
        variant=candidate.variant,
        backend=candidate.backend,
        on_images=on_images,
        recorded=None
        if compared.recorded is None
        else measured(compared.recorded, name, seed=seed),
        verdict="pass",
        is_reference=is_reference,
        reference=None if is_reference or on_images is None else reference_name(target),
    )


def _gates(
    model: Model, candidate: Candidate, variant: VariantReport, compared: _Compared
) -> list[Gate]:
    proofs = model.manifest.proofs
    found: list[Gate | None] = []
    if variant.recorded is not None:
        inputs = tuple(f"recorded input {i}" for i in range(variant.recorded.images))
        found.append(finite_gate(variant.name, variant.recorded, inputs))
        found += recorded_gates(candidate, variant.recorded, proofs)
    if variant.on_images is not None and compared.on_images is not None:
        paths = tuple(map(str, compared.on_images.paths))
        found.append(finite_gate(variant.name, variant.on_images, paths))
        against = variant.reference or ""
        found += image_gates(candidate, variant.on_images, proofs, against=against)
    found += [metadata_gate(model, candidate), refused_gate(model.manifest, candidate)]
    gates = [gate for gate in found if gate is not None]
    return gates or ([] if variant.is_reference else [nothing_gate(variant.name)])


def _report(
    model: Model,
    variants: Sequence[VariantReport],
    gates: Sequence[Gate],
    compared: _Compared,
    *,
    strict: bool,
) -> VerifyReport:
    verdict = worst(gate.verdict for gate in gates)
    on_images = compared.on_images
    unreadable = () if on_images is None else on_images.unreadable
    return VerifyReport(
        bundle=model.path,
        manifest=model.manifest,
        verdict=verdict,
        reason=closing_sentence(verdict, gates),
        strict=strict,
        reference=_compared_with(compared),
        variants=tuple(
            replace(v, verdict=worst(g.verdict for g in gates if g.variant == v.name))
            for v in variants
        ),
        gates=tuple(gates),
        evaluation=None,
        earlier=(),
        explanation=None,
        notes=(
            *compared.target.notes,
            *(f"{path} could not be read and took no part: {why}" for path, why in unreadable),
        ),
    )


def _compared_with(compared: _Compared) -> str:
    """What the maps were compared with, as a sentence."""
    parts = []
    if compared.on_images is not None:
        parts.append(f"{compared.target.sentence} on {compared.on_images.images} images")
    if compared.recorded is not None and compared.target.name != LIVE:
        count = compared.recorded.images
        parts.append(f"PyTorch's feature maps for the {count} inputs recorded in {REFERENCE}")
    return " and ".join(parts) or compared.target.sentence
