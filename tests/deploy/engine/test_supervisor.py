"""Whatever becomes of the building process is one clear line, and the process is gone."""

import os
import sys
from pathlib import Path

import pytest

from resdeploy.deploy.engine.request import BuildOptions, BuildReport, BuildRequest
from resdeploy.deploy.engine.supervisor import run_build
from resdeploy.deploy.errors import EngineError, MissingDependencyError, ResdeployError
from resdeploy.deploy.progress import silent

REQUEST = BuildRequest(
    graph="some.bundle/fp16.onnx",
    plan="plan",
    flavor="tensorrt",
    precision="fp16",
    typing="weak",
    input_name="input",
    input_sizes=(3, 224, 224),
    options=BuildOptions(),
)
REPORT = (
    '{"version": "10.3.0", "seconds": 2.5, "workspace_mib": 256, "free_memory_mib": 999, '
    '"peak_memory_mib": 300, "warnings": [], "convolutions": null, '
    '"layers": {"total": 3, "int8": 1, "half": 1, "float": 1}}'
)


def _run(script: str, silence_limit_s: float = 20.0) -> BuildReport:
    """Build with a Python script in place of the building process."""
    command = (sys.executable, "-c", f"import os, signal, sys, time\n{script}")
    return run_build(REQUEST, progress=silent, silence_limit_s=silence_limit_s, command=command)


def test_a_report_comes_back_with_the_progress_before_it() -> None:
    steps: list[tuple[str, int, int]] = []
    script = (
        "request = sys.stdin.read()\n"
        'assert "fp16.onnx" in request and os.environ["CUDA_MODULE_LOADING"] == "LAZY"\n'
        'print(\'{"kind": "alive"}\')\n'
        'print(\'{"kind": "progress", "step": "tactics", "done": 1, "total": 4}\')\n'
        f'print(\'{{"kind": "done", "report": {REPORT}}}\')'
    )
    report = run_build(
        REQUEST,
        progress=lambda step, done, total: steps.append((step, done, total)),
        command=(sys.executable, "-c", f"import os, sys\n{script}"),
    )
    assert report.version == "10.3.0" and report.layers is not None
    assert report.layers.total == 3 and report.convolutions is None
    assert steps == [("building", 0, 0), ("tactics", 1, 4)]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "os.kill(os.getpid(), signal.SIGSEGV)",
            r"fp16\.onnx: the building process crashed in tensorrt with SIGSEGV: build again",
        ),
        (
            'sys.stderr.write("terminate called\\nCUDA driver version is insufficient\\n")\n'
            "sys.stderr.flush(); os.abort()",
            r"SIGABRT \(its last output: terminate called \| CUDA driver .*\): the NVIDIA driver",
        ),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            r"was killed, most likely because it used too much memory: lower the largest",
        ),
        ("sys.exit(3)", r"ended with status 3 and no result"),
        ('sys.exit("boom")', r"ended with status 1 and no result \(its last output: boom\)"),
    ],
)
def test_a_death_is_one_line(script: str, message: str) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        _run(script)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_hang_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"open({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    with pytest.raises(EngineError, match=r"was silent for 2 s during the build and was stopped"):
        _run(script, silence_limit_s=2)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_an_error_keeps_its_class_and_exit_code() -> None:
    def fail(cls: str, status: int) -> ResdeployError:
        event = f'{{"kind": "error", "class": "{cls}", "message": "so it is", "exit": {status}}}'
        with pytest.raises(ResdeployError, match="so it is") as caught:
            _run(f"print('{event}')")
        return caught.value

    assert fail("BackendError", 4).exit_code == 4
    assert fail("InputError", 1).exit_code == 1
    missing = fail("MissingDependencyError", 4)
    assert isinstance(missing, MissingDependencyError) and missing.exit_code == 4


def test_what_native_code_prints_does_not_disturb() -> None:
    """The real child moves stdout away before any library is loaded; a request for nothing fails
    in its own words."""
    with pytest.raises(ResdeployError, match="tensorrt"):
        run_build(REQUEST, progress=silent)
