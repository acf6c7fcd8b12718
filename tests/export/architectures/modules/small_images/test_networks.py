"""Every network is recognised by its names, and by the order of its layers, and built alike."""

from pathlib import Path

import pytest
import torch

from resdeploy.export.architectures.constructed.signatures import signature
from resdeploy.export.architectures.modules.constructed import computed
from resdeploy.export.architectures.modules.small_images.networks import NETWORKS
from tests.builders import randomize_batch_norms
from tests.export.architectures.rebuilding import (
    assert_same_function,
    fit_of,
    rebuilt,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_order_tell_it(name: str) -> None:
    with torch.device("meta"):
        module = NETWORKS[name](7)
    for keep in (True, False):
        found = fit_of(module, under="module.", keep=keep)
        assert (found.network.name, found.network.classes) == (name, 7)
        assert found.network.input_size_px == 32 and found.network.preprocess == "cifar"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_committed_data_is_what_the_network_is(name: str) -> None:
    assert signature(name) == computed(name)


@pytest.mark.parametrize("name", ["lenet_32px", "pnasnet_b_32px", "efficientnet_b0_32px"])
def test_rebuilt_with_its_own_strides(name: str, tmp_path: Path) -> None:
    module = randomize_batch_norms(NETWORKS[name](7)).eval()
    architecture, other = rebuilt(module, tmp_path)
    assert (architecture.family, architecture.classes) == ("constructed", 7)
    assert_same_function(module, other, size_px=32)
