"""The application under a real Ray Serve: images of known colours, and what is no image."""

import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import read_bundle, write_manifest
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.inference.classifier import load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture(scope="module")
def serve() -> Iterator[Any]:
    """Ray Serve and its port on a cluster of two cores."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'resdeploy[ray]'")
    import ray
    from ray import serve

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    began = not ray.is_initialized()
    if began:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield serve, port
    serve.shutdown()
    if began:
        ray.shutdown()


def _png(colour: str) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (8, 8), colour).save(stream, "PNG")
    return stream.getvalue()


def _post(port: int, body: bytes, query: str = "") -> tuple[int, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{query}", body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_images_in_classes_out(serve: Any, colours_bundle: Path) -> None:
    from resdeploy.deploy import ray_serve_app

    server, port = serve
    handle = server.run(ray_serve_app(colours_bundle, max_wait_ms=50), name="colours")
    with load(colours_bundle) as classifier:
        expected = {
            colour: [vars(p) for p in classifier.predict(Image.new("RGB", (8, 8), colour), top=2)]
            for colour in ("red", "blue")
        }
    status, answer = _post(port, _png("red"), "?top=2")
    assert (status, answer) == (200, {"predictions": expected["red"]})
    asked = [handle.classify.remote(_png(colour), 2) for colour in ("red", "blue") * 8]
    assert [reply.result(timeout_s=60) for reply in asked] == [
        expected["red"],
        expected["blue"],
    ] * 8
    status, answer = _post(port, b"no image")
    assert status == 400 and "no JPEG, PNG or WebP image" in answer["error"]
    status, answer = _post(port, _png("red"), "?top=0")
    assert status == 400 and answer["error"] == "top '0' is not a whole number from 1"
    server.delete("colours")


def test_a_replica_is_not_made_of_a_bundle_that_errs(
    tmp_path: Path,
    colours_bundle: Path,
    write_bundle: Callable[..., Path],
    identity: Float32s,
) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'resdeploy[ray]'")
    from resdeploy.deploy.serving.ray_serve import Replica, ray_serve_app

    bad = write_bundle(tmp_path / "bad.bundle", {"fp32": -identity})
    (bad / "reference.npz").write_bytes((colours_bundle / "reference.npz").read_bytes())
    write_manifest(bad, read_bundle(bad).manifest)
    with pytest.raises(BundleError, match="gives other answers than recorded"):
        Replica(bad, None, "ort-cpu")
    with pytest.raises(InputError, match="no such bundle"):
        ray_serve_app(tmp_path / "no.bundle")
