"""Saves a network as a bare state_dict, has it recognised and rebuilt, and compares the two."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.ort import open_graph, session_options
from resdeploy.export.checkpoint.architecture import Architecture
from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from resdeploy.export.graph.fold_batchnorm import FoldResult, fold_batchnorm
from resdeploy.export.graph.simplify import simplify
from resdeploy.export.graph.trace import trace
from resdeploy.export.matching.fitting import Fit, fits
from tests.builders import randomize_batch_norms

TOLERANCE = 1e-4  # of the largest logit: float32 through a hundred layers stays two orders below


def rebuilt(
    module: nn.Module, folder: Path, assume: Mapping[str, str] | None = None
) -> tuple[Architecture, nn.Module]:
    """What the module's bare state_dict is recognised as, and the network built from it."""
    path = folder / "model.pth"
    torch.save(module.state_dict(), path)
    checkpoint = read_checkpoint(path)
    architecture = identify(checkpoint, assume=assume)
    return architecture, build_module(checkpoint, architecture)


def same_before_and_after_the_fold(
    module: nn.Module, folder: Path, size_px: int, assume: Mapping[str, str] | None = None
) -> tuple[Architecture, FoldResult]:
    """Assert that the rebuilt network and its folded graph give the module's logits."""
    randomize_batch_norms(module)
    images = torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = module(images).numpy()
    architecture, other = rebuilt(module, folder, assume)
    with torch.no_grad():
        _assert_close(other(images).numpy(), expected)
    folded = fold_batchnorm(trace(other, input_size_px=size_px))
    graph = simplify(folded.model).SerializeToString()
    session = open_graph(graph, "ort-cpu", session_options())
    name = session.get_inputs()[0].name
    _assert_close(np.asarray(session.run(None, {name: images.numpy()})[0]), expected)
    return architecture, folded


def _assert_close(got: Float32s, expected: Float32s) -> None:
    limit = TOLERANCE * float(np.abs(expected).max())
    np.testing.assert_allclose(got, expected, rtol=0, atol=limit)


def fit_of(module: nn.Module, *, under: str = "", keep: bool = True) -> Fit:
    """The only reading of a module's names and shapes; without `keep` the names mean nothing."""
    shapes = {f"{under}{name}": tuple(t.shape) for name, t in module.state_dict().items()}
    if not keep:
        modules: dict[str, str] = {}
        shapes = {
            f"{modules.setdefault(name.rpartition('.')[0], f'm{len(modules)}')}."
            f"{name.rpartition('.')[2]}": shape
            for name, shape in shapes.items()
        }
    (found,) = fits(shapes)
    return found


def assert_same_function(module: nn.Module, other: nn.Module, size_px: int = 64) -> None:
    """Bit for bit the same outputs."""
    x = torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(other(x), module(x), rtol=0, atol=0)
