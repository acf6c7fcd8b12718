"""`resdeploy adopt`: validate, make a bundle of a foreign graph, print."""

from pathlib import Path
from typing import TYPE_CHECKING

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
from resdeploy.deploy.cli.options import json_option
from resdeploy.deploy.cli.output import print_json, progress_bar
from resdeploy.deploy.cli.shell.command import Command
from resdeploy.deploy.cli.shell.next_steps import as_typed, finish
from resdeploy.deploy.specs import Precision

if TYPE_CHECKING:
    from resdeploy.export.report import ExportReport


@click.command(
    cls=Command,
    epilog="resdeploy adopt model.onnx --preprocess imagenet --classes labels.txt\n"
    "resdeploy adopt model.onnx --data photos/val",
)
@click.argument("graph", type=click.Path(path_type=Path))
@output_option("GRAPH")
@click.option(
    "--logits",
    metavar="NAME",
    help="The output that has the logits, where the graph has several outputs.",
)
@classes_option("GRAPH")
@preprocess_options
@written_precisions_option("; for int8 use resdeploy quantize afterwards.")
@comparison_data_option("GRAPH")
@overwrite_option
@json_option
def adopt(
    graph: Path,
    output: Path | None,
    logits: str | None,
    classes: Path | None,
    preprocess: str | None,
    input_size_px: int | None,
    mean: Triple | None,
    std: Triple | None,
    resize_px: int | None,
    precisions: tuple[Precision, ...],
    data: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Turn GRAPH, an ONNX classifier that another tool exported, into a bundle.

    It needs operator set 11 or newer, one input of RGB images (N x 3 x H x W or N x H x W x 3) and
    one output of logits or probabilities. Its own answers are the reference: no checkpoint vouches
    for them. The bundle can then be quantized, built, verified, measured and served like any other.
    """
    from resdeploy.export.adoption import AdoptOptions
    from resdeploy.export.adoption import adopt as adopt_graph

    if "int8" in precisions:
        raise click.UsageError(
            "int8 needs images to calibrate with: adopt first, then use resdeploy quantize"
        )
    options = AdoptOptions(
        output=output, logits=logits, classes=classes, preprocess=preprocess, data=data,
        input_size_px=input_size_px, mean=mean, std=std, resize_px=resize_px,
        precisions=precisions, overwrite=overwrite,
    )  # fmt: skip
    with progress_bar() as progress:
        report = adopt_graph(graph, options, progress=progress)
    if as_json:
        print_json(report.to_json())
    else:
        _print(graph, report)


def _print(graph: Path, report: "ExportReport") -> None:
    from resdeploy.deploy.cli.conversion.float_report import print_float_report

    bundle = report.bundle
    print_float_report(bundle, report.manifest, report.accuracy)
    finish(
        f"adopted {as_typed(graph)}",
        f"resdeploy predict {as_typed(bundle)} IMAGE",
        f"resdeploy quantize {as_typed(bundle)} --calib DIR",
    )
