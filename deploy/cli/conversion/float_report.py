"""Shows the float variants of a new bundle, and the proofs that they answer as their original."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.bundle import original_name
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.cli.inspection.assumptions import in_short
from resdeploy.deploy.cli.inspection.describe import outputs_row
from resdeploy.deploy.cli.output import note, print_table
from resdeploy.deploy.specs import Variant

# the sessions that may be the original, among the accuracies
ORIGINALS = ("pytorch", "original")


def print_float_report(bundle: Path, manifest: Manifest, accuracy: Mapping[str, float]) -> None:
    """Show what was made and how near it is to its original, and then what was assumed."""
    model, proofs, original = manifest.model, manifest.proofs, original_name(manifest)
    fold = proofs["batchnorm_fold"]
    rows = [
        ("architecture", model.architecture),
        ("parameters", f"{model.parameters:,}"),
        outputs_row(manifest),
        ("batch norms", f"{fold['folded']} folded, {fold['left']} left"),
        ("verified on", _images_in_words(proofs["parity"])),
        *((f"{original} top-1", f"{accuracy[key]:.2f} %") for key in ORIGINALS if key in accuracy),
    ]
    print_table((str(bundle), ""), rows)
    likeness = ">worst SQNR" if manifest.features else ">same top-1"
    columns = ["file", ">MB", f">max |Δ| to {original}", likeness]
    if accuracy:
        columns.append(">top-1")
    print_table(columns, [_variant_row(manifest, accuracy, name) for name in manifest.variants])
    for sentence in proofs.get("batchnorm_statistics", {}).get("sentences", ()):
        note(sentence)
    for sentence in in_short(manifest.assumptions):
        note(f"assumed: {sentence}")


def _variant_row(manifest: Manifest, accuracy: Mapping[str, float], name: Variant) -> list[str]:
    parity = manifest.proofs["parity" if name == "fp32" else name]
    file = manifest.variants[name]
    row = [
        file.file,
        f"{file.bytes / 1e6:.1f}",
        f"{parity['max_abs']:.2g}",
        f"{parity['sqnr_db']:.1f} dB" if manifest.features else f"{parity['top1_agreement']:.1f} %",
    ]
    if accuracy:
        row.append(f"{accuracy[name]:.2f} %")
    return row


def _images_in_words(parity: Mapping[str, Any]) -> str:
    if parity["image_source"] == "data":
        return f"your {parity['images']} images"
    return (
        f"{parity['images']} built-in images (they show that the arithmetic is right, not how "
        "accurate the network is: for that, give images with --data)"
    )
