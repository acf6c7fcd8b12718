"""A server with both protocols, whose network is known."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.arrays import Float32s
from tests.deploy.serving.running import Running, running


@pytest.fixture(scope="module")
def served_bundle(
    tmp_path_factory: pytest.TempPathFactory,
    write_bundle: Callable[..., Path],
    identity: Float32s,
) -> Path:
    """colours.bundle."""
    folder = tmp_path_factory.mktemp("rpc")
    return write_bundle(folder / "colours.bundle", {"fp32": identity})


@pytest.fixture(scope="module")
def server(served_bundle: Path) -> Iterator[Running]:
    """Model colours over HTTP and gRPC."""
    with running([served_bundle], grpc_port=0) as found:
        yield found


@pytest.fixture(scope="session")
def red_png() -> bytes:
    """A red image of 20x10 pixels."""
    stream = BytesIO()
    Image.fromarray(np.full((10, 20, 3), (200, 10, 10), np.uint8)).save(stream, "PNG")
    return stream.getvalue()
