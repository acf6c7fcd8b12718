"""The last lines of a command."""

from pathlib import Path

import pytest

from resdeploy.deploy.cli.shell.next_steps import as_typed, duration, finish


@pytest.mark.parametrize(("seconds", "expected"), [
    (0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (60.2, "1 min 0 s"), (185, "3 min 5 s"),
])  # fmt: skip
def test_a_time_as_people_say_it(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_what_was_done_and_what_comes_next(capsys: pytest.CaptureFixture[str]) -> None:
    finish("exported a.pth", "resdeploy predict a.bundle IMAGE", "resdeploy serve a.bundle")
    output, errors = capsys.readouterr()
    assert output == "" and errors.splitlines() == [
        "exported a.pth in 0.0 s",
        "next: resdeploy predict a.bundle IMAGE",
        "  or: resdeploy serve a.bundle",
    ]


def test_a_path_with_spaces_is_quoted() -> None:
    assert (
        as_typed(Path("my net.bundle")) == "'my net.bundle'"
        and as_typed(Path("a/b.bundle")) == "a/b.bundle"
    )
