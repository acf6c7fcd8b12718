"""A dense layer joins its channels on the side it is told to; a transition halves."""

import torch

from resdeploy.export.architectures.densenet_layout import DenseLayout
from resdeploy.export.architectures.modules.densenet import DenseLayer, Transition
from tests.builders import randomize_batch_norms

LAYOUT = DenseLayout(6, False, (2, 1), 4, 8, (7,))


def test_what_came_in_stands_on_the_other_side() -> None:
    x = torch.randn(2, 6, 5, 5)
    after = DenseLayer(6, LAYOUT, before=False).eval()(x)
    before = DenseLayer(6, LAYOUT, before=True).eval()(x)
    assert after.shape == before.shape == (2, 10, 5, 5)
    torch.testing.assert_close(after[:, :6], x)
    torch.testing.assert_close(before[:, 4:], x)


def test_a_transition_narrows_and_halves_with_a_relu_or_without() -> None:
    x = torch.randn(2, 14, 6, 6)
    made = randomize_batch_norms(Transition(14, 7, relu=True))
    plain = Transition(14, 7, relu=False).eval()
    plain.load_state_dict(made.state_dict())
    assert made(x).shape == (2, 7, 3, 3)
    assert not torch.allclose(made(x), plain(x))
