"""A Ray cluster of two workers on this machine, and S3 as moto plays it; skipped without them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_cluster(s3: str) -> Iterator[None]:
    """Two cores for workers, for all tests of the session; they know the bucket, too."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray.data

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3(image_folder: Path) -> Iterator[str]:
    """The URI of the images in a bucket of a server that the environment names."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'resdeploy[ray]'")
    pytest.importorskip("moto", reason="moto is not installed: pip install 'moto[server]'")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with pytest.MonkeyPatch.context() as environment:
            for key, value in settings.items():
                environment.setenv(key, value)
            yield _filled(port, image_folder)
    finally:
        server.kill()
        server.wait()


def _filled(port: int, folder: Path) -> str:
    import s3fs

    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    system = s3fs.S3FileSystem(endpoint_url=f"http://127.0.0.1:{port}")
    system.mkdir("photos")
    system.put(str(folder), "photos/val", recursive=True)
    return "s3://photos/val"
