"""What `resdeploy predict` shows: a table of answers, counts per class, JSON, a CSV file."""

import csv
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdeploy.deploy.cli.output import is_terminal, note, print_table
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.files import replaced_file
from resdeploy.deploy.images.gather import NamedImage
from resdeploy.deploy.inference.prediction import Prediction

Answer = list[Prediction] | InputError

_NAME_LEAST = 16  # characters of a path that stay, however narrow the terminal
_NAME_MOST = 40  # beyond it a cell would be folded
_CLASSES_SHOWN = 12
_UNSURE = "unsure"
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class Rows:
    """Every image with its answer, and the least probability that an answer must have."""

    images: Sequence[NamedImage]
    answers: Sequence[Answer]
    labels: Sequence[str]
    min_probability: float = 0.0

    def certain(self, answer: list[Prediction]) -> list[Prediction]:
        """The classes of an answer that are probable enough."""
        return [p for p in answer if p.probability >= self.min_probability]


def shortened(name: str, width: int) -> str:
    """A path with its middle left out, so that its beginning and its file name stay."""
    if len(name) <= width:
        return name
    tail = min(len(Path(name).name) + 1, width - 4)
    tail = max(tail, width // 2)
    return f"{name[: width - tail - 1]}…{name[-tail:]}"


def print_answers(rows: Rows) -> None:
    """One image in full, or a line for each image and then the counts."""
    if len(rows.images) == 1 and isinstance(rows.answers[0], list):
        found = [(p.label, str(p.index), f"{p.probability:.2%}")
                 for p in rows.certain(rows.answers[0])]  # fmt: skip
        print_table((_name(rows.images[0]), ">index", ">probability"), found)
        if not found:
            note(f"no class reaches {rows.min_probability:.0%}")
        return
    print_table(("image", "class", ">probability", "then"), [_row(rows, k) for k in _all(rows)])
    _print_counts(rows)


def answers_to_json(rows: Rows) -> list[dict[str, Any]]:
    """What `--json` prints."""
    found: list[dict[str, Any]] = []
    for image, answer in zip(rows.images, rows.answers, strict=True):
        if isinstance(answer, list):
            predictions = [vars(prediction) for prediction in rows.certain(answer)]
            found.append({"path": image.name, "predictions": predictions})
        else:
            found.append({"path": image.name, "error": _reason(image, answer)})
    return found


def write_csv(file: Path, rows: Rows, top: int, *, raw: bool = False) -> None:
    """One line for each image.

    A spreadsheet runs what begins like a formula: such a text gets an apostrophe before it, as
    OWASP advises, but for `raw`.
    """
    text = str if raw else _no_formula
    lists = [rows.certain(answer) for answer in rows.answers if isinstance(answer, list)]
    ranks = max((len(answer) for answer in lists), default=top)
    columns = ["path", "error"]
    for rank in range(1, ranks + 1):
        columns += [f"label_{rank}", f"index_{rank}", f"probability_{rank}"]
    # surrogateescape: the bytes of a file name that is not UTF-8 stay what they are
    with (
        replaced_file(file) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(columns)
        for image, answer in zip(rows.images, rows.answers, strict=True):
            if isinstance(answer, list):
                certain = rows.certain(answer)
                cells = [cell for p in certain for cell in (text(p.label), p.index, p.probability)]
                writer.writerow([text(image.name), "", *cells])
            else:
                writer.writerow([text(image.name), text(_reason(image, answer))])


def _no_formula(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _all(rows: Rows) -> range:
    return range(len(rows.images))


def _row(rows: Rows, position: int) -> tuple[str, str, str, str]:
    image, answer = rows.images[position], rows.answers[position]
    if not isinstance(answer, list):
        return _name(image), "error", "", _reason(image, answer)
    certain = rows.certain(answer)
    if not certain:
        first = answer[0]
        return _name(image), _UNSURE, "", f"{first.label} {first.probability:.1%}"
    first, *others = certain
    following = ", ".join(f"{p.label} {p.probability:.1%}" for p in others)
    return _name(image), first.label, f"{first.probability:.2%}", following


def _print_counts(rows: Rows) -> None:
    """How many images each class got and, where folders name the classes, how many rightly."""
    firsts = [_first(rows, answer) for answer in rows.answers if isinstance(answer, list)]
    if not firsts:
        return
    truth = _truth(rows)
    right = Counter(first for first, true in zip(firsts, truth, strict=True) if first == true)
    counts = Counter(firsts).most_common()
    shown = counts[:_CLASSES_SHOWN]
    if any(truth):
        table = [(label, str(count), str(right[label])) for label, count in shown]
        print_table(("class", ">images", ">rightly"), table)
    else:
        print_table(("class", ">images"), [(label, str(count)) for label, count in shown])
    if len(counts) > len(shown):
        rest = sum(count for _, count in counts[_CLASSES_SHOWN:])
        note(f"{len(counts) - len(shown)} other classes have {rest} images")
    if any(truth):
        known = [(first, true) for first, true in zip(firsts, truth, strict=True) if true]
        hits = sum(first == true for first, true in known)
        share = hits / len(known)
        note(f"accuracy {share:.2%}: {hits} of {len(known)} images; their folders name the classes")


def _first(rows: Rows, answer: list[Prediction]) -> str:
    certain = rows.certain(answer)
    return certain[0].label if certain else _UNSURE


def _truth(rows: Rows) -> list[str]:
    """The class that each readable image's folder names; all "" where some folder names none."""
    readable = [image for image, answer in zip(rows.images, rows.answers, strict=True)
                if isinstance(answer, list)]  # fmt: skip
    folders = [image.path.parent.name for image in readable]
    known = set(rows.labels)
    return folders if all(folder in known for folder in folders) else [""] * len(folders)


def _name(image: NamedImage) -> str:
    """The name as it fits a terminal; whole in a pipe or a file."""
    if not is_terminal(sys.stdout):
        return image.name
    room = shutil.get_terminal_size().columns // 3
    return shortened(image.name, max(_NAME_LEAST, min(room, _NAME_MOST)))


def _reason(image: NamedImage, error: InputError) -> str:
    """Without the file's name, which stands before it."""
    return str(error).removeprefix(f"{image.name}: ").removeprefix(f"{image.path}: ")
