"""Each backend opens by its name, on the file that it runs best, or says what it lacks."""

from pathlib import Path

import onnx
import pytest

from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import BackendError, BundleError
from resdeploy.deploy.inference.backends import open_backend
from resdeploy.deploy.specs import GPU_BACKENDS, Backend
from tests.builders import add_variant


def test_int8_on_a_cpu_is_the_file_for_cpus(tiny_bundle: Path) -> None:
    for variant in ("int8", "int8-cpu"):
        add_variant(tiny_bundle, variant, onnx.load(tiny_bundle / "fp32.onnx"))
    with open_backend(open_model(tiny_bundle), "int8", "ort-cpu", threads=1) as session:
        assert (session.backend, session.variant, session.threads) == ("ort-cpu", "int8-cpu", 1)


def test_a_file_is_checked_before_it_is_opened(tiny_bundle: Path) -> None:
    model = open_model(tiny_bundle)
    with (tiny_bundle / "fp32.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BundleError, match=r"fp32\.onnx: altered since it was written"):
        open_backend(model, "fp32", "ort-cpu")


@pytest.mark.skipif(cuda_problem() is None, reason="a GPU is here")
@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_a_gpu_is_needed_and_that_is_exit_code_4(backend: Backend, tiny_bundle: Path) -> None:
    words = f"backend {backend} needs an NVIDIA GPU: .*; use ort-cpu"
    with pytest.raises(BackendError, match=words) as info:
        open_backend(open_model(tiny_bundle), "fp32", backend)
    assert info.value.exit_code == 4
