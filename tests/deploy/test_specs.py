"""Batch ranges as users write them."""

import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.specs import BatchRange


@pytest.mark.parametrize(
    ("text", "numbers"), [("1:8:32", (1, 8, 32)), ("4", (4, 4, 4)), ("2:2:2", (2, 2, 2))]
)
def test_ranges(text: str, numbers: tuple[int, int, int]) -> None:
    assert BatchRange.parse(text) == BatchRange(*numbers)


@pytest.mark.parametrize(
    "text", ["", "0", "8:1:32", "1:32:8", "1:8", "1:2:3:4", "a", "1:-1:1", "1.5"]
)
def test_wrong_ranges(text: str) -> None:
    with pytest.raises(InputError, match=r"is not min:opt:max with 1 <= min <= opt <= max"):
        BatchRange.parse(text)
