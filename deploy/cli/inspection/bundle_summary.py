"""A bundle on one screen, in words: what it is, its files, what they were measured at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.bundle import original_name
from resdeploy.deploy.bundle.int8_report import kept_repairs
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.cli.inspection.assumptions import in_short
from resdeploy.deploy.cli.inspection.describe import outputs_row
from resdeploy.deploy.cli.output import note, print_table
from resdeploy.deploy.verification.checks.promise import ROUND_OFF_DB

_ASSUMPTIONS_SHOWN = 5


def print_bundle(path: Path, manifest: Manifest, description: Mapping[str, Any]) -> None:
    """Two tables and the assumptions; `description` is what `--json` prints in full."""
    model, original = manifest.model, original_name(manifest)
    rows = [
        ("network", f"{model.architecture}, {model.parameters:,} parameters"),
        outputs_row(manifest),
        ("input", f"{_shape(manifest)}, preprocessing {_preprocessing(manifest)}"),
        ("proven against", f"{original}: {_proof(manifest.proofs)}"),
        *((("INT8", _calibration(manifest.calibration)),) if manifest.calibration else ()),
        ("reference", "recorded" if description["reference"] else "missing: verify needs images"),
        ("made with", ", ".join(f"{name} {number}" for name, number in manifest.tools.items())),
    ]
    print_table((str(path), ""), [row for row in rows if row[1]])
    columns = ("variant", "file", ">MB", ">SQNR dB", ">same answer", "state")
    print_table(columns, [_variant(name, manifest, description) for name in manifest.variants])
    assumptions = in_short(manifest.assumptions)
    for sentence in assumptions[:_ASSUMPTIONS_SHOWN]:
        note(f"assumed: {sentence}")
    if len(assumptions) > _ASSUMPTIONS_SHOWN:
        note(f"and {len(assumptions) - _ASSUMPTIONS_SHOWN} more assumptions")
    note("all of it: inspect --json")


def _shape(manifest: Manifest) -> str:
    height, width = manifest.preprocess.input_size_px
    return f"{width}x{height} pixels"


def _preprocessing(manifest: Manifest) -> str:
    preprocess = manifest.preprocess
    resize = preprocess.resize_px
    if isinstance(resize, tuple):
        return f"{preprocess.name} (resized to {resize[1]}x{resize[0]})"
    return preprocess.name if resize is None else f"{preprocess.name} (shorter side to {resize})"


def _proof(proofs: Mapping[str, Any]) -> str:
    parity, fold = proofs.get("parity", {}), proofs.get("batchnorm_fold", {})
    parts = []
    if "images" in parity:
        parts.append(f"logits within {parity['max_abs']:g} on {parity['images']} images")
    if "folded" in fold:
        parts.append(f"{fold['folded']} batch norms folded, {fold.get('left', 0)} left")
    return ", ".join(parts) or "not recorded"


def _calibration(calibration: Mapping[str, Any]) -> str:
    parts = [f"ranges by {calibration.get('method')} from {calibration.get('images')} images"]
    if repairs := kept_repairs(calibration):
        parts.append(f"repaired by {repairs}")
    return "; ".join(parts)


def _db(sqnr_db: float) -> str:
    """What is recorded ends where float32's round-off begins."""
    return f"{sqnr_db:.1f}" if sqnr_db < ROUND_OFF_DB else f"over {ROUND_OFF_DB:.0f}"


def _variant(
    name: str, manifest: Manifest, description: Mapping[str, Any]
) -> tuple[str, str, str, str, str, str]:
    """One row; figures are those promised on images, else on the recorded inputs."""
    found = description["variants"][name]
    promised = manifest.proofs.get("promised", {}).get(name, {})
    figures = promised.get("images") or promised.get("recorded") or {}
    sqnr_db, same = figures.get("sqnr_db"), figures.get("agreement")
    return (
        name,
        found["file"],
        f"{found['bytes'] / 1e6:.1f}",
        "" if sqnr_db is None else _db(sqnr_db),
        "" if same is None else f"{same:.1f} %",
        found["state"],
    )
