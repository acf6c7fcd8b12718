"""NVIDIA's own tritonserver serves what is written: images and tensors really asked for.

The wheel nvidia-pytriton has the server, with the Python backend only, and wants an environment of
its own: PYTRITON_PYTHON names one, with what resdeploy needs beside it (see CONTRIBUTING.md).
"""

import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.inference.classifier import load
from resdeploy.deploy.serving.repository import sources
from resdeploy.deploy.serving.triton.repository import TritonOptions, write_repository

pytestmark = pytest.mark.slow

_SOURCE = Path(__file__).resolve().parents[4] / "src"
_WAIT_S = 60.0
_WHERE = """
import json, sys, sysconfig, pytriton
print(json.dumps([pytriton.__path__[0], sysconfig.get_config_var("LIBDIR"), sys.version_info[:2]]))
"""


@pytest.fixture
def triton_port(tmp_path: Path, flower_bundle: Path) -> Iterator[int]:
    """The port of a tritonserver that has the flowers in its Python backend."""
    python = os.environ.get("PYTRITON_PYTHON")
    if python is None:
        pytest.skip("PYTRITON_PYTHON names no Python with nvidia-pytriton")
    found = subprocess.run([python, "-c", _WHERE], capture_output=True, text=True, check=True)
    package, libraries, version = json.loads(found.stdout)
    repository, backends = tmp_path / "repository", tmp_path / "backends"
    options = TritonOptions("python", instances=2, max_batch=8, max_wait_ms=2.0)
    write_repository(sources([flower_bundle]), repository, options)
    for model in repository.glob("*/1/model.py"):
        # as if resdeploy were installed there; Triton hands PYTHONPATH to no model
        model.write_text(f"import sys\n\nsys.path.append({str(_SOURCE)!r})\n{model.read_text()}")
    home, site = Path(package, "tritonserver"), Path(package).parent
    shutil.copytree(home / "backends", backends)
    stubs = home / "python_backend_stubs" / ".".join(map(str, version))
    shutil.copy(stubs / "triton_python_backend_stub", backends / "python")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{site / 'nvidia_pytriton.libs'}:{libraries}",
        # the Python inside Triton takes the packages of the first python3 that it finds
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
    }
    ports = [_free_port() for _ in range(3)]
    words = ["--model-repository", str(repository), "--backend-directory", str(backends)]
    for name, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        words += [f"--{name}-address", "127.0.0.1", f"--{name}-port", str(port)]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [str(home / "bin" / "tritonserver"), *words], env=environment, stdout=log, stderr=log
        )
        try:
            _until_ready(server, ports[0], tmp_path / "log")
            yield ports[0]
        finally:
            server.terminate()
            server.wait(_WAIT_S)


def _until_ready(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            if _ask(port, "GET", "/v2/health/ready")[0] == 200:
                return
        except OSError:
            pass
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _ask(port: int, method: str, path: str, body: bytes = b"", head: int = 0) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_WAIT_S)
    try:
        headers = {"Inference-Header-Content-Length": str(head)} if head else {}
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def _infer(port: int, model: str, tensor: dict[str, Any], raw: bytes, **output: Any) -> Any:
    parameters = {"binary_data_size": len(raw)}
    asked = {
        "inputs": [{**tensor, "parameters": parameters}],
        "outputs": [{"name": "logits", "parameters": {"binary_data": False, **output}}],
    }
    head = json.dumps(asked).encode()
    status, body = _ask(port, "POST", f"/v2/models/{model}/infer", head + raw, len(head))
    assert status == 200, body
    return json.loads(body)["outputs"][0]["data"]


def test_triton_gives_the_classifiers_answers(
    triton_port: int, flower_bundle: Path, image_folder: Path
) -> None:
    name = flower_bundle.name.removesuffix(".bundle")
    files = sorted(image_folder.iterdir())[:3]
    with load(flower_bundle, threads=1) as classifier:
        rows: Float32s = np.stack([read_input(f, classifier.manifest.preprocess) for f in files])
        expected = classifier.logits(rows)
        labels = classifier.manifest.labels

    tensor = {"name": "input", "datatype": "FP32", "shape": list(rows.shape)}
    found = np.array(_infer(triton_port, name, tensor, rows.tobytes()), np.float32)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-5)

    images = b"".join(struct.pack("<I", f.stat().st_size) + f.read_bytes() for f in files)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(files), 1]}
    found = np.array(_infer(triton_port, f"{name}_images", tensor, images), np.float32)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-5)

    best = _infer(triton_port, f"{name}_images", tensor, images, classification=1)
    indices = expected.argmax(axis=1)
    assert [text.split(":")[1:] for text in best] == [[str(i), labels[i]] for i in indices]
