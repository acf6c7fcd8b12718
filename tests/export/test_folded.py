"""Folding and simplifying in one: what is left, and that it runs."""

import numpy as np

from resdeploy.export.folded import fold_and_simplify
from resdeploy.export.foreign.read import read_foreign
from resdeploy.export.foreign.standard_form import standard_form
from resdeploy.export.graph.onnx_file import operators
from tests.export.foreign.conftest import Draw, by_hand, draw

__all__ = ["draw"]


def test_the_batch_norm_goes_and_the_answers_stay(draw: Draw) -> None:
    found = fold_and_simplify(standard_form(read_foreign(draw())), opset=17)
    assert len(found.fold.folded) == 1 and found.fold.left == 0 and found.opset == 17
    assert "BatchNormalization" not in operators(found.model)
    images = np.random.default_rng(0).standard_normal((3, 3, 16, 16), np.float32)
    with found.float_session() as session:
        np.testing.assert_allclose(session.run(images), by_hand(images), rtol=0, atol=1e-5)
