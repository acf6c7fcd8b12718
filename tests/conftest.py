"""Fixtures shared by the whole suite: where the real data is, photographs, a tiny real bundle."""

import signal
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from resdeploy.deploy.images.preprocess import named
from tests.builders import graph_of, write_bundle

_ROOT = Path(__file__).resolve().parents[1]
_SHARED_DATA = _ROOT.parent / "shared" / "data"

# the dependencies, and what rich brings
_BASE = ("numpy", "pillow", "click", "rich", "markdown-it-py", "mdurl", "pygments")

_TINY_SIZE_PX = 32
_TINY_GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
tiny (float[batch, 3, 32, 32] input) => (float[batch, 5] logits)
{
    [c1] c1 = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (input, w1, b1)
    [r1] r1 = Relu (c1)
    [c2] c2 = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (r1, w2, b2)
    [r2] r2 = Relu (c2)
    [g] g = GlobalAveragePool (r2)
    [f] f = Flatten (g)
    [logits] logits = Gemm <transB = 1> (f, w3, b3)
}
"""
_TINY_SHAPES = {
    "w1": (8, 3, 3, 3),
    "b1": (8,),
    "w2": (16, 8, 3, 3),
    "b2": (16,),
    "w3": (5, 16),
    "b3": (5,),
}


# tests that use one of these are slow, whatever else they do
_COSTLY_FIXTURES = {
    "family_bundle": "exports and quantizes whole networks of torchvision",
    "sshd": "starts an ssh server, through which new interpreters are started",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what uses a costly fixture, directly or through another one."""
    for item in items:
        if isinstance(item, pytest.Function) and not _COSTLY_FIXTURES.keys().isdisjoint(
            item.fixturenames
        ):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def interrupts_reach_children() -> None:
    """A shell that starts the suite in the background ignores SIGINT, nohup ignores SIGHUP.

    Children inherit that: the tests of signals would then wait for a process that cannot hear them.
    """
    for number, action in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, action)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real checkpoints and photographs; tests marked `realdata` skip without it."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("real checkpoints and photographs (../shared/data) are not on this machine")
    return _SHARED_DATA


@pytest.fixture(scope="session")
def photographs() -> list[Image.Image]:
    """Two real photographs of 640x427 pixels (a temple, a flower), which scikit-learn ships."""
    # found without importing scikit-learn, which takes seconds
    spec = find_spec("sklearn")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0], "datasets", "images")
    return [Image.open(folder / name).convert("RGB") for name in ("china.jpg", "flower.jpg")]


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory, photographs: list[Image.Image]) -> Path:
    """A folder of 24 different JPEG files, cut out of the photographs."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(24):
        photograph = photographs[number % 2]
        left, top = 17 * number, 11 * number
        cut = photograph.crop((left, top, left + 150 + number, top + 120))
        cut.save(folder / f"cut_{number:02d}.jpg")
    return folder


@pytest.fixture(scope="session")
def write_flower_bundle() -> Callable[[Path, int | None], Path]:
    """A function that writes a bundle of a tiny real network: (path, classes 5 or None) -> path."""
    return _write_flower_bundle


@pytest.fixture(scope="session")
def flower_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of five classes for 32x32 images; read it, copy it, but leave it as it is."""
    return _write_flower_bundle(tmp_path_factory.mktemp("bundles") / "flowers.bundle", 5)


def _write_flower_bundle(path: Path, classes: int | None) -> Path:

    labels = ("daisy", "dandelion", "roses", "sunflowers", "tulips") if classes else ()
    return write_bundle(
        path, {"fp32": tiny_graph()}, named("imagenet", _TINY_SIZE_PX), labels=labels
    )


def tiny_graph() -> onnx.ModelProto:
    """Two convolutions and a linear layer with fixed random weights."""
    random = np.random.default_rng(7)
    return graph_of(
        _TINY_GRAPH, {name: random.normal(0, 0.5, shape) for name, shape in _TINY_SHAPES.items()}
    )


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """A Python with the base installation only: what `pip install resdeploy` brings.

    Returns a function: extra distributions -> the command line of that interpreter, to which a
    program's text and its arguments are added. It runs without site-packages, on a folder of
    links to the distributions that are really installed.
    """

    def command(*extra: str) -> list[str]:
        folder = tmp_path_factory.mktemp("bare")
        for name in (*_BASE, *extra):
            found = distribution(name)
            for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
                (folder / top).symlink_to(str(found.locate_file(top)))
        (folder / "resdeploy").symlink_to(_ROOT / "src" / "resdeploy")
        found = distribution("resdeploy")
        for top in {file.parts[0] for file in found.files or ()}:
            if top.endswith(".dist-info"):
                (folder / top).symlink_to(str(found.locate_file(top)))
        code = f"import sys; sys.path.insert(0, {str(folder)!r})"
        return [sys.executable, "-S", "-E", "-c", f"{code}; exec(sys.argv.pop(1))"]

    return command
