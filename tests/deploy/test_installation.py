"""Each kind of installation gives the command that adds to it."""

import json
import platform
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

from resdeploy.deploy import installation as module
from resdeploy.deploy.installation import (
    BRINGS_GPU_RUNTIME,
    Installation,
    install_command,
    installation,
)

Record = Callable[[object], None]

_REQUIRES = [
    "numpy>=1.26",
    'torch>=2.4; extra == "export"',
    'resdeploy[runtime]; extra == "export"',
    'onnxruntime; (platform_system == "Nowhere") and extra == "runtime"',
    'onnxruntime-gpu; extra == "runtime"',
]


class _Recorded:
    """An installed distribution as pip records it."""

    requires = _REQUIRES

    def __init__(self, direct_url: object) -> None:
        self._text = None if direct_url is None else json.dumps(direct_url)

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self._text


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Record:
    """A function that makes this copy one that pip installed so; it is no clone itself."""
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site" / "deploy" / "installation.py"))

    def record(direct_url: object) -> None:
        monkeypatch.setattr(module, "distribution", lambda _: _Recorded(direct_url))

    return record


def test_an_editable_clone(
    installed: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "my clone"
    clone.mkdir()
    installed({"url": f"{clone.as_uri()}", "dir_info": {"editable": True}})
    assert install_command("serve") == f"pip install -e '{clone}[serve]'"
    monkeypatch.chdir(clone)
    assert install_command("serve", "report") == "pip install -e '.[serve,report]'"
    assert module.upgrade_advice() == "renew it with git -C '.' pull"


def test_a_copied_folder_and_a_wheel(installed: Record, tmp_path: Path) -> None:
    installed({"url": tmp_path.as_uri(), "dir_info": {}})
    assert install_command("cpu") == f"pip install '{tmp_path}[cpu]'"
    wheel = tmp_path / "resdeploy-0.2.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    installed({"url": wheel.as_uri(), "archive_info": {"hash": "sha256=00"}})
    assert install_command("cpu") == f"pip install '{wheel}[cpu]'"
    assert "newer copy" in module.upgrade_advice()


@pytest.mark.parametrize(
    ("system", "here", "extra", "cleared"),
    [
        ("Linux", {"onnxruntime"}, "export", True),
        ("Linux", {"onnxruntime"}, "report", False),
        ("Linux", {"onnxruntime", "onnxruntime-gpu"}, "export", False),
        ("Linux", {"onnxruntime-gpu"}, "export", False),
        ("Linux", set(), "export", False),
        ("Darwin", {"onnxruntime"}, "export", False),
    ],
)
def test_no_second_onnx_runtime_beside_the_first(
    system: str, here: set[str], extra: str, cleared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module, "_is_installed", here.__contains__)
    command = install_command(extra)
    assert command.startswith("pip uninstall -y onnxruntime && pip install ") == cleared
    assert command.endswith(f"[{extra}]'")


def test_the_extras_that_bring_the_runtime_for_gpus_are_those_of_the_package() -> None:
    """Found by following the extras as pip does."""
    needed: dict[str, str] = {}
    for line in metadata("resdeploy").get_all("Requires-Dist") or []:
        name, _, extra = line.partition(" extra == ")
        needed.setdefault(extra.strip("'\""), "")
        needed[extra.strip("'\"")] += f" {name}"
    brings = {extra for extra, names in needed.items() if "onnxruntime-gpu" in names}
    while more := {
        extra
        for extra, names in needed.items()
        if extra not in brings
        and any(re.search(rf"resdeploy\[([^]]*,)?{one}(,[^]]*)?\]", names) for one in brings)
    }:
        brings |= more
    assert brings == BRINGS_GPU_RUNTIME


def test_a_wheel_that_is_gone_leaves_the_libraries_themselves(
    installed: Record, tmp_path: Path
) -> None:
    installed({"url": (tmp_path / "gone.whl").as_uri(), "archive_info": {}})
    assert install_command("export") == "pip install onnxruntime-gpu 'torch>=2.4'"


def test_a_repository_and_an_index(installed: Record) -> None:
    url = "https://example.org/resdeploy.git"
    installed({"url": url, "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}})
    assert install_command("cpu") == f"pip install 'resdeploy[cpu] @ git+{url}@c0ffee'"
    installed(None)
    assert install_command("cpu") == "pip install 'resdeploy[cpu]'"
    assert module.upgrade_advice() == "renew it with pip install -U resdeploy"


def test_a_clone_on_pythons_path_counts_whatever_pip_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = str(Path(__file__).resolve().parents[2])

    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "distribution", absent)
    assert installation() == Installation("path", root)
    monkeypatch.setattr(module, "distribution", lambda _: _Recorded(None))
    assert installation() == Installation("path", root)
