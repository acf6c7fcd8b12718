"""Options that several commands share."""

import click
import pytest
from click.testing import CliRunner

from resdeploy.deploy.cli.main import cli
from resdeploy.deploy.cli.options import option_group, precisions_of_list


def test_precisions_come_once_and_in_one_order() -> None:
    assert precisions_of_list(("int8, fp32", "fp32")) == ("fp32", "int8")
    with pytest.raises(click.BadParameter, match="'fp64' is not one of fp32, fp16, int8"):
        precisions_of_list(("fp64",))


def test_a_group_keeps_its_order_in_the_help() -> None:
    @click.command()
    @option_group(click.option("--first"), click.option("--second"))
    def command(first: str, second: str) -> None:
        click.echo(first + second)

    text = CliRunner().invoke(command, ["--help"]).output
    assert text.index("--first") < text.index("--second")
    assert CliRunner().invoke(command, ["--first", "a", "--second", "b"]).output == "ab\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("quantize b --calib c --seed -1", "-1 is not in the range 0<=x<=4294967295"),
        ("verify b --seed 99999999999", "is not in the range 0<=x<=4294967295"),
        ("bench b --threads 100000", "100000 is not in the range 1<=x<=1024"),
        ("bench b --seconds inf", "inf is not in the range 0<x<=3600"),
        ("bench b --seconds nan", "nan is not a finite number"),
        ("bench b --batch 1,999999999", "999999999 is not in the range 1<=x<=4096"),
        ("predict b c --batch 999999999", "999999999 is not in the range 1<=x<=4096"),
        ("export x.pth --input-size 100000", "100000 is not in the range 8<=x<=4096"),
        ("export x.pth --max-drop inf", "inf is not a finite number"),
        ("serve b --max-wait-ms nan", "nan is not a finite number"),
    ],
)
def test_numbers_that_no_machine_can_follow_are_wrong_usage(arguments: str, words: str) -> None:
    result = CliRunner().invoke(cli, arguments.split())
    assert result.exit_code == 2 and words in result.output
