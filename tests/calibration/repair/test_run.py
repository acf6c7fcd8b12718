"""Batches of any size give the logits of one session over all images."""

from collections.abc import Callable

import numpy as np
import onnx

from resdeploy.calibration.repair.run import logits


def test_batches_are_joined_in_order(float_graph: Callable[[str], onnx.ModelProto]) -> None:
    graph = float_graph("cifar_resnet8").SerializeToString()
    images = np.random.default_rng(0).standard_normal((5, 3, 32, 32), np.float32)
    whole = logits(graph, "fp32", [images], 1)
    parts = logits(graph, "fp32", [images[:3], images[3:]], 1)
    assert whole.shape == (5, 10)
    np.testing.assert_allclose(parts, whole, atol=1e-5)
