"""Bundles that tell colours apart, so that every answer is known, and a repository of them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.serving.answer import Service
from resdeploy.deploy.serving.batching import BatchRules
from resdeploy.deploy.serving.limits import Bodies, Limits
from resdeploy.deploy.serving.metrics import Metrics
from resdeploy.deploy.serving.repository import Repository, sources

MakeRepository = Callable[..., Repository]


@pytest.fixture
def colours_bundle(tmp_path: Path, write_bundle: Callable[..., Path], identity: Float32s) -> Path:
    """colours.bundle: fp32 and int8 (the same weights); the answer is the strongest channel."""
    return write_bundle(tmp_path / "colours.bundle", {"fp32": identity, "int8": identity})


@pytest.fixture
def rotated() -> Float32s:
    """The weights of another network: red is called green, green blue, blue red."""
    return np.roll(np.eye(3, dtype=np.float32), 1, axis=0)


@pytest.fixture
def make_repository() -> Iterator[MakeRepository]:
    """make_repository([paths], keep_going=…, precisions=…) -> Repository, not loaded yet."""
    made: list[Repository] = []

    def make(
        paths: Sequence[Path],
        *,
        keep_going: bool = False,
        precisions: Sequence[str] = (),
        rules: BatchRules | None = None,
    ) -> Repository:
        repository = Repository(
            sources(paths, precisions),  # type: ignore[arg-type]
            rules=rules or BatchRules(max_wait_s=0),
            observe=lambda model, record: None,
            keep_going=keep_going,
        )
        made.append(repository)
        return repository

    yield make
    for repository in made:
        repository.close()


@pytest.fixture
def make_service(make_repository: MakeRepository) -> Iterator[Callable[..., Service]]:
    """make_service([paths], limits=Limits()) -> Service, its models loaded; without a socket."""
    pools: list[ThreadPoolExecutor] = []

    def make(paths: Sequence[Path], *, limits: Limits | None = None) -> Service:
        limits = limits or Limits()
        repository = make_repository(paths)
        for name in repository.names:
            repository.load(name)
        pools.extend(ThreadPoolExecutor(1) for _ in range(2))
        decoders, loaders = pools[-2:]
        bodies = Bodies(limits.bodies_bytes)
        return Service(repository, decoders, loaders, Metrics(), limits, bodies)

    yield make
    for pool in pools:
        pool.shutdown()


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """encoded("green", "PNG", size=8) -> the bytes of an image of one colour."""

    def encode(colour: str, kind: str = "PNG", size: int = 8) -> bytes:
        pixels = np.full((size, size, 3), 20, np.uint8)
        pixels[:, :, ("red", "green", "blue").index(colour)] = 230
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        return stream.getvalue()

    return encode
