"""Answers as files and documents: whole or not at all, whatever is printed beside them."""

import csv
import json
from pathlib import Path

import pytest

from resdeploy.deploy.cli import predict_files
from resdeploy.deploy.cli.predict_files import AfterOthers, CsvFile, JsonList
from resdeploy.deploy.cli.predict_output import Rows
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.gather import NamedImage
from resdeploy.deploy.inference.prediction import Prediction

_IMAGE = NamedImage("a.jpg", Path("a.jpg"))
_SURE, _UNSURE = Prediction("daisy", 0, 0.9), Prediction("zwölf", 1, 0.1)


def _rows(least: float = 0.0) -> Rows:
    return Rows([_IMAGE] * 3, iter(()), ("daisy", "zwölf"), least)


def test_a_list_of_any_length_is_the_document_that_json_would_write(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = []
    monkeypatch.setattr(predict_files, "_IN_MEMORY_BYTES", 1000)
    made = JsonList(_rows())
    for number in range(50):
        image = NamedImage(f"{number}.jpg", Path("x"))
        made.add(image, [_SURE, _UNSURE])
        expected.append({"path": image.name, "predictions": [vars(_SURE), vars(_UNSURE)]})
    assert capsys.readouterr().out == ""
    made.end()
    made.close()
    assert capsys.readouterr().out == json.dumps(expected, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(("least", "ranks"), [(0.0, 2), (0.5, 1), (0.95, 0)])
def test_a_csv_file_has_the_columns_that_its_longest_row_needs(
    least: float, ranks: int, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    made = CsvFile(file, _rows(least), 5)
    made.add(_IMAGE, InputError("a.jpg: no such file"))
    made.add(_IMAGE, [_SURE, _UNSURE])
    assert list(tmp_path.iterdir()) == []
    made.end()
    made.close()
    with file.open(newline="", encoding="utf-8") as stream:
        heading, failed, found = csv.reader(stream)
    assert len(heading) == len(found) == 2 + 3 * ranks and failed == ["a.jpg", "no such file"]
    assert found[2:5] == ["daisy", "0", "0.9"][: 3 * ranks]


def test_without_any_answer_a_csv_file_has_the_columns_asked_for(tmp_path: Path) -> None:
    made = CsvFile(tmp_path / "rows.csv", _rows(), 2)
    made.add(_IMAGE, InputError("a.jpg: no such file"))
    made.end()
    made.close()
    heading = (tmp_path / "rows.csv").read_text().splitlines()[0]
    assert heading.endswith("label_2,index_2,probability_2")


class _ClosedPipe:
    def __init__(self) -> None:
        self.asked = 0

    def add(self, image: NamedImage, answer: object) -> None:
        self.asked += 1
        raise BrokenPipeError

    def end(self) -> None:
        raise AssertionError("nobody reads it")


def test_a_reader_that_left_is_told_of_at_the_end_and_asked_once() -> None:
    pipe = _ClosedPipe()
    printed = AfterOthers(pipe)
    printed.add(_IMAGE, [_SURE])
    printed.add(_IMAGE, [_SURE])
    with pytest.raises(BrokenPipeError):
        printed.end()
    assert pipe.asked == 1
