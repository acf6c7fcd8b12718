"""The C++ programs: ONNX Runtime's gives Python's numbers, TensorRT's compiles.

Both are skipped, saying what is missing, where there is no compiler or no headers;
tests/examples/install_cpp.sh brings what Debian has.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy import load
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.images.preprocess import Preprocess, named, override
from tests.builders import graph_of, write_bundle

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = _ROOT / "examples" / "cpp"
_SIZE_PX = 32
_CLASSES = 3 * _SIZE_PX * _SIZE_PX
# its logits are its input, so that a single wrong byte is seen
_PIXELS = f"""
<ir_version: 8, opset_import: ["" : 17]>
pixels (float[batch, 3, {_SIZE_PX}, {_SIZE_PX}] input) => (float[batch, {_CLASSES}] logits)
{{
    [logits] logits = Flatten (input)
}}
"""
_MEAN, _STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
_PREPROCESSES = [
    named("imagenet", _SIZE_PX),
    named("half", _SIZE_PX),
    override(named("imagenet", _SIZE_PX), resize_px=20),  # smaller than the crop: padded
    Preprocess("cubic", 40, (_SIZE_PX, _SIZE_PX), _MEAN, _STD, interpolation="bicubic"),
    Preprocess("as it is", None, (_SIZE_PX, _SIZE_PX), _MEAN, _STD),
]


def _ort_headers() -> Path:
    """The folder with ONNX Runtime's C++ header, of the system or as install_cpp.sh unpacks it."""
    unpacked = _ROOT / "build" / "onnxruntime-headers"
    for folder in (os.environ.get("ORT_INCLUDE", ""), "/usr/include/onnxruntime", unpacked):
        if Path(folder, "onnxruntime_cxx_api.h").is_file():
            return Path(folder)
    pytest.skip("no onnxruntime_cxx_api.h: bash tests/examples/install_cpp.sh, or set ORT_INCLUDE")


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"no {name} here")
    return Path(spec.submodule_search_locations[0])


def _built(folder: Path, target: str, *settings: str) -> Path:
    """Where `target` was built with cmake; skips where a tool or a library is missing."""
    missing = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}: bash tests/examples/install_cpp.sh")
    configure = ["cmake", "-S", str(_SOURCES), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"]
    done = subprocess.run([*configure, *settings], capture_output=True, text=True)
    if done.returncode != 0 and "Could NOT find" in (said := done.stderr + done.stdout):
        pytest.skip(f"bash tests/examples/install_cpp.sh: {said}")
    assert done.returncode == 0, done.stderr
    done = subprocess.run(["cmake", "--build", folder, "--target", target, "--", "VERBOSE=1"],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0 and "warning" not in done.stderr, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with Debian's header and the library that Python runs: the C interface is stable."""
    root = tmp_path_factory.mktemp("ort")
    (root / "include").symlink_to(_ort_headers())
    (root / "lib").mkdir()
    (library,) = (_package("onnxruntime") / "capi").glob("libonnxruntime.so.1*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "lib" / name).symlink_to(library)
    folder = tmp_path_factory.mktemp("cpp")
    return _built(folder, "classify_onnxruntime", f"-DORT_ROOT={root}") / "classify_onnxruntime"


def _images(folder: Path) -> list[Path]:
    """Photographs and noise of several shapes, as JPEG and PNG, with and without colour."""
    noise = np.random.default_rng(0).integers(0, 256, (61, 90, 4), np.uint8)
    smooth = Image.fromarray(noise[:8, :11, :3]).resize((333, 250), Image.Resampling.BICUBIC)
    images = {
        "photo.jpg": smooth,
        "upright.jpeg": smooth.rotate(90, expand=True),
        "grey.jpg": smooth.convert("L"),
        "noise.png": Image.fromarray(noise[..., :3]),
        "clear.png": Image.fromarray(noise),
        "grey.png": Image.fromarray(noise[..., 0]),
        "palette.png": smooth.quantize(16),
        "tiny.png": Image.fromarray(noise[:7, :5, :3]),
    }
    for name, image in images.items():
        image.save(folder / name)
    return [folder / name for name in images]


def _run(program: Path, *words: str | Path) -> list[dict[str, Any]]:
    done = subprocess.run([program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("preprocess", _PREPROCESSES, ids=lambda preprocess: preprocess.name)
def test_every_pixel_is_pythons(program: Path, tmp_path: Path, preprocess: Preprocess) -> None:
    labels = tuple(map(str, range(_CLASSES)))
    bundle = write_bundle(tmp_path / "p.bundle", {"fp32": graph_of(_PIXELS, {})}, preprocess,
                          labels=labels)  # fmt: skip
    images = _images(tmp_path)
    answers = _run(program, bundle, "fp32", *images)
    for image, answer in zip(images, answers, strict=True):
        got = np.array(answer["logits"], np.float32)
        np.testing.assert_array_equal(got, read_input(image, preprocess).ravel(), image.name)


def test_answers_are_pythons(program: Path, flower_bundle: Path, image_folder: Path) -> None:
    images = sorted(image_folder.iterdir())
    answers = _run(program, flower_bundle, "fp32", *images)
    with load(flower_bundle, backend="ort-cpu") as classifier:
        logits = np.array(list(classifier.logits_many(images)))
        first = [best for best, *_ in classifier.predict_many(images)]
    np.testing.assert_allclose(np.array([a["logits"] for a in answers]), logits, atol=1e-5)
    for answer, best in zip(answers, first, strict=True):
        assert answer["label"] == best.label
        assert answer["probability"] == pytest.approx(best.probability, abs=1e-5)


def test_jetson_md_compares_the_programs_answers_with_pythons(
    program: Path, tmp_path: Path, flower_bundle: Path, image_folder: Path
) -> None:
    page = (_ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")
    found = re.search(r'^```python title="compare.py"\n(.*?)^```', page, re.MULTILINE | re.DOTALL)
    assert found
    (tmp_path / "flowers.bundle").symlink_to(flower_bundle)
    answers = _run(program, flower_bundle, "fp32", *sorted(image_folder.iterdir()))
    for shift, expected in ((0.001, "100.0% the same class"), (100.0, "SQNR -")):
        for answer in answers:
            answer["logits"][0] += shift
        lines = "\n".join(map(json.dumps, answers))
        (tmp_path / "jetson.jsonl").write_text(lines)
        done = subprocess.run([sys.executable, "-c", found[1]], cwd=tmp_path, capture_output=True,
                              text=True, check=True)  # fmt: skip
        assert expected in done.stdout


def test_errors_are_one_line(program: Path, tmp_path: Path, flower_bundle: Path) -> None:
    (text := tmp_path / "text.jpg").write_text("no picture")
    (cut := tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    for words, expected in [
        ((flower_bundle, "int4", text), "no int4 in it"),
        ((flower_bundle, "fp32", tmp_path / "none.jpg"), "cannot be read"),
        ((flower_bundle, "fp32", text), "neither JPEG nor PNG"),
        ((flower_bundle, "fp32", cut), "cannot be decoded"),
        ((tmp_path, "fp32", text), "manifest.json: cannot be read"),
    ]:
        done = subprocess.run([program, *words], capture_output=True, text=True)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and expected in done.stderr
    assert subprocess.run([program], capture_output=True).returncode == 2


def test_the_program_for_tensorrt_compiles(tmp_path: Path) -> None:
    root = os.environ.get("TENSORRT_ROOT", "/usr")
    if not list(Path(root, "include").rglob("NvInferRuntime.h")):
        pytest.skip("no NvInferRuntime.h: set TENSORRT_ROOT to a TensorRT with include/")
    cuda = _package("triton") / "backends" / "nvidia" / "include"
    _built(tmp_path, "classify_tensorrt", f"-DTENSORRT_ROOT={root}", f"-DCUDA_INCLUDE={cuda}",
           "-DTENSORRT_COMPILE_ONLY=ON")  # fmt: skip
