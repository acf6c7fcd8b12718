"""The Open Inference Protocol as a client without any library speaks it."""

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from tests.deploy.serving.running import Reply, Running

Encode = Callable[..., bytes]

_INFER = "/v2/models/colours/infer"
_HEADER = "Inference-Header-Content-Length"


def _batch(images: int, seed: int = 0) -> Float32s:
    return np.random.default_rng(seed).random((images, 3, 8, 8), np.float32)


def _logits(batch: Float32s) -> Float32s:
    """What the identity network answers: the mean of each channel."""
    means: Float32s = batch.mean(axis=(2, 3), dtype=np.float64).astype(np.float32)
    return means


def _input(**changes: Any) -> dict[str, Any]:
    batch = _batch(2)
    fields = {"name": "input", "datatype": "FP32", "shape": list(batch.shape)}
    return {**fields, "data": batch.ravel().tolist(), **changes}


def _binary(
    server: Running,
    inputs: list[dict[str, Any]],
    tail: bytes,
    path: str = _INFER,
    **fields: Any,
) -> Reply:
    head = json.dumps({"inputs": inputs, **fields}).encode()
    return server.ask("POST", path, head + tail, {_HEADER: str(len(head))})


def _frames(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def test_the_server_and_its_models_describe_themselves(server: Running) -> None:
    about = server.get("/v2").json()
    assert about["name"] == "resdeploy"
    assert {"binary_tensor_data", "classification", "model_repository"} <= {*about["extensions"]}
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"ready": True}
    assert server.get("/v2/models/colours/ready").json() == {"ready": True}
    for path in ("/v2/models/colours", "/v2/models/colours/versions/1"):
        assert server.get(path).json() == {
            "name": "colours",
            "versions": ["1"],
            "platform": "resdeploy_ort-cpu",
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 8, 8]}],
            "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}],
        }


@pytest.mark.parametrize("images", [1, 2, 8])
def test_json_and_binary_tensors_give_the_same_bits(server: Running, images: int) -> None:
    batch = _batch(images)
    tensor: dict[str, Any] = {
        "name": "input",
        "datatype": "FP32",
        "shape": list(batch.shape),
    }
    request = {"id": "seven", "inputs": [{**tensor, "data": batch.tolist()}]}
    answer = server.post(_INFER, request).json()
    (output,) = answer["outputs"]
    assert (answer["id"], answer["model_name"], answer["model_version"]) == (
        "seven",
        "colours",
        "1",
    )
    assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [images, 3])
    logits = np.array(output["data"], np.float32).reshape(images, 3)
    np.testing.assert_allclose(logits, _logits(batch), atol=1e-6)

    tensor["parameters"] = {"binary_data_size": batch.nbytes}
    reply = _binary(server, [tensor], batch.tobytes(), parameters={"binary_data_output": True})
    length = int(reply.headers[_HEADER.lower()])
    (output,) = json.loads(reply.body[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": images * 3 * 4}
    raw = np.frombuffer(reply.body[length:], "<f4").reshape(images, 3)
    np.testing.assert_array_equal(raw, logits)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_encoded_images_are_answered_as_their_tensors(
    server: Running, encoded: Encode, kind: str
) -> None:
    images = [encoded(colour, kind) for colour in ("red", "blue", "green")]
    tail = _frames(*images)
    tensor = {"name": "input", "datatype": "BYTES", "shape": [3]}
    sized = {**tensor, "parameters": {"binary_data_size": len(tail)}}
    answers = [
        _binary(server, [sized], tail).json(),
        _binary(server, [tensor], tail).json(),  # the only input: all that follows the JSON
        server.post(
            _INFER,
            {"inputs": [{**tensor, "data": [base64.b64encode(i).decode() for i in images]}]},
        ).json(),
    ]
    logits = [np.array(a["outputs"][0]["data"]).reshape(3, 3) for a in answers]
    assert logits[0].argmax(axis=1).tolist() == [0, 2, 1]
    np.testing.assert_array_equal(logits[1], logits[0])
    np.testing.assert_array_equal(logits[2], logits[0])


def test_classification_gives_value_index_and_label(server: Running) -> None:
    outputs = [{"name": "logits", "parameters": {"classification": 2}}]
    pixels = np.array([0.25, 0.75, 0.5], np.float32)
    batch = np.broadcast_to(pixels[None, :, None, None], (1, 3, 8, 8))
    request = {"inputs": [_input(shape=[1, 3, 8, 8], data=batch.ravel().tolist())]}
    (output,) = server.post(_INFER, {**request, "outputs": outputs}).json()["outputs"]
    assert output == {
        "name": "logits",
        "datatype": "BYTES",
        "shape": [1, 2],
        "data": ["0.750000:1:green", "0.500000:2:blue"],
    }
    outputs = [{"name": "logits", "parameters": {"classification": 9, "binary_data": True}}]
    reply = server.post(_INFER, {**request, "outputs": outputs})
    length = int(reply.headers[_HEADER.lower()])
    texts = (b"0.750000:1:green", b"0.500000:2:blue", b"0.250000:0:red")
    assert reply.body[length:] == _frames(*texts)


_BYTES = {"name": "input", "datatype": "BYTES", "shape": [1]}

# (the request, its status, a part of the reason)
_BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "no inputs": ({}, 400, "0 inputs, expected 1 to 16"),
    "inputs of another kind": ({"inputs": 3}, 400, "inputs is not a list of objects"),
    "a wrong name": ({"inputs": [_input(name="x")]}, 400, "inputs 'x', expected one named 'input'"),
    "two inputs": ({"inputs": [_input(), _input()]}, 400, "expected one named 'input'"),
    "a wrong shape": (
        {"inputs": [_input(shape=[2, 3, 64])]},
        400,
        "shape [2, 3, 64], expected (N, 3, 8, 8)",
    ),
    "a negative size": ({"inputs": [_input(shape=[-1, 3, 8, 8])]}, 400, "whole numbers from 1"),
    "a size of true": ({"inputs": [_input(shape=[True, 3, 8, 8])]}, 400, "whole numbers from 1"),
    "too many images": (
        {"inputs": [_input(shape=[9, 3, 8, 8], data=[0.0] * 1728)]},
        400,
        "9 images in one request, limit: 8",
    ),
    "a wrong datatype": ({"inputs": [_input(datatype="FP64")]}, 400, "'FP64', expected FP32"),
    "too few numbers": ({"inputs": [_input(data=[1, 2])]}, 400, "2 numbers, expected 384"),
    "uneven data": ({"inputs": [_input(data=[[1], [2, 3]])]}, 400, "nested unevenly"),
    "texts for numbers": ({"inputs": [_input(data=["1"] * 384)]}, 400, "not a number"),
    "a number that overflows": ({"inputs": [_input(data=[1e300] * 384)]}, 400, "not finite"),
    "no data": ({"inputs": [_input(data=None)]}, 400, "data is missing, expected a list"),
    "a wrong output": ({"inputs": [_input()], "outputs": [{"name": "y"}]}, 400, "outputs 'y'"),
    "no classes": (
        {
            "inputs": [_input()],
            "outputs": [{"name": "logits", "parameters": {"classification": 0}}],
        },
        400,
        "classification 0, expected 1 or more",
    ),
    "a wrong priority": (
        {"inputs": [_input()], "parameters": {"priority": -1}},
        400,
        "priority -1 is not a whole number",
    ),
    "a wrong timeout": (
        {"inputs": [_input()], "parameters": {"timeout": "soon"}},
        400,
        "timeout 'soon' is not a whole number of microseconds",
    ),
    "not an image": (
        {"inputs": [{**_BYTES, "data": ["aGVsbG8="]}]},
        400,
        "5 bytes that are no JPEG, PNG or WebP image",
    ),
    "not base64": ({"inputs": [{**_BYTES, "data": ["é!"]}]}, 400, "not base64"),
    "a file's name": ({"inputs": [{**_BYTES, "data": ["/etc/passwd"]}]}, 400, "not base64"),
    "two images for one": ({"inputs": [{**_BYTES, "data": ["aA==", "aA=="]}]}, 400, "2 elements"),
}


@pytest.mark.parametrize("name", _BAD)
def test_a_wrong_request_is_told_why(server: Running, name: str) -> None:
    request, status, reason = _BAD[name]
    reply = server.post(_INFER, request)
    assert (reply.status, list(reply.json())) == (status, ["error"])
    assert reason in reply.json()["error"]
    assert "Traceback" not in reply.json()["error"]


def test_binary_tensors_must_be_as_long_as_they_say(server: Running) -> None:
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3, 8, 8]}

    def refused(tail: bytes, **parameters: Any) -> str:
        reply = _binary(server, [{**tensor, "parameters": parameters}], tail)
        assert reply.status == 400
        return str(reply.json()["error"])

    assert "764 bytes, expected 768" in refused(bytes(764), binary_data_size=764)
    assert "binary_data_size 768, but 700 bytes" in refused(bytes(700), binary_data_size=768)
    assert "binary_data_size -4" in refused(bytes(768), binary_data_size=-4)
    assert "1 bytes follow the last tensor" in refused(bytes(769), binary_data_size=768)
    for tail, reason in (
        (b"\x01\x00", "2 bytes are left"),
        (struct.pack("<I", 9) + b"short", "element 0 has 5 bytes, its length says 9"),
        (_frames(b"a", b"b"), "2 elements, expected 1"),
    ):
        assert reason in _binary(server, [_BYTES], tail).json()["error"]
    for length, reason in (("999999", "is 999999, but the body has"), ("-1", "not a number")):
        reply = server.ask("POST", _INFER, b"{}", {_HEADER: length})
        assert reply.status == 400 and reason in reply.json()["error"]
    for body in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 50_000):
        assert server.ask("POST", _INFER, body).status == 400


def test_what_does_not_exist_is_named(server: Running) -> None:
    good = {"inputs": [_input()]}
    for path, reason in (
        ("/v2/models/flowers", "no model 'flowers' here; there are colours, colours-int8"),
        ("/v2/models/colours/versions/7", "has no version '7'; it has 1"),
        ("/v2/nothing", "no such path"),
    ):
        reply = server.get(path)
        assert reply.status == 404 and reason in reply.json()["error"]
        reply = server.post(f"{path}/infer", good)
        assert reply.status == 404
    reply = server.get(_INFER)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")


def test_models_are_unloaded_and_loaded_by_request(server: Running) -> None:
    assert [m["state"] for m in server.post("/v2/repository/index", {}).json()] == ["READY"] * 2
    assert server.post("/v2/repository/models/colours-int8/unload", {}).status == 200
    index = {m["name"]: m for m in server.post("/v2/repository/index", {}).json()}
    assert index["colours-int8"]["state"] == "UNAVAILABLE"
    ready = server.post("/v2/repository/index", {"ready": True}).json()
    assert [m["name"] for m in ready] == ["colours"]
    reply = server.post("/v2/models/colours-int8/infer", {"inputs": [_input()]})
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert server.get("/v2/models/colours-int8/ready").status == 503
    assert server.post("/v2/repository/models/colours-int8/load", {}).status == 200
    assert server.post("/v2/models/colours-int8/infer", {"inputs": [_input()]}).status == 200
    assert server.get("/v2/health/ready").status == 200
    reply = server.post("/v2/repository/models/colours/load", {"parameters": {"file:x": "y"}})
    assert (reply.status, reply.json()) == (400, {"error": "load takes no parameters"})


def test_a_request_that_may_not_wait_is_given_up(server: Running) -> None:
    reply = server.post(_INFER, {"inputs": [_input()], "parameters": {"timeout": 1}})
    assert (reply.status, "no answer within" in reply.json()["error"]) == (504, True)
    reply = server.post(_INFER, {"inputs": [_input()], "parameters": {"timeout": 50_000_000}})
    assert reply.status == 200
