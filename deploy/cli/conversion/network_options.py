"""Options of the commands that make a bundle: its folder, classes, preprocessing, precisions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from resdeploy.deploy.cli.options import option_group, precisions_of_list
from resdeploy.deploy.defaults import EXPORTED_PRECISIONS, LARGEST_INPUT_PX
from resdeploy.deploy.specs import Precision

Triple = tuple[float, float, float]
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _triple(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Triple | None:
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not R,G,B, e.g. 0.485,0.456,0.406") from None
    return red, green, blue


def _precisions(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[Precision, ...]:
    return precisions_of_list((text,))


def output_option(source: str) -> Callable[[_Command], _Command]:
    """--output of a command that makes a bundle of its argument `source`."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        metavar="BUNDLE",
        help=f"Folder of the bundle.  [default: {source}'s stem + .bundle, here]",
    )


def classes_option(source: str) -> Callable[[_Command], _Command]:
    """--classes: a file of class names, else the one beside `source`."""
    return click.option(
        "--classes",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"Class names: class_indices.json, labels.txt.  [default: the one beside {source}]",
    )


def written_precisions_option(about: str) -> Callable[[_Command], _Command]:
    """--precision LIST: the variants to write; `about` ends its help."""
    return click.option(
        "--precision",
        "precisions",
        default=",".join(EXPORTED_PRECISIONS),
        show_default=True,
        callback=_precisions,
        metavar="LIST",
        help=f"Variants to write: fp32, fp16{about}",
    )


def comparison_data_option(reference: str) -> Callable[[_Command], _Command]:
    """--data: images on which the bundle's files are compared with `reference`."""
    return click.option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help=f"Images to compare with {reference} on; in class folders they also give the "
        "accuracy.",
    )


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")


preprocess_options = option_group(
    click.option(
        "--preprocess",
        metavar="NAME|FILE",
        help="imagenet, half, cifar, or a JSON file.  [default: what the architecture usually has]",
    ),
    click.option(
        "--input-size",
        "input_size_px",
        type=click.IntRange(8, LARGEST_INPUT_PX),
        metavar="PX",
        help="Height and width of the input.  [default: what the architecture usually has]",
    ),
    click.option(
        "--mean",
        callback=_triple,
        metavar="R,G,B",
        help="Subtracted from pixel values between 0 and 1: 0.485,0.456,0.406.",
    ),
    click.option(
        "--std", callback=_triple, metavar="R,G,B", help="Then divides them: 0.229,0.224,0.225."
    ),
    click.option(
        "--resize",
        "resize_px",
        type=click.IntRange(1, 2 * LARGEST_INPUT_PX),
        metavar="PX",
        help="Length of the shorter side before the centre crop.",
    ),
)
