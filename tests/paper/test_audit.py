"""The audit's arithmetic against enumeration, closed forms and simulation of the same facts."""

import itertools
import math
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress

from tmtlib.paper import audit, facts
from tmtlib.stats.statistics import mcnemar_p

COMPARISON = "Performance Comparison with Baseline TMT"  # a section of the paper
AUDITS = (
    audit.published_pairs,
    audit.column_coincidence,
    audit.whole_utterances,
    audit.utterance_gains,
    audit.mcnemar_bound,
    audit.sampling_noise,
    audit.mae_line,
    audit.f1_above_accuracy,
    audit.weight_budget,
    audit.seed_budget,
    audit.text_checks,
    audit.arithmetic_verdicts,
)


def enumerated(printed: str, n: int, rounding: str) -> list[int]:
    """All k whose k/n, written by decimal arithmetic with as many digits, is `printed`."""
    unit = Decimal(1).scaleb(Decimal(printed).as_tuple().exponent)
    return [k for k in range(n + 1) if (Decimal(k) / n).quantize(unit, rounding) == Decimal(printed)]


def mcnemar(gain: int, pairs: int) -> float:
    """Two-sided exact McNemar p from binomial coefficients."""
    fewer = (pairs - gain) // 2
    return min(1.0, 2 * sum(math.comb(pairs, k) for k in range(fewer + 1)) / 2**pairs)


def row(frame: pd.DataFrame, **where) -> pd.Series:
    for name, value in where.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0]


@pytest.mark.parametrize("table", AUDITS, ids=lambda f: f.__name__)
def test_tables_are_full_and_repeatable(table):
    first, second = table(), table()
    assert isinstance(first, pd.DataFrame) and len(first) and first.columns.is_unique
    pd.testing.assert_frame_equal(first, second)


def test_sims_mae_column_is_its_accuracy_column():
    coincide = audit.column_coincidence().set_index(["dataset", "method"])["coincide"]
    assert set(coincide[coincide].index) == {("sims", "tmt"), ("sims", "tmt_amw")}


@pytest.mark.parametrize("cell", audit.accuracy_cells(), ids=lambda c: f"{c.dataset}-{c.printed}")
def test_counts_match_enumeration(cell):
    n = facts.TEST_SIZES[cell.dataset]
    for truncated, rounding in ((False, ROUND_HALF_UP), (True, ROUND_DOWN)):
        every = enumerated(cell.printed, n, rounding)
        assert audit.counts(cell.printed, n, truncated) == ((every[0], every[-1]) if every else None)


def test_counts_accept_a_tie_both_ways():
    assert audit.counts("0.5", 20) == (9, 11)  # 9/20 = .45 and 11/20 = .55 lie on the edge
    assert audit.counts("0.50", 3) is None


def test_sims_accuracies_are_216_and_218_of_457():
    frame = audit.whole_utterances()
    for method, k in (("tmt", 216), ("tmt_amw", 218)):
        cell = row(frame, dataset="sims", method=method, place="Table 1")
        assert (cell["low"], cell["high"], cell["grim"]) == (k, k, "unique")
        assert [i for i in range(458) if round(i / 457, 4) == round(cell["low"] / 457, 4)] == [k]


def test_mosi_435_is_no_fraction_of_686():
    cell = row(audit.whole_utterances(), dataset="mosi", method="tmt_amw", printed="0.435", place="Table 1")
    assert pd.isna(cell["low"]) and cell["grim"] == "cannot be k/686"
    assert round(298 / 686, 3) < 0.435 < round(299 / 686, 3)
    assert cell["truncated_low"] == cell["truncated_high"] == 299  # 299/686 = .43586
    assert cell["runs"] == 2 and round(597 / (2 * 686), 3) == 0.435  # the mean of two runs can


def test_four_digit_printings_of_the_text():
    frame = audit.whole_utterances()
    mosei = row(frame, dataset="mosei", method="tmt", place=COMPARISON)
    assert mosei["grim"] == "cannot be k/4659"  # .52994 and .53016 are the neighbours of .5300
    assert 2469 / 4659 < 0.52995 and 2470 / 4659 >= 0.53005
    assert row(frame, dataset="mosei", method="tmt_amw", place=COMPARISON)["low"] == 2502
    assert row(frame, dataset="mosi", method="tmt_amw", place=COMPARISON)["runs"] == 5


def test_gains_in_utterances():
    frame = audit.utterance_gains().set_index(["dataset", "place"])[["gain_low", "gain_high"]]
    assert tuple(frame.loc["sims", "Table 1"]) == (2, 2)
    assert tuple(frame.loc["mosi", facts.ANALYSIS]) == (298 - 295, 299 - 295)
    assert tuple(frame.loc["mosei", facts.ANALYSIS]) == (2500 - 2471, 2504 - 2467)
    assert tuple(frame.loc["mosi", "Table 1"]) == (298 - 298, 299 - 292)


@pytest.mark.parametrize("gain", [1, 2, 3, 4, 5])
def test_a_net_gain_below_six_is_never_significant(gain):
    assert audit.most_discordant(gain) is None
    assert mcnemar_p(gain, 0) == pytest.approx(2 * 0.5**gain)
    assert min(mcnemar(gain, pairs) for pairs in range(gain, 500, 2)) >= 0.05


@pytest.mark.parametrize("gain", [6, 7, 29, 33, 37])
def test_most_discordant_is_the_last_significant_number_of_pairs(gain):
    pairs = audit.most_discordant(gain)
    assert mcnemar(gain, pairs) < 0.05 <= mcnemar(gain, pairs + 2)


def test_mosei_mid_gain_needs_at_most_267_discordant_pairs():
    assert audit.most_discordant(33) == 267
    assert audit.most_discordant(0) is None


def test_mcnemar_bound_reads_its_gains():
    frame = audit.mcnemar_bound()
    sims = row(frame, dataset="sims", place="Table 1")
    assert sims["smallest_p"] == 0.5 and pd.isna(sims["discordant_high"]) and pd.isna(sims["share"])
    assert row(frame, dataset="mosi", place=facts.ANALYSIS)["smallest_p"] == 0.125
    mosei = row(frame, dataset="mosei", place=facts.ANALYSIS)
    assert mosei["discordant_low"] < 267 < mosei["discordant_high"] == mosei["share"] * 4659


def test_no_gain_and_a_loss_have_p_one(monkeypatch):
    gains = pd.DataFrame({"dataset": "x", "place": "y", "n": 9, "gain_low": [-4, -1], "gain_high": [-3, 0]})
    monkeypatch.setattr(audit, "utterance_gains", lambda: gains)
    assert audit.mcnemar_bound()["smallest_p"].tolist() == [1, 1]


def test_sampling_noise_agrees_with_simulated_test_sets():
    rng = np.random.default_rng(0)
    for line in audit.sampling_noise().itertuples():
        scores = 100 * rng.binomial(line.n, line.acc5, 100_000) / line.n
        assert line.half_width_pp == pytest.approx(1.96 * scores.std(), rel=0.02)
        assert 0.4 < line.gain_pp < 0.8 < line.half_width_pp


def test_published_pairs_are_read_whole():
    pairs = audit.published_pairs()
    assert pairs.groupby("dataset").size().to_dict() == {"mosei": 11, "mosi": 11, "sims": 13}
    assert row(pairs, dataset="mosi", model="MISA")[["acc5", "mae"]].tolist() == pytest.approx([0.4708, 0.7765])
    assert row(pairs, dataset="mosei", model="CENET")[["acc5", "mae"]].tolist() == pytest.approx([0.5615, 0.5259])
    assert row(pairs, dataset="sims", model="MLMF")[["acc5", "mae"]].tolist() == pytest.approx([0.4105, 0.4091])
    assert pairs.loc[pairs["constant"], ["dataset", "model"]].values.tolist() == [["sims", "EF-LSTM"]]
    sums = pairs.groupby("dataset")[["acc5", "mae"]].sum()  # sums of the published columns
    assert sums.loc["mosi"].tolist() == pytest.approx([4.8256, 9.4820], abs=1e-6)
    assert sums.loc["mosei"].tolist() == pytest.approx([5.8994, 6.1877], abs=1e-6)
    assert sums.loc["sims"].tolist() == pytest.approx([4.9685, 5.7597], abs=1e-6)
    assert 97 / 457 == pytest.approx(0.2123, abs=5e-5)  # a constant's Acc-5: one class holds 97 of 457 test labels


@pytest.mark.parametrize("drop", [True, False])
def test_mae_line_is_the_least_squares_line(drop):
    lines, pairs = audit.mae_line(drop), audit.published_pairs()
    for line in lines.itertuples():
        some = pairs[(pairs["dataset"] == line.dataset) & ~(pairs["constant"] & drop)]
        fit = linregress(some["acc5"], some["mae"])
        rest = some["mae"] - fit.intercept - fit.slope * some["acc5"]
        assert line.models == len(some)
        assert (line.intercept, line.slope, line.r) == pytest.approx((fit.intercept, fit.slope, fit.rvalue))
        assert line.residual_sd == pytest.approx(math.sqrt((rest**2).sum() / (len(some) - 2)))
        assert line.mae == pytest.approx(line.predicted + line.z * line.residual_sd)
        # the line's own error at the paper's Acc-5, from the standard errors of slope and intercept
        spread = fit.stderr**2 * (line.acc5 - some["acc5"].mean()) ** 2 + line.residual_sd**2 / len(some)
        assert line.z_prediction == pytest.approx((line.mae - line.predicted) / math.sqrt(line.residual_sd**2 + spread))


def test_mae_line_places_the_paper():
    lines = audit.mae_line()
    mosi, sims = row(lines, dataset="mosi", method="tmt"), row(lines, dataset="sims", method="tmt")
    assert mosi["predicted"] == pytest.approx(0.88, abs=0.005) and mosi["z"] < -15 and mosi["inside"]
    assert sims["predicted"] == pytest.approx(0.372, abs=0.001) and sims["z"] == pytest.approx(5.8, abs=0.05)
    assert not sims["inside"]
    mosei = row(lines, dataset="mosei", method="tmt")
    assert mosei["predicted"] == pytest.approx(0.571, abs=0.001) and mosei["z"] < -20 and mosei["inside"]


def weighted_f1(true: np.ndarray, predicted: np.ndarray) -> float:
    """Weighted F1 with the first argument's class sizes as weights, from its definition."""
    total = 0.0
    for k in np.unique(true):
        hit = np.sum((true == k) & (predicted == k))
        total += np.sum(true == k) * 2 * hit / (np.sum(true == k) + np.sum(predicted == k))
    return total / len(true)


def test_exchanged_f1_identity_behind_the_table():
    rng = np.random.default_rng(1)
    true = rng.integers(0, 5, 457)
    predicted = np.where(rng.random(457) < 0.4, true, rng.integers(0, 5, 457))
    both = weighted_f1(true, predicted) + weighted_f1(predicted, true)
    assert both == pytest.approx(2 * np.mean(true == predicted))


def test_f1_above_accuracy():
    frame = audit.f1_above_accuracy()
    assert len(frame) == 6 and (frame["excess_pp"] > 0).all()
    assert (frame["excess_pp"].min(), frame["excess_pp"].max()) == pytest.approx((2.8, 5.9))
    implied = frame.set_index(["dataset", "method"])["f1_if_swapped"]
    assert implied["sims", "tmt"] == pytest.approx(0.4296) and implied["mosei", "tmt_amw"] == pytest.approx(0.509)


def test_adam_bound_is_reached_by_adam_and_not_passed():
    lr, m, v, w = 1e-4, 0.0, 0.0, 0.0
    for t in range(1, 631):  # Kingma & Ba, algorithm 1, constant gradient
        g = -0.37
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= lr * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert audit.adam_bound(lr, 630).move == pytest.approx(w, rel=1e-5)


@pytest.mark.parametrize("modalities", [2, 3])
def test_adam_bound_weights_are_the_extremes_of_the_softmax(modalities):
    bound = audit.adam_bound(1e-3, 500, modalities)
    corners = np.array(list(itertools.product((-0.5, 0.0, 0.5), repeat=modalities)))
    weights = np.exp(corners) / np.exp(corners).sum(axis=1, keepdims=True)
    assert (bound.lowest_weight, bound.highest_weight) == pytest.approx((weights.min(), weights.max()))
    assert audit.adam_bound(1e-4, 0, modalities)[1:] == pytest.approx((1 / modalities, 1 / modalities))


def test_weight_budget_counts_steps():
    frame = audit.weight_budget().set_index("dataset")
    assert frame["steps"].to_dict() == {"mosi": 630, "sims": 660, "mosei": 7680}  # the last small batch counts
    assert frame.loc["mosi", "highest_weight"] == pytest.approx(0.36, abs=0.005)
    assert frame.loc["mosei", "lowest_weight"] == pytest.approx(0.10, abs=0.005)


def test_seeds_needed_reaches_the_power_it_names():
    sd, delta = 1.0, 0.5
    n = audit.seeds_needed(sd, delta)
    assert n == math.ceil(15.7 * sd**2 / delta**2) == 63
    rng = np.random.default_rng(2)
    gaps = rng.normal(delta, sd * math.sqrt(2 / n), 200_000)  # difference of two means of n seeds
    assert np.mean(np.abs(gaps) > 1.96 * sd * math.sqrt(2 / n)) == pytest.approx(0.8, abs=0.01)


def test_seed_budget():
    frame = audit.seed_budget()
    assert (frame["gain"] > 0).all() and set(frame["dataset"]) == set(facts.DATASETS)
    assert row(frame, dataset="mosei", metric="acc5")["seeds"] == 6
    sims = row(frame, dataset="sims", metric="acc5")
    assert sims["seed_sd"] == pytest.approx(0.0069, abs=5e-5) and sims["seeds"] == 39
    assert frame["source"].str.len().gt(0).all()


def test_text_checks_are_complete():
    frame = audit.text_checks()
    assert len(frame) >= 10 and frame["quote"].is_unique and (frame.map(len) > 0).all(axis=None)


def test_verdicts_cover_the_claims_that_need_no_training():
    frame = audit.arithmetic_verdicts().set_index("claim")
    ruled = {c.key for c in facts.CLAIMS if c.rule in ("arithmetic", "weights_static", "measured")}
    assert set(frame.index) == ruled, "every claim of these rules has a reading or an arithmetic, and no other claim"
    assert set(frame["verdict"]) <= set(facts.VERDICTS)
    static = [c.key for c in facts.CLAIMS if c.rule == "weights_static"]
    assert (frame.loc[static, "verdict"] == "impossible as written").all() and len(static) >= 3
    assert frame.loc["all_metrics", "verdict"] == "not supported" and "sims mae" in frame.loc["all_metrics"]["evidence"]
    assert frame.loc["significant", "verdict"] == "not supported"
    assert frame.loc["largest_on_mosei", "verdict"] == frame.loc["sum_to_one", "verdict"] == "supported"
    assert frame.loc["sims_mae_rise", "verdict"] == frame.loc["sims_mae", "verdict"] == "cannot tell"
    # Counted by hand in MMSA's list: above .4726, .43 and .53
    assert frame.loc["earlier_methods", "verdict"] == "not supported"
    assert "sims 0 of 13, mosi 4 of 11, mosei 6 of 11" in frame.loc["earlier_methods", "evidence"]
    assert "mosi 0.31 to 0.36" in frame.loc["emphasis", "evidence"]


def test_verdicts_follow_the_table(monkeypatch):
    """With a lower CH-SIMS MAE and larger gains in Table 1 the same rules come out the other way."""
    changed = {("sims", "tmt_amw", "mae"): 0.40, ("mosi", "tmt_amw", "acc5"): 0.50}
    original = facts.table1_value
    monkeypatch.setattr(audit, "table1_value", lambda *key: changed.get(key, original(*key)))
    frame = audit.arithmetic_verdicts().set_index("claim")
    assert frame.loc["all_metrics", "verdict"] == "supported"
    assert frame.loc["largest_on_mosei", "verdict"] == "not supported"


def test_comparison_with_other_models_follows_the_table(monkeypatch):
    """With a TMT above every published mean the same rule comes out the other way; so with a MAE of its own digits."""
    original = facts.table1_value
    monkeypatch.setattr(audit, "table1_value", lambda *key: 0.6 if key[1:] == ("tmt", "acc5") else original(*key))
    other = audit.column_coincidence().assign(coincide=False)
    monkeypatch.setattr(audit, "column_coincidence", lambda: other)
    frame = audit.arithmetic_verdicts().set_index("claim")
    assert frame.loc["earlier_methods", "verdict"] == frame.loc["sims_mae", "verdict"] == "supported"
    assert "sims 0 of 13, mosi 0 of 11, mosei 0 of 11" in frame.loc["earlier_methods", "evidence"]
