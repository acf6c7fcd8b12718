"""How graphs are opened in ONNX Runtime, and what is read from one without running it."""

from pathlib import Path

import pytest

from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import BackendError, BundleError
from resdeploy.deploy.ort import open_graph, providers, read_facts, session_options
from resdeploy.deploy.specs import Backend, TensorSpec, Variant


def test_int8_for_tensorrt_is_evaluated_as_written() -> None:
    """Fused, ONNX Runtime's AVX2 kernels would saturate and give other answers."""
    key = "session.disable_quant_qdq"
    as_written: tuple[Variant, ...] = ("int8", "int8-fp16")
    for variant in as_written:
        assert session_options(variant).get_session_config_entry(key) == "1"
    fused: tuple[Variant, ...] = ("fp32", "fp16", "int8-cpu")
    for variant in fused:
        with pytest.raises(RuntimeError):
            session_options(variant).get_session_config_entry(key)


def test_threads_are_all_cores_unless_they_are_given() -> None:
    assert session_options(threads=3).intra_op_num_threads == 3
    assert session_options().intra_op_num_threads == 0  # as many as there are cores


@pytest.mark.skipif(cuda_problem() is None, reason="a GPU is here")
@pytest.mark.parametrize("backend", ["ort-cuda", "ort-tensorrt"])
def test_a_provider_counts_only_if_it_starts(backend: Backend, flower_bundle: Path) -> None:
    """The CPU's package lacks it; the GPU's package lists it even where there is no GPU."""
    lacks = "has no .*Provider: pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
    stands_still = "does not start on this"
    assert "CPUExecutionProvider" in providers()
    with pytest.raises(BackendError, match=f"backend {backend}: .*({lacks}|{stands_still})"):
        open_graph(flower_bundle / "fp32.onnx", backend, session_options())


def test_the_facts_of_a_graph(flower_bundle: Path, tmp_path: Path) -> None:
    facts = read_facts(flower_bundle / "fp32.onnx")
    assert facts.input == TensorSpec("input", ("batch", 3, 32, 32), "float32")
    assert facts.output == TensorSpec("logits", ("batch", 5), "float32")
    assert facts.properties["variant"] == "fp32"
    with pytest.raises(BundleError, match=r"absent\.onnx: no such file"):
        read_facts(tmp_path / "absent.onnx")
