"""Widths and depth follow from the layout."""

from resdeploy.export.architectures.densenet_layout import DenseLayout


def test_widths_and_depth() -> None:
    plain = DenseLayout(16, False, (12, 12, 12), 12, 0, (160, 304))
    assert plain.entering == (16, 160, 304)
    assert (plain.features, plain.depth) == (448, 40)
    assert DenseLayout(24, False, (16, 16, 16), 12, 48, (108, 150)).depth == 100
