"""A small network's batch norms speak for the normalization that they were trained with."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from resdeploy.deploy.images.files import open_image
from resdeploy.deploy.images.preprocess import named
from resdeploy.export.proof.contract_search import FEWEST_IMAGES
from resdeploy.export.proof.contract_search import testify as search
from resdeploy.export.proof.contracts import NORMALIZATION, Contract

_TRAINED_WITH = named("half", 16)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    found = [tmp_path / f"{number:02d}.png" for number in range(24)]
    for path in found:
        pixels = random.normal(random.uniform(90, 150, 3), 40, (20, 20, 3)).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return found


def _trained(paths: list[Path]) -> Callable[[Mapping[str, str]], nn.Module]:
    """Builds a network whose one batch norm holds the statistics of these very images."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16, momentum=None))
    batch = np.stack([_TRAINED_WITH.apply(open_image(path)) for path in paths])
    with torch.no_grad():
        module.train()(torch.from_numpy(batch))
    return lambda settings: copy.deepcopy(module).eval()


@pytest.mark.parametrize("assumed", ["imagenet", "half"])
def test_the_normalization_of_the_training_is_found(assumed: str, paths: list[Path]) -> None:
    build = _trained(paths)
    preprocess = _TRAINED_WITH if assumed == "half" else named("cifar", 16)
    found = search(build, Contract({}, preprocess), (), paths)
    assert found is not None and (found.images, found.layers) == (24, 1)
    assert found.contract.value(NORMALIZATION) == "-1..1"
    assert found.changed.get(NORMALIZATION) == (None if assumed == "half" else "-1..1")
    assert found.score.value < 0.05 and not found.far


def test_what_the_user_gave_is_compared_and_kept(paths: list[Path]) -> None:
    given = frozenset({NORMALIZATION})
    found = search(_trained(paths), Contract({}, named("cifar", 16)), (), paths, given=given)
    assert found is not None and found.contract.value(NORMALIZATION) == "imagenet"
    assert NORMALIZATION not in found.changed


def test_there_is_nothing_to_go_by(paths: list[Path]) -> None:
    contract = Contract({}, _TRAINED_WITH)
    assert search(_trained(paths), contract, (), paths[: FEWEST_IMAGES - 1]) is None
    untrained = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    assert search(lambda settings: untrained, contract, (), paths) is None


def test_pytorchs_threads_are_as_before(paths: list[Path]) -> None:
    before, seen = torch.get_num_threads(), []
    build = _trained(paths)

    def watched(settings: Mapping[str, str]) -> nn.Module:
        seen.append(torch.get_num_threads())
        return build(settings)

    search(watched, Contract({}, _TRAINED_WITH), (), paths)
    assert set(seen[1:]) == {1} and torch.get_num_threads() == before  # the first is a look at it

    def broken(settings: Mapping[str, str]) -> nn.Module:
        if len(seen) > 1:
            raise ZeroDivisionError
        return watched(settings)

    seen.clear()
    with pytest.raises(ZeroDivisionError):
        search(broken, Contract({}, _TRAINED_WITH), (), paths)
    assert torch.get_num_threads() == before
