"""How a verified bundle was made and where it was verified, in words, for the page."""

from collections.abc import Mapping
from typing import Any

from resdeploy.deploy.bundle.bundle import is_adopted, original_name
from resdeploy.deploy.bundle.int8_report import kept_repairs
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.verification.device.machine import machine_sentence
from resdeploy.deploy.verification.reports.report import VerifyReport


def facts(report: VerifyReport) -> list[tuple[str, str]]:
    """Titles and sentences, in the order a reader wants them."""
    found = manifest_facts(report.manifest)
    if report.device is not None:
        found.append(("ran on", f"{report.device.name}: {report.device.machine}"))
    return [
        *found,
        ("verified with", machine_sentence()),
        ("exported with", _versions(report.manifest.tools) or "not recorded"),
    ]


def manifest_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """What a bundle is and how it was made: network, preprocessing, proofs, files."""
    model = manifest.model
    source = "adopted graph" if is_adopted(manifest) else "checkpoint"
    classes = "no classes" if model.classes is None else f"{model.classes} classes"
    found = [
        ("network", f"{model.architecture}, {model.parameters:,} parameters, {classes}"),
        (source, f"SHA-256 {model.checkpoint_sha256}"),
        ("preprocessing", _preprocessing(manifest.preprocess)),
        *_proofs(manifest),
    ]
    if manifest.calibration is not None:
        found.append(("INT8", _calibration(manifest.calibration)))
    for variant, file in manifest.variants.items():
        size = f"{file.bytes / 1e6:.1f} MB"
        found.append((file.file, f"{variant}, {size}, SHA-256 {file.sha256}"))
    return found


def _proofs(manifest: Manifest) -> list[tuple[str, str]]:
    found, proofs = [], manifest.proofs
    fold = proofs.get("batchnorm_fold", {})
    if "folded" in fold:
        found.append(
            ("batch norm", f"{fold['folded']} folded into convolutions, {fold.get('left', 0)} left")
        )
    for name, title in (("parity", "fp32 at export"), ("fp16", "fp16 at export")):
        figures = proofs.get(name, {})
        if "max_abs" in figures:
            found.append(
                (
                    title,
                    f"logits at most {figures['max_abs']:g} from "
                    f"{original_name(manifest)}'s, "
                    f"{figures['top1_agreement']:g} % the same answers",
                )
            )
    return found


def _calibration(calibration: Mapping[str, Any]) -> str:
    parts = []
    if "images" in calibration:
        parts.append(f"ranges from {calibration['images']} images")
    if calibration.get("held_back"):
        parts.append(f"judged on {calibration['held_back']} others")
    if "method" in calibration:
        parts.append(f"method {calibration['method']}")
    if repairs := kept_repairs(calibration):
        parts.append(f"repaired by {repairs}")
    return ", ".join(parts) or "calibrated"


def _preprocessing(preprocess: Preprocess) -> str:
    resize, crop = preprocess.resize_px, preprocess.crop_px
    parts = []
    if isinstance(resize, tuple):
        parts.append(f"resize to {resize[1]}×{resize[0]}")
    elif resize is not None:
        parts.append(f"shorter side to {resize}")
    if crop is not None:
        parts.append(f"centre crop {crop[1]}×{crop[0]}")
    for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
        parts.append(f"{name} {', '.join(f'{value:.4g}' for value in values)}")
    return f"{preprocess.name}: {', '.join(parts)}"


def _versions(tools: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in tools.items())
