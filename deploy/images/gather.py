"""What a command is given as images, as files: paths, folders, globs, URLs, standard input.

    photo.jpg  holiday/  '*.png'  https://…/tulip.jpg  -

A URL is fetched into a folder of the caller's, at most 64 MB of it, after at most five redirects
from one http or https address to another. What cannot be fetched is an image that cannot be read:
the others go on.
"""

import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, BinaryIO, overload
from urllib.parse import urlsplit

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.files import find_image_names
from resdeploy.deploy.images.heif import skipped_heif
from resdeploy.deploy.installation import install_command

STANDARD_INPUT = "-"
MOST_BYTES = 64_000_000
_TIMEOUT_S = 20.0
_SCHEMES = ("http", "https")
# what servers call files that they know nothing of
_ANY_CONTENT = ("application/octet-stream", "binary/octet-stream")


@dataclass(frozen=True)
class NamedImage:
    """One image: what the user calls it, the file it is in, and why there is none."""

    name: str
    path: Path
    problem: InputError | None = None


class NamedImages(Sequence[NamedImage]):
    """Images in the order given; of a file only its path is kept, for there may be very many."""

    def __init__(self, images: Iterable[str | NamedImage]) -> None:
        self._images = list(images)

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, place: int) -> NamedImage: ...

    @overload
    def __getitem__(self, place: slice) -> "NamedImages": ...

    def __getitem__(self, place: int | slice) -> "NamedImage | NamedImages":
        if isinstance(place, slice):
            return NamedImages(self._images[place])
        image = self._images[place]
        return NamedImage(image, Path(image)) if isinstance(image, str) else image

    @property
    def files(self) -> list[str]:
        """The files of those that have no problem."""
        return [
            image if isinstance(image, str) else str(image.path)
            for image in self._images
            if isinstance(image, str) or image.problem is None
        ]


@dataclass(frozen=True)
class Gathered:
    """The images in the order given, and sentences on what was left out."""

    images: NamedImages
    remarks: tuple[str, ...]


def gather(sources: Sequence[str], folder: Path, stdin: BinaryIO) -> Gathered:
    """The images that `sources` name; what is fetched or read from `stdin` goes into `folder`.

    Raises:
        InputError: a folder or glob holds no image, or standard input is named twice.
    """
    if sources.count(STANDARD_INPUT) > 1:
        raise InputError("standard input (-) can be read once only, got it several times")
    images: list[str | NamedImage] = []
    remarks = []
    for number, source in enumerate(sources):
        target = folder / f"{number}"
        if source == STANDARD_INPUT:
            images.append(_saved("(standard input)", stdin, target))
        elif urlsplit(source).scheme in _SCHEMES:
            images.append(_fetched(source, target))
        else:
            if skipped := skipped_heif(Path(source)):
                files = "file" if skipped == 1 else "files"
                hint = install_command("heic")
                remarks.append(f"{source}: {skipped} HEIC {files} skipped; to read them: {hint}")
            images += find_image_names([source])
    return Gathered(NamedImages(images), tuple(remarks))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, and only to addresses of the web."""

    max_redirections = 5
    max_repeats = 2

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in _SCHEMES:
            raise InputError(f"{req.full_url}: redirected to {newurl}, expected http or https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetched(url: str, target: Path) -> NamedImage:
    request = urllib.request.Request(url, headers={"User-Agent": "resdeploy", "Accept": "image/*"})
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT_S) as answer:
            kind = answer.headers.get_content_type()
            if not kind.startswith("image/") and kind not in _ANY_CONTENT:
                problem = InputError(f"{url}: the server sent {kind}, expected an image")
                return NamedImage(url, target, problem)
            return _saved(url, answer, target)
    except InputError as error:
        return NamedImage(url, target, error)
    except urllib.error.HTTPError as error:
        reason = f"the server answers {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        reason = f"cannot be fetched: {getattr(error, 'reason', error)}"
    return NamedImage(url, target, InputError(f"{url}: {' '.join(reason.split())}"))


def _saved(name: str, stream: BinaryIO, target: Path) -> NamedImage:
    """The stream in a file, unless it is longer than any image should be."""
    content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        limit = f"limit: {MOST_BYTES // 1_000_000} MB"
        return NamedImage(name, target, InputError(f"{name}: too large for an image, {limit}"))
    target.write_bytes(content)
    return NamedImage(name, target)
