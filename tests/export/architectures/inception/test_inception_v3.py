"""Inception v3: torchvision's network, with what it does to its own input and without."""

import torch
from torchvision.models.inception import Inception3

from resdeploy.export.architectures.inception.inception_v3 import FAMILY
from tests.export.architectures.rebuilding import fit_of


def meta(*, auxiliary: bool) -> Inception3:
    with torch.device("meta"):
        return Inception3(7, aux_logits=auxiliary, init_weights=False)


def test_names_and_shapes_are_torchvisions() -> None:
    found = fit_of(meta(auxiliary=False))
    assert (found.network.name, found.network.classes, found.matched_by) == (
        *("inception_v3", 7, "names"),
    )
    assert found.network.input_size_px == 299 and not found.ignored


def test_the_auxiliary_head_is_dropped_and_said() -> None:
    found = fit_of(meta(auxiliary=True))
    assert len(found.ignored) == 12
    assert all(name.startswith("AuxLogits.") for name in found.ignored)


def test_order_alone_tells_it() -> None:
    assert fit_of(meta(auxiliary=False), keep=False).matched_by == "structure"


def test_cadene_preprocesses_instead() -> None:
    habits = FAMILY.habits({"last_linear.weight": ()})
    assert habits.settings == {"transform_input": "no"} and habits.preprocess == "half"
