"""Options of the commands that make a bundle, as typed."""

import click
import pytest
from click.testing import CliRunner

from resdeploy.deploy.cli.conversion.network_options import (
    Triple,
    preprocess_options,
    written_precisions_option,
)


@click.command()
@preprocess_options
@written_precisions_option(".")
def show(
    preprocess: str | None,
    input_size_px: int | None,
    mean: Triple | None,
    std: Triple | None,
    resize_px: int | None,
    precisions: tuple[str, ...],
) -> None:
    """Say what was understood."""
    click.echo(f"{preprocess} {input_size_px} {mean} {resize_px} {precisions}")


def test_values_are_read() -> None:
    words = ["--preprocess", "half", "--mean", "0.1,0.2,0.3", "--precision", "int8,fp32"]
    done = CliRunner().invoke(show, words)
    assert done.output == "half None (0.1, 0.2, 0.3) None ('fp32', 'int8')\n"


@pytest.mark.parametrize(("words", "message"), [
    (["--mean", "1,2"], "'1,2' is not R,G,B"),
    (["--precision", "fp64"], "'fp64' is not one of fp32, fp16, int8"),
])  # fmt: skip
def test_what_is_no_value_is_wrong_usage(words: list[str], message: str) -> None:
    done = CliRunner().invoke(show, words)
    assert done.exit_code == 2 and message in done.output
