"""Intervals against textbook values and against their own promise, by simulation."""

import math

import numpy as np
import pytest

from tmtlib.statistics import paired_interval, t_interval


def test_t_interval_by_hand():
    found = t_interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 * 1 / math.sqrt(3)  # t quantile .975 with 2 degrees of freedom, from a table
    assert found == pytest.approx((2, 2 - half, 2 + half, 3))


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = [t_interval(rng.normal(1, 2, 5)) for _ in range(4000)]
    covered = np.mean([i.low <= 1 <= i.high for i in draws])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


def test_pairing_removes_what_a_seed_has_in_common():
    rng = np.random.default_rng(1)
    seed = rng.normal(0, 10, 8)
    before, after = seed + rng.normal(0, 0.01, 8), seed + 1 + rng.normal(0, 0.01, 8)
    found = paired_interval(after, before)
    assert 0.95 < found.low < found.mean < found.high < 1.05
    assert t_interval(after).low < t_interval(before).high, "unpaired, the two overlap"


def test_one_value_has_no_interval():
    found = t_interval([0.5])
    assert found.mean == 0.5 and found.n == 1 and math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_unusable_values_are_refused(values):
    with pytest.raises(ValueError, match="wanted at least one"):
        t_interval(values)


def test_unequal_pairs_are_refused():
    with pytest.raises(ValueError, match="2 values after and 3 before"):
        paired_interval([1, 2], [1, 2, 3])
