"""Flags are taken from anywhere on the line, but not behind `--`."""

from resdeploy.deploy.cli.shell.flags import Said, said, without_flags


def test_flags_are_taken_off_wherever_they_stand() -> None:
    words, flags = without_flags(["-q", "predict", "a.jpg", "--debug", "--top", "2", "-v"])
    assert words == ["predict", "a.jpg", "--top", "2"]
    assert flags == {"quiet", "debug", "verbose"}


def test_what_follows_two_dashes_is_no_flag() -> None:
    assert without_flags(["predict", "--", "-q"]) == (["predict", "--", "-q"], frozenset())


def test_without_a_command_nothing_is_said() -> None:
    assert not said().quiet and Said(frozenset({"quiet"})).quiet
