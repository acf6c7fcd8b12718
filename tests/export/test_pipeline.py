"""Whole exports by file name alone: every architecture proven, repeated, refused when wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from resdeploy.deploy import load
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.reference import read_reference
from resdeploy.deploy.errors import CheckpointError, InputError
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.export import ExportOptions, export_checkpoint
from tests.builders import randomize_batch_norms
from tests.networks import NarrowResNet

CLASSES = 7
SIZE_PX = 64  # the arithmetic is the same as at 224, in a twelfth of the time

_models = torchvision.models

ARCHITECTURES: dict[str, Callable[[], torch.nn.Module]] = {
    "resnet18": lambda: _models.resnet18(num_classes=CLASSES),
    "resnet50": lambda: _models.resnet50(num_classes=CLASSES),
    "resnet152": lambda: _models.resnet152(num_classes=CLASSES),
    "resnext50_32x4d": lambda: _models.resnext50_32x4d(num_classes=CLASSES),
    "wide_resnet50_2": lambda: _models.wide_resnet50_2(num_classes=CLASSES),
    "resnext 8x14d 2-3-1-2": lambda: ResNet(
        Bottleneck, [2, 3, 1, 2], num_classes=CLASSES, groups=8, width_per_group=14
    ),
    "mobilenet_v2 0.35": lambda: _models.mobilenet_v2(num_classes=CLASSES, width_mult=0.35),
    "mobilenet_v2 1.4": lambda: _models.mobilenet_v2(num_classes=CLASSES, width_mult=1.4),
}

# Of the three families; CIFAR networks have their own test below.
OPERATORS = {"Conv", "Relu", "Clip", "MaxPool", "Add", "GlobalAveragePool", "Flatten", "Gemm"}


def saved(folder: Path, module: torch.nn.Module) -> Path:
    path = folder / "weights.pth"
    torch.save(module.state_dict(), path)
    return path


def small(folder: Path, **options: object) -> ExportOptions:
    options = {"precisions": ("fp32",), "input_size_px": SIZE_PX, **options}
    return ExportOptions(output=folder / "out.bundle", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    module = randomize_batch_norms(NarrowResNet(BasicBlock, [1, 1, 1, 1], CLASSES))
    return saved(tmp_path_factory.mktemp("narrow"), module)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_by_its_tensors_alone(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = randomize_batch_norms(ARCHITECTURES[name]())
    norms = sum(isinstance(child, torch.nn.BatchNorm2d) for child in module.modules())

    report = export_checkpoint(saved(tmp_path, module), small(tmp_path))

    proofs = report.manifest.proofs
    assert proofs["batchnorm_fold"]["folded"] == norms
    assert proofs["batchnorm_fold"]["left"] == 0
    assert proofs["parity"]["top1_agreement"] == 100
    graph = onnx.load(report.bundle / "fp32.onnx")
    assert {node.op_type for node in graph.graph.node} <= OPERATORS
    assert report.manifest.model.classes == CLASSES
    assert report.manifest.model.parameters == sum(p.numel() for p in module.parameters())

    # once more, from outside: the written file against the very module that was saved
    generator = np.random.default_rng(2)
    with OrtSession(report.bundle / "fp32.onnx") as session, torch.inference_mode():
        for batch in (1, 2, 5, 8):
            inputs = generator.standard_normal((batch, 3, SIZE_PX, SIZE_PX)).astype(np.float32)
            expected = module(torch.from_numpy(inputs)).numpy()
            limit = 1e-4 * max(1.0, float(np.abs(expected).max()))
            assert np.abs(session.run(inputs) - expected).max() <= limit


@pytest.mark.slow
def test_exported_twice_gives_the_same_bytes(narrow: Path, tmp_path: Path) -> None:
    files = []
    for run in ("first", "second"):
        options = small(tmp_path / run, precisions=("fp32", "fp16"))
        bundle = export_checkpoint(narrow, options).bundle
        files.append({path.name: path.read_bytes() for path in sorted(bundle.iterdir())})
    names = {"fp32.onnx", "fp16.onnx", "manifest.json", "reference.npz", "channel_statistics.npz"}
    assert files[0].keys() == names
    assert files[0] == files[1]


def test_files_are_self_contained_and_clean(narrow: Path, tmp_path: Path) -> None:
    options = small(tmp_path, precisions=("fp32", "fp16"))
    bundle = export_checkpoint(narrow, options).bundle
    manifest = read_bundle(bundle).manifest
    for name, file in manifest.variants.items():
        graph = onnx.load(bundle / file.file, load_external_data=False)
        onnx.checker.check_model(graph)
        assert not any(t.data_location for t in graph.graph.initializer), "external data"
        assert [i.name for i in graph.graph.input] == ["input"]
        assert [o.name for o in graph.graph.output] == ["logits"]
        assert graph.opset_import[0].version == 17
        notes = {entry.key: entry.value for entry in graph.metadata_props}
        assert notes["architecture"] == "resnet(basic 1-1-1-1, 16-32-64-128 wide)"
        assert notes["variant"] == name
        assert json.loads(notes["labels"]) == [f"class_{i}" for i in range(CLASSES)]
        assert json.loads(notes["proofs"])["batchnorm_fold"]["folded"] == 12
        content = (bundle / file.file).read_bytes()
        assert str(tmp_path).encode() not in content and b"site-packages" not in content
    fp16 = onnx.load(bundle / "fp16.onnx")
    parent = {entry.key: entry.value for entry in fp16.metadata_props}["parent_sha256"]
    assert parent == manifest.variants["fp32"].sha256


def test_reference_replays_without_torch(narrow: Path, tmp_path: Path) -> None:
    bundle = export_checkpoint(narrow, small(tmp_path)).bundle
    reference = read_reference(bundle / "reference.npz")
    with load(bundle, backend="ort-cpu") as classifier:
        logits = classifier.logits(reference.inputs)
    assert np.abs(logits - reference.logits).max() <= 1e-4 * max(1, np.abs(logits).max())


def test_lone_graph_predicts(narrow: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    torchvision.transforms.functional.to_pil_image(pixels).save(image)
    bundle = export_checkpoint(narrow, small(tmp_path)).bundle
    alone = tmp_path / "alone.onnx"
    (bundle / "fp32.onnx").rename(alone)
    with load(alone) as classifier:
        answers = classifier.predict(image, top=CLASSES)
    assert sum(answer.probability for answer in answers) == pytest.approx(1)


def test_without_head_yields_features(tmp_path: Path) -> None:
    module = randomize_batch_norms(NarrowResNet(BasicBlock, [1, 1, 1, 1], CLASSES))
    state = {key: value for key, value in module.state_dict().items() if "fc." not in key}
    torch.save(state, tmp_path / "body.pth")
    report = export_checkpoint(tmp_path / "body.pth", small(tmp_path))
    assert report.manifest.model.classes is None and report.manifest.output.shape == ("batch", 128)
    with load(report.bundle) as classifier:
        assert classifier.logits(np.zeros((2, 3, SIZE_PX, SIZE_PX), np.float32)).shape == (2, 128)
        with pytest.raises(InputError, match="without a classification head"):
            classifier.predict("any.jpg")


def test_own_network_by_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_network.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),\n"
        "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))\n"
    )
    monkeypatch.chdir(tmp_path)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 4),
    )  # fmt: skip
    report = export_checkpoint(saved(tmp_path, network), small(tmp_path, arch="my_network:make"))
    assert report.manifest.proofs["batchnorm_fold"]["folded"] == 1
    assert report.manifest.model.classes == 4


def test_labels_beside_the_checkpoint_are_found(narrow: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(narrow.read_bytes())
    names = {str(i): f"flower {i}" for i in range(CLASSES)}
    (tmp_path / "class_indices.json").write_text(json.dumps(names))
    report = export_checkpoint(weights, small(tmp_path))
    assert report.manifest.labels == tuple(names.values())
    assert any("class_indices.json" in sentence for sentence in report.manifest.assumptions)


def test_wrong_number_of_labels_is_refused(narrow: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("rose\ntulip\n")
    with pytest.raises(InputError, match="2 class names, but the network has 7"):
        export_checkpoint(narrow, small(tmp_path, classes=labels))
    assert not list(tmp_path.glob("*bundle*"))


@pytest.mark.parametrize(
    ("options", "size_px"),
    [({}, 32), ({"preprocess": "half"}, 32), ({"preprocess": "half", "input_size_px": 40}, 40)],
)
def test_a_named_preprocessing_makes_the_architectures_usual_input(
    options: dict[str, object],
    size_px: int,
    network: Callable[[str], torch.nn.Module],
    tmp_path: Path,
) -> None:
    checkpoint = saved(tmp_path, network("cifar"))
    report = export_checkpoint(checkpoint, small(tmp_path, **{"input_size_px": None, **options}))
    manifest = report.manifest
    assert manifest.preprocess.input_size_px == (size_px, size_px)
    assert manifest.preprocess.name == options.get("preprocess", "cifar")
    assert manifest.input.shape == ("batch", 3, size_px, size_px)
    said = "; ".join(manifest.assumptions)
    assert ("input size is 32x32" in said) == ("input_size_px" not in options)
    assert ("preprocessing is 'cifar'" in said) == ("preprocess" not in options)


def test_nan_weights_are_refused_by_name(tmp_path: Path) -> None:
    module = NarrowResNet(BasicBlock, [1, 1, 1, 1], CLASSES)
    module.layer2[0].conv1.weight.data[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"layer2\.0\.conv1\.weight"):
        export_checkpoint(saved(tmp_path, module), small(tmp_path))
    assert not list(tmp_path.glob("*bundle*"))


def test_existing_bundle_needs_overwrite(narrow: Path, tmp_path: Path) -> None:
    options = small(tmp_path)
    export_checkpoint(narrow, options)
    with pytest.raises(InputError, match="--overwrite"):
        export_checkpoint(narrow, options)
    again = small(tmp_path, overwrite=True)
    assert export_checkpoint(narrow, again).bundle == options.output
    assert [path.name for path in tmp_path.iterdir()] == ["out.bundle"], "nothing left aside"


@pytest.mark.slow
@pytest.mark.realdata
def test_flowers_keep_pytorch_accuracy(shared_data: Path, tmp_path: Path) -> None:
    """flowers/val: 367 photographs, 86.10 % with torchvision's own transforms and PyTorch."""
    options = ExportOptions(
        output=tmp_path / "flowers.bundle",
        classes=shared_data / "flowers_class_indices.json",
        data=shared_data / "flowers" / "val",
        preprocess="imagenet",
    )
    checkpoint = shared_data / "checkpoints" / "flowers_mobilenet_v2.pth"
    report = export_checkpoint(checkpoint, options)
    assert report.accuracy["pytorch"] == pytest.approx(86.10, abs=0.005)
    assert report.accuracy["fp32"] == report.accuracy["pytorch"]
    assert report.accuracy["fp16"] == pytest.approx(86.10, abs=0.3)
    assert report.manifest.proofs["parity"]["top1_agreement"] == 100


@pytest.mark.slow
@pytest.mark.realdata
def test_imagenet_keeps_pytorch_accuracy(shared_data: Path, tmp_path: Path) -> None:
    """imagenet-sample: 500 photographs, 77.80 % with torchvision's own transforms and PyTorch."""
    options = ExportOptions(
        output=tmp_path / "imagenet.bundle",
        classes=shared_data / "imagenet_class_indices.json",
        data=shared_data / "imagenet-sample",
        preprocess="imagenet",
        precisions=("fp32",),
    )
    checkpoint = shared_data / "checkpoints" / "imagenet_mobilenet_v2.pth"
    report = export_checkpoint(checkpoint, options)
    assert report.accuracy == {"pytorch": 77.8, "fp32": 77.8}
    assert report.manifest.proofs["parity"]["top1_agreement"] == 100


@pytest.mark.slow
@pytest.mark.realdata
def test_real_cifar_checkpoint(shared_data: Path, tmp_path: Path) -> None:
    """cifar10/val has 1000 images; the PyTorch side is the module built from the checkpoint."""
    options = ExportOptions(
        output=tmp_path / "cifar.bundle",
        classes=shared_data / "cifar10_class_indices.json",
        data=shared_data / "cifar10" / "val",
    )
    report = export_checkpoint(shared_data / "checkpoints" / "cifar10_resnet20.th", options)
    assert report.manifest.preprocess.input_size_px == (32, 32)
    assert report.accuracy["pytorch"] > 75
    assert report.accuracy["fp32"] == report.accuracy["pytorch"]
    assert report.manifest.proofs["parity"]["images"] == 1000


@pytest.mark.slow
@pytest.mark.realdata
def test_labelled_images_find_the_preprocessing(shared_data: Path, tmp_path: Path) -> None:
    """Every third of flowers/val, 123 photographs given as a list: the right one is kept."""
    images = sorted((shared_data / "flowers" / "val").glob("*/*"))[::3]
    listed = tmp_path / "val.csv"
    listed.write_text("".join(f"{path},{path.parent.name}\n" for path in images))
    options = ExportOptions(
        output=tmp_path / "fit.bundle",
        classes=shared_data / "flowers_class_indices.json",
        data=listed,
        precisions=("fp32",),
    )
    report = export_checkpoint(shared_data / "checkpoints" / "flowers_mobilenet_v2.pth", options)
    (sentence,) = (s for s in report.manifest.assumptions if s.startswith("preprocessing is"))
    assert "'imagenet'" in sentence and "half" in sentence and "123 of your" in sentence
