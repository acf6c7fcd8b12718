"""Long paths lose their middle, never their file's name, and are never folded."""

import pytest

from resdeploy.deploy.cli.predict_output import shortened


@pytest.mark.parametrize(("name", "width", "expected"), [
    ("a/b.jpg", 40, "a/b.jpg"),
    ("/data/flowers/val/tulips/one.jpg", 24, "/data/flowe…lips/one.jpg"),
    ("/data/flowers/val/tulips/of_2019.jpg", 20, "/data/f…/of_2019.jpg"),
    ("x" * 50 + ".jpg", 20, "xxx…xxxxxxxxxxxx.jpg"),
])  # fmt: skip
def test_the_middle_is_left_out(name: str, width: int, expected: str) -> None:
    assert shortened(name, width) == expected and len(shortened(name, width)) <= width
