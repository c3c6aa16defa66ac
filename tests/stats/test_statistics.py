"""Intervals, tests and effect sizes against textbook values, against scipy, and against their own promise."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tmtlib.stats import statistics
from tmtlib.stats.statistics import (
    hierarchical_bootstrap,
    over_seeds,
    probability_of_improvement,
    t_interval,
)

# Sleep gained with two drugs, ten patients (Student 1908; R's `sleep`): mean difference 1.58, t = 4.0621, p = .002833
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def paired_interval(after, before):
    return t_interval(statistics.differences(after, before))


def binomial_error(rate: float, draws: int, times: float = 4) -> float:
    """Four standard errors of a simulated rate: a right procedure fails a test in one of 16,000 tries."""
    return times * math.sqrt(rate * (1 - rate) / draws)


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


# --- Over seeds -----------------------------------------------------------------------------------------------------


def seeds_frame() -> pd.DataFrame:
    values = {("a", "tmt"): [1.0, 2.0, 3.0], ("a", "tmt_amw"): [2.0, 4.0, 6.0], ("b", "tmt"): [5.0, math.nan, 7.0]}
    return pd.DataFrame(
        [
            {"dataset": dataset, "method": method, "seed": seed, "mae": value, "clean": value - seed}
            for (dataset, method), column in values.items()
            for seed, value in enumerate(column)
        ]
    )


def test_over_seeds_has_the_interval_of_each_group_in_order():
    table = over_seeds(seeds_frame(), ["dataset", "method"], "mae")
    assert list(table.columns) == ["dataset", "method", "mean", "low", "high", "n"]
    assert table["method"].tolist() == ["tmt", "tmt_amw", "tmt"] and table["n"].tolist() == [3, 3, 2]
    for row, values in zip(table.itertuples(), ([1, 2, 3], [2, 4, 6], [5, 7]), strict=True):
        assert row[3:] == pytest.approx(t_interval(values))


def test_over_seeds_compares_with_a_column_and_with_a_method():
    frame = seeds_frame()
    column = over_seeds(frame, ["dataset", "method"], "mae", against="clean")
    assert column["difference"].tolist() == [1, 1, 1] and column["against"].tolist() == [1, 3, 5]
    method = over_seeds(frame, ["dataset", "method"], "mae", against={"method": "tmt"})
    amw = method[method["method"] == "tmt_amw"].squeeze()
    wanted = paired_interval([2, 4, 6], [1, 2, 3])
    assert (amw["difference"], amw["difference_low"], amw["difference_high"], amw["pairs"]) == pytest.approx(wanted)
    assert amw["against"] == 2 and method["pairs"].tolist() == [3, 3, 2]
    other_seeds = frame[(frame["method"] == "tmt_amw") | (frame["seed"] == 1)]
    assert over_seeds(other_seeds, ["dataset", "method"], "mae", {"method": "tmt"})["pairs"].tolist() == [1, 1, 0]


def test_over_seeds_compares_the_seeds_alone_that_both_have():
    frame = seeds_frame()
    frame.loc[(frame["method"] == "tmt_amw") & (frame["seed"] == 2), "mae"] = math.nan
    amw = over_seeds(frame, ["dataset", "method"], "mae", against={"method": "tmt"}).iloc[1]
    assert (amw["pairs"], amw["mean"], amw["against"], amw["difference"]) == (2, 3, 1.5, 1.5)


def test_over_seeds_where_nothing_is_defined():
    frame = seeds_frame().assign(mae=math.nan)
    table = over_seeds(frame, ["dataset"], "mae", against="clean")
    assert table["n"].tolist() == table["pairs"].tolist() == [0, 0] and table[["mean", "low", "difference"]].isna().all(
        axis=None
    )
    strict = over_seeds(seeds_frame(), ["dataset", "method"], "mae", skipna=False)
    assert strict["n"].tolist() == [3, 3, 3] and strict["mean"].isna().tolist() == [False, False, True]
    assert list(over_seeds(pd.DataFrame(), ["dataset"], "mae").columns) == ["dataset", "mean", "low", "high", "n"]
    with pytest.raises(ValueError, match="not a many-to-one merge"):
        over_seeds(pd.concat([frame, frame]), ["dataset", "method"], "mae", against={"method": "tmt"})


# --- Bootstraps -----------------------------------------------------------------------------------------------------


def losses(rng, seeds: int, utterances: int, sd: tuple[float, float, float], effect: float = 0.0):
    """Losses after and before (S, N) whose difference has effects of seeds, of utterances, and of both together."""
    common = rng.normal(1, 0.5, (seeds, utterances))
    noise = rng.normal(0, sd[0], (seeds, 1)) + rng.normal(0, sd[1], utterances) + rng.normal(0, sd[2], common.shape)
    return common + effect + noise, common


@pytest.mark.parametrize(
    ("seeds", "sd", "least", "most"),
    [
        (10, (0.05, 0.5, 0.5), 0.92, 0.985),  # seeds and utterances about as noisy
        (10, (0.0, 0.5, 0.5), 0.93, 0.99),  # utterances alone
        (10, (0.2, 0.1, 0.1), 0.86, 0.95),  # seeds alone: a bootstrap of ten values
        (3, (0.2, 0.1, 0.1), 0.60, 0.85),  # and of three, which is why ten are wanted
    ],
)
def test_hierarchical_bootstrap_covers_the_truth(seeds, sd, least, most):
    rng = np.random.default_rng(2)
    draws = 400
    found = [hierarchical_bootstrap(*losses(rng, seeds, 100, sd, 0.3), resamples=400) for _ in range(draws)]
    covered = np.mean([i.low <= 0.3 <= i.high for i in found])
    assert least - binomial_error(least, draws, 2) <= covered <= most + binomial_error(most, draws, 2)


def test_hierarchical_bootstrap_of_one_seed_is_as_wide_as_a_normal_interval():
    x = np.random.default_rng(3).normal(0, 1, (1, 400))
    found = hierarchical_bootstrap(x, 0 * x)
    assert found.high - found.low == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.08)


def test_hierarchical_bootstrap_pairs_what_both_methods_share():
    rng = np.random.default_rng(4)
    hard = rng.normal(0, 5, (8, 50))
    found = hierarchical_bootstrap(hard + 0.1 + rng.normal(0, 0.01, hard.shape), hard)
    assert 0.09 < found.low < found.high < 0.11
    one = hierarchical_bootstrap(hard[:1] + rng.normal(0, 1, (1, 50)), hard[:1])
    assert one.n == 1 and one.low < one.high, "utterances alone"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 3)), np.zeros((2, 4))), r"\(2, 3\) after and \(2, 4\) before"),
        ((np.zeros(3), np.zeros(3)), "wanted the same"),
        ((np.full((2, 3), np.nan), np.zeros((2, 3))), "6 values after and 0 before are NaN"),
        (([[0, math.nan], [0, 0]], np.zeros((2, 2))), "1 values after and 0 before are NaN"),
        ((np.zeros((2, 2)), [[0, math.nan], [0, 0]]), "0 values after and 1 before are NaN"),
    ],
)
def test_hierarchical_bootstrap_refuses_other_shapes(arguments, message):
    with pytest.raises(ValueError, match=message):
        hierarchical_bootstrap(*arguments)


def test_probability_of_improvement_is_mann_whitney_s_share():
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.5, 1, 7), rng.normal(0, 1, 9)
    found = probability_of_improvement(a, b)
    assert found.mean == pytest.approx(stats.mannwhitneyu(a, b).statistic / 63) and found.low < found.mean < found.high
    assert probability_of_improvement(a, b, better=-1).mean == pytest.approx(1 - found.mean)
    assert probability_of_improvement([1, 2], [1, 2]).mean == 0.5, "ties count half"
    assert probability_of_improvement([3, 4], [1, 2])[:3] == (1, 1, 1)
    assert math.isnan(probability_of_improvement([3], [1]).low)


def test_probability_of_improvement_covers_the_truth():
    rng, draws = np.random.default_rng(6), 500
    truth = stats.norm.cdf(0.5 / math.sqrt(2))
    pairs = ((rng.normal(0.5, 1, 15), rng.normal(0, 1, 15)) for _ in range(draws))
    found = [probability_of_improvement(a, b, resamples=400) for a, b in pairs]
    assert np.mean([i.low <= truth <= i.high for i in found]) == pytest.approx(0.94, abs=binomial_error(0.94, draws))


# --- p values ---------------------------------------------------------------------------------------------------------


def test_paired_p_of_student_s_sleep_data():
    assert statistics.paired_p(SECOND, FIRST) == pytest.approx(0.002833, abs=5e-7)
    assert statistics.paired_p(SECOND, FIRST) == pytest.approx(stats.ttest_rel(SECOND, FIRST).pvalue)
    assert statistics.cohen_dz(SECOND, FIRST) == pytest.approx(4.0621 / math.sqrt(10), abs=1e-4)


def test_equal_differences_and_single_pairs_have_no_p_and_no_effect_size():
    for after, before in [([0.3], [0.1]), ([1.1, 2.1, 3.1], [1, 2, 3]), ([1, 2], [1, 2])]:
        assert math.isnan(statistics.paired_p(after, before)) and math.isnan(statistics.cohen_dz(after, before))


def test_permutation_p_by_hand():
    assert statistics.permutation_p([1, 2, 3, 4, 5], np.zeros(5)) == 2 / 32, "only all signs alike are as extreme"
    assert statistics.permutation_p([1, 2, -1], np.zeros(3)) == 6 / 8  # sums 2, 4, 0 and their like
    assert statistics.permutation_p([1, -1], [0, 0]) == 1


def test_permutation_p_of_many_pairs_is_sampled_and_near_the_t_test():
    x = np.random.default_rng(7).normal(0.3, 1, 60)
    assert statistics.permutation_p(x, 0 * x) == pytest.approx(statistics.paired_p(x, 0 * x), abs=0.01)


def test_mcnemar_by_hand():
    # 8 gained and 2 lost: 2 (1 + 10 + 45) / 1024
    after, before = [1] * 8 + [0] * 2 + [1, 0] * 5, [0] * 8 + [1] * 2 + [1, 0] * 5
    assert statistics.mcnemar(after, before) == pytest.approx((8, 2, 112 / 1024))
    assert statistics.mcnemar(before, after).p == 112 / 1024 and statistics.mcnemar([1, 0], [1, 0]).p == 1
    with pytest.raises(ValueError, match="other than 0 and 1"):
        statistics.mcnemar([0.5], [1])
    with pytest.raises(ValueError, match="1 utterances after and 2 before"):
        statistics.mcnemar([1], [1, 0])
    with pytest.raises(ValueError, match="-1 gained"):
        statistics.mcnemar_p(-1, 2)


def test_adjusted_p_by_hand():
    # Benjamini & Hochberg 1995: p (m / rank), made monotone from the largest down
    assert statistics.adjusted_p([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    with_gap = statistics.adjusted_p([0.01, math.nan, 0.04])
    assert with_gap[[0, 2]] == pytest.approx([0.02, 0.04]) and math.isnan(with_gap[1])
    assert np.isnan(statistics.adjusted_p([math.nan])).all() and statistics.adjusted_p([]).size == 0
    with pytest.raises(ValueError, match="wanted 0 to 1"):
        statistics.adjusted_p([1.2])


TESTS = {"t": statistics.paired_p, "permutation": statistics.permutation_p}


@pytest.mark.parametrize("name", TESTS)
def test_a_null_is_rejected_at_the_nominal_rate(name):
    rng, draws = np.random.default_rng(8), 2000
    rejected = np.mean([TESTS[name](rng.normal(0, 1, 10), rng.normal(0, 1, 10)) < 0.05 for _ in range(draws)])
    assert rejected == pytest.approx(0.05, abs=binomial_error(0.05, draws))


def test_mcnemar_rejects_a_null_no_more_often_than_it_says():
    rng, draws = np.random.default_rng(9), 2000
    before = rng.random((draws, 300)) < 0.45
    after = np.where(rng.random(before.shape) < 0.2, rng.random(before.shape) < 0.45, before)
    rejected = np.mean([statistics.mcnemar(a, b).p < 0.05 for a, b in zip(after, before, strict=True)])
    assert 0.01 < rejected < 0.05 + binomial_error(0.05, draws)


def test_adjusted_p_controls_the_share_of_false_discoveries():
    rng, draws = np.random.default_rng(10), 1000
    shift = np.where(np.arange(20) < 10, 1.2, 0.0)  # ten effects, ten nulls
    d = rng.normal(0, 1, (draws, 20, 10)) + shift[:, None]
    p = np.array([statistics.adjusted_p(row) for row in stats.ttest_1samp(d, 0, axis=2).pvalue])
    found = p < 0.05
    false_share = found[:, 10:].sum(1) / np.maximum(found.sum(1), 1)
    assert false_share.mean() < 0.05 and found[:, :10].mean() > 0.7
    assert false_share.mean() == pytest.approx(0.025, abs=4 * false_share.std() / math.sqrt(draws)), "half are nulls"


# --- Effect sizes and power -------------------------------------------------------------------------------------------


def test_power_against_published_tables():
    # Cohen 1988 and G*Power: d_z = .5 needs 34 pairs for power .8, two-sided .05; with 33 it is just missed
    assert statistics.paired_power(0.5, 34) == pytest.approx(0.808, abs=5e-4)
    assert statistics.paired_power(0.5, 33) < 0.8 < statistics.paired_power(0.5, 34)
    assert statistics.paired_power(0.0, 10) == pytest.approx(0.05)
    assert statistics.minimum_detectable_effect(34, 1) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_minimum_detectable_effect_inverts_power_and_scales_with_sd(n):
    found = statistics.minimum_detectable_effect(n, 0.02, power=0.9)
    assert statistics.paired_power(found, n, 0.02) == pytest.approx(0.9)
    assert statistics.minimum_detectable_effect(n, 0.04, power=0.9) == pytest.approx(2 * found)


def test_power_refuses_what_has_none():
    assert math.isnan(statistics.minimum_detectable_effect(1, 1.0))
    with pytest.raises(ValueError, match="sd is -1"):
        statistics.minimum_detectable_effect(5, -1)
    with pytest.raises(ValueError, match="n is 1 and sd 1"):
        statistics.paired_power(1, 1)


@pytest.mark.parametrize("name", TESTS)
def test_an_effect_is_found_at_the_predicted_power(name):
    rng, draws = np.random.default_rng(12), 1500
    effect = statistics.minimum_detectable_effect(10, 2.0)
    found = np.mean([TESTS[name](rng.normal(effect, 2, 10), np.zeros(10)) < 0.05 for _ in range(draws)])
    assert found == pytest.approx(0.8, abs=binomial_error(0.8, draws) + (name != "t") * 0.01)


def test_pairs_needed_against_published_tables_and_its_inverse():
    assert statistics.pairs_needed(0.5, 1) == 34 == statistics.pairs_needed(-0.01, 0.02), "G*Power, see above"
    assert statistics.pairs_needed(0.05, 1) == 3142  # ((1.95996 + 0.84162) / .05)^2 = 3139.5, and 1.96^2 / 2 more
    assert statistics.pairs_needed(100, 1) == 2
    for n in (3, 20, 105):
        assert statistics.pairs_needed(1.0001 * statistics.minimum_detectable_effect(n, 0.026), 0.026) == n
    for effect, sd in [(0, 1), (math.nan, 1), (1, 0), (1, math.nan)]:
        assert math.isnan(statistics.pairs_needed(effect, sd))
    with pytest.raises(ValueError, match="sd is -1"):
        statistics.pairs_needed(1, -1)


# --- Variance pooled over methods -------------------------------------------------------------------------------------


def test_t_tests_are_scipy_s():
    x = np.random.default_rng(13).normal(0.3, 1, (4, 6))
    tests = statistics.t_tests(x.mean(1), x.std(1, ddof=1) / math.sqrt(6), np.full(4, 5))
    wanted = stats.ttest_1samp(x, 0, axis=1)
    interval = wanted.confidence_interval()
    assert tests.p == pytest.approx(wanted.pvalue)
    assert tests.low == pytest.approx(interval.low) and tests.high == pytest.approx(interval.high)
    assert np.isnan(statistics.t_tests([0.1, 0], [1e-17, 0], [2, 2]).p).all(), "no spread"


def test_moderated_error_recovers_the_prior():
    """20,000 variances of 2 df from a prior of 6 df at .04: posterior by Smyth's formula with the true prior."""
    rng, cells, d0, s0 = np.random.default_rng(14), 20_000, 6.0, 0.04
    variance = d0 * s0 / rng.chisquare(d0, cells) * rng.chisquare(2, cells) / 2
    error, df = statistics.moderated_error(np.sqrt(variance), np.full(cells, 3))
    assert df == pytest.approx(np.full(cells, 8.0), abs=0.5)
    assert error**2 * 3 == pytest.approx((d0 * s0 + 2 * variance) / (d0 + 2), rel=0.1)


@pytest.mark.parametrize("prior", [4.0, math.inf])
@pytest.mark.parametrize("methods", [6, 20])
def test_moderated_t_rejects_a_null_as_often_as_it_says_and_finds_more(methods, prior):
    """At n = 3, true variances spread by the prior (inf: all equal) and half of the methods different."""
    rng, tables, n = np.random.default_rng(15), 1500, 3
    sd = np.ones((tables, methods)) if prior == math.inf else np.sqrt(prior / rng.chisquare(prior, (tables, methods)))
    x = sd[..., None] * rng.normal(0, 1, (tables, methods, n)) + 3 * (np.arange(methods) % 2)[:, None]
    pooled = [statistics.moderated_error(table.std(1, ddof=1), np.full(methods, n)) for table in x]
    p = np.array([statistics.t_tests(t.mean(1), *pool).p for t, pool in zip(x, pooled, strict=True)])
    ordinary = stats.ttest_1samp(x, 0, axis=2).pvalue
    null, effect = p[:, ::2] < 0.05, p[:, 1::2] < 0.05
    assert null.mean() == pytest.approx(0.05, abs=0.012), "few methods know their prior badly"
    assert effect.mean() > (ordinary[:, 1::2] < 0.05).mean() + 0.15


def test_few_or_unknown_variances_are_not_pooled():
    sd = np.array([0.1, 0.2])
    error, df = statistics.moderated_error(sd, [3, 3])
    assert error == pytest.approx(sd / math.sqrt(3)) and df.tolist() == [2, 2]
    error, df = statistics.moderated_error([0.0, 0.0, 0.3, 0.0], [3, 3, 3, 3])  # the median has no logarithm
    np.testing.assert_allclose(error, np.array([0, 0, 0.3, 0]) / np.sqrt(3))
    error, df = statistics.moderated_error([0.1, math.nan, 0.2, 0.3, 0.0], [3, 3, 3, 3, 3])
    assert np.isnan(error).tolist() == [False, True, False, False, False] and (error[[0, 2, 3, 4]] > 0).all()
    assert (df <= 8).all(), "no more than four cells have together"


def test_scores_resampled_by_groups():
    """Eight equal values a group: as wide as over the 40 groups alone; groups of one change nothing."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=40).repeat(8)

    def mean(index):
        return {"mean": values[index].mean()}

    names = [f"video{i // 8}" for i in range(320)]
    whole, alone = (statistics.bootstrap_scores(mean, 320, groups=g)["mean"] for g in (names, None))
    assert whole.mean == alone.mean and whole.n == 320
    assert whole.high - whole.low == pytest.approx(2 * 1.96 * values[::8].std() / np.sqrt(40), rel=0.1)
    assert whole.high - whole.low > 2 * (alone.high - alone.low)
    assert statistics.bootstrap_scores(mean, 320, groups=[*map(str, range(320))])["mean"] == alone


def test_shapley_values_of_a_game_by_hand():
    """Worth 6 with text and another modality, 3 more with all three."""
    found = statistics.shapley(lambda s: 6.0 * ("text" in s and len(s) > 1) + 3.0 * (len(s) == 3))
    assert found == pytest.approx({"text": 5, "audio": 2, "vision": 2})


def test_half_a_conformal_interval_is_a_rank_of_the_errors():
    found = [statistics.conformal_half_width(range(9, 0, -1), level) for level in (0.05, 0.5, 0.9, 0.95)]
    assert found == [1, 5, 9, math.inf]
