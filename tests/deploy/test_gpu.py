"""On a machine with an NVIDIA GPU (make gpu-test): three families, every backend that is installed.

Parity is with PyTorch's recorded logits. Random weights, whose batch norms have seen data, and
images of 96 pixels: arithmetic is what is tested here; `benchmarks/gpu.py` has the latencies.
"""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.bundle.reference import read_reference
from resdeploy.deploy.cuda import cuda_problem, device, load_cuda
from resdeploy.deploy.engine.build import build_engine
from resdeploy.deploy.engine.flavor import FLAVORS, Flavor, is_installed
from resdeploy.deploy.engine.session import TensorrtSession
from resdeploy.deploy.errors import BackendError, EngineError
from resdeploy.deploy.inference.auto import choose
from resdeploy.deploy.inference.open import open_session
from resdeploy.deploy.metrics.logits import agreement, sqnr_db
from resdeploy.deploy.specs import Precision

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(cuda_problem() is not None, reason=str(cuda_problem())),
]
FAMILIES = ["resnet18", "resnext50_32x4d", "mobilenet_v2"]
# dB against PyTorch; made-up int8 ranges are compared with the same graph on the CPU instead
LEAST_DB: dict[Precision, float] = {"fp32": 55.0, "fp16": 35.0, "int8": 15.0}

Bundles = Callable[[str], Path]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch", [1, 8, 32])
def test_onnxruntime_cuda_gives_pytorchs_logits(
    family_bundle: Bundles, family: str, batch: int
) -> None:
    bundle = family_bundle(family)
    reference = read_reference(bundle / "reference.npz")
    inputs = np.resize(reference.inputs, (batch, *reference.inputs.shape[1:]))
    expected = np.resize(reference.logits, (batch, reference.logits.shape[1]))
    for precision in ("fp32", "fp16"):
        with open_session(open_model(bundle), precision=precision, backend="ort-cuda") as session:
            assert sqnr_db(expected, session.run(inputs)) > LEAST_DB[precision]


@pytest.mark.parametrize("precision", LEAST_DB)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flavor", FLAVORS)
def test_engines_give_the_reference_logits(
    family_bundle: Bundles,
    copied: Callable[[Path], Path],
    flavor: Flavor,
    family: str,
    precision: Precision,
) -> None:
    bundle = copied(family_bundle(family))
    model = open_model(bundle)
    _built(bundle, flavor, precision)
    inputs = read_reference(bundle / "reference.npz").inputs
    with open_session(model, precision=precision, backend="ort-cpu") as cpu:
        expected = cpu.run(inputs)
    with open_session(model, precision=precision, backend=flavor) as session:
        for _ in range(4):  # plain, plain and recorded, then replayed
            logits = session.run(inputs)
            assert sqnr_db(expected, logits) > LEAST_DB[precision]
        single = np.concatenate([session.run(image[None]) for image in inputs])
        many = session.run(np.concatenate([inputs] * 12))
    assert sqnr_db(expected, single) > LEAST_DB[precision]
    assert sqnr_db(np.concatenate([expected] * 12), many) > LEAST_DB[precision]
    assert agreement(expected, logits) > 70


@pytest.mark.parametrize("flavor", FLAVORS)
def test_threads_and_memory(
    family_bundle: Bundles, copied: Callable[[Path], Path], flavor: Flavor
) -> None:
    bundle = copied(family_bundle("mobilenet_v2"))
    model = open_model(bundle)
    _built(bundle, flavor, "fp16")
    inputs = read_reference(bundle / "reference.npz").inputs
    cuda = load_cuda()
    free: list[int] = []
    for _ in range(10):
        with open_session(model, precision="fp16", backend=flavor) as session:
            assert isinstance(session, TensorrtSession)
            assert _wrong_in_threads(session, inputs) == []
        free.append(cuda.free_memory_bytes())
    assert free[2] - free[-1] < 8 << 20


def test_auto_tries_what_is_here(family_bundle: Bundles, copied: Callable[[Path], Path]) -> None:
    bundle = copied(family_bundle("resnet18"))
    chosen = choose(open_model(bundle), ("fp32", "fp16"))
    assert any(trial.milliseconds is not None for trial in chosen.trials)
    assert choose(open_model(bundle), ("fp32", "fp16")).remembered
    print(chosen)


def _wrong_in_threads(session: TensorrtSession, inputs: Float32s) -> list[int]:
    """The batch sizes whose logits, run in threads, are not those of the whole batch."""
    expected = session.run(inputs)
    wrong: list[int] = []

    def work(count: int) -> None:
        for _ in range(20):
            if sqnr_db(expected[:count], session.run(inputs[:count])) < 35:
                wrong.append(count)

    threads = [threading.Thread(target=work, args=(count,)) for count in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def _built(bundle: Path, flavor: Flavor, precision: Precision) -> None:
    if not is_installed(flavor):
        pytest.skip(f"{flavor} is not installed")
    gpu = device()
    assert gpu is not None
    try:
        build_engine(bundle, precision=precision, flavor=flavor)
    except (BackendError, EngineError) as error:
        if "no kernels for this GPU" in str(error) or "cannot be imported" in str(error):
            pytest.skip(f"{flavor} does not support {gpu.name}: {error}")
        raise
