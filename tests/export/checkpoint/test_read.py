"""Checkpoints as people really save them, and files that are none."""

import argparse
import collections
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from resdeploy.deploy.errors import CheckpointError
from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from tests.networks import NarrowResNet

State = dict[str, Any]


@pytest.fixture(scope="module")
def network() -> ResNet:
    return NarrowResNet(BasicBlock, [1, 1, 1, 1], classes=7).eval()


@pytest.fixture
def state(network: ResNet) -> State:
    return dict(network.state_dict())


class Config(dict[str, object]):
    """A mapping class of the training script, as yacs and Lightning store it."""


class Schedule:
    """An object of the training script."""

    def __init__(self) -> None:
        self.milestones = [30, 60]


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def assert_reads_as(path: Path, network: ResNet) -> None:
    checkpoint = read_checkpoint(path)
    module = build_module(checkpoint, identify(checkpoint))
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(x), network(x), rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".ckpt", ".pth.tar", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_zip_and_legacy_files_of_any_suffix(
    suffix: str, zipped: bool, network: ResNet, state: State, tmp_path: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert read_checkpoint(path).format == ("zip" if zipped else "legacy")
    assert_reads_as(path, network)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_safetensors(suffix: str, network: ResNet, state: State, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    save_file(state, path)
    assert read_checkpoint(path).format == "safetensors"
    assert_reads_as(path, network)


def test_an_archive_that_was_zipped_again(network: ResNet, state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "stored.pth")
    with (
        zipfile.ZipFile(tmp_path / "stored.pth") as stored,
        zipfile.ZipFile(tmp_path / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for name in stored.namelist():
            deflated.writestr(name, stored.read(name))
    assert_reads_as(tmp_path / "deflated.pth", network)


@pytest.mark.parametrize("zipped", [True, False])
def test_any_pickle_protocol(zipped: bool, network: ResNet, state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(state, path, pickle_protocol=4, _use_new_zipfile_serialization=zipped)
    assert_reads_as(path, network)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_a_gpu(zipped: bool, network: ResNet, state: State, tmp_path: Path) -> None:
    path = tmp_path / "gpu.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    cpu, gpu = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    if zipped:
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in records.items():
                if name.endswith("data.pkl"):
                    assert cpu in content
                    content = content.replace(cpu, gpu)
                archive.writestr(name, content)
    else:
        content = path.read_bytes()
        assert cpu in content
        path.write_bytes(content.replace(cpu, gpu))
    assert_reads_as(path, network)


@pytest.mark.parametrize(
    "wrapper",
    ["state_dict", "model", "model_state_dict", "net", "ema", "state_dict_ema", "weights", "odd"],
)
def test_wrappers(wrapper: str, network: ResNet, state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    optimizer = torch.optim.SGD(network.parameters(), 0.1).state_dict()
    torch.save({"epoch": 3, wrapper: state, "optimizer": optimizer}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.wrapper == wrapper
    assert f"weights taken from {wrapper}" in checkpoint.notes
    assert "ignored: epoch (int), optimizer (dict)" in checkpoint.notes
    assert_reads_as(path, network)


def test_averaged_weights_are_preferred_and_told(
    network: ResNet, state: State, tmp_path: Path
) -> None:
    plain = {name: torch.zeros_like(value) for name, value in state.items()}
    averaged = {f"module.{name}": value for name, value in state.items()}
    path = tmp_path / "model.pth"
    torch.save({"model": plain, "model_ema": {"n_averaged": torch.tensor(9), **averaged}}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.wrapper == "model_ema"
    assert "other weights left in the file: model" in checkpoint.notes
    assert "ignored, not part of the network: n_averaged" in checkpoint.notes
    assert_reads_as(path, network)


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "backbone.", "_orig_mod.", "_orig_mod.module.", "net.model.resnet."],
)
def test_prefixes(prefix: str, network: ResNet, state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    renamed = {f"{prefix}{name}": value for name, value in state.items()}
    torch.save(renamed, path)
    assert read_checkpoint(path).prefix == prefix
    assert_reads_as(path, network)


def test_lightning(network: ResNet, state: State, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    renamed = {f"model.{name}": value for name, value in state.items()}
    lightning = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**renamed, "criterion.weight": torch.ones(7)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3, 3)}}}],
        "hyper_parameters": Config(lr=0.1, classes=[f"kind {index}" for index in range(7)]),
    }
    torch.save(lightning, path)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.wrapper, checkpoint.prefix) == ("state_dict", "model.")
    assert "ignored, not part of the network: criterion.weight" in checkpoint.notes
    assert checkpoint.labels == tuple(f"kind {index}" for index in range(7))
    assert_reads_as(path, network)


def test_a_prefix_stays_where_nothing_known_fits(state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    renamed = {f"module.{name}": value for name, value in state.items()}
    torch.save({**renamed, "module.decoder.weight": torch.ones(4, 4)}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.prefix == "" and "module.conv1.weight" in checkpoint.tensors


@pytest.mark.parametrize("zipped", [True, False])
def test_riders_of_unknown_classes_are_not_loaded(
    zipped: bool, network: ResNet, state: State, tmp_path: Path
) -> None:
    riders: State = {
        "args": argparse.Namespace(lr=0.1, data=Path("somewhere")),
        "config": Config(depth=18),
        "schedule": Schedule(),
        "best": np.float64(91.5),
        "history": np.arange(3),
        "counts": collections.Counter("aab"),
        "losses": collections.defaultdict(list, {"train": [0.1]}),
        "scheduler": torch.optim.lr_scheduler.OneCycleLR(
            torch.optim.SGD(network.parameters(), 0.1), 0.1, total_steps=9
        ).state_dict(),
    }
    path = tmp_path / "model.pth"
    torch.save({"state_dict": state, **riders}, path, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(path)
    told = next(note for note in checkpoint.notes if "never loaded" in note)
    assert "argparse.Namespace" in told and "Schedule" in told
    assert "torch._utils" not in told
    assert_reads_as(path, network)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_a_command_is_refused(
    zipped: bool, nested: bool, state: State, tmp_path: Path
) -> None:
    marker = tmp_path / "it-ran"
    trap: object = Trap(marker)
    path = tmp_path / "model.pth"
    torch.save(
        {"state_dict": state, "x": trap} if nested else trap,
        path,
        _use_new_zipfile_serialization=zipped,
    )
    assert "posix.system, which runs code" in refusal(path)
    assert not marker.exists()
    assert os.system(f"test ! -e '{marker}'") == 0


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    for protocol in (0, 2, 5):
        path = tmp_path / f"protocol{protocol}.pkl"
        path.write_bytes(pickle.dumps(Trap(marker), protocol))
        refusal(path)
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("key", [None, "model"])
def test_a_pickled_module_is_told_how_to_be_saved(
    zipped: bool, key: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "whole.pth"
    network = ResNet(BasicBlock, [1, 1, 1, 1])
    saved = network if key is None else {"epoch": 1, key: network}
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert "torchvision.models.resnet.ResNet" in message
    assert "model = torch.load('whole.pth', map_location='cpu', weights_only=False)" in message
    assert "torch.save(model.state_dict(), 'whole_state_dict.pth')" in message
    if key is not None and zipped:
        assert "['model']" in message


def test_torchscript_is_told_how_to_be_saved(network: ResNet, tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    torch.jit.trace(nn.Conv2d(3, 4, 1), torch.ones(1, 3, 8, 8)).save(str(path))
    assert "torch.jit.load('scripted.pt'" in refusal(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_weights_become_float32(
    dtype: torch.dtype, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    torch.save({k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.tensors["conv1.weight"].dtype == np.float32
    name = str(dtype).removeprefix("torch.")
    assert f"{name} weights converted to float32" in checkpoint.notes


def test_quantized_weights_are_refused(state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    state["fc.weight"] = torch.quantize_per_tensor(state["fc.weight"], 0.1, 0, torch.qint8)
    torch.save(state, path)
    assert "fc.weight is qint8" in refusal(path)
    state["fc.weight"] = torch.ones(7, 512, dtype=torch.int8)
    torch.save(state, path)
    assert "fc.weight is int8" in refusal(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinite_weights_are_refused_by_name(
    value: float, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    state["layer2.0.bn1.running_var"] = torch.full((128,), value)
    state["fc.bias"] = torch.full((7,), value)
    torch.save(state, path)
    assert "layer2.0.bn1.running_var, fc.bias" in refusal(path)
    assert "fc.bias" in read_checkpoint(path, checked=False).tensors  # enough for inspect


def test_a_variance_is_not_negative_beyond_rounding(state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    variance = state["layer2.0.bn1.running_var"].clone()  # the tensors are other tests', too
    variance[0] = -1e-9
    torch.save({**state, "layer2.0.bn1.running_var": variance}, path)
    read_checkpoint(path)
    variance[0] = -0.5
    torch.save({**state, "layer2.0.bn1.running_var": variance}, path)
    assert "negative variance in layer2.0.bn1.running_var" in refusal(path)


@pytest.mark.parametrize(
    ("stored", "labels"),
    [
        ({"class_to_idx": {"daisy": 1, "rose": 0}}, ("rose", "daisy")),
        ({"classes": ["rose", "daisy"]}, ("rose", "daisy")),
        ({"idx_to_class": {0: "rose", 1: "daisy"}}, ("rose", "daisy")),
        ({"meta": {"CLASSES": ("rose", "daisy")}}, ("rose", "daisy")),
        ({"classes": 2}, None),
        ({"class_to_idx": {"daisy": 1}}, None),
    ],
)
def test_class_names_in_the_file(
    stored: State, labels: tuple[str, ...] | None, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    torch.save({"state_dict": state, **stored}, path)
    assert read_checkpoint(path).labels == labels


def truncated(state: State, path: Path) -> None:
    torch.save(state, path)
    os.truncate(path, path.stat().st_size // 2)


def truncated_legacy(state: State, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    os.truncate(path, path.stat().st_size // 2)


def cut_in_its_pickle(state: State, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    os.truncate(path, 400)


def truncated_safetensors(state: State, path: Path) -> None:
    save_file(state, path)
    os.truncate(path, path.stat().st_size // 2)


def other_zip(state: State, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photos/rose.txt", "a rose")


def bytes_of(content: bytes) -> Callable[[State, Path], None]:
    def write(_: State, path: Path) -> None:
        path.write_bytes(content)

    return write


def of(value: object) -> Callable[[State, Path], None]:
    return lambda _, path: torch.save(value, path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 100\n"


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (truncated, "damaged or cut short"),
        (truncated_legacy, "damaged, cut short"),
        (cut_in_its_pickle, "damaged, cut short"),
        (truncated_safetensors, "not a whole safetensors file"),
        (other_zip, "a zip archive but no checkpoint"),
        (bytes_of(b""), "empty"),
        (bytes_of(b"lr: 0.1\nepochs: 90\n"), "a text file"),
        (bytes_of(b"\n<!DOCTYPE html><html>"), "a web page"),
        (bytes_of(POINTER), "run git lfs pull"),
        (bytes_of(b"\x08\x07\x12\x07pytorch"), "an ONNX graph"),
        (bytes_of(b"\x89PNG\r\n\x1a\n\x00"), "no PyTorch file"),
        (of({}), "an empty dict"),
        (of(torch.ones(3, 4)), "a single tensor of shape (3, 4)"),
        (of({"epoch": 3, "loss": 0.1}), "a dictionary of epoch, loss"),
        (of([1, 2]), "a list"),
    ],
)
def test_files_that_are_no_checkpoint(
    write: Callable[[State, Path], None], told: str, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    write(state, path)
    assert told in refusal(path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing.pth")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "architecture", "classes", "wrapper", "prefix"),
    [
        ("cifar10_resnet20.th", "cifar_resnet20", 10, "state_dict", "module."),
        ("flowers_mobilenet_v2.pth", "mobilenet_v2", 5, None, ""),
        ("imagenet_mobilenet_v2.pth", "mobilenet_v2", 1000, None, ""),
    ],
)
def test_real_checkpoints(
    name: str,
    architecture: str,
    classes: int,
    wrapper: str | None,
    prefix: str,
    shared_data: Path,
) -> None:
    checkpoint = read_checkpoint(shared_data / "checkpoints" / name)
    found = identify(checkpoint)
    assert (found.name, found.classes) == (architecture, classes)
    assert (checkpoint.wrapper, checkpoint.prefix) == (wrapper, prefix)
    logits = build_module(checkpoint, found)(torch.zeros(1, 3, 64, 64))
    assert logits.shape == (1, classes) and bool(torch.isfinite(logits).all())
