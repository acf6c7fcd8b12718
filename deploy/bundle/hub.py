"""Bundles in repositories of the Hugging Face Hub: fetched by address, and put there.

    hf://OWNER/NAME            the newest state
    hf://OWNER/NAME@REVISION   a branch, a tag or a commit

What is fetched lies in the Hub's own cache (HF_HOME), a folder for each commit, and is fetched
once. HF_ENDPOINT names another Hub, HF_TOKEN who asks.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from resdeploy.deploy.bundle.bundle import MANIFEST, SIGNATURE, Bundle
from resdeploy.deploy.errors import InputError, first_line
from resdeploy.deploy.optional import installed_version, needs

# Path("hf://owner/name") has one slash
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[^/@\s]+/[^/@\s]+?)(@(?P<revision>\S+))?/?")
_SNAPSHOT = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)/snapshots/(?P<commit>[0-9a-f]{40})")
_CARD = "README.md"


@dataclass(frozen=True)
class Pushed:
    """Where a bundle is now: the repository's address on the web, and the commit."""

    url: str
    commit: str


def is_address(path: str | PathLike[str]) -> bool:
    """Whether this names a repository, and no file or folder here."""
    return str(path).startswith("hf:/")


def fetch(address: str | PathLike[str]) -> Path:
    """The folder with the bundle at an address `hf://OWNER/NAME[@REVISION]`; fetched if need be.

    Without a connection what was fetched before is taken.

    Raises:
        InputError: no such address, repository or revision, or it cannot be fetched.
        MissingDependencyError: huggingface-hub is not installed.
    """
    parts = _ADDRESS.fullmatch(str(address))
    if parts is None:
        raise InputError(f"{address}: expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    with needs("hf:// paths"):
        from huggingface_hub import snapshot_download
    with _asked(str(address)):
        return Path(
            snapshot_download(
                parts["repo"],
                revision=parts["revision"],
                library_name="resdeploy",
                library_version=installed_version("resdeploy"),
            )
        )


def push(
    bundle: Bundle,
    repository: str,
    card: str,
    *,
    private: bool = False,
    revision: str | None = None,
) -> Pushed:
    """Put a bundle and its model card into a repository, in one commit; made if it is not there.

    Every file is compared with its hash first. Engines stay: they belong to this machine.

    Raises:
        BundleError: a file was altered.
        InputError: the name is none of a repository, or the Hub refuses.
        MissingDependencyError: huggingface-hub is not installed.
    """
    files = _files(bundle)
    with needs("push"):
        from huggingface_hub import CommitOperationAdd, HfApi
    api = HfApi(library_name="resdeploy", library_version=installed_version("resdeploy"))
    with _asked(repository):
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        added = [CommitOperationAdd(name, bundle.path / name) for name in files]
        done = api.create_commit(
            repository,
            [*added, CommitOperationAdd(_CARD, card.encode())],
            commit_message=f"{bundle.manifest.model.architecture}, pushed by resdeploy",
            revision=revision,
        )
        return Pushed(str(done.repo_url), str(done.oid))


def address_of(path: Path) -> str | None:
    """The address, with its commit, of what `fetch` gave; None for any other path."""
    found = _SNAPSHOT.search(path.as_posix())
    return found and f"hf://{found['owner']}/{found['name']}@{found['commit']}"


def bundle_name(path: Path) -> str:
    """What a bundle is called: its folder's or its repository's name, without .bundle or .onnx."""
    found = _SNAPSHOT.search(path.absolute().as_posix())
    name = found["name"] if found else path.resolve().name
    return name.removesuffix(".bundle").removesuffix(".onnx")


def _files(bundle: Bundle) -> list[str]:
    """What the manifest lists, checked; the manifest, and its signature if there is one."""
    manifest = bundle.manifest
    names = [bundle.graph(variant).name for variant in manifest.variants]
    names += [name for name in manifest.files or () if bundle.file(name) is not None]
    besides = (MANIFEST, SIGNATURE)
    return [*names, *(name for name in besides if (bundle.path / name).is_file())]


@contextmanager
def _asked(what: str) -> Iterator[None]:
    """Whatever the client raises as one line; it draws progress on a terminal alone."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    quiet = not (are_progress_bars_disabled() or (sys.stderr is not None and sys.stderr.isatty()))
    if quiet:
        disable_progress_bars()
    try:
        yield
    # its errors derive from those of its HTTP library, which are another's in every major release
    except Exception as error:
        raise InputError(f"{what}: {_reason(error)}") from error
    finally:
        if quiet:
            enable_progress_bars()


def _reason(error: Exception) -> str:
    """What went wrong, and what to do."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return "gated: ask for access on its page, then hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such branch, tag or commit in it"
    if isinstance(error, errors.RepositoryNotFoundError) and status == 404:
        return "no such repository, or a private one: see its name, or hf auth login"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "the Hub cannot be reached, and it was never fetched: see the network, HF_ENDPOINT"
    if status in (401, 403):
        return f"the Hub refuses ({status}): hf auth login with a token that may do this"
    return f"the Hub's client fails: {first_line(error)}"
