"""`resdeploy export` as a user types it: tables, JSON, exit codes, and what an interrupt leaves."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from click.testing import CliRunner

from resdeploy.deploy.cli.main import cli
from resdeploy.deploy.errors import InputError

SMALL = ["--input-size", "64", "--precision", "fp32"]
COMMAND = [sys.executable, "-c", "from resdeploy.deploy.cli.main import main; main()", "export"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    module = torchvision.models.mobilenet_v2(num_classes=3, width_mult=0.35)
    path = tmp_path_factory.mktemp("checkpoint") / "mobilenet.pth"
    torch.save(module.state_dict(), path)
    return path


@pytest.mark.slow
def test_json_has_the_contracts_keys_and_nothing_else_is_printed(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["export", str(checkpoint), *SMALL, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["bundle"] == "mobilenet.bundle" and Path("mobilenet.bundle").is_dir()
    assert report["architecture"] == "mobilenet_v2_w0.35"
    assert report["classes"] == 3 and report["parameters"] > 100_000
    assert report["assumptions"] and all(isinstance(s, str) for s in report["assumptions"])
    assert report["variants"]["fp32"].keys() >= {"file", "sha256", "bytes"}
    assert report["proofs"]["batchnorm_fold"].keys() >= {"folded", "left", "max_abs"}
    assert report["proofs"]["parity"].keys() >= {"images", "max_abs", "top1_agreement"}
    assert report["proofs"]["parity"]["images"] == 4
    assert report["proofs"]["parity"]["image_source"] == "built-in"


@pytest.mark.slow
def test_table_names_the_bundle_and_every_assumption(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.bundle"
    result = CliRunner().invoke(cli, ["export", str(checkpoint), *SMALL, "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert str(output) in result.stdout and "52 folded, 0 left" in result.stdout
    assert "4 built-in images" in result.stdout
    assert "preprocessing and strides are unproven without images" in result.stderr
    assert "resdeploy quantize" in result.stderr  # what to type next


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mean", "0.5"], "is not R,G,B"),
        (["--precision", "fp64"], "is not one of fp32, fp16, int8"),
        (["--precision", "int8"], "add --calib DIR"),
        (["--assume", "stride"], "is not KEY=VALUE"),
    ],
)
def test_wrong_usage(checkpoint: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["export", str(checkpoint), *arguments])
    assert result.exit_code == 2 and message in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calib", "missing"], "missing: not a folder or list of images: No such file"),
        (["--calib", "empty"], "empty: no images there"),
        (["--calib", "list.txt", "--max-drop", "1"], "--max-drop needs labelled images"),
    ],
)
def test_every_input_is_looked_at_before_anything_is_written(
    checkpoint: Path,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("a.jpg\n")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(cli, ["export", str(checkpoint), *SMALL, *arguments])
    assert isinstance(result.exception, InputError) and message in str(result.exception)
    assert sorted(tmp_path.iterdir()) == before


def run(
    arguments: list[str], folder: Path, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=before,
    )


def test_errors_are_one_line_and_leave_nothing(checkpoint: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.pth"
    text.write_text("these are not weights")
    result = run([str(text)], tmp_path)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and str(text) in result.stderr
    assert "Traceback" not in result.stderr and not list(tmp_path.glob("*.bundle"))


@pytest.mark.slow
def test_full_disk_is_one_line_and_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """A file-size limit stands in for a full disk: the write fails in the middle the same way."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    result = run([str(checkpoint), *SMALL], tmp_path, before=limit)
    assert result.returncode == 1, result.stderr
    assert "cannot" in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_read_only_folder(checkpoint: Path, tmp_path: Path) -> None:
    """A file stands where the output's parent folder should be, which even root cannot write to."""
    (tmp_path / "taken").write_text("")
    result = run([str(checkpoint), *SMALL, "-o", "taken/x.bundle"], tmp_path)
    assert result.returncode == 1 and "cannot be written" in result.stderr


@pytest.mark.slow
def test_interrupt_leaves_the_old_bundle_or_none(checkpoint: Path, tmp_path: Path) -> None:
    started = subprocess.Popen(
        [*COMMAND, str(checkpoint), "--input-size", "224"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)  # until the staging folder shows that writing has begun
    os.kill(started.pid, signal.SIGINT)
    _, stderr = started.communicate(timeout=60)
    assert started.returncode == 130, stderr
    assert stderr.strip().count("\n") == 0 and "interrupted" in stderr
    assert list(tmp_path.iterdir()) == []
