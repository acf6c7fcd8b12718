"""The service over gRPC, asked with nothing but grpcio."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.inference.classifier import load
from resdeploy.deploy.serving.rpc.messages import METHODS, SERVICE, message_class
from tests.deploy.serving.running import WAIT_S, Running, running

Ask = Callable[..., Any]


def _asker(port: int, token: str = "") -> tuple[grpc.Channel, Ask]:
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def ask(method: str, message: Any = None, **fields: Any) -> Any:
        request, response = METHODS[method]
        call = channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=message_class(request).SerializeToString,
            response_deserializer=message_class(response).FromString,
        )
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        return call(message or message_class(request)(**fields), timeout=WAIT_S, metadata=metadata)

    return channel, ask


@pytest.fixture
def ask(server: Running) -> Iterator[Ask]:
    channel, found = _asker(server.grpc_port)
    yield found
    channel.close()


def _request(batch: Float32s, **fields: Any) -> Any:
    tensor = {"name": "input", "datatype": "FP32", "shape": batch.shape}
    return message_class("ModelInferRequest")(
        model_name="colours", inputs=[tensor], raw_input_contents=[batch.tobytes()], **fields
    )


def _code(ask: Ask, method: str, message: Any = None, **fields: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as found:
        ask(method, message, **fields)
    return found.value.code().name, found.value.details()


@pytest.mark.parametrize("images", [1, 3, 8])
def test_answers_are_those_of_the_classifier(ask: Ask, served_bundle: Path, images: int) -> None:
    batch = np.random.default_rng(images).random((images, 3, 8, 8), np.float32)
    with load(served_bundle, threads=1) as classifier:
        expected = classifier.logits(batch)
    reply = ask("ModelInfer", _request(batch, id="a"))
    (output,) = reply.outputs
    assert (reply.model_name, reply.model_version, reply.id) == ("colours", "1", "a")
    assert (output.name, output.datatype, list(output.shape)) == ("logits", "FP32", [images, 3])
    raw = np.frombuffer(reply.raw_output_contents[0], "<f4").reshape(images, 3)
    np.testing.assert_array_equal(raw, expected)

    tensor = {"name": "input", "datatype": "FP32", "shape": batch.shape}
    contents = {"fp32_contents": batch.ravel()}
    reply = ask("ModelInfer", model_name="colours", inputs=[{**tensor, "contents": contents}])
    raw = np.frombuffer(reply.raw_output_contents[0], "<f4").reshape(images, 3)
    np.testing.assert_array_equal(raw, expected)


def test_images_and_their_classes(ask: Ask, red_png: bytes) -> None:
    tensor = {"name": "input", "datatype": "BYTES", "shape": [2]}
    wanted = {"name": "logits", "parameters": {"classification": {"int64_param": 1}}}
    framed = 2 * (struct.pack("<I", len(red_png)) + red_png)
    for fields in (
        {"inputs": [tensor], "raw_input_contents": [framed]},
        {"inputs": [{**tensor, "contents": {"bytes_contents": [red_png] * 2}}]},
    ):
        reply = ask("ModelInfer", model_name="colours", outputs=[wanted], **fields)
        assert list(reply.outputs[0].shape) == [2, 1]
        text = b"0.568627:0:red"  # 200 / 255 * 2 - 1
        assert reply.raw_output_contents[0] == 2 * (struct.pack("<I", len(text)) + text)


def test_metadata_and_readiness(ask: Ask) -> None:
    assert ask("ServerLive").live and ask("ServerReady").ready
    assert ask("ModelReady", name="colours").ready
    about = ask("ServerMetadata")
    assert about.name == "resdeploy" and "classification" in about.extensions
    model = ask("ModelMetadata", name="colours", version="1")
    assert (model.name, list(model.versions)) == ("colours", ["1"])
    assert [(t.name, t.datatype, list(t.shape)) for t in (*model.inputs, *model.outputs)] == [
        ("input", "FP32", [-1, 3, 8, 8]),
        ("logits", "FP32", [-1, 3]),
    ]
    (state,) = ask("RepositoryIndex").models
    assert (state.name, state.version, state.state) == ("colours", "1", "READY")


def test_wrong_requests_have_the_protocols_codes(ask: Ask) -> None:
    batch = np.zeros((1, 3, 8, 8), np.float32)
    assert _code(ask, "ModelReady", name="roses")[0] == "NOT_FOUND"
    assert _code(ask, "ModelMetadata", name="colours", version="9")[0] == "NOT_FOUND"
    for changes, reason in (
        ({"inputs": []}, "1 raw_input_contents for 0 inputs"),
        ({"raw_input_contents": [b"1234"]}, "4 bytes, expected 768"),
        ({"outputs": [{"name": "y"}]}, "outputs 'y'"),
        ({"parameters": {"priority": {"int64_param": -1}}}, "priority -1"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3, 8, 8]}]}, "inputs 'x'"),
        ({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 192]}]}, "[1, 192]"),
        ({"inputs": [{"name": "input", "datatype": "INT8", "shape": [768]}]}, "expected FP32"),
    ):
        message = _request(batch)
        for field, value in changes.items():
            message.ClearField(field)
            message.MergeFrom(message_class("ModelInferRequest")(**{field: value}))
        code, details = _code(ask, "ModelInfer", message)
        assert (code, reason in details) == ("INVALID_ARGUMENT", True), details
    late = _request(batch, parameters={"timeout": {"int64_param": 1}})
    assert _code(ask, "ModelInfer", late)[0] == "DEADLINE_EXCEEDED"


def test_unload_and_load(ask: Ask) -> None:
    ask("RepositoryModelUnload", model_name="colours")
    assert not ask("ServerReady").ready
    message = _request(np.zeros((1, 3, 8, 8), np.float32))
    assert _code(ask, "ModelInfer", message)[0] == "UNAVAILABLE"
    ask("RepositoryModelLoad", model_name="colours")
    assert ask("ServerReady").ready


@pytest.mark.slow
def test_tokens_ports_and_the_end(tmp_path: Path, served_bundle: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    with running([served_bundle], grpc_port=0, token_file=str(tokens)) as server:
        stranger, refused = _asker(server.grpc_port)
        friend, answered = _asker(server.grpc_port, "secret")
        assert _code(refused, "ServerMetadata")[0] == "UNAUTHENTICATED"
        assert refused("ServerReady").ready and answered("ServerMetadata").name == "resdeploy"
        stranger.close()
        friend.close()
        taken = running([served_bundle], grpc_port=server.grpc_port)
        reason = r"port \d+ on 127.0.0.1 is in use: choose another with --grpc-port"
        with pytest.raises(AssertionError, match=reason), taken:
            pass
        status, log = server.stop()
    assert status == 0
    assert [(line["path"].rpartition("/")[2], line["status"]) for line in log] == [
        ("ServerMetadata", "UNAUTHENTICATED"),
        ("ServerReady", "OK"),
        ("ServerMetadata", "OK"),
    ]
    assert {line["method"] for line in log} == {"gRPC"}
    assert {line["client"] for line in log} == {"127.0.0.1"}
