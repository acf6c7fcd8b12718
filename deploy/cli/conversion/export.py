"""`resdeploy export`: validate, export and, where asked for, quantize; print."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resdeploy.deploy.cli.conversion.network_options import (
    Triple,
    classes_option,
    comparison_data_option,
    output_option,
    overwrite_option,
    preprocess_options,
    written_precisions_option,
)
from resdeploy.deploy.cli.options import FiniteRange, json_option, option_group
from resdeploy.deploy.cli.output import print_json
from resdeploy.deploy.cli.shell.next_steps import as_typed, finish
from resdeploy.deploy.cli.shell.signed import SignedCommand, sign_option, will_be_signed
from resdeploy.deploy.cli.steps import progress_steps
from resdeploy.deploy.defaults import OPSET
from resdeploy.deploy.specs import Precision

if TYPE_CHECKING:
    from resdeploy.calibration.job import QuantizeReport
    from resdeploy.export.pipeline import ExportOptions


def _names(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip().upper())))


def _assume(
    ctx: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    split = [pair.partition("=") for pair in pairs]
    for pair, (key, _, value) in zip(pairs, split, strict=True):
        if not key or not value:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE, e.g. stride=1x1")
    return tuple((key, value) for key, _, value in split)


_network_options = option_group(
    click.option(
        "--arch",
        metavar="NAME|module:factory",
        help="Name the architecture instead of reading it from the tensors, or name a function "
        "of yours that returns the nn.Module.",
    ),
    click.option(
        "--assume",
        multiple=True,
        callback=_assume,
        metavar="KEY=VALUE",
        help="Settle what the weights cannot tell, e.g. stride=1x1, bn_eps=1e-3; repeatable.",
    ),
    classes_option("CHECKPOINT"),
    click.option(
        "--features",
        default="",
        callback=_names,
        metavar="LIST",
        help="Give feature maps instead of logits, e.g. C2,C3,C4,C5 of strides 4 to 32: the "
        "backbone of a detector or a segmentation network.",
    ),
)

_result_options = option_group(
    written_precisions_option(", int8 (int8 needs --calib)."),
    click.option(
        "--calib",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Images to calibrate INT8 with; implies int8. No labels needed.",
    ),
    comparison_data_option("PyTorch"),
    click.option(
        "--max-drop",
        type=FiniteRange(min=0),
        metavar="PCT",
        help="Points of top-1 that an INT8 variant may lose on --data.",
    ),
    click.option(
        "--opset",
        type=int,
        default=OPSET,
        show_default=True,
        help="ONNX operator set of the graphs.",
    ),
    overwrite_option,
)


@click.command(
    cls=SignedCommand,
    epilog="resdeploy export net.pth --calib photos/train --data photos/val\n"
    "resdeploy export net.pth --classes class_indices.json --preprocess half",
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@output_option("CHECKPOINT")
@_network_options
@preprocess_options
@_result_options
@sign_option
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    /,
    checkpoint: Path,
    output: Path | None,
    arch: str | None,
    assume: tuple[tuple[str, str], ...],
    classes: Path | None,
    features: tuple[str, ...],
    preprocess: str | None,
    input_size_px: int | None,
    mean: Triple | None,
    std: Triple | None,
    resize_px: int | None,
    precisions: tuple[Precision, ...],
    calib: Path | None,
    data: Path | None,
    max_drop: float | None,
    opset: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Turn CHECKPOINT into a bundle of ONNX files that are proven to give PyTorch's answers.

    The architecture, the number of classes and their names are found in the file. What the weights
    cannot tell is listed as an assumption, with the option that changes it.
    """
    from resdeploy.export.pipeline import ExportOptions

    if "int8" in precisions and calib is None:
        raise click.UsageError("int8 needs images to calibrate with: add --calib DIR")
    options = ExportOptions(
        output=output, arch=arch, assume=assume, classes=classes, preprocess=preprocess,
        input_size_px=input_size_px, mean=mean, std=std, resize_px=resize_px, features=features,
        precisions=precisions, data=data, calib=calib, opset=opset, overwrite=overwrite,
    )  # fmt: skip
    ctx.exit(_export_and_print(checkpoint, options, calib, max_drop, as_json=as_json))


def _export_and_print(
    checkpoint: Path,
    options: "ExportOptions",
    calib: Path | None,
    max_drop: float | None,
    *,
    as_json: bool,
) -> int:
    """The exit code: that of `quantize` where images to calibrate with were given."""
    from resdeploy.deploy.cli.conversion.float_report import print_float_report
    from resdeploy.deploy.cli.conversion.quantize import print_report
    from resdeploy.deploy.images.dataset import check_labelled
    from resdeploy.export.pipeline import export_checkpoint

    if calib is not None and max_drop is not None:
        check_labelled(options.data)  # before anything is written
    with progress_steps(lines=calib is not None) as progress:
        report = export_checkpoint(checkpoint, options, progress=progress)
    will_be_signed(report.bundle)
    if not as_json:
        print_float_report(report.bundle, report.manifest, report.accuracy)
    quantized = None
    if calib is not None:
        quantized = _quantize(report.bundle, calib, options.data, max_drop)
    if as_json:
        print_json(report.to_json() | ({} if quantized is None else _int8_to_json(quantized)))
    elif quantized is not None:
        print_report(quantized, done="exported and quantized")
    else:
        _finish(checkpoint, report.bundle, with_accuracy=bool(report.accuracy))
    return 0 if quantized is None else quantized.exit_code


def _finish(checkpoint: Path, bundle: Path, *, with_accuracy: bool) -> None:
    data = "" if with_accuracy else " --data DIR"
    finish(
        f"exported {as_typed(checkpoint)}",
        f"resdeploy predict {as_typed(bundle)} IMAGE",
        f"resdeploy quantize {as_typed(bundle)} --calib DIR{data}",
    )


def _quantize(
    bundle: Path, calib: Path, data: Path | None, max_drop: float | None
) -> "QuantizeReport":
    """The report of `resdeploy quantize` on the finished bundle."""
    from resdeploy.calibration.pipeline import quantize

    with progress_steps() as progress:
        return quantize(bundle, calib, data=data, max_drop=max_drop, progress=progress)


def _int8_to_json(quantized: "QuantizeReport") -> dict[str, Any]:
    """The variants with INT8 among them, and the rest of the quantize report under its name."""
    content = quantized.to_json()
    return {"variants": content.pop("variants"), "quantize": content}
