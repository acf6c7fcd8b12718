"""Where the separable convolutions of an Xception block stand."""

import pytest

from resdeploy.export.architectures.inception.xception_layout import XceptionBlock


@pytest.mark.parametrize(("first", "places"), [(True, (0, 3, 6)), (False, (1, 4, 7))])
def test_the_first_block_begins_without_a_relu(first: bool, places: tuple[int, ...]) -> None:
    block = XceptionBlock(8, (16, 16, 16), projected=True)
    assert block.places(first=first) == places
