"""Only the head is renamed."""

from resdeploy.export.architectures.inception.names import translate_head_only


def test_the_head_is_called_fc_and_all_else_stays() -> None:
    shapes = {"Mixed_5b.branch1x1.conv.weight": (64, 192, 1, 1), "last_linear.weight": (7, 2048)}
    assert translate_head_only(shapes) == {
        "Mixed_5b.branch1x1.conv.weight": "Mixed_5b.branch1x1.conv.weight",
        "fc.weight": "last_linear.weight",
    }
    assert translate_head_only({"fc.bias": (7,)}) == {"fc.bias": "fc.bias"}
