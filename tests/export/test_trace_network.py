"""A module becomes the folded graph, and stays the original it is compared with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.manifest import input_spec, output_spec
from resdeploy.export.graph.fold_input import InputAffine
from resdeploy.export.proof.parity import TORCH
from resdeploy.export.trace_network import original_of, trace_folded
from tests.builders import randomize_batch_norms


def test_the_graph_answers_as_the_module_also_behind_what_was_taken_off(
    flower_bundle: Path,
) -> None:
    module = randomize_batch_norms(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 5),
        )
    )
    manifest = replace(
        read_bundle(flower_bundle).manifest, input=input_spec(32, 32), output=output_spec(5)
    )
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(images)).numpy()
    traced = trace_folded(module, manifest, opset=17)
    assert len(traced.fold.folded) == 1
    with traced.float_session() as session:
        np.testing.assert_allclose(session.run(images), expected, rtol=0, atol=1e-5)
    original = original_of(module)
    affine = InputAffine((2.0, 2.0, 2.0), (1.0, 0.0, -1.0))
    moved = images * 2 + np.array(affine.shift, np.float32).reshape(1, 3, 1, 1)
    assert original.key == TORCH
    for given, taken_off in ((images, None), (moved, affine)):
        with original.open(manifest, taken_off) as session:
            np.testing.assert_allclose(session.run(given), expected, rtol=0, atol=1e-5)
