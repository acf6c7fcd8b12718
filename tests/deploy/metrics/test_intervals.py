"""The statistics against scipy, against numbers computed by hand, and against their own claims."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from resdeploy.deploy.metrics.intervals import (
    Paired,
    agreement_interval,
    drop_interval,
    holm,
    images_to_decide_drop,
    images_to_decide_share,
    mcnemar_p,
    paired,
    reach,
    wilson_interval,
)
from resdeploy.deploy.metrics.logits import answers, differences

COUNTS = st.integers(min_value=0, max_value=400)


@given(COUNTS, COUNTS)
def test_mcnemar_is_the_binomial_test_on_the_discordant_images(lost: int, gained: int) -> None:
    expected = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar_p(lost, gained) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand_and_far_out() -> None:
    # 1 lost of 5 discordant: 2 (C(5,0) + C(5,1)) / 2^5
    assert mcnemar_p(1, 4) == 12 / 32
    assert mcnemar_p(3000, 0) == 0.0  # 2^-2999 is below the smallest float, not an error
    assert 0 < mcnemar_p(900, 0) < 1e-200


@given(st.integers(1, 2000), st.floats(0, 1))
def test_wilson_is_scipys(n: int, share: float) -> None:
    successes = round(share * n)
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    found = wilson_interval(successes, n)
    assert found.low == pytest.approx(100 * expected.low, abs=1e-9)
    assert found.high == pytest.approx(100 * expected.high, abs=1e-9)


def test_the_bootstrap_is_scipys_once_images_flipped() -> None:
    lost, gained, n = 14, 5, 367
    outcomes = np.repeat([1.0, -1.0, 0.0], [lost, gained, n - lost - gained])
    expected = stats.bootstrap(
        (100 * outcomes,), np.mean, method="percentile", n_resamples=10_000, rng=1
    ).confidence_interval
    plain = drop_interval(Paired(n, lost, gained), reach=0.0)
    assert plain.low == pytest.approx(expected.low, abs=0.15)
    assert plain.high == pytest.approx(expected.high, abs=0.15)
    imagined = drop_interval(Paired(n, lost, gained))
    assert imagined.low == pytest.approx(plain.low, abs=0.3)
    assert imagined.high == pytest.approx(plain.high, abs=0.3)


def test_without_flips_the_interval_is_as_wide_as_the_images_are_few() -> None:
    few, many = (drop_interval(Paired(n, 0, 0)) for n in (20, 1000))
    assert few.low < -5 and few.high > 5
    assert -0.5 < many.low < 0 < many.high < 0.5
    assert drop_interval(Paired(20, 0, 0), reach=0.0).high == 0


@pytest.mark.parametrize("n", [50, 367, 1000])
@pytest.mark.parametrize(("lost", "gained"), [(0.0, 0.0), (0.01, 0.01), (0.03, 0.02), (0.08, 0.03)])
def test_the_interval_covers_the_true_drop_as_often_as_it_says(
    n: int, lost: float, gained: float
) -> None:
    draws = np.random.default_rng(3).multinomial(n, (lost, gained, 1 - lost - gained), 300)
    intervals = [drop_interval(Paired(n, int(b), int(c)), resamples=1000) for b, c, _ in draws]
    truth = 100 * (lost - gained)
    covered = np.mean([i.low - 1e-9 <= truth <= i.high + 1e-9 for i in intervals])
    assert covered >= 0.92  # nominal 0.95, standard error of 300 draws 0.013


def test_the_same_seed_gives_the_same_interval() -> None:
    counts = Paired(367, 9, 4)
    assert drop_interval(counts, seed=5) == drop_interval(counts, seed=5)
    assert drop_interval(counts, seed=5) != drop_interval(counts, seed=6)


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04 -> 4*.01, 3*.02, 2*.03, 1*.04, made monotone
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_paired_counts_by_hand() -> None:
    before = np.array([True, True, True, False, False])
    after = np.array([True, False, False, True, False])
    counts = paired(before, after)
    assert counts == Paired(images=5, lost=2, gained=1)
    assert counts.drop == 20.0


def test_reach_tells_numerically_equal_networks_from_others() -> None:
    z = np.array([[4.0, 1.0, 0.0], [0.0, 2.0, 1.5]], np.float32)
    reference = answers(z)
    assert reach(reference, differences(z, z)) == 0
    assert reach(reference, differences(z, z + np.float32(0.01))) == pytest.approx(
        2 * 0.01 / 0.5, rel=1e-3
    )
    assert reach(reference, differences(z, z + np.float32(0.3))) == 1
    broken = z.copy()
    broken[0, 0] = np.nan
    assert reach(reference, differences(z, broken)) == 1


def test_agreement_of_equal_networks_is_bounded_by_their_numbers() -> None:
    assert agreement_interval(20, 20).low == pytest.approx(wilson_interval(20, 20).low)
    assert agreement_interval(20, 20, reach=0.001).low > 99.98
    assert agreement_interval(19, 20, reach=0.001) == wilson_interval(19, 20)


def test_the_number_of_images_that_would_decide_does() -> None:
    counts = Paired(367, 6, 3)
    needed = images_to_decide_drop(counts, 1.0)
    assert needed is not None and needed > 367
    scale = needed / 367
    then = drop_interval(Paired(needed, round(6 * scale), round(3 * scale)))
    assert then.high == pytest.approx(1.0, abs=0.15)
    assert images_to_decide_drop(Paired(200, 2, 0), 1.0) is None  # the drop is the limit
    share = images_to_decide_share(86.0, 367, 85.0)
    assert share is not None
    assert wilson_interval(0.86 * share, share).low == pytest.approx(85.0, abs=0.01)


@given(COUNTS, COUNTS, st.integers(0, 3000))
def test_an_interval_holds_its_drop(lost: int, gained: int, rest: int) -> None:
    if lost + gained + rest == 0:
        return
    counts = Paired(lost + gained + rest, lost, gained)
    interval = drop_interval(counts, resamples=200)
    assert interval.low <= counts.drop <= interval.high
    assert math.isfinite(interval.low) and math.isfinite(interval.high)
