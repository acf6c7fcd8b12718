"""Images as people have them, answered with labels."""

import uuid
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resdeploy.deploy.bundle.bundle import save_in_bundle
from resdeploy.deploy.serving.refusal import Refusal
from resdeploy.deploy.serving.web.classify import parts_of
from tests.deploy.serving.running import Running, running

Encode = Callable[..., bytes]


def _form(*files: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    boundary = uuid.uuid4().hex
    parts = [
        f"--{boundary}\r\n".encode()
        + f'content-disposition: form-data; name="f"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}


def test_one_image_as_the_body(server: Running, encoded: Encode) -> None:
    reply = server.ask("POST", "/v1/classify?top=2", encoded("green"))
    assert reply.status == 200
    answer = reply.json()
    assert (answer["model"], answer["version"]) == ("colours", "1")
    (result,) = answer["results"]
    # (v / 255 - 0.5) / 0.5 of 230 and 20; the logits are these means
    high, low = 230 / 255 * 2 - 1, 20 / 255 * 2 - 1
    expected = np.exp(high) / (np.exp(high) + 2 * np.exp(low))
    first, second = result["predictions"]
    assert (first["label"], first["index"], second["index"]) == ("green", 1, 0)
    assert first["probability"] == pytest.approx(expected, abs=1e-6)
    stages = [part.partition(";")[0] for part in reply.headers["server-timing"].split(", ")]
    assert stages == ["decode", "preprocess", "queue", "inference"]


def test_several_images_get_their_own_answers(server: Running, encoded: Encode) -> None:
    files = (("a.png", encoded("red")), ("b.txt", b"hello"), ("c.webp", encoded("blue", "WEBP")))
    reply = server.ask("POST", "/v1/classify?model=colours-int8&top=1", *_form(*files))
    assert reply.status == 200
    first, second, third = reply.json()["results"]
    assert first["name"] == "a.png" and first["predictions"][0]["label"] == "red"
    assert second["reason"] == "not_an_image" and "no JPEG" in second["error"]
    assert third["predictions"][0]["label"] == "blue"
    both_bad = server.ask("POST", "/v1/classify", *_form(("x", b"1"), ("y", b"2")))
    assert both_bad.status == 400 and len(both_bad.json()["results"]) == 2


def test_refusals_say_what_is_wrong(server: Running, encoded: Encode) -> None:
    for path, body, status, reason in (
        ("/v1/classify", b"", 400, "0 bytes that are no JPEG, PNG or WebP image"),
        ("/v1/classify", encoded("red")[:45], 400, "cannot be decoded"),
        ("/v1/classify", encoded("red", size=700), 413, "700x700 pixels, limit: 400000"),
        ("/v1/classify", bytes(500_001), 413, "limit: 500000 bytes"),
        ("/v1/classify?top=0", encoded("red"), 400, "top '0' is not a whole number"),
        ("/v1/classify?top=x", encoded("red"), 400, "top 'x' is not a whole number"),
        ("/v1/classify?model=roses", encoded("red"), 404, "no model 'roses' here"),
        ("/v1/classify?version=2", encoded("red"), 404, "has no version '2'"),
    ):
        reply = server.ask("POST", path, body)
        assert (reply.status, reason in reply.json()["error"]) == (status, True), reply.body
    headers = {"content-type": "multipart/form-data; boundary=x"}
    reply = server.ask("POST", "/v1/classify", b"--x\r\n\r\n", headers)
    assert reply.status == 400 and "no closing boundary" in reply.json()["error"]


def test_a_gif_is_not_decoded(server: Running, encoded: Encode) -> None:
    assert server.ask("POST", "/v1/classify", encoded("red", "GIF")).status == 400


def test_the_preview_is_what_the_network_sees(server: Running, encoded: Encode) -> None:
    reply = server.ask("POST", "/v1/preview", encoded("blue", size=40))
    assert reply.headers["content-type"] == "image/png"
    with Image.open(BytesIO(reply.body)) as image:
        assert image.size == (8, 8)
        assert image.getpixel((3, 3)) == (20, 20, 230)


def test_a_model_has_a_card(server: Running) -> None:
    card, other = server.get("/v1/models").json()
    assert (card["name"], other["name"], other["precision"]) == ("colours", "colours-int8", "int8")
    assert card["labels"] == ["red", "green", "blue"]
    assert card["input_size_px"] == [8, 8]
    assert card["accuracy"] is None  # nobody verified this bundle


def test_the_card_has_what_verify_found_for_the_file_that_answers(
    tmp_path: Path, colours_bundle: Path
) -> None:
    figures = {
        "verdict": "pass",
        "images": 9,
        "top1": 88.9,
        "top1_ci95": [56.5, 98.0],
        "drop": 0.0,
        "drop_ci95": [0.0, 0.0],
        "agreement": 100.0,
        "variant": "int8",
        "backend": "ort-cpu",
    }
    variants = {"int8": figures, "other": {**figures, "backend": "ort-cuda", "top1": 1.0}}
    report = colours_bundle / "reports" / "verify.json"
    save_in_bundle(colours_bundle, "verify.json", {"variants": variants})
    with running([colours_bundle], precisions=("fp32", "int8"), ready=2) as server:
        first, second = server.get("/v1/models").json()
        assert first["accuracy"] is None
        assert (second["accuracy"]["top1"], second["accuracy"]["images"]) == (88.9, 9)
        report.write_text("{")
        assert server.get("/v1/models").json()[1]["accuracy"] is None


@settings(max_examples=20, deadline=None, derandomize=True)
@given(body=st.binary(max_size=60), content_type=st.text(max_size=30))
def test_any_form_is_files_or_a_refusal(body: bytes, content_type: str) -> None:
    for kind in (content_type, "multipart/form-data; boundary=b", "multipart/form-data"):
        try:
            parts_of(body.replace(b"\x00", b"\r\n--b"), kind)
        except Refusal as refusal:
            assert refusal.reason == "malformed"
