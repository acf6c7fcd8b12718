"""What a pass reports is a count and reasons, and cannot be changed afterwards."""

from dataclasses import FrozenInstanceError

import pytest

from resdeploy.export.graph.edits import Rewrites


def test_nothing_is_declined_unless_it_is_said() -> None:
    assert Rewrites(2).declined == {}
    assert Rewrites(0, {"pool": "its weight is shared"}).declined["pool"] == "its weight is shared"
    with pytest.raises(FrozenInstanceError):
        Rewrites(1).count = 2  # type: ignore[misc]
