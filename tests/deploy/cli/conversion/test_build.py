"""`resdeploy build` as a user types it: JSON, the table, and options that make no sense."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from resdeploy.deploy.cli.conversion.build import build
from resdeploy.deploy.engine.flavor import is_installed
from resdeploy.deploy.errors import InputError, MissingDependencyError
from resdeploy.deploy.installation import install_command


@pytest.mark.skipif(
    not is_installed("tensorrt-rtx"), reason="needs tensorrt-rtx to build engines with"
)
def test_the_command_prints_json(tiny_bundle: Path) -> None:
    arguments = [str(tiny_bundle), "--precision", "fp32", "--flavor", "tensorrt-rtx"]
    arguments += ["--compute-capability", "8.6", "--batch", "1:2:4"]
    result = CliRunner().invoke(build, [*arguments, "--json"], catch_exceptions=False)
    answer = json.loads(result.stdout)
    assert Path(answer["engine"]).is_file()
    assert (answer["flavor"], answer["precision"]) == ("tensorrt-rtx", "fp32")
    assert answer["bytes"] == Path(answer["engine"]).stat().st_size
    assert set(answer["layers"]) == {"total", "int8", "half", "float"}
    assert answer["seconds"] > 0 and answer["batch"] == {"min": 1, "opt": 2, "max": 4}

    again = CliRunner().invoke(build, arguments, catch_exceptions=False)
    assert "tensorrt-rtx" in again.stdout and "up to date" in again.stderr
    assert "8.6" in again.stdout and "strongly typed" in again.stdout


@pytest.mark.skipif(is_installed("tensorrt"), reason="tensorrt is here")
def test_without_tensorrt_the_command_that_installs_it_is_named(tiny_bundle: Path) -> None:
    result = CliRunner().invoke(build, [str(tiny_bundle)])
    assert isinstance(result.exception, MissingDependencyError)
    assert result.exception.exit_code == 4 and install_command("tensorrt") in str(result.exception)


@pytest.mark.parametrize(
    "arguments",
    [["--precision", "fp8"], ["--flavor", "trt"], ["--workspace-mib", "0"], ["--dla-core", "-1"]],
)
def test_wrong_usage_is_2(tiny_bundle: Path, arguments: list[str]) -> None:
    assert CliRunner().invoke(build, [str(tiny_bundle), *arguments]).exit_code == 2


def test_a_batch_range_out_of_order_is_refused(tiny_bundle: Path) -> None:
    result = CliRunner().invoke(build, [str(tiny_bundle), "--batch", "8:4:1"])
    assert isinstance(result.exception, InputError) and "8:4:1" in str(result.exception)
