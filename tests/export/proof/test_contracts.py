"""Which contracts are one change away from another."""

from dataclasses import replace

from resdeploy.deploy.images.preprocess import named
from resdeploy.export.architectures.family import BN_EPS, choice, strides
from resdeploy.export.proof.contracts import (
    INPUT_SIZE,
    NORMALIZATION,
    RESIZE,
    Contract,
    alternatives,
)

_POOL = choice("pool", ("no", "yes"), "a max pool after the stem: {}")


def _contract() -> Contract:
    settings = {"pool": "no", "strides": "1,2,2", "bn_eps": "1e-5"}
    return Contract(settings, named("imagenet", 224))


def test_every_assumption_is_changed_to_each_other_value_alone() -> None:
    found = alternatives(_contract(), (_POOL, strides("1,2,2"), BN_EPS))
    of_network = [(a.key, a.value) for a in found if a.key in ("pool", "strides", "bn_eps")]
    flipped = [("strides", "2,2,2"), ("strides", "1,1,2"), ("strides", "1,2,1")]
    assert of_network == [("pool", "yes"), *flipped, ("bn_eps", "1e-3")]
    for other in found:
        changed = [
            key for key, value in other.contract.settings.items() if value != _contract().value(key)
        ]
        same_preprocess = other.contract.preprocess == _contract().preprocess
        assert changed == ([other.key] if same_preprocess else [])
        assert other.contract.value(other.key) == other.value


def test_what_follows_the_last_batch_norm_is_not_asked() -> None:
    head = choice("head_activation", ("relu", "none"), "between the layers of the head: {}")
    contract = Contract({"head_activation": "relu"}, named("imagenet", 224))
    assert "head_activation" not in {other.key for other in alternatives(contract, (head,))}


def test_preprocessing_changes_in_mean_and_std_resize_or_size() -> None:
    found = alternatives(_contract(), ())
    assert {other.key for other in found} == {NORMALIZATION, RESIZE, INPUT_SIZE}
    for other in found:
        got, own = other.contract.preprocess, _contract().preprocess
        if other.key == NORMALIZATION:
            assert replace(got, name=own.name, mean=own.mean, std=own.std) == own
        else:
            assert (got.mean, got.std) == (own.mean, own.std)
    sizes = {o.contract.preprocess.input_size_px for o in found if o.key == INPUT_SIZE}
    assert sizes == {(160, 160), (192, 192), (256, 256)}
