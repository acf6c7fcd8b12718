"""The HTML report: complete, escaped, small, and quiet in a real browser without a network."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from resdeploy.deploy.benchmark import bench
from resdeploy.deploy.report import html_report
from resdeploy.deploy.verification import verify

Weights = NDArray[np.float32]
WriteBundle = Callable[..., Path]

_HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)> $x_{1}$ {{ 7 * 7 }}',
    "blue",
)
_BROKEN = np.array([-0.5, 0, 0], np.float32)

_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class _Elements(HTMLParser):
    """Every element and attribute of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def page(tmp_path: Path, write_bundle: WriteBundle, identity: Weights, colours: Path) -> str:
    """The report of a failed verification of a timed bundle with hostile labels."""
    bundle = write_bundle(
        tmp_path / "b<i>.bundle",
        {"fp32": identity, "int8-cpu": identity},
        labels=_HOSTILE,
        bias={"int8-cpu": _BROKEN},
    )
    data = tmp_path / "data"
    for index, label in enumerate(("red", "green", "blue")):
        shutil.copytree(colours / label, data / str(index))
    timed = bench(bundle, seconds=0.02, batches=(1, 2)).to_json()
    return html_report(verify(bundle, data=data), bench=timed)


def test_nothing_of_the_users_becomes_markup(page: str) -> None:
    elements = _Elements(page).found
    assert not [tag for tag, _ in elements if tag in ("script", "iframe", "object", "i")]
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page


def test_it_needs_nothing_from_anywhere(page: str) -> None:
    for tag, attributes in _Elements(page).found:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:")), (tag, target)
    assert "default-src 'none'" in page
    assert not re.findall(r"url\((?!#)", page)


def test_everything_promised_is_there(page: str) -> None:
    assert page.index("fail") < page.index("Accuracy")
    for text in ("max-drop", "Speed against accuracy", "pictures answered differently", "p (Holm)",
                 "Which answers became which", "sha256", "data:image/jpeg;base64,"):  # fmt: skip
        assert text in page
    assert page.count("<figure>") == 3
    assert page.count('class="card"') == 24 and "and 39 more" in page
    assert "currentColor" in page and "#010203" not in page


def test_the_same_verification_gives_the_same_bytes_and_ids_are_not_shared(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity, "int8": identity})
    report = verify(bundle, data=colours)
    assert html_report(report) == html_report(report)


def test_without_pictures_or_with_a_damaged_benchmark_it_is_still_a_page(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    (bundle / "reports").mkdir()
    (bundle / "reports" / "bench.json").write_text(json.dumps({"results": [{}]}))
    page = html_report(verify(bundle))
    assert "recorded in reference.npz" in page and "<figure>" not in page


@pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_complaint(page: str, tmp_path: Path, width: int) -> None:
    file, picture = tmp_path / "report.html", tmp_path / "report.png"
    file.write_text(page, encoding="utf-8")
    assert len(page) < 2_000_000
    done = subprocess.run(
        [
            str(_CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2000",
            f"--screenshot={picture}", file.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    assert picture.stat().st_size > 20_000
