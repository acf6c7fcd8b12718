"""Limits that make no sense are refused; those that need classes say so."""

import numpy as np
import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.verification.checks.limits import Limits


def test_limits_that_make_no_sense_are_refused() -> None:
    sound = Limits(max_drop=1, max_slower=300)
    assert sound.checked(images=True) == sound
    with pytest.raises(InputError, match="--max-drop needs the true classes"):
        sound.checked(images=False)
    for limits in (
        Limits(max_drop=-1),
        Limits(min_top1=101),
        Limits(min_agreement=np.nan),
        Limits(max_class_drop=200),
    ):
        with pytest.raises(InputError, match="not a percentage from 0 to 100"):
            limits.checked(images=True)


def test_what_needs_the_true_classes() -> None:
    asked = Limits(max_drop=1, min_top1=80, min_agreement=90)
    assert asked.needing_classes() == ["max-drop", "min-top1"]
    assert Limits(min_agreement=90).needing_classes() == []
