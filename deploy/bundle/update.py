"""Makes or changes a bundle so that every reader, at any moment, sees one whole state of it.

    with changed_bundle(bundle) as folder:     # holds everything that the bundle holds
        ...                                  # replace, add and remove files
        write_manifest(folder, manifest)

The new state is prepared beside the bundle, with links to the files that stay the same, and takes
its place in one step. Until then, and after any failure or kill, the old state is in force.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from resdeploy.deploy.bundle.bundle import (
    ENGINES,
    MANIFEST,
    REPORTS,
    Bundle,
    read_bundle,
)
from resdeploy.deploy.bundle.exchange import put_in_place, sibling
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.temporaries import is_temporary, one_at_a_time, sweep

# what writing raises without naming a file: disk or quota full, file too large, device failing
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

# a file's path in the bundle → what tells whether it is still the same file
_Files = dict[str, tuple[int, int]]


@contextmanager
def new_bundle(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder; on success it becomes `path`, else it vanishes.

    The caller fills the folder and calls `write_manifest`. An existing bundle is replaced only with
    `overwrite`, at the very end and in one step.

    Raises:
        InputError: `path` exists and `overwrite` is not given, is no bundle, or cannot be written.
    """
    check_target(path, overwrite=overwrite)
    with _written_beside(path) as (folder, place):
        yield folder
        with one_at_a_time(place.parent):
            former = put_in_place(folder, place)
        if former is not None:
            shutil.rmtree(former, ignore_errors=True)


@contextmanager
def changed_bundle(bundle: Bundle) -> Iterator[Path]:
    """Yield a folder with all of a bundle's files; on success it takes the bundle's place.

    The files are links to the bundle's own: replace them (`files.replaced_file`), never write into
    them. What other processes add to the bundle meanwhile, such as engines and reports, is kept.

    Raises:
        InputError: the bundle's parent folder cannot be written or is full.
        BundleError: another process changed the bundle since it was read.
    """
    path = bundle.path

    def check() -> None:
        if read_bundle(path).manifest != bundle.manifest:
            raise BundleError(f"{path}: changed by another process meanwhile: run again")

    with _written_beside(path) as (folder, place):
        for part in (place, place / ENGINES, place / REPORTS):
            sweep(part)
        with changed_folder(folder, place, check):
            yield folder


@contextmanager
def changed_folder(
    folder: Path, place: Path, check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Fill an empty `folder` with links to the files of `place`; on success it takes that place.

    `check` may still refuse, when nobody else can take the place any more.
    """
    shutil.copytree(
        place, folder, copy_function=_link, symlinks=True, dirs_exist_ok=True, ignore=_unfinished
    )
    before = _files(folder)
    yield
    with one_at_a_time(place.parent):
        check()
        former = put_in_place(folder, place)
        if former is not None:
            _keep_additions(former, place, before)
    if former is not None:
        shutil.rmtree(former, ignore_errors=True)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise InputError when `path` is taken or cannot be made: asked before minutes of work."""
    if path.exists():
        if not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
            raise InputError(f"{path}: exists and is not a bundle: choose another name with -o")
        if not overwrite:
            raise InputError(f"{path}: exists already: replace it with --overwrite or choose -o")
    if path.parent.is_dir():
        with _written_beside(path):
            pass


def check_replaceable(path: Path) -> None:
    """Raise InputError when a bundle cannot be exchanged for a changed one: asked early, too."""
    if is_mount_point(path):
        raise InputError(
            f"{path}: a mount point, which cannot be replaced in one step: mount the folder above "
            "it instead, or work on a copy"
        )
    with _written_beside(path):
        pass


def is_mount_point(path: Path) -> bool:
    """Whether a folder, such as a volume of a container, keeps its place whatever is renamed."""
    place = path.resolve()
    return place.is_mount() or str(place) in _mount_points()


def _mount_points() -> set[str]:
    """What Linux knows of them; a folder bound within one disk does not look like one else."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return set()
    # blanks in names are written as \040
    return {
        os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin1")) for line in lines
    }


@contextmanager
def _written_beside(path: Path) -> Iterator[tuple[Path, Path]]:
    """A sibling of the bundle and the bundle's real place; `path` itself may be a link to it.

    A disk that is full or cannot be written becomes an InputError.
    """
    place = path.resolve()
    with ExitStack() as stack:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(sibling(place))
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            yield folder, place
        except OSError as error:
            # the body may also fail to read a file of the user's, which is another matter
            ours = str(error.filename or "").startswith((str(folder), str(place)))
            if error.errno in _FULL or ours or isinstance(error, shutil.Error):
                reason = error.strerror or "not every file of it can be linked or copied"
                raise InputError(f"{path}: cannot be written: {reason}") from error
            raise


def _unfinished(folder: str, names: list[str]) -> list[str]:
    """Folders that another process is filling, and will put in place itself."""
    return [name for name in names if is_temporary(name) and os.path.isdir(f"{folder}/{name}")]


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        return  # another process's temporary file, gone by now
    except OSError:  # a filesystem without links
        shutil.copy2(source, target)


def _files(folder: Path) -> _Files:
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root, name)
            status = file.lstat()
            found[str(file.relative_to(folder))] = (status.st_ino, status.st_mtime_ns)
    return found


def _keep_additions(former: Path, path: Path, before: _Files) -> None:
    """Bring over what others put into the former folder after it was linked."""
    now = _files(path)
    for name, found in _files(former).items():
        untouched = now.get(name) == before.get(name)
        if found != before.get(name) and untouched:
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(former / name, target)
