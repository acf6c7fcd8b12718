"""`resdeploy inspect CHECKPOINT` on files that hold more than one classifier, or none."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torchvision.models.resnet import BasicBlock, ResNet

from resdeploy.deploy.cli.main import cli
from resdeploy.deploy.errors import CheckpointError

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    weights: State = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).state_dict()
    return weights


def _inspect(folder: Path, content: object) -> Result:
    torch.save(content, folder / "model.pth")
    return CliRunner().invoke(cli, ["inspect", str(folder / "model.pth"), "--json"])


def _under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(("taken", "left"), [("encoder_q", "encoder_k"), ("teacher", "student")])
def test_of_two_networks_the_one_that_is_meant_is_taken(
    taken: str, left: str, state: State, tmp_path: Path
) -> None:
    both = {**_under(f"module.{left}.", state), **_under(f"module.{taken}.", state)}
    result = _inspect(tmp_path, {"state_dict": both, "epoch": 3})
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["classes"] == 3
    (note,) = (line for line in found["notes"] if "two networks" in line)
    assert f"'module.{taken}.' is taken" in note and f"'module.{left}.' are left" in note


def test_of_two_networks_nobody_knows_none_is_taken(state: State, tmp_path: Path) -> None:
    result = _inspect(tmp_path, {**_under("a.", state), **_under("b.", state)})
    assert isinstance(result.exception, CheckpointError)
    assert "holds two networks, 'a.' and 'b.'" in str(result.exception)


def test_a_detector_is_no_classifier(state: State, tmp_path: Path) -> None:
    body = {name: value for name, value in state.items() if not name.startswith("fc.")}
    around = {
        "rpn.head.conv.weight": torch.rand(8, 8, 3, 3),
        "roi_heads.fc.weight": torch.rand(4, 8),
    }
    found = json.loads(_inspect(tmp_path, {**_under("backbone.body.", body), **around}).stdout)
    assert found["classes"] is None
    assert any("ignored around it: rpn (1 tensors), roi_heads" in line for line in found["notes"])
    assert any("--features" in line for line in found["evidence"])


def test_the_tensors_count_where_a_sidecar_contradicts_them(state: State, tmp_path: Path) -> None:
    found = json.loads(_inspect(tmp_path, {"arch": "resnet50", "state_dict": state}).stdout)
    assert found["architecture"].startswith("resnet(basic 1-1-1-1")
    assert any("it is resnet50, but the tensors are" in line for line in found["evidence"])


def test_names_with_control_characters_are_refused_visibly(state: State, tmp_path: Path) -> None:
    result = _inspect(tmp_path, {**state, "conv\x1b[31m.weight": torch.rand(4)})
    assert isinstance(result.exception, CheckpointError)
    told = str(result.exception)
    assert "\x1b" not in told and r"conv\x1b[31m.weight" in told


@pytest.mark.slow
def test_timms_anti_aliased_networks_are_told_by_their_sidecar(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("resnetblur18", num_classes=3).state_dict(), tmp_path / "m.pth")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnetblur18"}))
    result = CliRunner().invoke(cli, ["inspect", str(tmp_path / "m.pth"), "--json"])
    assert json.loads(result.stdout)["architecture"] == "timm:resnetblur18"
