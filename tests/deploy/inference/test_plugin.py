"""A plugin provider is admitted by the recorded logits alone, file by file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import REFERENCE, read_bundle, write_manifest
from resdeploy.deploy.bundle.model import Model, open_model
from resdeploy.deploy.errors import BackendError
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.inference.plugin import first_that_passes
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import Variant
from tests.builders import add_variant

_PROMISED_DB = 27.0


@pytest.fixture
def model(tiny_bundle: Path) -> Model:
    """Two files of INT8, each of which was 27 dB from the recorded logits when it was made."""
    for variant in ("int8", "int8-cpu"):
        add_variant(tiny_bundle, variant, onnx.load(tiny_bundle / "fp32.onnx"))
    manifest = read_bundle(tiny_bundle).manifest
    promised = {name: {"recorded": {"sqnr_db": _PROMISED_DB}} for name in ("int8", "int8-cpu")}
    write_manifest(tiny_bundle, replace(manifest, proofs={"promised": promised}))
    return open_model(tiny_bundle)


class _Noisy(OrtSession):
    """A runtime that computes the graph with noise of so many dB below its logits."""

    def __init__(self, graph: Path, variant: Variant, noise_db: float) -> None:
        super().__init__(graph, variant=variant, threads=1)
        self._level = 10 ** (-noise_db / 20)

    def run(self, batch: Float32s) -> Float32s:
        logits = super().run(batch)
        noise = np.random.default_rng(1).standard_normal(logits.shape, np.float32)
        power = np.sqrt((logits**2).mean() / (noise**2).mean())
        noisy: Float32s = (logits + noise * power * self._level).astype(np.float32)
        return noisy


def _opener(model: Model, noise_db: dict[Variant, float]) -> Callable[[Variant], Session]:
    return lambda variant: _Noisy(model.graph(variant), variant, noise_db[variant])


def test_a_runtime_that_saturates_runs_the_file_it_computes_rightly(model: Model) -> None:
    opener = _opener(model, {"int8": 6.9, "int8-cpu": 27.5})
    with first_that_passes(model, "int8", "ort:openvino", opener) as session:
        assert session.variant == "int8-cpu"
    opener = _opener(model, {"int8": 25.0, "int8-cpu": 27.5})
    with first_that_passes(model, "int8", "ort:openvino", opener) as session:
        assert session.variant == "int8"


def test_where_no_file_passes_each_is_named_with_its_figure(model: Model) -> None:
    opener = _opener(model, {"int8": 6.9, "int8-cpu": 23.0})
    words = (
        r"ort:openvino does not give the recorded logits here \(int8: SQNR 6\.9 dB .*, expected "
        r"24\.0 dB or more; int8-cpu: SQNR 23\.0 dB .*\): use ort-cpu"
    )
    with pytest.raises(BackendError, match=words) as caught:
        first_that_passes(model, "int8", "ort:openvino", opener)
    assert caught.value.exit_code == 4


def test_half_of_the_bits_is_not_float32(model: Model) -> None:
    opener = _opener(model, {"fp32": 27.1})  # bfloat16, measured on the flowers MobileNetV2
    with pytest.raises(BackendError, match=r"fp32: SQNR 27\.1 dB .*, expected 45\.0 dB or more"):
        first_that_passes(model, "fp32", "ort:openvino", opener)


def test_without_recorded_logits_nothing_is_admitted(model: Model) -> None:
    (model.path / REFERENCE).unlink()
    with pytest.raises(BackendError, match="has no recorded logits to admit it by"):
        first_that_passes(model, "fp32", "ort:webgpu", _opener(model, {"fp32": 99}))
