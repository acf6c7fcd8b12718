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

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.benchmark.bench import bench
from resdeploy.deploy.bundle.bundle import save_in_bundle
from resdeploy.deploy.verification.reports.html_report import html_report
from resdeploy.deploy.verification.verify import verify

WriteBundle = Callable[..., Path]

_HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)> $x_{1}$ {{ 7 * 7 }}',
    "blue",
)
_BROKEN = np.array([-0.5, 0, 0], np.float32)

_SESSION = Path(__file__).with_name("page_session.js")
_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class _Elements(HTMLParser):
    """Every element and attribute of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page(
    tmp_path_factory: pytest.TempPathFactory,
    write_bundle: WriteBundle,
    identity: Float32s,
    colours: Path,
) -> str:
    """The report of a failed verification of a timed bundle with hostile labels."""
    folder = tmp_path_factory.mktemp("hostile")
    bundle = write_bundle(
        folder / "b<i>.bundle",
        {"fp32": identity, "int8-cpu": identity},
        labels=_HOSTILE,
        bias={"int8-cpu": _BROKEN},
    )
    data = folder / "data"
    for index, label in enumerate(("red", "green", "blue")):
        shutil.copytree(colours / label, data / str(index))
    timed = bench(bundle, seconds=0.02, batches=(1, 2)).to_json()
    return html_report(verify(bundle, data=data), bench=timed)


@pytest.mark.slow
def test_nothing_of_the_users_becomes_markup(page: str) -> None:
    elements = _Elements(page).found
    assert not [tag for tag, _ in elements if tag in ("script", "iframe", "object", "i")]
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page


@pytest.mark.slow
def test_it_needs_nothing_from_anywhere(page: str) -> None:
    for tag, attributes in _Elements(page).found:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:")), (tag, target)
    assert "default-src 'none'" in page
    assert not re.findall(r"url\((?!#)", page)


@pytest.mark.slow
def test_everything_promised_is_there(page: str) -> None:
    assert page.index("FAIL") < page.index("Accuracy")
    for text in ("max-drop", "Speed against accuracy", "changed predictions", "p (Holm)",
                 "Changed predictions by class", "SHA-256", "data:image/jpeg;base64,",
                 "Do not ship int8-cpu", "true class", "verified with"):  # fmt: skip
        assert text in page
    assert "{&#39;" not in page and "{'" not in page  # no Python dictionaries
    assert page.count("<figure>") == 3 and page.count("<svg xmlns") == 6
    assert page.count('class="card"') == 24 and "and 39 more" in page
    assert "currentColor" in page and "#010203" not in page


def test_the_same_verification_gives_the_same_bytes_and_ids_are_not_shared(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity, "int8": identity})
    report = verify(bundle, data=colours)
    assert html_report(report) == html_report(report)


def test_without_images_or_with_a_damaged_benchmark_it_is_still_a_page(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    save_in_bundle(bundle, "bench.json", {"results": [{}]})
    page = html_report(verify(bundle))
    assert "recorded in reference.npz" in page and "<figure>" not in page


@pytest.mark.slow
@pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_it_without_complaint(page: str, tmp_path: Path) -> None:
    file, image = tmp_path / "report.html", tmp_path / "report.png"
    file.write_text(page, encoding="utf-8")
    assert len(page) < 2_000_000
    done = subprocess.run(
        [
            str(_CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,2000",
            f"--screenshot={image}", file.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    assert image.stat().st_size > 20_000


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_or_too_small_on_a_phone(page: str, tmp_path: Path, width: int) -> None:
    there = ["node", "-e", "require('playwright-core')"]
    if (
        _CHROMIUM is None
        or shutil.which("node") is None
        or subprocess.run(there, capture_output=True).returncode
    ):
        pytest.skip("needs chromium, node, and playwright-core in NODE_PATH")
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    command = ["node", str(_SESSION), str(file), str(_CHROMIUM), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["overflow"], seen["cut"], seen["charts"]) == (0, [], 3)
    assert seen["letters_px"] > 10
    assert seen["printed"] == {"ink": "rgb(27, 31, 36)", "folded": 0}


@pytest.mark.slow
def test_failed_checks_are_open_and_passed_ones_folded(page: str) -> None:
    checks = page[page.index("<h2>Checks</h2>") :]
    folded = checks.index("<details>")
    assert "int8-cpu, max-drop" in checks[:folded]
    assert "fp32, logits" not in checks[:folded] and "fp32, logits" in checks[folded:]


@pytest.mark.slow
def test_an_image_is_enlarged_without_a_script(page: str) -> None:
    ids = {attributes.get("id") for _, attributes in _Elements(page).found}
    links = [attributes["href"] for tag, attributes in _Elements(page).found if tag == "a"]
    assert links and all(str(link).removeprefix("#") in ids for link in links)


def test_the_command_that_repeats_it_is_there(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity, "int8": identity})
    report = verify(bundle, data=colours)
    text = html_report(report, command="resdeploy verify b --data <x>")
    assert "<code>resdeploy verify b --data &lt;x&gt;</code>" in text
    assert "Ship " in text and "2 changed" not in text
