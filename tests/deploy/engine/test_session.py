"""The whole runtime against every recorded TensorRT: answers, threads, and no leak."""

import gc
import threading
from typing import Any

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.cuda import Cuda
from resdeploy.deploy.engine.request import BuildOptions
from resdeploy.deploy.engine.session import TensorrtSession
from resdeploy.deploy.engine.sidecar import Machine, Sidecar
from resdeploy.deploy.errors import BackendError, EngineError, InputError
from resdeploy.deploy.specs import BatchRange


def _sidecar(library: Any, **options: Any) -> Sidecar:
    machine = Machine(library.flavor, library.version, "linux-x86_64", "8.6", "GPU", None, None)
    return Sidecar(
        machine=machine,
        precision="fp16",
        variant="fp16",
        typing="strong",
        compute_capabilities=("8.6",),
        options=BuildOptions(**options),
        graph_sha256="",
        plan_sha256="",
        plan_bytes=0,
        build_seconds=1.0,
        workspace_mib=256,
        free_memory_mib=1000,
        peak_memory_mib=300,
        warnings=(),
        layers=None,
        convolutions=None,
    )


def _session(library: Any, *, contexts: int = 2, unified: bool = False) -> TensorrtSession:
    return TensorrtSession(
        b"plan",
        _sidecar(library),
        library.module,
        Cuda(library.cuda),
        contexts=contexts,
        unified_memory=unified,
    )


def _images(count: int, seed: int = 0) -> Float32s:
    return np.random.default_rng(seed).standard_normal((count, 3, 2, 2)).astype(np.float32)


def _expected(images: Float32s) -> Float32s:
    sums: Float32s = images.sum(axis=(2, 3))
    return sums


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_any_batch_is_answered(library: Any, count: int) -> None:
    """The profile is 2:4:4, so 1 is padded, and 5 and 9 are split."""
    images = _images(count)
    with _session(library) as session:
        assert session.input.shape == ("batch", 3, 2, 2)
        assert session.output.shape == ("batch", 3)
        assert session.batch_range == BatchRange(2, 4, 4)
        for _ in range(4):
            np.testing.assert_allclose(session.run(images), _expected(images), rtol=1e-6)
    assert library.cuda.alive == {}


def test_threads_share_a_pool(library: Any) -> None:
    wrong: list[str] = []
    with _session(library) as session:

        def work(seed: int) -> None:
            for step in range(20):
                images = _images(1 + (seed + step) % 6, seed)
                if not np.allclose(session.run(images), _expected(images), atol=1e-5):
                    wrong.append(f"thread {seed} step {step}")

        # one context, so that capture in the host's CUDA, which knows one stream, is not disturbed
        session._most = 1
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert library.cuda.alive == {}


def test_versions_before_10_get_one_context(library: Any) -> None:
    with _session(library, contexts=3) as session:
        assert session._most == (1 if library.version.startswith("8") else 3)


@pytest.mark.parametrize(
    "failing",
    ["cudaStreamCreateWithFlags", "cudaHostAlloc", "cudaMalloc"],
)
def test_a_failed_opening_leaves_nothing(library: Any, failing: str) -> None:
    library.cuda.fails[failing] = 1
    with pytest.raises(BackendError, match=rf"{failing} failed with error 2 \(out of memory\)"):
        _session(library)
    assert library.cuda.alive == {}


def test_a_failed_run_is_reported_and_the_next_works(library: Any) -> None:
    images = _images(4)
    with _session(library) as session:
        library.fails_execution = 1
        with pytest.raises(BackendError, match="inference failed"):
            session.run(images)
        np.testing.assert_allclose(session.run(images), _expected(images), rtol=1e-6)
    assert library.cuda.alive == {}


def test_a_refused_plan_is_one_line(library: Any) -> None:
    library.refuses_plan = True
    with pytest.raises(EngineError, match="refuses the engine: Serialization assertion failed"):
        _session(library)


def test_wrong_input_and_closed_session(library: Any) -> None:
    session = _session(library)
    with pytest.raises(InputError, match=r"expected float32 of shape \(N, 3, 2, 2\)"):
        session.run(np.zeros((1, 3, 4, 4), np.float32))
    session.close()
    session.close()
    with pytest.raises(ValueError, match="closed"):
        session.run(_images(1))


@pytest.mark.slow
def test_opening_and_closing_does_not_grow(library: Any) -> None:
    for _ in range(50):
        with _session(library) as session:
            for _ in range(3):
                session.run(_images(4))
    gc.collect()
    assert library.cuda.alive == {}


@pytest.mark.parametrize("library", ["8.6.1", "11.4.0.106"], indirect=True)
def test_version_compatible_plans_may_bring_code(library: Any) -> None:
    sidecar = _sidecar(library, version_compatible=True)
    TensorrtSession(b"plan", sidecar, library.module, Cuda(library.cuda)).close()
    assert library.arguments("Runtime.engine_host_code_allowed=") == [(True,)]


def test_an_engine_of_two_outputs_gives_both(library: Any) -> None:
    """Of any number of images, plain and replayed as a graph."""
    library.doubled = True
    with _session(library) as session:
        assert [output.name for output in session.outputs] == ["logits", "doubled"]
        for seed, count in enumerate((4, 4, 4, 9, 1)):
            images = _images(count, seed)
            found = session.run_all(images)
            np.testing.assert_allclose(found["logits"], _expected(images), rtol=1e-6)
            doubled = 2 * _expected(images)[:, :, None, None]
            np.testing.assert_allclose(found["doubled"], doubled, rtol=1e-6)
            np.testing.assert_array_equal(session.run(images).shape, (count, 3, 1, 1))
    assert library.cuda.alive == {}
