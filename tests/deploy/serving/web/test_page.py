"""The page at /: used by a person (headless Chromium), self-contained, and open without a token."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.serving.running import WAIT_S, Running

Encode = Callable[..., bytes]

_SESSION = Path(__file__).with_name("page_session.js")


def test_the_page_is_served_with_what_it_names(server: Running) -> None:
    page = server.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    text = page.body.decode()
    for name in re.findall(r'(?:src|href)="([^":]+)"', text):
        assert server.get(f"/{name}").status == 200, name
    script = server.get("/page.js").body.decode()
    assert "://" not in text + script + server.get("/page.css").body.decode()


@pytest.mark.slow
def test_a_person_uses_it(tmp_path: Path, server: Running, encoded: Encode) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    there = ["node", "-e", "require('playwright-core')"]
    if (
        browser is None
        or shutil.which("node") is None
        or subprocess.run(there, capture_output=True).returncode
    ):
        pytest.skip("needs chromium, node, and playwright-core in NODE_PATH")
    (tmp_path / "green.png").write_bytes(encoded("green", size=60))
    (tmp_path / "text.png").write_bytes(b"this is no image")
    shots = os.environ.get("SCREENSHOTS")
    result = subprocess.run(
        [
            *("node", str(_SESSION), f"http://127.0.0.1:{server.port}/", browser),
            *(str(tmp_path / "green.png"), str(tmp_path / "text.png")),
            *([shots] if shots else []),
        ],
        capture_output=True,
        text=True,
        timeout=3 * WAIT_S,
    )
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout.splitlines()[-1])
    assert seen["before_refusal"] == [] and seen["strangers"] == []
    (upload,) = seen["upload"]
    assert upload["classes"][0] == "green" and len(upload["classes"]) == 3
    assert sum(upload["shares"]) == pytest.approx(100, abs=0.1)
    assert upload["bars"] == pytest.approx(upload["shares"], abs=0.01)
    assert upload["seen"] == 8
    assert upload["stages"][:2] == ["decode", "resize and normalise"]
    assert [answer["classes"][0] for answer in seen["compared"]] == ["green", "green"]
    assert seen["difference"] == "Both say green, with the same probabilities."
    assert "colours-int8 1 (int8)" in seen["card"] and "red, green, blue" in seen["card"]
    assert [seen[how][0]["classes"][0] for how in ("paste", "drop")] == ["green", "green"]
    assert len(seen["camera"][0]["classes"]) == 3
    assert seen["tabs"] == ["file", "camera", "model", "other", "top"]
    assert seen["unnamed"] == []
    assert seen["overflow"] <= 0
    assert seen["ground"] == "rgb(20, 23, 27)"
    assert "no JPEG" in seen["problem"]
