"""One server that most tests share, with a known network."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resdeploy.deploy.arrays import Float32s
from tests.deploy.serving.running import Running, running


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    write_bundle: Callable[..., Path],
    identity: Float32s,
) -> Iterator[Running]:
    """Model colours, and model colours-int8 with the same weights; at most 8 images a request."""
    folder = tmp_path_factory.mktemp("served")
    bundle = write_bundle(folder / "colours.bundle", {"fp32": identity, "int8": identity})
    limits = {"pixels": 400_000, "body_bytes": 500_000}
    with running([bundle], limits=limits, precisions=("fp32", "int8"), ready=2) as found:
        yield found
