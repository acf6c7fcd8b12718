"""`load` predicts what a plain loop over ONNX Runtime predicts, in order, whatever goes wrong."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from resdeploy.deploy.bundle.bundle import read_bundle, write_manifest
from resdeploy.deploy.errors import BundleError, GraphError, InputError
from resdeploy.deploy.files import sha256_file
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.inference import classifier as classifier_module
from resdeploy.deploy.inference.classifier import Classifier, load
from resdeploy.deploy.inference.prediction import Prediction


@pytest.fixture(scope="module")
def classifier(flower_bundle: Path) -> Iterator[Classifier]:
    with load(flower_bundle, backend="ort-cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def paths(image_folder: Path) -> list[Path]:
    return sorted(image_folder.iterdir())


@pytest.fixture(scope="module")
def expected(flower_bundle: Path, paths: list[Path]) -> np.ndarray:
    """(images, 5) logits of the loop that people write without this library."""
    session = onnxruntime.InferenceSession(
        str(flower_bundle / "fp32.onnx"), providers=["CPUExecutionProvider"]
    )
    preprocess: Preprocess = read_bundle(flower_bundle).manifest.preprocess
    return np.concatenate(
        [
            session.run(None, {"input": preprocess.apply(Image.open(path).convert("RGB"))[None]})[0]
            for path in paths
        ]
    )


def _assert_right(answers: list[list[Prediction]], logits: np.ndarray) -> None:
    assert len(answers) == len(logits)
    for answer, row in zip(answers, logits, strict=True):
        probabilities = np.exp(row) / np.exp(row).sum()
        order = np.argsort(-row)
        assert [p.index for p in answer] == list(order)
        assert np.allclose([p.probability for p in answer], probabilities[order], atol=1e-5)


def test_predict_one(classifier: Classifier, paths: list[Path], expected: np.ndarray) -> None:
    _assert_right([classifier.predict(path) for path in paths], expected)
    answer = classifier.predict(str(paths[0]), top=2)
    assert answer == classifier.predict(paths[0])[:2]
    assert answer[0].label == classifier.manifest.labels[answer[0].index]
    with Image.open(paths[0]) as image:
        assert classifier.predict(image, top=2) == answer
    assert len(classifier.predict(paths[0], top=99)) == 5


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_predict_many_is_in_order(
    batch: int, classifier: Classifier, paths: list[Path], expected: np.ndarray
) -> None:
    _assert_right(list(classifier.predict_many(paths, batch=batch)), expected)
    few = paths[5:8]
    _assert_right(list(classifier.predict_many(iter(few), batch=batch)), expected[5:8])
    assert list(classifier.predict_many([], batch=batch)) == []
    _assert_right(list(classifier.predict_many(paths[:1], batch=batch)), expected[:1])


@pytest.mark.parametrize(
    "batch", [3, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 8))]
)
def test_bad_images_between_good_ones(
    batch: int, classifier: Classifier, paths: list[Path], expected: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    Image.new("RGB", (1, 60_000_000 // 32)).save(tmp_path / "sliver.png")
    mixed: list[Path] = []
    for number, path in enumerate(paths):
        mixed += [path] if number % 3 else [tmp_path / "text.jpg", path, tmp_path / "sliver.png"]
    answers = list(classifier.predict_many(mixed, batch=batch, errors="yield"))
    good = [answer for answer in answers if isinstance(answer, list)]
    bad = [answer for answer in answers if isinstance(answer, InputError)]
    assert [isinstance(answer, list) for answer in answers] == [path in paths for path in mixed]
    _assert_right(good, expected)
    assert len(bad) == 16
    assert all(str(error).startswith(str(tmp_path)) for error in bad)
    only_bad = list(classifier.predict_many([tmp_path / "text.jpg"] * 3, errors="yield"))
    assert [type(answer) for answer in only_bad] == [InputError] * 3


def test_errors_are_raised_when_their_turn_comes(
    classifier: Classifier, paths: list[Path], expected: np.ndarray
) -> None:
    answers = classifier.predict_many([*paths[:5], Path("absent.jpg"), *paths])
    _assert_right([next(answers) for _ in range(5)], expected[:5])
    with pytest.raises(InputError, match=r"absent\.jpg: no such file"):
        next(answers)


def test_several_threads_share_one_classifier(
    flower_bundle: Path, paths: list[Path], expected: np.ndarray
) -> None:
    results: dict[int, list[list[Prediction]]] = {}
    with load(flower_bundle, backend="ort-cpu") as shared:

        def predict(number: int) -> None:
            results[number] = list(shared.predict_many(paths, batch=number + 1))

        threads = [threading.Thread(target=predict, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 4
    for answers in results.values():
        _assert_right(answers, expected)


def test_leaving_early_ends_the_threads(classifier: Classifier, paths: list[Path]) -> None:
    answers = classifier.predict_many(paths * 10)
    next(answers)
    answers.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("resdeploy")]


def test_logits(classifier: Classifier) -> None:
    batch = np.random.default_rng(1).normal(size=(3, 3, 32, 32)).astype(np.float32)
    assert np.array_equal(classifier.logits(batch), classifier.session.run(batch))
    with pytest.raises(InputError, match=r"got float32 of shape \(3, 32, 32\)"):
        classifier.logits(batch[0])


def test_wrong_options(classifier: Classifier, paths: list[Path]) -> None:
    for top in (0, -1):
        with pytest.raises(InputError, match=f"top {top} is not at least 1"):
            classifier.predict(paths[0], top=top)
    with pytest.raises(InputError, match="top 0"):
        list(classifier.predict_many(paths, top=0))
    with pytest.raises(InputError, match="batch 0 is not at least 1"):
        list(classifier.predict_many(paths, batch=0))
    with pytest.raises(InputError, match="takes several paths, got one"):
        list(classifier.predict_many("a.jpg"))


def test_a_network_without_classes_yields_features(
    write_flower_bundle: Callable[[Path, int | None], Path], tmp_path: Path, paths: list[Path]
) -> None:
    bundle = write_flower_bundle(tmp_path / "features.bundle", None)
    with load(bundle, backend="ort-cpu") as features:
        for predict in (
            lambda: features.predict(paths[0]),
            lambda: list(features.predict_many(paths)),
        ):
            with pytest.raises(InputError, match="without a classification head; it yields 5"):
                predict()
        rows = list(features.logits_many(paths))
        assert all(isinstance(row, np.ndarray) and row.shape == (5,) for row in rows)


def test_a_flipped_byte_is_noticed_by_load(flower_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(flower_bundle, tmp_path / "net.bundle"))
    content = bytearray((bundle / "fp32.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "fp32.onnx").write_bytes(content)
    with pytest.raises(BundleError, match="altered since it was written"):
        load(bundle)


def test_answers_that_are_no_numbers_are_an_error(flower_bundle: Path, tmp_path: Path) -> None:
    """As a half-precision graph that overflows gives them."""
    bundle = Path(shutil.copytree(flower_bundle, tmp_path / "net.bundle"))
    graph = onnx.load(bundle / "fp32.onnx")
    bias = next(tensor for tensor in graph.graph.initializer if tensor.name == "b3")
    bias.raw_data = np.array([0, 1, np.nan, 0, 0], np.float32).tobytes()
    onnx.save(graph, bundle / "fp32.onnx")
    manifest = read_bundle(bundle).manifest
    (file,) = manifest.variants.values()
    sha256 = sha256_file(bundle / "fp32.onnx")
    size = (bundle / "fp32.onnx").stat().st_size
    changed = type(file)(file.file, sha256, size, file.opset, file.made_from)
    write_manifest(bundle, manifest.with_variant("fp32", changed))
    with load(bundle) as broken, pytest.raises(GraphError, match="answered nan for class 'roses'"):
        broken.predict(Image.new("RGB", (40, 40)))


@pytest.mark.parametrize(("images", "batch", "threads"), [(1, 8, 2), (24, 8, 2), (500, 4, 6)])
def test_chunks_cover_everything_and_taper(images: int, batch: int, threads: int) -> None:
    paths = [str(number) for number in range(images)]
    chunks = list(classifier_module._chunks(paths, batch, threads))
    assert [path for chunk in chunks for path in chunk] == paths
    sizes = [len(chunk) for chunk in chunks]
    assert max(sizes) <= batch and sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_predicting_imports_neither_torch_nor_onnx(flower_bundle: Path, paths: list[Path]) -> None:
    program = (
        "import sys\n"
        "from resdeploy.deploy import load\n"
        "with load(sys.argv[1]) as classifier:\n"
        "    classifier.predict(sys.argv[2])\n"
        "    list(classifier.predict_many(sys.argv[2:] * 3))\n"
        "heavy = {'torch', 'torchvision', 'onnx', 'onnxsim', 'onnx_ir', 'tensorrt'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    for model in (flower_bundle, flower_bundle / "fp32.onnx"):
        command = [sys.executable, "-c", program, *map(str, (model, *paths[:2]))]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("[]\n", "")
