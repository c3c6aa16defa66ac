"""Synthetic worlds, in which the truth is known, get the right verdicts: at least 95 of 100 draws each."""

from datetime import date
from itertools import product

import numpy as np
import pandas as pd
import pytest

from tmtlib.paper import facts, verdicts
from tmtlib.stats.statistics import Interval

DRAWS, ENOUGH = 100, 95
SPREAD = {"acc5": 0.012, "f1": 0.012, "mae": 0.015}  # sd of what a seed has in common, as published (audit.SEED_NOISE)
METHODS = ("tmt", "tmt_amw", "tmt_uniform", "tmt_random")
GAINS = {c.key: c.rule for c in facts.CLAIMS if facts.gain_cells(c.rule)}
LEARNED = {key for key, rule in GAINS.items() if rule.startswith("learned_gain")}


def world(rng: np.random.Generator, effects: dict[str, float], noise: float, seeds: int = 10) -> pd.DataFrame:
    """A row a run, as `ensure` returns them.

    effects: by method, the true gain over TMT in units of the gain printed for the cell (its size, where that is a
    loss); noise: sd of a run's own noise in the same units.
    """
    names = [(dataset, method, seed) for dataset in facts.DATASETS for method in METHODS for seed in range(seeds)]
    rows = pd.DataFrame(names, columns=["dataset", "method", "seed"]).assign(source="synthetic")
    effect = np.array([effects.get(method, 0) for method in METHODS])[:, None]
    values = {metric: [] for metric in verdicts.OUR_METRICS}
    for dataset, metric in product(facts.DATASETS, verdicts.OUR_METRICS):
        unit = verdicts.margin(dataset, metric) / verdicts.EQUIVALENCE
        common = rng.normal(0, SPREAD[metric], seeds)
        gain = effect + rng.normal(0, noise, (len(METHODS), seeds))
        values[metric].append(0.5 + common + facts.BETTER[metric] * unit * gain)
    return rows.assign(**{ours: np.ravel(values[metric]) for metric, ours in verdicts.OUR_METRICS.items()})


def share(effects: dict[str, float], noise: float, seeds: int = 10) -> pd.Series:
    """How many of the draws of a world give each claim each verdict: (claim, verdict) -> count."""
    rng = np.random.default_rng(20)
    drawn = [verdicts.gain_cells(world(rng, effects, noise, seeds)) for _ in range(DRAWS)]
    pairs = [(key, verdicts.judged(cells, GAINS[key])) for found in drawn for key, cells in found.items()]
    return pd.Series(pairs).value_counts()


def check(counts: pd.Series, keys, verdict: str) -> None:
    wrong = {key: int(counts.get((key, verdict), 0)) for key in keys if counts.get((key, verdict), 0) < ENOUGH}
    assert not wrong, f"{verdict} in so many of {DRAWS} draws: {wrong}"


def test_learned_weights_that_help_are_supported():
    check(share({"tmt_amw": 2}, noise=0.7), GAINS, "supported")


def test_weights_that_do_nothing_are_not_supported():
    check(share({}, noise=0.2), GAINS, "not supported")


def test_weights_that_hurt_are_not_supported():
    check(share({"tmt_amw": -2}, noise=1.0), GAINS, "not supported")


def test_a_gain_that_any_weights_bring_is_no_merit_of_learned_ones():
    counts = share(dict.fromkeys(METHODS[1:], 2), noise=0.2)
    check(counts, set(GAINS) - LEARNED, "supported")
    check(counts, LEARNED, "not supported")


@pytest.mark.parametrize(("seeds", "noise"), [(2, 2.0), (3, 3.0)])
def test_few_noisy_seeds_leave_the_verdict_open(seeds, noise):
    check(share({"tmt_amw": 1}, noise, seeds), GAINS, "cannot tell")


def test_a_null_at_published_noise_is_hardly_ever_supported():
    counts = share({}, noise=3.0)
    assert max(counts.get((key, "supported"), 0) for key in GAINS) <= DRAWS - ENOUGH


# --- The evidence -----------------------------------------------------------------------------------------------------


@pytest.fixture
def helps() -> pd.DataFrame:
    return world(np.random.default_rng(0), {"tmt_amw": 2}, 0.3)


def test_claims_of_learning_need_the_controls_and_claims_of_a_gain_do_not(helps):
    without = helps[helps["method"] != "tmt_random"]
    found = verdicts.gain_verdicts(without)
    assert {found[key][0] for key in LEARNED} == {"cannot tell"}
    assert {found[key][0] for key in set(GAINS) - LEARNED} == {"supported"}
    words = found["gain_everywhere"][1]
    assert (
        "against uniform weights: a gain is supported in 9 of 9" in words and "against random weights: not run" in words
    )


def test_evidence_names_the_cells_without_a_gain_of_half_the_printed_size():
    found = verdicts.gain_verdicts(world(np.random.default_rng(1), {}, 0.1))
    assert "No gain as large as half the printed one: CMU-MOSI (synthetic) Acc-5" in found["gain_mosi"][1]
    assert "nan" not in " ".join(words for _, words in found.values())


def test_gains_give_p_effect_size_and_what_could_have_been_found(helps):
    frame = verdicts.gains(helps)
    assert list(frame.columns) == verdicts.GAIN_COLUMNS and len(frame) == 9
    assert (frame["p_adjusted"] >= frame["p"]).all() and (frame["n"] == 10).all()
    half = (frame["high"] - frame["low"]) / 2
    sd = half * np.sqrt(10) / 2.2621571627982  # t quantile .975 with 9 degrees of freedom
    assert frame["d_z"].to_numpy() == pytest.approx((frame["difference"] / sd).to_numpy())
    assert frame["mde"].to_numpy() == pytest.approx((0.9960 * sd).to_numpy(), rel=1e-3)  # power .8 at d_z .996, n = 10


def test_adjusted_p_belongs_to_the_whole_family_whatever_a_rule_names(helps):
    whole = verdicts.gains(helps).set_index(["dataset", "metric"])
    one = verdicts.gains(helps, "amw_gain:mosi:acc5").iloc[0]
    assert one["p_adjusted"] == whole.loc[("mosi", "acc5"), "p_adjusted"]
    assert verdicts.gains(helps, "amw_gain:mosi:acc5", before="tmt_fixed").empty, "no such runs"


def test_noise_claims_follow_the_areas_and_the_controls(helps):
    areas = helps.rename(columns={"mae": "area"}).assign(modality="all")
    found = verdicts.noise_verdicts(areas)
    assert found["noise_robust"][0] == found["imbalance_noise"][0] == "supported"
    two = verdicts.noise_verdicts(areas[areas["method"].isin(["tmt", "tmt_amw"])])
    assert two["noise_robust"][0] == "supported" and two["imbalance_noise"][0] == "cannot tell"
    assert list(verdicts.noise_gains(areas).columns) == verdicts.GAIN_COLUMNS


def test_equal_differences_are_no_evidence_and_print_no_nan():
    rows = world(np.random.default_rng(2), {"tmt_amw": 2}, 0.0, seeds=2)
    found = verdicts.gain_verdicts(rows)
    assert {verdict for verdict, _ in found.values()} == {"cannot tell"}
    assert "nan" not in " ".join(words for _, words in found.values())


@pytest.mark.parametrize(("datasets", "verdict"), [(("mosi", "sims"), "supported"), (("mosi",), "cannot tell")])
def test_one_data_set_supports_nothing_that_is_said_of_several(datasets, verdict):
    better = pd.DataFrame({"dataset": datasets, "verdict": "supported"})
    compared = dict.fromkeys(("tmt", *verdicts.CONTROLS), better)
    assert verdicts.judged(compared, "amw_gain:all:all") == verdicts.judged(compared, "learned_gain:all:mae") == verdict
    assert verdicts.judged(compared, "amw_gain:mosi:all") == "supported", "of one data set it may"


def test_every_row_states_the_version_and_date_of_the_rules():
    rows = world(np.random.default_rng(3), {"tmt_amw": 2}, noise=0.2)
    areas = rows.rename(columns={"mae": "area"}).assign(modality="all")
    table = verdicts.claims(rows, areas, 384, Interval(0.02, 0.01, 0.03, 15))
    assert set(table["rules"]) == {f"v{facts.RULES_VERSION}, {facts.RULES_DATE}"}
    date.fromisoformat(facts.RULES_DATE)


def test_the_blocks_are_those_of_the_model():
    """The paper's room may not import models, so the two names stand twice."""
    from tmtlib.models.tmt import MUTUAL

    assert set(verdicts.MUTUAL_BLOCKS) == set(MUTUAL)
