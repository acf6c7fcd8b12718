"""How this copy of resdeploy was installed, and the commands that add to it or renew it.

Every hint of the kind "pip install …" is made here, so that each works as it is printed. What pip
recorded at installation (PEP 610, `direct_url.json`) says which kind it was:

    a clone, editable     pip install -e '/path/to/clone[serve]'
    a folder, copied      pip install '/path/to/clone[serve]'
    a wheel or an sdist   pip install '/path/to/resdeploy-0.2.0-py3-none-any.whl[serve]'
    a repository          pip install 'resdeploy[serve] @ git+https://…'
    an index              pip install 'resdeploy[serve]'

Where the folder or file is gone, the libraries themselves are named: they need no copy of ours.
"""

import json
import platform
import shlex
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

_NAME = "resdeploy"
_CPU_RUNTIME, _GPU_RUNTIME = "onnxruntime", "onnxruntime-gpu"
# on x86-64 Linux
BRINGS_GPU_RUNTIME = frozenset({"runtime", "export", "serve", "ray", "all", "dev"})

Kind = Literal["editable", "folder", "archive", "repository", "index", "path"]


@dataclass(frozen=True)
class Installation:
    """How this copy came here: `source` is a path, or the URL of a repository, or "".

    `kind` "path" is a clone that was put on Python's path without being installed.
    """

    kind: Kind
    source: str


def installation() -> Installation:
    """What pip recorded; a clone on PYTHONPATH counts more, since that is what runs."""
    root = Path(__file__).resolve().parents[1]
    clone = (root / "pyproject.toml").is_file()
    try:
        found = distribution(_NAME)
    except PackageNotFoundError:
        return Installation("path", str(root)) if clone else Installation("index", "")
    recorded = _recorded(found)
    if clone and (recorded is None or Path(recorded.source).resolve() != root):
        return Installation("path", str(root))
    return recorded or Installation("index", "")


def install_command(*extras: str) -> str:
    """The command that adds `extras` to this copy, ready to be pasted into a shell.

    Where the extras bring a second package of ONNX Runtime, the first is uninstalled before: the
    two share one folder.
    """
    before = f"pip uninstall -y {_CPU_RUNTIME} && " if _would_meet(extras) else ""
    return before + _command(extras)


def _would_meet(extras: tuple[str, ...]) -> bool:
    """Whether ONNX Runtime for CPUs is here, and these extras bring the one for GPUs."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return False  # there is only one package elsewhere
    if BRINGS_GPU_RUNTIME.isdisjoint(extras):
        return False
    return _is_installed(_CPU_RUNTIME) and not _is_installed(_GPU_RUNTIME)


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _command(extras: tuple[str, ...]) -> str:
    found = installation()
    joined = ",".join(extras)
    if found.kind in ("editable", "path") and Path(found.source).is_dir():
        return f"pip install -e {_quoted(f'{_short(found.source)}[{joined}]')}"
    if found.kind in ("folder", "archive") and Path(found.source).exists():
        return f"pip install {_quoted(f'{_short(found.source)}[{joined}]')}"
    if found.kind == "repository":
        return f"pip install {_quoted(f'{_NAME}[{joined}] @ {found.source}')}"
    libraries = _libraries(extras) if found.kind in ("folder", "archive") else []
    if libraries:
        return f"pip install {shlex.join(libraries)}"
    return f"pip install {_quoted(f'{_NAME}[{joined}]')}"


def upgrade_advice() -> str:
    """How to renew this copy, as the end of a sentence."""
    found = installation()
    if found.kind in ("editable", "path"):
        return f"renew it with git -C {_quoted(_short(found.source))} pull"
    if found.kind in ("folder", "archive"):
        return "install a newer copy of it, as you installed this one"
    if found.kind == "repository":
        return f"renew it with pip install -U {_quoted(f'{_NAME} @ {found.source}')}"
    return f"renew it with pip install -U {_NAME}"


def _recorded(found: Distribution) -> Installation | None:
    """What `direct_url.json` says; None for a copy from an index."""
    try:
        fields: Any = json.loads(found.read_text("direct_url.json") or "null")
        url = urlsplit(str(fields["url"]))
    except (ValueError, TypeError, KeyError):
        return None
    if "vcs_info" in fields:
        commit = fields["vcs_info"].get("requested_revision") or fields["vcs_info"]["commit_id"]
        return Installation("repository", f"{fields['vcs_info']['vcs']}+{fields['url']}@{commit}")
    if url.scheme != "file":
        return Installation("archive", str(fields["url"]))
    path = unquote(url.path)
    if "dir_info" not in fields:
        return Installation("archive", path)
    return Installation("editable" if fields["dir_info"].get("editable") else "folder", path)


def _libraries(extras: tuple[str, ...]) -> list[str]:
    """What the extras need, others of ours resolved, as the metadata of this copy has it."""
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:  # pip has its own; most environments have this one, too
        return []
    waiting, seen, found = list(extras), set[str](), list[str]()
    requirements = [Requirement(text) for text in distribution(_NAME).requires or ()]
    while waiting:
        extra = waiting.pop()
        seen.add(extra)
        for requirement in requirements:
            if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
                continue
            if requirement.marker.evaluate({"extra": ""}):
                continue
            if requirement.name == _NAME:
                waiting += requirement.extras - seen
            else:
                found.append(f"{requirement.name}{requirement.specifier}")
    return sorted(set(found))


def _short(path: str) -> str:
    """The path, or . for the working directory."""
    return "." if Path(path) == Path.cwd() else path


def _quoted(text: str) -> str:
    """In single quotes, since the brackets of extras mean something to shells."""
    return text if text.isalnum() else shlex.quote(text) if "'" in text else f"'{text}'"
