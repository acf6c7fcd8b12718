"""The real tritonclient, from an environment of its own, works unchanged over HTTP and gRPC.

It needs other versions than this project: TRITONCLIENT_PYTHON names its environment's Python.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.inference.classifier import load
from tests.deploy.serving.running import WAIT_S, Running

_PYTHON = os.environ.get("TRITONCLIENT_PYTHON", sys.executable)
_SESSION = Path(__file__).with_name("tritonclient_session.py")


@pytest.mark.slow
def test_the_real_client_gets_the_classifiers_answers(
    tmp_path: Path, server: Running, served_bundle: Path, red_png: bytes
) -> None:
    there = [_PYTHON, "-c", "import tritonclient.http, tritonclient.grpc"]
    if subprocess.run(there, capture_output=True).returncode:
        pytest.skip("no tritonclient[http,grpc] in TRITONCLIENT_PYTHON's environment")
    rng = np.random.default_rng(0)
    inputs = {f"n{n}": rng.random((n, 3, 8, 8), np.float32) for n in range(1, 9)}
    np.savez(tmp_path / "inputs.npz", **inputs)  # type: ignore[arg-type]
    (tmp_path / "red.png").write_bytes(red_png)
    result = subprocess.run(
        [
            *(_PYTHON, str(_SESSION), str(server.port), str(server.grpc_port)),
            *(str(tmp_path / "inputs.npz"), str(tmp_path / "red.png")),
        ],
        capture_output=True,
        text=True,
        timeout=2 * WAIT_S,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    assert result.returncode == 0, result.stderr
    with load(served_bundle, threads=1) as classifier:
        expected = {str(len(batch)): classifier.logits(batch) for batch in inputs.values()}
    for protocol, answers in json.loads(result.stdout).items():
        assert answers["live"] and answers["ready"] and answers["name"] == "colours"
        assert answers["index"] == ["colours"]
        assert answers["unloaded"] and answers["loaded"]
        for images, logits in answers["logits"].items():
            found = np.array(logits, np.float32)
            np.testing.assert_array_equal(found, expected[images], err_msg=f"{protocol} {images}")
        assert answers["classes"] == ["0.568627:0:red", "-0.921569:1:green"]
        np.testing.assert_allclose(answers["image"][0][:2], [0.568627, -0.921569], atol=1e-6)
        codes = {"http": "400", "grpc": "StatusCode.INVALID_ARGUMENT"}
        assert "expected one named 'input'" in answers["errors"]["name"][1]
        assert "expected (N, 3, 8, 8)" in answers["errors"]["shape"][1]
        assert answers["errors"]["shape"][0] == codes[protocol]
