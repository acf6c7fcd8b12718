"""A bundle as bytes and back, so that it reaches workers on machines that do not have it."""

import io
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resdeploy.deploy.bundle.bundle import REPORTS
from resdeploy.deploy.bundle.lone_file import SIDECAR_SUFFIX, sidecar_path
from resdeploy.deploy.bundle.model import open_model


def pack(path: Path) -> bytes:
    """A bundle's files without its reports, an ONNX file or an engine with its sidecar, archived.

    Raises:
        BundleError: no bundle there.
    """
    model = open_model(path)  # what cannot be opened is refused here and not by every worker
    path = path.resolve()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(path, arcname=path.name, filter=_without_reports)
        if model.is_engine:
            archive.add(sidecar_path(path), arcname=sidecar_path(path).name)
    return stream.getvalue()


@contextmanager
def unpacked(content: bytes) -> Iterator[Path]:
    """What `pack` was given, in a temporary folder."""
    with (
        tempfile.TemporaryDirectory(prefix="resdeploy-bundle-") as folder,
        tarfile.open(fileobj=io.BytesIO(content)) as archive,
    ):
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, filter="data")
        else:  # up to Python 3.10.11 and 3.11.3; `pack` made this archive
            archive.extractall(folder)
        yield next(path for path in Path(folder).iterdir() if path.suffix != SIDECAR_SUFFIX)


def _without_reports(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if REPORTS in Path(member.name).parts[1:] else member
