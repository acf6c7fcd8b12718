"""The answers of `resdeploy predict` as JSON, as a CSV file, as pages, in bounded memory.

A document is kept in a file without a name until the last answer is there: an error on the way
leaves no half of one on stdout or on disk.
"""

import csv
import shutil
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

from resdeploy.deploy.cli.output import json_text, note, write
from resdeploy.deploy.cli.predict_output import Answer, Output, Rows, reason
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.files import replaced_file
from resdeploy.deploy.images.files import open_image
from resdeploy.deploy.images.gather import NamedImage
from resdeploy.deploy.inference.annotate import annotated, unique_name

_IN_MEMORY_BYTES = 1 << 20
_PIECE_CHARACTERS = 1 << 16
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class JsonList:
    """What `--json` prints: a list with an object for each image."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._kept = _kept()
        self._before = "[\n  "

    def add(self, image: NamedImage, answer: Answer) -> None:
        """The next image."""
        text = json_text(self._as_json(image, answer)).replace("\n", "\n  ")
        self._kept.write(self._before + text)
        self._before = ",\n  "

    def end(self) -> None:
        """Print the list.

        Raises:
            InputError: stdout is closed or full.
            BrokenPipeError: who read stdout left.
        """
        self._kept.seek(0)
        while piece := self._kept.read(_PIECE_CHARACTERS):
            write(piece, newline=False)
        write("\n]")

    def close(self) -> None:
        """Forget what is kept."""
        self._kept.close()

    def _as_json(self, image: NamedImage, answer: Answer) -> dict[str, Any]:
        if isinstance(answer, list):
            predictions = [vars(prediction) for prediction in self._rows.certain(answer)]
            return {"path": image.name, "predictions": predictions}
        return {"path": image.name, "error": reason(image, answer)}


class CsvFile:
    """One line for each image.

    A spreadsheet runs what begins like a formula: such a text gets an apostrophe before it, as
    OWASP advises, but for `raw`.
    """

    def __init__(self, file: Path, rows: Rows, top: int, *, raw: bool = False) -> None:
        self._file = file
        self._rows = rows
        self._text = str if raw else _no_formula
        self._top = top
        self._ranks: int | None = None  # until an answer tells
        self._kept = _kept()
        self._writer = csv.writer(self._kept)

    def add(self, image: NamedImage, answer: Answer) -> None:
        """The next image."""
        text = self._text
        if isinstance(answer, list):
            certain = self._rows.certain(answer)
            cells = [cell for p in certain for cell in (text(p.label), p.index, p.probability)]
            self._writer.writerow([text(image.name), "", *cells])
            self._ranks = max(self._ranks or 0, len(certain))
        else:
            self._writer.writerow([text(image.name), text(reason(image, answer))])

    def end(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            InputError: it cannot be written or is full.
        """
        columns = ["path", "error"]
        for rank in range(1, (self._top if self._ranks is None else self._ranks) + 1):
            columns += [f"label_{rank}", f"index_{rank}", f"probability_{rank}"]
        self._kept.seek(0)
        with (
            replaced_file(self._file) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors=_BYTES_STAY) as stream,
        ):
            csv.writer(stream).writerow(columns)
            shutil.copyfileobj(self._kept, stream)

    def close(self) -> None:
        """Forget what is kept."""
        self._kept.close()


class Pages:
    """Every readable image with its answer, under its own name, numbered where that is taken."""

    def __init__(self, folder: Path, rows: Rows) -> None:
        self._folder = folder
        self._rows = rows
        self._taken: set[str] = set()

    def add(self, image: NamedImage, answer: Answer) -> None:
        """The next image.

        Raises:
            OSError: it cannot be written.
        """
        if isinstance(answer, list):
            page = annotated(open_image(image.path), self._rows.certain(answer))
            name = unique_name(Path(image.name).stem, self._taken)
            page.save(self._folder / name, quality=90)

    def end(self) -> None:
        """Tell where they are."""
        note(f"{len(self._taken)} annotated images in {self._folder}")


class AfterOthers:
    """What is printed beside files: where nothing can be printed, they are still written."""

    def __init__(self, printed: Output) -> None:
        self._printed = printed
        self._lost: BrokenPipeError | InputError | None = None

    def add(self, image: NamedImage, answer: Answer) -> None:
        """The next image."""
        if self._lost is None:
            try:
                self._printed.add(image, answer)
            except (BrokenPipeError, InputError) as error:
                self._lost = error

    def end(self) -> None:
        """The end of what is printed.

        Raises:
            InputError, BrokenPipeError: stdout could not be written, now or before.
        """
        if self._lost is not None:
            raise self._lost
        self._printed.end()


# the bytes of a file name that is not UTF-8 stay what they are
_BYTES_STAY = "surrogateescape"


def _kept() -> "SpooledTemporaryFile[str]":
    return SpooledTemporaryFile(
        _IN_MEMORY_BYTES, "w+", encoding="utf-8", errors=_BYTES_STAY, newline=""
    )


def _no_formula(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
