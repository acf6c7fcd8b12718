"""A checkpoint is opened live, for the bundle it was exported to."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from resdeploy.deploy import load, verify
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.errors import InputError
from resdeploy.export import ExportOptions, export_checkpoint
from resdeploy.export.proof.live import open_checkpoint


@pytest.fixture(scope="module")
def exported(
    network: Callable[[str], torch.nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, torch.nn.Module, Manifest]:
    folder = tmp_path_factory.mktemp("live")
    module = network("resnet")
    torch.save(module.state_dict(), folder / "resnet.pth")
    options = ExportOptions(output=folder / "resnet.bundle", input_size_px=64, precisions=("fp32",))
    bundle = export_checkpoint(folder / "resnet.pth", options).bundle
    return folder / "resnet.pth", module, read_bundle(bundle).manifest


def test_it_answers_as_the_module_does(exported: tuple[Path, torch.nn.Module, Manifest]) -> None:
    path, module, manifest = exported
    inputs = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    live = open_checkpoint(path, manifest)
    with torch.inference_mode():
        expected = module(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(live.session.run(inputs), expected, rtol=1e-5, atol=1e-5)
    assert live.sentence == f"{path} in PyTorch" and live.remark is None


@pytest.mark.parametrize("setting", [("pool", "no"), ("stem_stride", "1"), ("channels", "bgr")])
def test_the_network_is_built_with_the_settings_of_the_export(
    exported: tuple[Path, torch.nn.Module, Manifest], tmp_path: Path, setting: tuple[str, str]
) -> None:
    path = exported[0]
    options = ExportOptions(
        output=tmp_path / "given.bundle", assume=(setting,), input_size_px=64, precisions=("fp32",)
    )
    bundle = export_checkpoint(path, options).bundle
    manifest = read_bundle(bundle).manifest
    inputs = np.random.default_rng(0).standard_normal((4, 3, 64, 64)).astype(np.float32)
    with load(bundle) as classifier:
        logits = classifier.logits(inputs)
    np.testing.assert_allclose(
        open_checkpoint(path, manifest).session.run(inputs), logits, rtol=0, atol=1e-4
    )
    # With the defaults it is another network, so that the agreement above says something.
    default = replace(manifest, model=replace(manifest.model, settings={}))
    assert np.abs(open_checkpoint(path, default).session.run(inputs) - logits).max() > 0.01
    report = verify(bundle, live=partial(open_checkpoint, path))
    (figures,) = report.to_json()["variants"].values()
    assert (report.verdict, figures["max_abs"] < 1e-4) == ("pass", True)


def test_another_checkpoint_is_remarked(
    exported: tuple[Path, torch.nn.Module, Manifest], tmp_path: Path
) -> None:
    _, module, manifest = exported
    state = {key: value + 0 for key, value in module.state_dict().items()}
    state["fc.bias"] = state["fc.bias"] + 1
    torch.save(state, tmp_path / "other.pth")
    live = open_checkpoint(tmp_path / "other.pth", manifest)
    assert live.remark is not None
    assert "other.pth is not the checkpoint the bundle was exported from" in live.remark


def test_a_checkpoint_of_other_classes_is_refused(
    exported: tuple[Path, torch.nn.Module, Manifest],
) -> None:
    path, _, manifest = exported
    output = replace(manifest.output, shape=("batch", 9))
    with pytest.raises(InputError, match="with 7 outputs, but the bundle has 9: give the"):
        open_checkpoint(path, replace(manifest, output=output))
