"""Long paths lose their middle; a table comes in parts that read as one."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from resdeploy.deploy.cli import predict_output
from resdeploy.deploy.cli.predict_output import Rows, Table, shortened
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.gather import NamedImages
from resdeploy.deploy.inference.prediction import Prediction


@pytest.mark.parametrize(("name", "width", "expected"), [
    ("a/b.jpg", 40, "a/b.jpg"),
    ("/data/flowers/val/tulips/one.jpg", 24, "/data/flowe…lips/one.jpg"),
    ("/data/flowers/val/tulips/of_2019.jpg", 20, "/data/f…/of_2019.jpg"),
    ("x" * 50 + ".jpg", 20, "xxx…xxxxxxxxxxxx.jpg"),
])  # fmt: skip
def test_the_middle_is_left_out(name: str, width: int, expected: str) -> None:
    assert shortened(name, width) == expected and len(shortened(name, width)) <= width


def _printed(names: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[list[str], int]:
    """What is in the lines of a table of these images, and how many were there before its end."""
    rows = Rows(NamedImages(names), iter(()), ("daisy", "roses"))
    table = Table(rows, nullcontext)
    for number, image in enumerate(rows.images):
        found = [Prediction("daisy", 0, 0.9), Prediction("roses", 1, 0.1)]
        table.add(image, InputError(f"{image.name}: no such file") if number == 1 else found)
    early = capsys.readouterr().out
    table.end()
    lines = (early + capsys.readouterr().out).splitlines()
    return [line for line in lines if line], early.count("\n")


def test_parts_of_a_table_read_as_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"daisy/{number:04}.jpg" for number in range(23)]
    whole, early = _printed(names, capsys)
    assert early == 0
    for rows_at_once in (1, 5, 22, 23):
        monkeypatch.setattr(predict_output, "_ROWS_AT_ONCE", rows_at_once)
        parts, early = _printed(names, capsys)
        assert early >= 23 // rows_at_once * rows_at_once
        assert [_words(line) for line in parts] == [_words(line) for line in whole]
        if rows_at_once > 1:  # then the first part knows the widths of all
            assert parts == whole


def _words(line: str) -> list[str]:
    return [word for word in line.split() if "─" not in word]


def test_on_a_terminal_no_part_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict_output, "_ROWS_AT_ONCE", 2)
    monkeypatch.setattr("resdeploy.deploy.cli.output.is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "70")
    rows = Rows(NamedImages(["a.jpg"] * 5), iter(()), ())
    table = Table(rows, nullcontext)
    others = [Prediction(f"class number {n}", n, 0.1) for n in range(4)]
    for image in rows.images:
        table.add(image, [Prediction("daisy", 0, 0.6), *others])
    table.end()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 70
    assert " ".join(" ".join(lines).split()).count("class number 3 10.0%") == 5


def test_a_column_grows_with_what_comes_later(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict_output, "_ROWS_AT_ONCE", 2)
    lines, _ = _printed(["a", "b", "longer.jpg", "c", "d"], capsys)
    places = [line.index("daisy") for line in lines if "90.00%" in line]
    assert places == [places[0], places[1], places[1], places[1]] and places[0] < places[1]


def test_folders_that_name_no_class_give_no_accuracy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(predict_output, "note", notes.append)
    _printed([str(Path("daisy", name)) for name in "abc"], capsys)
    assert notes == ["accuracy 100.00%: 2 of 2 images; their folders name the classes"]
    notes.clear()
    _printed(["daisy/a", "daisy/b", "elsewhere/c"], capsys)
    assert notes == []
