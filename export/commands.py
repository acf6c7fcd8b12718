"""`resdeploy export`: validate, call `export_checkpoint`, print."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resdeploy.deploy.output import note, print_json, print_table, progress_bar
from resdeploy.deploy.specs import PRECISIONS, Precision, Variant

if TYPE_CHECKING:
    from resdeploy.export.pipeline import ExportReport

Triple = tuple[float, float, float]


def _triple(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Triple | None:
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not R,G,B, e.g. 0.485,0.456,0.406") from None
    return red, green, blue


def _precisions(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[Precision, ...]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in PRECISIONS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(PRECISIONS)}")
    return tuple(name for name in PRECISIONS if name in names)


def _assume(
    ctx: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    split = [pair.partition("=") for pair in pairs]
    for pair, (key, _, value) in zip(pairs, split, strict=True):
        if not key or not value:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE, e.g. stride=1x1")
    return tuple((key, value) for key, _, value in split)


@click.command(
    epilog="Example: resdeploy export resnext50.pth --classes class_indices.json --data photos/val"
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="The bundle's folder.  [default: CHECKPOINT's stem + .bundle, here]",
)
@click.option(
    "--arch",
    metavar="NAME|module:factory",
    help="Name the architecture instead of reading it from the tensors, or call your own "
    "function that returns the nn.Module.",
)
@click.option(
    "--assume",
    multiple=True,
    callback=_assume,
    metavar="KEY=VALUE",
    help="Answer what weights cannot tell: stride=1x1, activation=relu, bn_eps=1e-3.",
)
@click.option(
    "--classes",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Class names: class_indices.json, labels.txt.  [default: the one beside CHECKPOINT]",
)
@click.option(
    "--preprocess",
    metavar="NAME|FILE",
    help="imagenet, half, cifar, or a JSON file.  [default: the architecture's usual]",
)
@click.option("--input-size", "input_size_px", type=click.IntRange(min=8), metavar="PX")
@click.option("--mean", callback=_triple, metavar="R,G,B")
@click.option("--std", callback=_triple, metavar="R,G,B")
@click.option(
    "--resize",
    "resize_px",
    type=click.IntRange(min=1),
    metavar="PX",
    help="Shorter side before the centre crop.",
)
@click.option(
    "--precision",
    "precisions",
    default="fp32,fp16",
    show_default=True,
    callback=_precisions,
    metavar="LIST",
    help="Variants to write: fp32, fp16, int8 (int8 needs --calib).",
)
@click.option(
    "--calib",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Pictures to calibrate INT8 with; implies int8.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Pictures to prove the graphs on; in class folders also for accuracy.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    metavar="PCT",
    help="Points of top-1 an INT8 variant may lose on --data.",
)
@click.option("--opset", type=int, default=17, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@click.pass_context
def export(
    ctx: click.Context,
    /,
    checkpoint: Path,
    output: Path | None,
    calib: Path | None,
    max_drop: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn CHECKPOINT into a bundle of ONNX files proven to give PyTorch's answers.

    The architecture, the class count and the class names are found out; what weights cannot tell
    is listed as an assumption with the option that changes it.
    """
    from resdeploy.export.pipeline import ExportOptions, export_checkpoint

    if "int8" in options["precisions"] and calib is None:
        raise click.UsageError("int8 needs pictures to calibrate with: add --calib DIR")
    with progress_bar() as progress:
        report = export_checkpoint(
            checkpoint, ExportOptions(output=output, **options), progress=progress
        )
    if not as_json:
        _print_report(report)
    quantized = (
        None if calib is None else _quantize(report.bundle, calib, options["data"], max_drop)
    )
    if as_json:
        print_json(report.to_json() | ({} if quantized is None else _int8_to_json(quantized)))
    if quantized is not None:
        if not as_json:
            import_module("resdeploy.calibration.commands").print_report(quantized)
        ctx.exit(quantized.exit_code)


def _quantize(bundle: Path, calib: Path, data: Path | None, max_drop: float | None) -> Any:
    """The report of `resdeploy quantize` on the finished bundle.

    Calibration lies above this package, so it is named as text and not imported; hence Any.
    """
    pipeline = import_module("resdeploy.calibration.pipeline")
    with progress_bar() as progress:
        return pipeline.quantize(bundle, calib, data=data, max_drop=max_drop, progress=progress)


def _int8_to_json(quantized: Any) -> dict[str, Any]:
    """The variants with INT8 among them, and the rest of the quantize report under its name."""
    content = quantized.to_json()
    return {"variants": content.pop("variants"), "quantize": content}


def _print_report(report: "ExportReport") -> None:
    manifest, proofs = report.manifest, report.manifest.proofs
    model, fold = manifest.model, proofs["batchnorm_fold"]
    rows = [
        ("architecture", model.architecture),
        ("parameters", f"{model.parameters:,}"),
        ("classes", _some(manifest.labels) if model.classes else "none: pooled features"),
        ("batch norms", f"{fold['folded']} folded, {fold['left']} left"),
        ("proven on", proofs["parity"]["pictures"]),
        *((("PyTorch top-1", f"{report.accuracy['pytorch']:.2f} %"),) if report.accuracy else ()),
    ]
    print_table((str(report.bundle), ""), rows)
    columns = ["file", ">MB", ">max |Δ| to PyTorch", ">same top-1"]
    if report.accuracy:
        columns.append(">top-1")
    print_table(columns, [_variant_row(report, name) for name in manifest.variants])
    for sentence in manifest.assumptions:
        note(f"assumed: {sentence}")


def _variant_row(report: "ExportReport", name: Variant) -> list[str]:
    proofs = report.manifest.proofs
    parity = proofs["parity" if name == "fp32" else name]
    file = report.manifest.variants[name]
    row = [
        file.file,
        f"{file.bytes / 1e6:.1f}",
        f"{parity['max_abs']:.2g}",
        f"{parity['top1_agreement']:.1f} %",
    ]
    if report.accuracy:
        row.append(f"{report.accuracy[name]:.2f} %")
    return row


def _some(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:5])
    return f"{len(labels)}: {shown}" + (", …" if len(labels) > 5 else "")
