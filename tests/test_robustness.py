"""Sweeps over corrupted test data, learned weights and planted truth, on the trained smoke study."""

import numpy as np
import pytest

from tmtlib import costs, robustness, runs, truth, weights
from tmtlib.config import MODALITIES
from tmtlib.data.corrupt import keep_only
from tmtlib.data.loading import load
from tmtlib.profiles import method_config


@pytest.fixture(scope="module")
def noisy(smoke):
    return robustness.sweep(smoke.runs("tmt", "tmt_amw"), robustness.noise_grid((20.0, -40.0)), "cpu", 1)


def test_noise_grid_is_each_modality_and_all_from_clean(noisy, smoke):
    assert set(noisy["modality"]) == {*MODALITIES, "all"} and set(noisy["snr_db"]) == {np.inf, 20, -40}
    assert len(noisy) == len(smoke.runs("tmt", "tmt_amw")) * 4 * 3
    assert not noisy.duplicated(["dataset", "method", "seed", "modality", "snr_db"]).any()


def test_clean_level_is_the_test_result(noisy, smoke):
    clean = noisy[np.isinf(noisy["snr_db"])].groupby(["dataset", "method", "seed"])["mae"].agg(["min", "max"])
    rows = smoke.ensure("tmt", "tmt_amw").set_index(["dataset", "method", "seed"])["mae"]
    assert np.abs(clean["min"] - rows).max() < 1e-5 and np.abs(clean["max"] - rows).max() < 1e-5


def test_noise_changes_predictions_and_seeds_of_training_do_not_change_it(noisy):
    loud = noisy[(noisy["snr_db"] == -40) & (noisy["modality"] == "all")]
    clean = noisy[np.isinf(noisy["snr_db"]) & (noisy["modality"] == "all")]
    assert (np.abs(loud["mae"].to_numpy() - clean["mae"].to_numpy()) > 1e-6).all()


def test_missing_modalities_are_the_seven_subsets(smoke):
    some = smoke.runs("tmt")[:1]
    reduced = robustness.sweep(some, robustness.missing_grid(), "cpu", 1)
    assert sorted(reduced["present"]) == sorted(
        ["text+audio+vision", "text+audio", "text+vision", "audio+vision", "text", "audio", "vision"]
    )
    data = load(some[0].data)
    predicted = runs.predict(runs.load_model(some[0]), keep_only(data.test, ("audio",)), some[0].training, "cpu")
    wanted = np.abs(predicted - data.test.labels).mean()
    assert reduced.set_index("present").loc["audio", "mae"] == pytest.approx(wanted, abs=1e-5)


def test_second_sweep_computes_nothing(smoke, noisy, monkeypatch):
    monkeypatch.setattr(robustness, "_computed", None)
    again = robustness.sweep(smoke.runs("tmt", "tmt_amw"), robustness.noise_grid((20.0, -40.0)), "cpu", 1)
    assert again.equals(noisy)


def test_summary_has_one_row_a_method_corruption_and_metric(smoke, noisy):
    reduced = robustness.sweep(smoke.runs("tmt"), robustness.missing_grid(), "cpu", 1)
    table = robustness.summary(noisy, reduced)
    wanted = "dataset source method regime protocol modality level metric mean sd n"
    assert list(table.columns) == wanted.split()
    assert set(table["protocol"]) == {"P3", "P7"} and (table["n"] == 2).all() and table["mean"].notna().all()
    assert not table.duplicated([c for c in table if c not in ("mean", "sd", "n")]).any()


# --- Weights --------------------------------------------------------------------------------------------------------


def test_weights_start_uniform_and_stay_a_distribution(smoke):
    path = weights.trajectories(smoke.runs("tmt", "tmt_amw"))
    assert set(path["method"]) == {"tmt_amw"}, "TMT has no weights"
    start = path[path["epoch"] == 0]
    np.testing.assert_allclose(start[["weight", "low", "high"]], 1 / 3, atol=1e-6)
    total = path.groupby(["dataset", "seed", "epoch"])["weight"].sum()
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert set(path["epoch"]) == {0, 1, 2}


def test_chosen_weights_are_those_of_the_tested_model(smoke):
    some = smoke.runs("tmt_amw")
    for run, (_, rows) in zip(some, weights.chosen(some).groupby(["dataset", "seed"], sort=False), strict=True):
        a = runs.load_model(run).weighting.W.softmax(0).detach().numpy()
        np.testing.assert_allclose(rows["weight"], a.mean(1), atol=1e-5)
        np.testing.assert_allclose(rows["high"], a.max(1), atol=1e-5)


def test_mean_matrix_averages_seeds(smoke):
    found = weights.mean_matrix(smoke.runs("tmt_amw"))
    assert set(found) == {(d, "planted", "tmt_amw") for d in ("mosi", "mosei", "sims")}
    some = [r for r in smoke.runs("tmt_amw") if r.data.name == "mosi"]
    each = [runs.load_model(r).weighting.W.softmax(0).detach().numpy() for r in some]
    np.testing.assert_allclose(found["mosi", "planted", "tmt_amw"], np.mean(each, 0), atol=1e-5)


def test_weights_stay_within_adam_s_reach(smoke):
    table = weights.reach(smoke.runs("tmt_amw"))
    assert (table["w_max"] <= table["move_bound"] * 1.01).all() and (table["w_max"] > 0).all()
    assert (table["a_low"] >= table["a_low_bound"] - 1e-4).all() and (table["a_low"] < 1 / 3).all()
    assert (table["a_high"] <= table["a_high_bound"] + 1e-4).all() and (table["a_high"] > 1 / 3).all()
    assert (table["steps"] <= 4).all(), "96 utterances in batches of 64, two epochs"


# --- Truth and costs ------------------------------------------------------------------------------------------------


def test_explained_variance_by_hand():
    label = np.array([0.0, 1.0, 2.0, 3.0])
    assert truth.explained_variance(label, label) == 1
    assert truth.explained_variance(np.full(4, 1.5), label) == 0
    assert truth.explained_variance(label + 1, label) == pytest.approx(1 - 1 / 1.25)


def test_explained_share_is_model_over_oracle(smoke):
    table = truth.explained_share(smoke.runs("tmt"))
    assert len(table) == 6 and (table["share"] == table["r2"] / table["oracle_r2"]).all()
    assert table["oracle_r2"].between(0.3, 0.9).all() and (table["r2"] < table["oracle_r2"]).all()


def test_planted_importance_sums_to_one(smoke):
    table = truth.importance(smoke.runs("tmt"))
    np.testing.assert_allclose(table.groupby("dataset")["truth"].sum(), 1)
    top = table.loc[table.groupby("dataset")["truth"].idxmax()].set_index("dataset")["modality"]
    assert top.to_dict() == {"mosi": "text", "mosei": "text", "sims": "vision"}


def test_costs_are_ratios(smoke):
    data = next(smoke.datasets())
    amw, plain = (method_config(m, smoke.profile.model) for m in ("tmt_amw", "tmt"))
    assert costs.extra_parameters(amw, plain, data) == 3 * smoke.profile.model.width
    extra = costs.extra_time(amw, plain, data, smoke.profile.training, "cpu", rounds=3, steps=1)
    assert extra.n == 3 and -0.9 < extra.mean < 9
