"""Two networks in one file: the one that is meant is taken and the other one named."""

from pathlib import Path

import pytest
import torch
from torchvision.models.resnet import ResNet

from resdeploy.deploy.errors import CheckpointError
from resdeploy.export.checkpoint.identify import identify
from tests.export.checkpoint.conftest import Save, State, assert_gives_the_logits_of


def under(prefix: str, weights: State, scale: float = 1.0) -> State:
    return {
        f"{prefix}{name}": value * scale if value.is_floating_point() else value
        for name, value in weights.items()
    }


@pytest.mark.parametrize(
    ("used", "left"),
    [
        ("module.encoder_q.", "module.encoder_k."),
        ("teacher.backbone.", "student.backbone."),
        ("online_network.", "target_network."),
        ("module.model.", "module.attacker.model."),
        ("net.", "momentum_net."),
    ],
)
def test_the_one_that_is_meant_is_taken(
    used: str, left: str, small: ResNet, weights: State, save: Save
) -> None:
    checkpoint = save({**under(left, weights, 2.0), **under(used, weights)})
    (told,) = (note for note in checkpoint.notes if "two networks" in note)
    assert f"the {len(weights)} tensors under" in told and "are left" in told
    assert_gives_the_logits_of(small, checkpoint)


def test_mocos_queue_is_named_as_ignored(small: ResNet, weights: State, save: Save) -> None:
    state = {**under("module.encoder_q.", weights), **under("module.encoder_k.", weights)}
    checkpoint = save({"state_dict": {**state, "module.queue": torch.randn(128, 64)}})
    assert any("ignored around it: module (1 tensors)" in note for note in checkpoint.notes)
    assert identify(checkpoint).classes == 3
    assert_gives_the_logits_of(small, checkpoint)


def test_of_two_kinds_the_student_was_distilled(small: ResNet, weights: State, save: Save) -> None:
    teacher = {
        f"model.teacher.features.{at}.weight": torch.randn(9, 3 if at == 0 else 9, 5, 5)
        for at in range(12)
    }
    checkpoint = save({**teacher, **under("model.student.", weights)})
    (told,) = (note for note in checkpoint.notes if "two networks" in note)
    assert "of two kinds: the one under 'model.student.' is taken, the 12 tensors of its" in told
    assert told in checkpoint.choices
    assert_gives_the_logits_of(small, checkpoint)


def test_two_that_nothing_tells_apart_are_refused(weights: State, save: Save) -> None:
    with pytest.raises(CheckpointError, match=r"two networks, 'a\.' and 'b\.'") as caught:
        save({**under("a.", weights), **under("b.", weights, 2.0)})
    assert "torch.save(" in str(caught.value) and "\n" not in str(caught.value)


def test_one_network_is_left_alone(weights: State, save: Save, tmp_path: Path) -> None:
    assert not any("two networks" in note for note in save(weights).notes)
