"""A bundle or a lone ONNX file opens on the backend asked for, or on the only one there is."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.inference.open import open_session


def test_a_bundle_and_its_lone_graph_give_the_same_logits(
    flower_bundle: Path, tmp_path: Path
) -> None:
    bundle = open_model(flower_bundle)
    lone = open_model(shutil.copy(flower_bundle / "fp32.onnx", tmp_path / "net.ONNX"))
    batch = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    with open_session(bundle, threads=1) as one, open_session(lone, threads=1) as other:
        assert one.input == bundle.manifest.input and one.output == bundle.manifest.output
        assert np.array_equal(one.run(batch), other.run(batch))


def test_what_is_asked_for_wrongly(flower_bundle: Path) -> None:
    model = open_model(flower_bundle)
    with pytest.raises(InputError, match="precision 'fp8' is not one of fp32, fp16, int8"):
        open_session(model, precision="fp8", backend="ort-cpu")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="backend 'cuda' is not one of auto, ort-cpu"):
        open_session(model, backend="cuda")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads 0 is not at least 1"):
        open_session(model, threads=0)
    with pytest.raises(BundleError, match="no int8 variant"):
        open_session(model, precision="int8", backend="ort-cpu")


@pytest.mark.skipif(cuda_problem() is None, reason="a GPU is here")
def test_auto_without_a_gpu_is_the_cpu(flower_bundle: Path) -> None:
    with open_session(open_model(flower_bundle), backend="auto") as session:
        assert (session.backend, session.variant, session.threads) == ("ort-cpu", "fp32", None)
