"""The verdict on an alternative, and what follows for its key."""

import json

import pytest

from resdeploy.deploy.images.preprocess import named
from resdeploy.export.proof.contracts import INPUT_SIZE, Alternative, Contract
from resdeploy.export.proof.discrepancy import Comparison, Score
from resdeploy.export.proof.testimony import Rival, Verdict
from resdeploy.export.proof.testimony import Testimony as Statement  # not a class of tests

_CONTRACT = Contract({"pool": "no", "padding": "torch"}, named("cifar", 32))
_NEAR, _FAR = Score(0.02, 0.01, 0.03), Score(0.5, 0.4, 0.6)


def _rival(
    verdict: Verdict, key: str = "pool", value: str = "yes", *, strength: float = 100.0
) -> Rival:
    """An alternative of that verdict where its strength is large enough to tell."""
    low, high = {"farther": (0.0, 0.1), "nearer": (0.9, 1.0)}.get(verdict, (0.2, 0.9))
    effect = 0.0 if verdict == "same" else 0.1
    comparison = Comparison((low + high) / 2, low, high, strength, effect)
    return Rival(Alternative(key, value, _CONTRACT), _NEAR, 0.1, comparison, 24)


def _testimony(*rivals: Rival, score: Score = _NEAR) -> Statement:
    return Statement(24, 20, _CONTRACT, score, rivals, {})


@pytest.mark.parametrize("verdict", ["farther", "nearer", "same", "open"])
def test_the_verdict_follows_from_interval_strength_and_effect(verdict: Verdict) -> None:
    assert _rival(verdict).verdict == verdict
    assert _rival(verdict).is_open == (verdict in ("nearer", "open"))


@pytest.mark.parametrize(("strength", "verdict"), [(0.1, "open"), (0.5, "open"), (1.0, "nearer")])
def test_it_takes_more_to_leave_than_to_keep(strength: float, verdict: Verdict) -> None:
    comparison = Comparison(1.0, 0.95, 1.0, strength, 0.1)
    rival = Rival(Alternative("pool", "yes", _CONTRACT), _NEAR, 0.1, comparison, 24)
    assert rival.verdict == verdict
    mirrored = Comparison(0.0, 0.0, 0.05, strength, 0.1)
    kept = Rival(rival.alternative, _NEAR, 0.1, mirrored, 24)
    assert kept.verdict == ("open" if strength < 0.15 else "farther")


def test_another_size_needs_more_strength() -> None:
    assert _rival("nearer", INPUT_SIZE, "48", strength=1.5).verdict == "open"
    assert _rival("nearer", INPUT_SIZE, "48", strength=3.0).verdict == "nearer"


def test_a_key_is_decided_when_none_of_its_alternatives_remains() -> None:
    found = _testimony(_rival("farther"), _rival("same"), _rival("open", "padding", "tf"))
    assert found.decided == {"pool": "no"}
    assert found.undecided == {"padding": ("torch", "tf")}
    assert found.runner_up == found.rivals[0] and found.against == () and not found.far
    assert _testimony(_rival("same")).decided == {}


def test_a_contradicted_or_far_contract_decides_nothing() -> None:
    against = _testimony(_rival("nearer"), _rival("farther", "padding", "tf"))
    assert against.against == against.rivals[:1] and against.decided == {}
    far = _testimony(_rival("farther"), score=_FAR)
    assert far.far and far.decided == {}
    assert far.sentences()[0].startswith("WARNING")
    assert json.loads(json.dumps(far.to_json()))["far"] is True
