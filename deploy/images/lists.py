"""Reads lists of images: a text or CSV file with `path` or `path,class` on each line.

Verification, calibration and export all read lists here, so each accepts what the others accept:
paths relative to the list's own folder, an optional heading, blank lines, a byte order mark.
"""

import csv
from io import StringIO
from pathlib import Path

from resdeploy.deploy.errors import InputError, first_line
from resdeploy.deploy.reading import read_text

# A first line that begins with one of these words is a heading.
_HEADINGS = ("path", "file", "filename", "image")


def read_image_list(source: Path) -> list[tuple[Path, str]]:
    """The path and the class of every image in a list; the class is "" where none is given.

    Raises:
        InputError: the file cannot be read, is empty, or a line has no path.
    """
    return [(source.parent / place, name) for place, name in read_list_rows(source)]


def read_list_rows(source: Path) -> list[tuple[str, str]]:
    """`read_image_list` with the paths as they stand there, which may be URIs."""
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first path
        text = StringIO(read_text(source, encoding="utf-8-sig"), newline="")
        lines = [[cell.strip() for cell in row] for row in csv.reader(text, skipinitialspace=True)]
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise InputError(f"{source}: not a folder or list of images: {reason}") from error
    rows = [row for row in lines if any(row)]
    if rows and rows[0][0].lower() in _HEADINGS:
        rows = rows[1:]
    if not rows:
        raise InputError(f"{source}: lists no images; expected lines path or path,class")
    if nameless := [row for row in rows if not row[0]]:
        raise InputError(
            f"{source}: got {','.join(nameless[0])!r}, expected lines path or path,class"
        )
    return [(row[0], row[1] if len(row) > 1 else "") for row in rows]
