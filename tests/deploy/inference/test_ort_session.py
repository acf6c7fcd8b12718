"""ONNX Runtime sessions give ONNX Runtime's answers, and its errors become ours."""

import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from resdeploy.deploy.errors import BackendError, BundleError, GraphError, InputError
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.specs import TensorSpec


@pytest.fixture
def graph(flower_bundle: Path) -> Path:
    return flower_bundle / "fp32.onnx"


def _batch(images: int) -> np.ndarray:
    random = np.random.default_rng(images)
    return random.normal(size=(images, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("images", [1, 2, 5, 8])
def test_same_logits_as_plain_onnxruntime(images: int, graph: Path) -> None:
    plain = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    batch = _batch(images)
    (expected,) = plain.run(None, {"input": batch})
    with OrtSession(graph) as session, OrtSession(graph.read_bytes(), threads=1) as from_bytes:
        assert session.input == TensorSpec("input", ("batch", 3, 32, 32), "float32")
        assert session.output == TensorSpec("logits", ("batch", 5), "float32")
        assert np.array_equal(session.run(batch), expected)
        assert np.allclose(from_bytes.run(batch), expected, rtol=1e-5, atol=1e-6)


def test_a_batch_need_not_lie_in_one_piece(graph: Path) -> None:
    batch = _batch(4)
    with OrtSession(graph) as session:
        expected = session.run(batch)
        channels_last = np.ascontiguousarray(batch.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        assert np.array_equal(session.run(channels_last), expected)
        assert np.array_equal(session.run(batch[::-1])[::-1], expected)


def test_answers_belong_to_the_caller(graph: Path) -> None:
    with OrtSession(graph) as session:
        first = session.run(_batch(2))
        kept = first.copy()
        first_again = session.run(_batch(3))
        assert np.array_equal(first, kept)
        first_again[:] = 0  # writable


def test_many_threads_at_once(graph: Path) -> None:
    batches = [_batch(n) for n in (1, 2, 3, 4, 5, 6)]
    with OrtSession(graph, threads=1) as session:
        expected = [session.run(batch) for batch in batches]
        failures: list[int] = []

        def check(index: int) -> None:
            for _ in range(30):
                if not np.array_equal(session.run(batches[index]), expected[index]):
                    failures.append(index)

        threads = [threading.Thread(target=check, args=(index,)) for index in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_wrong_input_and_a_closed_session(graph: Path) -> None:
    session = OrtSession(graph)
    with pytest.raises(InputError, match=r"got float64 of shape \(1, 3, 32, 32\)"):
        session.run(_batch(1).astype(np.float64))
    session.close()
    with pytest.raises(BackendError, match="ort-cpu"):
        session.run(_batch(1))


def test_graphs_that_cannot_be_loaded(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent\.onnx: no such file"):
        OrtSession(tmp_path / "absent.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(graph.read_bytes()[:-500])
    with pytest.raises(GraphError, match=r"broken\.onnx: ONNX Runtime cannot load it: ") as info:
        OrtSession(broken)
    assert "\n" not in str(info.value)
    model = onnx.load(graph)
    model.graph.node[0].op_type = "Convolve"
    with pytest.raises(GraphError, match=r"graph: ONNX Runtime cannot load it: .*Convolve"):
        OrtSession(model.SerializeToString())


def test_binding_gives_what_a_plain_run_gives(graph: Path) -> None:
    """What GPU providers run by, on the CPU's provider, which is here."""
    with OrtSession(graph) as session:
        batch = _batch(3)[:, :, ::-1]  # not in one piece
        assert np.array_equal(
            session._run_bound([session.output.name], batch)[0], session.run(batch)
        )


def test_it_says_what_runs(graph: Path) -> None:
    with OrtSession(graph, variant="int8-cpu", threads=2) as session:
        assert (session.backend, session.variant, session.threads) == ("ort-cpu", "int8-cpu", 2)


def test_closed_sessions_leave_no_file_open(graph: Path) -> None:
    def open_and_close(times: int) -> int:
        for _ in range(times):
            with OrtSession(graph, threads=1) as session:
                session.run(_batch(1))
        return len(list(Path("/proc/self/fd").iterdir()))

    assert open_and_close(20) <= open_and_close(3)
