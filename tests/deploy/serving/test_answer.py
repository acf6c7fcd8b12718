"""What becomes of a request, whatever protocol brought it: answers, limits and refusals."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.inference.classifier import load
from resdeploy.deploy.serving.answer import Classified, Service, classify, infer
from resdeploy.deploy.serving.limits import Limits
from resdeploy.deploy.serving.protocol.tensors import (
    InferRequest,
    InferResponse,
    InputTensor,
    OutputRequest,
)
from resdeploy.deploy.serving.refusal import Refusal

MakeService = Callable[..., Service]
Encode = Callable[..., bytes]

_ROWS = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
_TENSOR = InputTensor("input", "FP32", (3, 3, 8, 8), _ROWS)


def _infer(service: Service, request: InferRequest) -> InferResponse:
    response, timing = asyncio.run(infer(service, "colours", "", request))
    assert timing.inference_s > 0
    return response


def _refused(service: Service, request: InferRequest) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        _infer(service, request)
    return refusal.value


def _classified(service: Service, image: bytes, top: int) -> Classified:
    with service.repository.lease("colours") as model:
        return asyncio.run(classify(service, model, image, top))


def test_rows_get_the_classifiers_logits(make_service: MakeService, colours_bundle: Path) -> None:
    service = make_service([colours_bundle])
    (output,) = _infer(service, InferRequest((_TENSOR,), id="7")).outputs
    with load(colours_bundle) as classifier:
        expected = classifier.logits(_ROWS)
    np.testing.assert_array_equal(np.asarray(output.values), expected)
    assert (output.name, output.datatype, output.shape) == ("logits", "FP32", (3, 3))
    assert _infer(service, InferRequest((_TENSOR,), id="7")).id == "7"


def test_the_best_classes_are_texts(make_service: MakeService, colours_bundle: Path) -> None:
    rows = np.zeros((1, 3, 8, 8), np.float32)
    rows[:, 1], rows[:, 2] = 0.5, 0.25
    request = InferRequest(
        (InputTensor("input", "FP32", (1, 3, 8, 8), rows),), (OutputRequest("logits", classes=2),)
    )
    (output,) = _infer(make_service([colours_bundle]), request).outputs
    assert output.values == (b"0.500000:1:green", b"0.250000:2:blue")
    assert (output.datatype, output.shape) == ("BYTES", (1, 2))


def test_encoded_images_are_decoded_and_classified(
    make_service: MakeService, colours_bundle: Path, encoded: Encode
) -> None:
    service = make_service([colours_bundle])
    images = (encoded("green"), encoded("blue", "JPEG"))
    (output,) = _infer(
        service, InferRequest((InputTensor("input", "BYTES", (2,), images),))
    ).outputs
    assert np.asarray(output.values).argmax(axis=1).tolist() == [1, 2]
    found = _classified(service, images[0], 2)
    assert [p.label for p in found.predictions] == ["green", "red"]
    assert found.timing.decode_s > 0 and found.timing.inference_s > 0
    assert b'resdeploy_decode_seconds_count{model="colours",version="1"} 3.0' in (
        service.metrics.text()
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "inputs , expected one named 'input'"),
        ((replace(_TENSOR, name="x"),), "inputs 'x', expected one named 'input'"),
        ((_TENSOR, _TENSOR), "inputs 'input', 'input', expected one"),
        (
            (InputTensor("input", "FP32", (1, 3, 9, 8), np.zeros((1, 3, 9, 8), np.float32)),),
            r"shape [1, 3, 9, 8], expected (N, 3, 8, 8)",
        ),
        (
            (InputTensor("input", "BYTES", (1, 2), (b"a", b"b")),),
            "shape [1, 2], expected (N), one element for each image",
        ),
        (
            (InputTensor("input", "FP32", (9, 3, 8, 8), np.zeros((9, 3, 8, 8), np.float32)),),
            "9 images in one request, limit: 8",
        ),
        ((replace(_TENSOR, values=np.full_like(_ROWS, np.nan)),), "a value that is not finite"),
    ],
)
def test_malformed_inputs_say_what_was_expected(
    inputs: tuple[InputTensor, ...], message: str, make_service: MakeService, colours_bundle: Path
) -> None:
    refusal = _refused(make_service([colours_bundle]), InferRequest(inputs))
    assert refusal.reason == "malformed" and message in str(refusal)


def test_an_output_that_is_not_there_is_refused(
    make_service: MakeService, colours_bundle: Path
) -> None:
    asked = InferRequest((_TENSOR,), (OutputRequest("probabilities"),))
    refusal = _refused(make_service([colours_bundle]), asked)
    assert "outputs 'probabilities', expected one named 'logits'" in str(refusal)


def test_what_is_no_image_or_too_large_is_refused(
    make_service: MakeService, colours_bundle: Path, encoded: Encode
) -> None:
    service = make_service([colours_bundle], limits=Limits(pixels=100))
    for image, reason in ((b"no image", "not_an_image"), (encoded("red", size=11), "too_large")):
        with pytest.raises(Refusal) as refusal:
            _classified(service, image, 1)
        assert refusal.value.reason == reason


def test_an_answer_that_takes_too_long_is_given_up(
    make_service: MakeService, colours_bundle: Path
) -> None:
    service = make_service([colours_bundle], limits=Limits(answer_s=0))
    assert _refused(service, InferRequest((_TENSOR,))).reason == "timeout"


def test_a_network_that_answers_infinity_gives_no_answer(
    make_service: MakeService,
    write_bundle: Callable[..., Path],
    tmp_path: Path,
) -> None:
    overflowing: Float32s = np.full((3, 3), 3e38, np.float32)
    bundle = write_bundle(tmp_path / "colours.bundle", {"fp32": overflowing}, reference=False)
    service = make_service([bundle])
    assert _refused(service, InferRequest((_TENSOR,))).reason == "inference_failed"
    white = BytesIO()
    Image.new("RGB", (8, 8), "white").save(white, "PNG")
    with pytest.raises(Refusal) as refusal:
        _classified(service, white.getvalue(), 1)
    assert refusal.value.reason == "inference_failed"
