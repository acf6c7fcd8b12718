"""`resdeploy serve` says in one line what is wrong with its options, before it listens."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from resdeploy.deploy.cli.serve import serve
from resdeploy.deploy.errors import InputError


def _serve(*arguments: object) -> Result:
    return CliRunner().invoke(serve, [str(word) for word in arguments])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--port", 70000), "70000 is not in the range 0<=x<=65535"),
        (("--max-batch", 0), "0 is not in the range 1<=x<=4096"),
        (("--max-wait-ms", -1), "-1.0 is not in the range x>=0"),
        (("--precision", "int4"), "'int4' is not one of"),
        (("--backend", "cuda"), "'cuda' is not one of"),
    ],
)
def test_wrong_usage_is_2(flower_bundle: Path, options: tuple[object, ...], message: str) -> None:
    result = _serve(flower_bundle, *options)
    assert result.exit_code == 2 and message in result.output


def test_without_a_bundle_there_is_nothing_to_serve() -> None:
    result = _serve()
    assert result.exit_code == 2 and "Missing argument 'BUNDLE...'" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tls-cert", "x"), "a certificate and its key go together"),
        (("--port", 0, "--token-file", "no-such-file"), "no-such-file: cannot be read as tokens"),
    ],
)
def test_what_the_user_can_mend(
    flower_bundle: Path, options: tuple[object, ...], message: str
) -> None:
    result = _serve(flower_bundle, *options)
    assert isinstance(result.exception, InputError) and message in str(result.exception)


def test_two_models_of_one_name_are_refused(flower_bundle: Path) -> None:
    result = _serve(flower_bundle, flower_bundle)
    assert isinstance(result.exception, InputError)
    assert "2 models named 'flowers': rename one of them" in str(result.exception)
