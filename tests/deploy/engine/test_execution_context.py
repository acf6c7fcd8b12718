"""One context: batches are padded, a size that stays is replayed as a graph, nothing leaks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.cuda import Cuda
from resdeploy.deploy.engine.execution_context import ExecutionContext
from resdeploy.deploy.engine.log import BuildLog
from resdeploy.deploy.errors import BackendError, EngineError
from resdeploy.deploy.specs import TensorSpec

_TENSORS = (
    TensorSpec("input", ("batch", 3, 2, 2), "float32"),
    TensorSpec("logits", ("batch", 3), "float32"),
)


@contextmanager
def _context(library: Any, *, unified: bool = False) -> Iterator[ExecutionContext]:
    """A context of the recorded engine, which sums over each channel of 2 to 4 images."""
    log = BuildLog()
    runtime = library.module.Runtime(log.logger(library.module))
    context = ExecutionContext(
        Cuda(library.cuda), runtime.deserialize_cuda_engine(b"plan"), log, _TENSORS, 4,
        unified_memory=unified,
    )  # fmt: skip
    try:
        yield context
    finally:
        context.close()
        assert library.cuda.alive == {}


def _images(count: int, seed: int = 0) -> Float32s:
    return np.random.default_rng(seed).standard_normal((count, 3, 2, 2)).astype(np.float32)


def _answers(context: ExecutionContext, images: Float32s) -> None:
    """Run and compare with the sums that the recorded engine computes."""
    logits = np.full((len(images), 3), np.nan, np.float32)
    context.run(images, logits)
    np.testing.assert_allclose(logits, images.sum(axis=(2, 3)), rtol=1e-6)


def test_fewer_images_than_the_size_are_padded(library: Any) -> None:
    with _context(library) as context:
        context.prepare(4)
        for count in (4, 1, 3):
            _answers(context, _images(count))


def test_a_size_that_stays_is_replayed_as_a_graph(library: Any) -> None:
    with _context(library) as context:
        context.prepare(4)
        for seed in range(2):
            _answers(context, _images(4, seed))
        library.calls.clear()
        _answers(context, _images(4, 7))
        assert library.arguments("IExecutionContext.execute_async_v3") == []
        # another size makes the graph worthless: it is given back and a plain run is made
        context.prepare(3)
        _answers(context, _images(3))
        assert len(library.arguments("IExecutionContext.execute_async_v3")) == 1


@pytest.mark.parametrize(
    "failing", ["cudaStreamBeginCapture", "cudaGraphInstantiateWithFlags", "cudaGraphLaunch"]
)
def test_without_graphs_it_still_answers(library: Any, failing: str) -> None:
    library.cuda.fails[failing] = 1
    with _context(library) as context:
        context.prepare(4)
        for seed in range(4):
            _answers(context, _images(4, seed))


def test_a_graph_that_gives_other_logits_is_not_used(library: Any) -> None:
    library.cuda.replay_is_wrong = True
    with _context(library) as context:
        context.prepare(4)
        for seed in range(4):
            _answers(context, _images(4, seed))


def test_unified_memory_is_not_copied(library: Any) -> None:
    with _context(library, unified=True) as context:
        context.prepare(3)
        for seed in range(3):
            _answers(context, _images(3, seed))
    assert "cudaMemcpyAsync" not in library.cuda.calls
    assert "cudaMalloc" not in library.cuda.calls


@pytest.mark.parametrize("library", ["8.6.1", "rtx-1.7.1.116"], indirect=True)
def test_a_size_outside_the_profile_and_a_failed_run_are_errors(library: Any) -> None:
    with _context(library) as context:
        with pytest.raises(EngineError, match="batch 5 of input input was refused"):
            context.prepare(5)
        context.prepare(2)
        library.fails_execution = 1
        with pytest.raises(BackendError, match="inference failed"):
            _answers(context, _images(2))
