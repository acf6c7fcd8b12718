"""`export --features`: a backbone's maps are torchvision's, in every precision and in engines."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import BasicBlock

from resdeploy.calibration import quantize
from resdeploy.deploy import build_engine, load, verify
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import REFERENCE, read_bundle, write_manifest
from resdeploy.deploy.engine.request import BuildOptions
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.files import sha256_file
from resdeploy.deploy.metrics.feature_maps import map_distances
from resdeploy.deploy.serving.batching import BatchRules
from resdeploy.deploy.serving.repository import sources
from resdeploy.deploy.serving.served_model import ServedModel
from resdeploy.deploy.serving.triton.repository import TritonOptions, write_repository
from resdeploy.export import ExportOptions, export_checkpoint
from resdeploy.export.proof.live import open_checkpoint
from tests.builders import randomize_batch_norms
from tests.networks import NarrowResNet

# whole networks are exported, quantized and built; the parts have quick tests of their own
pytestmark = pytest.mark.slow

_PX = 64
_RESNET = {"layer1": "C2", "layer2": "C3", "layer3": "C4", "layer4": "C5"}
_MOBILENET = {"features.3": "C2", "features.6": "C3", "features.13": "C4", "features.18": "C5"}


def _resnet() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = NarrowResNet(BasicBlock, [1, 1, 1, 1], classes=7)
    return randomize_batch_norms(network)


def _mobilenet() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = MobileNetV2(num_classes=7, width_mult=0.25)
    return randomize_batch_norms(network)


def _images(count: int = 3) -> Float32s:
    return np.random.default_rng(1).standard_normal((count, 3, _PX, _PX)).astype(np.float32)


def _expected(network: nn.Module, nodes: dict[str, str], images: Float32s) -> dict[str, Float32s]:
    """What torchvision's own feature extraction gives."""
    extractor = create_feature_extractor(network, nodes)
    with torch.no_grad():
        maps: dict[str, torch.Tensor] = extractor(torch.from_numpy(images))
    return {name: values.numpy() for name, values in maps.items()}


def _export(network: nn.Module, folder: Path, names: tuple[str, ...]) -> Path:
    checkpoint = folder / "network.pth"
    torch.save(network.state_dict(), checkpoint)
    options = ExportOptions(
        output=folder / "network.bundle", features=names, input_size_px=_PX, preprocess="imagenet"
    )
    return export_checkpoint(checkpoint, options).bundle


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dozen smooth images of random colours, more like photographs than noise is."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for number in range(24):
        small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((80, 80), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Iterator[Path]:
    """A ResNet's backbone in every precision."""
    bundle = _export(_resnet(), tmp_path_factory.mktemp("resnet"), ("C2", "C3", "C4", "C5"))
    report = quantize(bundle, photographs, method="mse", repair=False)
    assert not report.refused
    # a backbone has no answers that could agree
    assert report.accuracy["int8"]["agreement"] is None
    assert report.accuracy["int8"]["sqnr_db"] == min(
        found["sqnr_db"] for found in report.accuracy["int8"]["features"].values()
    )
    yield bundle


def test_the_maps_of_a_resnet_are_torchvisions(resnet: Path) -> None:
    images = _images()
    expected = _expected(_resnet(), _RESNET, images)
    for precision, least_db in (("fp32", 100.0), ("fp16", 50.0), ("int8", 12.0)):
        with load(resnet, precision=precision, backend="ort-cpu") as classifier:  # type: ignore[arg-type]
            found = classifier.features(images)
        assert list(found) == ["C2", "C3", "C4", "C5"]
        for name, values in expected.items():
            assert found[name].shape == values.shape
            assert found[name].dtype == np.float32
            assert map_distances(values, found[name]).sqnr_db > least_db, (precision, name)


def test_the_maps_of_mobilenet_v2_end_before_each_stride(tmp_path: Path) -> None:
    images = _images()
    bundle = _export(_mobilenet(), tmp_path, ("C2", "C3", "C4", "C5"))
    with load(bundle) as classifier:
        found = classifier.features(images)
        features = classifier.manifest.features
    for name, values in _expected(_mobilenet(), _MOBILENET, images).items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)
    assert [(f.name, f.stride, f.channels) for f in features] == [
        ("C2", 4, 8), ("C3", 8, 8), ("C4", 16, 24), ("C5", 32, 1280),
    ]  # fmt: skip


def test_some_maps_need_only_the_layers_before_them(tmp_path: Path) -> None:
    network = _resnet()
    bundle = _export(network, tmp_path, ("C3", "C2"))
    manifest = read_bundle(bundle).manifest
    read = [network.get_submodule(name) for name in ("conv1", "bn1", "layer1", "layer2")]
    assert [feature.name for feature in manifest.features] == ["C2", "C3"]
    assert manifest.model.classes is None
    assert manifest.model.parameters == sum(p.numel() for m in read for p in m.parameters())
    weights = 4 * manifest.model.parameters
    assert weights < (bundle / "fp32.onnx").stat().st_size < 1.1 * weights


def test_a_lone_graph_knows_its_maps(resnet: Path) -> None:
    images = _images()
    with load(resnet / "fp16.onnx") as lone, load(resnet, precision="fp16") as whole:
        assert lone.manifest.features == whole.manifest.features
        for name, values in whole.features(images).items():
            np.testing.assert_array_equal(lone.features(images)[name], values)


def test_verify_judges_each_map(resnet: Path, photographs: Path, tmp_path: Path) -> None:
    report = verify(resnet, data=photographs, backends=["ort-cpu"])
    assert report.verdict == "pass"
    judged = {g.sentence[:2] for g in report.gates if (g.name, g.variant) == ("features", "int8")}
    assert judged == {"C2", "C3", "C4", "C5"}
    figures = report.to_json()["variants"]["int8"]
    assert figures["sqnr_db"] == min(f["sqnr_db"] for f in figures["features"].values())
    assert all(0.9 < f["cosine"] < 1 for f in figures["features"].values())
    live = verify(
        resnet,
        live=lambda manifest: open_checkpoint(resnet.parent / "network.pth", manifest),
        precisions=["fp32"],
    )
    assert live.verdict == "pass"
    assert "in PyTorch" in live.reference


def test_verify_finds_another_networks_maps(tmp_path: Path) -> None:
    bundle = _export(_resnet(), tmp_path, ("C4", "C5"))
    with np.load(bundle / REFERENCE) as arrays:
        recorded = dict(arrays)
    recorded["C5"] = recorded["C5"][::-1]
    np.savez(bundle / REFERENCE, **recorded)
    write_manifest(bundle, read_bundle(bundle).manifest)
    report = verify(bundle, precisions=["fp32"])
    assert report.verdict == "fail"
    assert [gate.verdict for gate in report.gates] == ["pass", "fail"]  # C4, C5


def test_what_is_about_classes_is_refused(resnet: Path) -> None:
    with load(resnet) as classifier:
        with pytest.raises(InputError, match=r"gives the feature maps C2, C3, C4, C5 and no class"):
            classifier.predict("image.jpg")
        with pytest.raises(InputError, match=r"use classifier\.features\(batch\)"):
            classifier.logits(_images())
    with pytest.raises(InputError, match=r"--min-agreement is about classes, but .* is a backbone"):
        verify(resnet, min_agreement=90)


def test_what_a_backbone_cannot_is_refused_in_a_line(resnet: Path, tmp_path: Path) -> None:
    (found,) = sources([resnet], backend="ort-cpu")
    with pytest.raises(BundleError, match="a backbone, whose feature maps are not served"):
        ServedModel(found, "1", resnet, rules=BatchRules(), observe=lambda model, record: None)
    with pytest.raises(InputError, match="a backbone, whose feature maps are not served"):
        write_repository([found], tmp_path / "models", TritonOptions("ort-cpu", 1, 8, 2.0))


def test_a_map_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"C6; at 64x64 pixels .* C1 \(stride 2\), .* C5 \(str"):
        _export(_resnet(), tmp_path, ("C5", "C6"))
    assert not (tmp_path / "network.bundle").exists()


def test_the_encoder_of_a_segmentation_network_is_read(tmp_path: Path) -> None:
    """As segmentation_models_pytorch names it; the decoder beside it is left."""
    network = _resnet()
    state = {f"encoder.{k}": v for k, v in network.state_dict().items() if not k.startswith("fc.")}
    state |= {"decoder.blocks.0.conv1.0.weight": torch.zeros(16, 512, 3, 3)}
    state |= {"segmentation_head.0.weight": torch.zeros(2, 16, 3, 3)}
    torch.save(state, tmp_path / "unet.pth")
    options = ExportOptions(
        output=tmp_path / "unet.bundle", features=("C2", "C5"), input_size_px=_PX
    )
    bundle = export_checkpoint(tmp_path / "unet.pth", options).bundle
    images = _images()
    with load(bundle) as classifier:
        found = classifier.features(images)
    for name, values in _expected(network, {"layer1": "C2", "layer4": "C5"}, images).items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


def test_an_export_again_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        bundle = _export(_resnet(), tmp_path / name, ("C3", "C5"))
        digests.append({f.name: sha256_file(f) for f in bundle.glob("*.onnx")})
    assert digests[0] == digests[1]


def test_an_engine_has_every_map(resnet: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    for precision in ("fp16", "int8"):
        engine = build_engine(
            resnet,
            precision=precision,
            flavor="tensorrt-rtx",
            options=BuildOptions(compute_capabilities=("8.6",)),
        )
        table = engine.sidecar.convolutions
        assert table is not None
        assert (table.total, table.int8 if precision == "int8" else table.half) == (12, 12)
