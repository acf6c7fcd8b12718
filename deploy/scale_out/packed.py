"""A bundle as bytes and back, so that it reaches workers on machines that do not have it."""

import io
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resdeploy.deploy.bundle.bundle import REPORTS
from resdeploy.deploy.bundle.model import open_model


def pack(path: Path) -> bytes:
    """The files of a bundle without its reports, or a lone ONNX file, as an archive.

    Raises:
        BundleError: no bundle there.
    """
    open_model(path)  # what cannot be opened is refused here and not by every worker
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(path, arcname=path.resolve().name, filter=_without_reports)
    return stream.getvalue()


@contextmanager
def unpacked(content: bytes) -> Iterator[Path]:
    """The bundle or the ONNX file in a temporary folder."""
    with (
        tempfile.TemporaryDirectory(prefix="resdeploy-bundle-") as folder,
        tarfile.open(fileobj=io.BytesIO(content)) as archive,
    ):
        archive.extractall(folder, filter="data")
        yield next(Path(folder).iterdir())


def _without_reports(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if REPORTS in Path(member.name).parts[1:] else member
