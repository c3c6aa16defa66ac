"""Sweeps over corrupted test data, learned weights and ground truth, on the trained smoke study."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from tmtlib.analysis import costs, robustness, truth, weights
from tmtlib.common import MODALITIES
from tmtlib.data import corruption
from tmtlib.data.corrupt import corrupt, keep_only, noise_scale
from tmtlib.data.corruption import Corruption
from tmtlib.data.loading import load
from tmtlib.study import runs
from tmtlib.study.methods import method_config
from tmtlib.study.profiles import PROFILES
from tmtlib.study.records import write_record
from tmtlib.study.study import open_study

GRID = [*corruption.noise((20.0, -40.0)), *corruption.missing_modalities()]


@pytest.fixture(scope="module")
def hurt(smoke):
    return robustness.sweep(smoke.runs("tmt", "tmt_amw"), GRID, 2, "cpu", 1)


@pytest.fixture(scope="module")
def noisy(hurt):
    return hurt[hurt["kind"] == "noise"]


def test_noise_is_each_modality_and_all_from_clean(noisy, smoke):
    assert set(noisy["modality"]) == {*MODALITIES, "all"} and set(noisy["level"]) == {np.inf, 20, -40}
    assert len(noisy) == len(smoke.runs("tmt", "tmt_amw")) * 4 * (1 + 2 * 2), "two masks but where nothing is drawn"
    assert not noisy.duplicated(["dataset", "method", "seed", "modality", "level", "mask"]).any()


def test_clean_level_is_the_test_result(noisy, smoke):
    clean = noisy[np.isinf(noisy["level"])].groupby(["dataset", "method", "seed"])["mae"].agg(["min", "max"])
    rows = smoke.ensure("tmt", "tmt_amw").set_index(["dataset", "method", "seed"])["mae"]
    assert np.abs(clean["min"] - rows).max() < 1e-5 and np.abs(clean["max"] - rows).max() < 1e-5


def test_noise_changes_predictions_and_another_mask_changes_them_again(noisy):
    loud = noisy[(noisy["level"] == -40) & (noisy["modality"] == "all")]
    clean = noisy[np.isinf(noisy["level"]) & (noisy["modality"] == "all")]
    first, second = (loud[loud["mask"] == i]["mae"].to_numpy() for i in (0, 1))
    assert (np.abs(first - clean["mae"].to_numpy()) > 1e-6).all() and (np.abs(first - second) > 1e-6).all()


def test_missing_modalities_are_the_seven_subsets(hurt, smoke):
    run = smoke.runs("tmt")[0]
    reduced = hurt[(hurt["kind"] == "missing_modalities") & (hurt["method"] == "tmt") & (hurt["seed"] == run.seed)]
    reduced = reduced[reduced["dataset"] == "mosi"]
    wanted = ["all", "text+audio", "text+vision", "audio+vision", *MODALITIES]
    assert sorted(reduced["modality"]) == sorted(wanted) and set(reduced["protocol"]) == {"P3"}
    data = load(run.data)
    predicted = runs.predict(runs.load_model(run), keep_only(data.test, ("audio",)), run.training, "cpu")
    wanted = np.abs(predicted - data.test.labels).mean()
    assert reduced.set_index("modality").loc["audio", "mae"] == pytest.approx(wanted, abs=1e-5)


def test_a_measure_sees_each_drawn_split_and_the_clean_one_once(smoke):
    data, measured = next(smoke.datasets()), []
    rows = list(robustness.measured(data, GRID, 2, lambda split: measured.append(split) or len(measured)))
    assert [(how, mask) for how, mask, _ in rows] == robustness.cases(GRID, 2)
    clean = {value for how, _, value in rows if how.changes_nothing}
    assert len(clean) == 1 and len(measured) == 1 + sum(not how.changes_nothing for how, *_ in rows)
    drawn = {(how, mask): measured[value - 1] for how, mask, value in rows}
    loud = Corruption("noise", ("audio",), -40.0)
    wanted = corrupt(data.test, loud, noise_scale(data.train), 1).features["audio"]
    assert np.array_equal(drawn[loud, 1].features["audio"], wanted)


def test_one_model_s_corruptions_are_shared_out_among_cores(hurt, smoke):
    run = smoke.runs("tmt")[0]
    both = robustness.sweep([run], GRID, 3, "cpu", jobs=2).query("mask < 2")
    alone = hurt[(hurt["dataset"] == "mosi") & (hurt["method"] == "tmt") & (hurt["seed"] == run.seed)]
    keys = ["kind", "modality", "level", "mask"]
    assert both[keys].reset_index(drop=True).equals(alone[keys].reset_index(drop=True))
    np.testing.assert_allclose(both["mae"], alone["mae"], atol=1e-5)


def test_what_is_stored_does_not_depend_on_the_number_of_cores(hurt, smoke, monkeypatch):
    run = smoke.runs("tmt")[0]
    alone = hurt[(hurt["dataset"] == "mosi") & (hurt["method"] == "tmt") & (hurt["seed"] == run.seed)]
    monkeypatch.setattr(robustness, "measured", None)  # all is read back, in this process
    monkeypatch.setattr(runs, "in_parallel", lambda function, arguments, jobs: (function(*a) for a in arguments))
    for cores in (4, 64):
        monkeypatch.setattr(runs, "cpu_count", lambda n=cores: n)
        again = robustness.sweep([run], GRID, 2, "cpu")
        assert again.equals(alone[again.columns].reset_index(drop=True))


def test_runs_on_the_same_data_share_each_corruption_and_only_the_missing_are_computed(smoke, hurt, monkeypatch):
    here = [run for run in smoke.runs("tmt", "tmt_amw") if run.data == smoke.refs[0]]
    drawn, corrupted = [], robustness.corrupt
    monkeypatch.setattr(
        robustness, "corrupt", lambda split, how, *rest: drawn.append(how) or corrupted(split, how, *rest)
    )
    grid = corruption.noise((-7.0,))
    first = robustness.sweep(here[:1], grid, 2, "cpu", 1)
    alone = len(drawn)
    both = robustness.sweep(here, grid, 2, "cpu", 1)
    assert len(here) == 4 and alone == 2 * 4 and len(drawn) == 2 * alone
    assert both["seed"].tolist() == [run.seed for run in here for _ in range(len(first))], "rows run by run"
    assert both[: len(first)].equals(first)


def test_groups_are_of_one_data_set_and_protocol_and_not_large(smoke):
    todo = smoke.runs("tmt", "tmt_amw")
    groups = robustness.groups(todo, together=3)
    assert [len(group) for group in groups] == [3, 1] * 3 and [run for group in groups for run in group] == todo
    assert all(len({(run.data, run.training) for run in group}) == 1 for group in groups)


def test_second_sweep_computes_nothing(smoke, hurt, monkeypatch):
    monkeypatch.setattr(robustness, "measured", None)
    again = robustness.sweep(smoke.runs("tmt", "tmt_amw"), GRID, 2, "cpu", 1)
    assert again.equals(hurt)


def test_summary_has_one_row_a_method_corruption_and_metric(hurt):
    table = robustness.summary(hurt)
    wanted = "dataset source method regime protocol kind modality level metric mean sd n"
    assert list(table.columns) == wanted.split()
    assert set(table["protocol"]) == {"P3", "P7"} and (table["n"] == 2).all(), "seeds, whatever the number of masks"
    assert table["mean"].notna().all()
    assert not table.duplicated([c for c in table if c not in ("mean", "sd", "n")]).any()


def test_a_profile_s_grid_holds_every_protocol():
    for profile in PROFILES.values():
        whole, part = robustness.grid(profile), robustness.grid(profile, everything=False)
        assert {how.protocol for how in whole} == {"P1", "P3", "P7", "P8", "P9"}
        assert {how.protocol for how in part} == {"P1", "P3", "P7"} and len(set(whole)) == len(whole)


def test_the_constant_feels_nothing(hurt, smoke):
    rows = robustness.constant_rows(hurt, smoke.runs("tmt"))
    assert list(rows.columns) == list(hurt.columns) and set(rows["method"]) == {"constant"}
    assert (rows.groupby("dataset")["mae"].nunique() == 1).all() and set(rows["dataset"]) == set(hurt["dataset"])


# --- Trained on data with frames missing -----------------------------------------------------------------------------


def test_masked_training_changes_train_and_valid_and_never_test(smoke):
    (run, *_) = smoke.runs("tmt", regime="masked")
    masked, clean = load(run.data), load(run.data.clean)
    assert run.data.regime == "masked" and run.id != smoke.runs("tmt")[0].id
    for m in MODALITIES:
        assert np.array_equal(masked.test.features[m], clean.test.features[m])
        for s in ("train", "valid"):
            there = clean[s].features[m].any(2)
            lost = there & ~masked[s].features[m].any(2)
            share = lost.sum(1) / np.maximum(1, there.sum(1))
            assert 0.35 < lost.sum() / there.sum() < 0.65 and share.std() > 0.2, "a rate of each utterance's own"
            kept = there & ~lost
            assert np.array_equal(masked[s].features[m][kept], clean[s].features[m][kept])


def test_a_masked_study_trains_models_of_its_own_and_looks_at_clean_test_data(smoke):
    rows = smoke.ensure("tmt", regime="masked")
    clean = smoke.ensure("tmt")
    assert set(rows["regime"]) == {"masked"} and set(rows["dataset"]) == {"mosi"} and len(rows) == 2
    assert set(clean["regime"]) == {"clean"}
    assert (np.abs(rows["mae"].to_numpy() - clean[clean["dataset"] == "mosi"]["mae"].to_numpy()) > 1e-6).all()
    swept = robustness.sweep(smoke.runs("tmt", regime="masked"), corruption.missing_frames((0.0, 1.0)), 2, "cpu", 1)
    assert set(swept["regime"]) == {"masked"} and len(swept) == 4
    np.testing.assert_allclose(swept[swept["level"] == 0]["mae"], rows["mae"], atol=1e-5)


# --- Curves, on rows made by hand ------------------------------------------------------------------------------------


def curve(levels, values, kind="missing_frames", method="tmt", seed=0, **more):
    """Rows of a sweep with one metric."""
    frame = pd.DataFrame({"level": levels, "mae": values}).assign(kind=kind, method=method, seed=seed, modality="all")
    protocol = corruption.PROTOCOLS[kind]
    return frame.assign(dataset="mosi", source="synthetic", regime="clean", protocol=protocol, mask=0, n_test=9, **more)


def test_auilc_is_the_trapezoid_over_uneven_levels():
    found = robustness.auilc(curve([0.0, 0.5, 0.2], [1.0, 4.0, 2.0])).iloc[0]
    assert found["auilc"] == pytest.approx(1.5 * 0.2 + 3 * 0.3)
    assert found["auilc_normalised"] == pytest.approx(1.2 / 0.5)
    assert found["clean"] == 1 and found["worst"] == 4 and found["relative_drop"] == pytest.approx(1.4)
    assert found["n"] == 1 and np.isnan(found["low"])


def test_noise_levels_are_equal_steps_from_clean():
    found = robustness.auilc(curve([0.0, np.inf, 10.0], [3.0, 1.0, 2.0], "noise")).iloc[0]
    assert found["auilc"] == found["auilc_normalised"] == pytest.approx(2.0) and found["clean"] == 1


def test_masks_are_averaged_before_seeds():
    some = [curve([0.0, 1.0], [1.0, v], seed=s).assign(mask=k) for s, k, v in ((0, 0, 2.0), (0, 1, 4.0), (1, 0, 5.0))]
    table = robustness.summary(pd.concat(some))
    hurt = table[table["level"] == 1].iloc[0]
    assert hurt["mean"] == 4.0 and hurt["n"] == 2 and hurt["sd"] == pytest.approx(np.std([3, 5], ddof=1))


def test_area_under_curve_and_what_corruption_adds():
    area = robustness.area_under_curve(curve([0.0, 1.0], [1.0, 2.0]), kind="missing_frames").iloc[0]
    assert area["area"] == 1.5 and area["clean"] == 1 and area["beyond"] == 0.5


def test_worst_case_is_the_worst_over_all_protocols():
    rows = [curve([0.0, 1.0], [1.0, 2.0]), curve([np.inf, 0.0], [1.0, 3.0], "noise")]
    rows.append(curve([np.nan], [1.0], "missing_modalities"))
    found = robustness.worst_case(pd.concat(rows)).iloc[0]
    assert found["worst"] == 3 and found["protocol"] == "P7" and found["level"] == 0 and found["clean"] == 1


def test_ranking_is_stable_where_areas_follow_clean_values_and_not_where_they_are_reversed():
    def areas(of_method):
        rows = [
            {"method": m, "seed": s, "clean": c + 0.01 * s, "area": a + 0.01 * s}
            for m, (c, a) in of_method.items()
            for s in range(4)
        ]
        return pd.DataFrame(rows).assign(dataset="mosi", source="synthetic", regime="clean", modality="all")

    same = robustness.ranking_stability(areas({"a": (1, 2), "b": (2, 3), "c": (3, 4)})).iloc[0]
    assert same["tau"] == 1 and same["low"] == 1 and same["best"] == "a" and same["best_again"] == 1
    turned = robustness.ranking_stability(areas({"a": (1, 4), "b": (2, 3), "c": (3, 2)})).iloc[0]
    assert turned["tau"] == -1 and turned["best"] == "c" and turned["n"] == 4 and turned["methods"] == 3
    rows = areas({"a": (1, 4), "b": (2, 3), "c": (3, 2)})
    constant = rows[:1].assign(method="constant")  # has no seeds, and would leave one to all others
    pd.testing.assert_series_equal(robustness.ranking_stability(pd.concat([rows, constant])).iloc[0], turned)
    assert robustness.ranking_stability(rows[rows["method"] != "c"]).empty, "two methods make no ranking"


def test_kendalls_tau_is_that_of_scipy_with_ties_too():
    x, y = np.random.default_rng(0).integers(0, 4, (2, 300, 5)).astype(float)
    expected = [kendalltau(*pair).statistic for pair in zip(x, y, strict=True)]
    np.testing.assert_allclose(robustness._kendall_tau(x, y), expected, atol=1e-12)
    assert np.isnan(robustness._kendall_tau(x[:, :1].repeat(5, 1), y)).all()


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
    found = weights.mean_matrices(smoke.runs("tmt_amw")).set_index(["dataset", "modality"])
    assert set(found.index.get_level_values(0)) == {"mosi", "mosei", "sims"} and found.loc["mosi"].index[0] == "text"
    some = [r for r in smoke.runs("tmt_amw") if r.data.name == "mosi"]
    each = [runs.load_model(r).weighting.W.softmax(0).detach().numpy() for r in some]
    np.testing.assert_allclose(found.loc["mosi"].iloc[:, 2:], np.mean(each, 0), atol=1e-5)


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


def test_synthetic_importance_sums_to_one(smoke):
    table = truth.true_importance(smoke.runs("tmt"))
    np.testing.assert_allclose(table.groupby("dataset")["truth"].sum(), 1)
    top = table.loc[table.groupby("dataset")["truth"].idxmax()].set_index("dataset")["modality"]
    assert top.to_dict() == {"mosi": "text", "mosei": "text", "sims": "vision"}


def test_costs_are_ratios(smoke):
    data = next(smoke.datasets())
    amw, plain = (method_config(m, smoke.profile.model) for m in ("tmt_amw", "tmt"))
    width = smoke.profile.model.width
    cost = costs.beyond(amw, plain, data, smoke.profile.training, "cpu", rounds=3)
    assert cost.parameters == 3 * width and cost.operations == 3 * 2 * width, "M d numbers; M k d products"
    assert cost.share == pytest.approx(cost.operations / costs.operations(plain, data)) and 0 < cost.share < 0.01
    assert cost.time.n == 3 and -0.9 < cost.time.mean < 9


def test_operations_are_counts(smoke):
    data, plain = next(smoke.datasets()), method_config("tmt", smoke.profile.model)
    first, longer = costs.operations(plain, data), replace(plain, cross_layers=plain.cross_layers + 1)
    assert costs.operations(plain, data) == first, "no clock"
    d, inner, hidden = plain.width, plain.heads * plain.head_width, plain.cross_hidden
    ends = [(6, 6), (6, 6)]  # (targets, sources): 6 shared tokens, and 2 of each modality
    linear = sum(2 * (2 * q * d * inner + 2 * k * d * inner + 2 * q * d * hidden) for q, k in ends)
    attention = sum(2 * 2 * q * k * inner for q, k in ends)
    assert costs.operations(longer, data) - first == linear + attention
    weighted = {
        p: costs.operations(replace(plain, weighting="uniform", placement=p), data) for p in ("R1", "R1M", "R3")
    }
    assert weighted["R1"] - first == 6 * d and weighted["R1M"] - first == 12 * d
    frames = sum(data.test.lengths[m][:32].sum() for m in MODALITIES) / 32
    assert weighted["R3"] - first == pytest.approx(frames * d, abs=1)


# --- Corruptions that would not mean what they say -------------------------------------------------------------------


def changed(split, lengths):
    """The split with other longest lengths, by modality."""
    return replace(split, lengths={m: np.minimum(split.lengths[m], lengths[m]) for m in MODALITIES})


def test_corruptions_suit_the_data_or_are_left_out(smoke):
    split = next(smoke.datasets()).test
    assert all(robustness.suits(how, split) for how in robustness.grid(smoke.profile) if how.level != 8)
    single = changed(split, dict.fromkeys(MODALITIES, 1))
    kinds = {how.kind for how in robustness.grid(smoke.profile) if robustness.suits(how, single)}
    assert kinds == {"missing_frames", "missing_modalities", "noise", "swapped"}
    without = changed(split, {"text": 99, "audio": 99, "vision": 0})
    left = [how for how in robustness.grid(smoke.profile) if robustness.suits(how, without)]
    assert {how.where for how in left if how.kind == "missing_modalities"} == {"all", "text+audio", "text", "audio"}
    assert {how.where for how in left if how.kind in ("noise", "swapped", "shift")} == {"text", "audio", "all"}
    late = Corruption("shift", ("text",), 5.0)
    assert robustness.suits(late, changed(split, dict.fromkeys(MODALITIES, 6))) == (split.lengths["text"].max() > 5)


def test_a_sweep_has_no_rows_of_what_does_not_suit(smoke):
    run = smoke.runs("tmt")[0]
    data = load(run.data)
    data = replace(data, test=changed(data.test, {"text": 99, "audio": 99, "vision": 0}))
    (rows,) = robustness._computed.__wrapped__([run], tuple(GRID), 1, "cpu", data)
    assert "vision" not in {row["modality"] for row in rows} and {"text", "all"} <= {row["modality"] for row in rows}


def test_an_area_is_undefined_where_the_metric_is_at_some_level():
    rows = pd.concat([curve([0.0, 0.5, 1.0], [1.0, 1.0, 1.0], seed=s) for s in (0, 1)]).assign(
        corr=[0.5, 0.4, np.nan] * 2
    )
    table = robustness.auilc(rows, ("mae", "corr")).set_index("metric")
    assert np.isnan(table.loc["corr", "auilc_normalised"]) and np.isnan(table.loc["corr", "auilc"])
    assert table.loc["corr", "n"] == 2 and table.loc["mae", "auilc_normalised"] == 1
    assert len(robustness.summary(rows).query("metric == 'corr'")) == 2, "what is defined is still in the summary"


def test_a_regime_has_a_name_whatever_the_corruption(smoke):
    ref = smoke.refs[0]
    assert ref.regime == "clean"
    named = {
        "noise text -10": Corruption("noise", ("text",), -10.0),
        "missing_frames audio": Corruption("missing_frames", ("audio",)),
        "missing_modalities text+audio": Corruption("missing_modalities", ("text", "audio")),
    }
    for name, how in named.items():
        assert replace(ref, training_corruption=how).regime == name


def test_a_run_that_was_trained_again_is_looked_at_again(own_results):
    study = open_study("smoke", device="cpu")
    (run,) = [r for r in study.runs("tmt") if r.data == study.refs[0] and r.seed == 0]
    runs.ensure([run], "cpu", jobs=1, progress=False)
    grid = corruption.missing_frames((1.0,))
    robustness.sweep([run], grid, 1, "cpu", 1)
    looks = {p.name for p in runs.record_path(run).parent.glob(f"{run.id}.*.json")}
    with np.load(runs.record_path(run)) as file:
        arrays = dict(file)
    write_record(run, json.loads(str(arrays.pop("meta"))) | {"time": "later"}, arrays)
    robustness.sweep([run], grid, 1, "cpu", 1)
    assert len({p.name for p in runs.record_path(run).parent.glob(f"{run.id}.*.json")} - looks) == 1


def test_noise_for_a_masked_model_is_as_strong_as_for_any_other(smoke):
    """The scale of noise is of clean train: frames that are missing there would make it too small."""
    run = smoke.runs("tmt", regime="masked")[0]
    runs.ensure([run], "cpu", jobs=1, progress=False)
    how, clean = Corruption("noise", ("text",), -20.0), load(run.data.clean)
    row = robustness.sweep([run], [how], 1, "cpu", 1).iloc[0]
    hurt = corrupt(clean.test, how, noise_scale(clean.train))
    wanted = np.abs(runs.predict(runs.load_model(run), hurt, run.training, "cpu") - clean.test.labels).mean()
    assert row["mae"] == pytest.approx(wanted, abs=1e-6)
