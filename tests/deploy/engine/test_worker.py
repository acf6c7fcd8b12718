"""The building process: memory it may use, the plan it writes, and one event per line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.engine.flavor import typing_of
from resdeploy.deploy.engine.layer_table import LayerCounts
from resdeploy.deploy.engine.request import BuildOptions, BuildRequest
from resdeploy.deploy.engine.supervisor import PARENT
from resdeploy.deploy.engine.worker import build
from resdeploy.deploy.errors import InputError

_MIB = 1 << 20


def _request(library: Any, plan: Path, **options: Any) -> BuildRequest:
    return BuildRequest(
        graph="some.onnx", plan=str(plan), flavor=library.flavor, precision="fp16",
        typing=typing_of(library.module), input_name="input", input_sizes=(3, 8, 8),
        options=BuildOptions(**options),
    )  # fmt: skip


def test_the_plan_is_written_and_reported(library: Any, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    report = build(_request(library, tmp_path / "plan"), events.append, library.module)
    assert (tmp_path / "plan").read_bytes() == b"a plan of bytes"
    assert report.version == library.version
    assert report.layers == LayerCounts(total=2, int8=1, half=0, float=1)
    assert report.convolutions == report.layers and report.warnings == ()
    assert {event["kind"] for event in events} <= {"progress", "alive"}
    assert bool(events) != library.version.startswith("8")  # 8 has no progress monitor


@pytest.mark.parametrize("library", ["10.3.0"], indirect=True)
def test_memory_is_a_share_of_what_is_free_unless_it_is_given(library: Any, tmp_path: Path) -> None:
    report = build(_request(library, tmp_path / "plan"), lambda event: None, library.module)
    assert 256 <= report.workspace_mib <= max(256, report.free_memory_mib // 2)
    if cuda_problem() is not None:
        assert report.workspace_mib <= 4096
    report = build(
        _request(library, tmp_path / "plan", workspace_mib=64), lambda event: None, library.module
    )
    assert report.workspace_mib == 64
    limits = library.arguments("IBuilderConfig.set_memory_pool_limit")
    assert limits[-1] == ("WORKSPACE", 64 * _MIB)


@pytest.mark.parametrize("library", ["11.4.0.106"], indirect=True)
def test_a_plan_that_cannot_be_written_names_the_folder(library: Any, tmp_path: Path) -> None:
    request = _request(library, tmp_path / "gone" / "plan")
    with pytest.raises(InputError, match=r"gone: cannot be written: No such file"):
        build(request, lambda event: None, library.module)


@pytest.mark.parametrize("library", ["10.3.0"], indirect=True)
def test_an_error_is_one_event_and_exit_status_1(library: Any, tmp_path: Path) -> None:
    """Without TensorRT it is missing; with it, the graph is."""
    done = subprocess.run(
        [sys.executable, "-m", "resdeploy.deploy.engine.worker"],
        input=_request(library, tmp_path / "plan").to_json(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    event = [json.loads(line) for line in done.stdout.splitlines()][-1]
    assert event["kind"] == "error" and event["exit"] in (1, 4)
    assert "tensorrt" in event["message"] or "some.onnx" in event["message"]
    assert not (tmp_path / "plan").exists()


def test_a_child_whose_parent_died_at_once_ends(tmp_path: Path) -> None:
    """The kernel is asked for a signal at the parent's death, which may be past already."""
    done = subprocess.run(
        [sys.executable, "-m", "resdeploy.deploy.engine.worker"],
        input="{}",
        capture_output=True,
        text=True,
        env={**os.environ, PARENT: "1" if os.getpid() != 1 else "2"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
