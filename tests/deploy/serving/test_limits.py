"""What bodies hold together is bounded, and given back."""

import pytest

from resdeploy.deploy.serving.limits import Bodies
from resdeploy.deploy.serving.refusal import Refusal


def test_bodies_are_counted_until_they_are_given_back() -> None:
    bodies = Bodies(10)
    bodies.take(4)
    bodies.take(6)
    with pytest.raises(Refusal, match="take 10 bytes, limit: 10") as refusal:
        bodies.take(1)
    assert (refusal.value.reason, refusal.value.retry_after_s) == ("overloaded", 1)
    bodies.give_back(6)
    bodies.take(5)
