"""Tables from rows with known contents, and from real runs."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tmtlib.analysis import trivial_baselines
from tmtlib.data.loading import load
from tmtlib.paper import facts, ledger, verdicts
from tmtlib.stats.statistics import Interval
from tmtlib.study import report, tables


def rows_of(method: str, acc5: list[float], mae: list[float], dataset: str = "mosi", source: str = "synthetic"):
    values = {"acc5": acc5, "f1_5class": acc5, "mae": mae}
    start = {"dataset": dataset, "source": source, "alignment": "aligned", "method": method, "seed": range(len(acc5))}
    return pd.DataFrame(start | values)


def test_mean_sd_n_and_the_paper_s_value():
    table = tables.table1(rows_of("tmt", [0.4, 0.5, 0.6], [1.0, 1.0, 1.3]))
    assert list(table.columns) == tables.TABLE1_COLUMNS
    cells = table.set_index("metric")
    assert cells.loc["acc5", ["mean", "sd", "n", "paper"]].tolist() == pytest.approx([0.5, 0.1, 3, 0.43])
    assert cells.loc["mae", "sd"] == pytest.approx(np.std([1, 1, 1.3], ddof=1)) and cells.loc["mae", "paper"] == 0.52


def test_failed_training_shows_and_is_not_averaged_away():
    table = tables.table1(rows_of("tmt", [0.4, 0.5, 0.1], [1.0, 1.0, float("nan")]))
    cell = table.set_index("metric").loc["mae"]
    assert np.isnan(cell["mean"]) and cell["n"] == 3
    assert "nan" in tables.shown(table)["MAE"].item()


def test_single_run_has_no_spread_and_undefined_metric_no_row():
    rows = rows_of("tmt", [0.4], [1.0]).assign(corr=float("nan"))
    table = tables.table1(rows).set_index("metric")
    assert table["sd"].isna().all() and (table["n"] == 1).all() and "corr" not in table.index


def test_intervals_and_adjusted_p_by_hand():
    rng = np.random.default_rng(0)
    base = rng.normal(0.4, 0.02, 5)
    better, same = base + 0.03 + rng.normal(0, 0.005, 5), base + rng.normal(0, 0.01, 5)
    rows = [rows_of(m, v, 1 - v) for m, v in [("tmt", base), ("tmt_amw", better), ("tmt_uniform", same)]]
    trivial = rows_of("constant", [0.3], [1.5]).drop(columns="seed")
    table = tables.table1(pd.concat([*rows, trivial]).sample(frac=1, random_state=0)).set_index(["method", "metric"])
    low, high = stats.t.interval(0.95, 4, base.mean(), base.std(ddof=1) / np.sqrt(5))
    assert table.loc[("tmt", "acc5"), ["low", "high"]].tolist() == pytest.approx([low, high])
    assert table.loc[["tmt", "constant"], "p_adjusted"].isna().all() and np.isnan(table.loc[("constant", "mae"), "low"])
    # three metrics that are the same up to sign, twice: BH of a family of six
    p = [stats.ttest_rel(after, base).pvalue for after in (better, same)]
    wanted = stats.false_discovery_control(np.repeat(p, 3))[[0, 3]]
    for method, value in zip(("tmt_amw", "tmt_uniform"), wanted, strict=True):
        assert table.loc[method, "p_adjusted"].tolist() == pytest.approx([value] * 3)


def test_runs_that_do_not_pair_have_no_p():
    tmt = rows_of("tmt", [0.4, 0.5, 0.6], [1, 1.2, 1.3])
    other = rows_of("tmt_amw", [0.5, 0.5, 0.65], [1.1, 1, 1])
    single = rows_of("tmt_uniform", [0.5], [1])
    table = tables.table1(pd.concat([tmt, other.assign(seed=[2, 3, 4]), single]))
    assert table["p_adjusted"].isna().all()
    some = tables.table1(pd.concat([tmt, other.assign(seed=[1, 2, 3])]))
    shared = tables.table1(pd.concat([tmt[1:], other[:2].assign(seed=[1, 2])]))
    pd.testing.assert_series_equal(some["p_adjusted"], shared["p_adjusted"])
    assert tables.table1(pd.concat([tmt, other]))["p_adjusted"].notna().sum() == 3
    by_order = tables.table1(pd.concat([tmt, other]).drop(columns="seed"))
    pd.testing.assert_frame_equal(by_order, tables.table1(pd.concat([tmt, other])))
    failed = pd.concat([tmt, other.assign(mae=[1.1, float("nan"), 1])])
    assert tables.table1(failed).query("metric == 'mae' and method == 'tmt_amw'")["p_adjusted"].isna().all()


@pytest.mark.parametrize("cell", facts.TABLE1, ids=lambda c: f"{c.dataset}-{c.method}-{c.metric}")
def test_every_printed_cell_is_shown_beside_ours(cell):
    ours = {"f1": "f1_5class"}.get(cell.metric, cell.metric)
    assert tables.printed(cell.dataset, cell.method, ours) == cell.value
    assert np.isnan(tables.printed("mine", cell.method, ours)) and np.isnan(tables.printed("mosi", "constant", ours))


def test_rows_of_a_data_set_stand_together():
    rows = [rows_of(m, [0.4], [1], dataset) for m in ("tmt", "constant") for dataset in ("sims", "mosi")]
    table = tables.table1(pd.concat(rows)).drop_duplicates(["dataset", "method"])
    assert table["dataset"].tolist() == ["sims", "sims", "mosi", "mosi"]
    assert table["method"].tolist() == ["tmt", "constant", "tmt", "constant"]


def test_shown_table_says_synthetic_and_spread():
    both = pd.concat([rows_of("tmt", [0.4, 0.6], [1, 2]), rows_of("constant", [0.3], [1.5])])
    shown = tables.shown(tables.table1(both))
    assert shown["data"].tolist() == ["CMU-MOSI (synthetic)"] * 2 and shown["n"].tolist() == [2, 1]
    assert shown["Acc-5"].tolist() == ["0.500 ± 0.141", "0.300"]
    assert shown["Acc-5, paper (real data)"].tolist() == ["0.43", ""]
    real = tables.shown(tables.table1(rows_of("tmt", [0.4, 0.6], [1, 2], source="real")))
    assert real["data"].tolist() == ["CMU-MOSI"]


def test_judged_table_has_interval_p_and_verdict_in_one_row():
    rng = np.random.default_rng(0)
    base = rng.normal(0.4, 0.02, 5)
    better, trivial = base + 0.05 + rng.normal(0, 0.004, 5), rows_of("constant", [0.3], [1.5])
    trained = pd.concat([rows_of("tmt", base, 1 - base), rows_of("tmt_amw", better, 1 - better)])
    table, compared = tables.table1(pd.concat([trained, trivial])), verdicts.gains(trained).assign(method="tmt_amw")
    found = tables.judged(table, compared).set_index("method")
    low, high = stats.t.interval(0.95, 4, better.mean(), better.std(ddof=1) / np.sqrt(5))
    assert found.loc["TMT+AMW", "Acc-5"] == f"{better.mean():.3f} [{low:.3f}, {high:.3f}]"
    p = stats.ttest_rel(better, base).pvalue  # adjusted over three metrics that are the same up to sign
    assert found.loc["TMT+AMW", "MAE better than TMT?"] == f"supported, p = {p:.2g}"
    assert found.loc["TMT+AMW", "Acc-5, paper (real data)"] == "0.435"
    assert found.loc["constant (train median)", "MAE"] == "1.500"
    assert (found.loc[["TMT", "constant (train median)"], "MAE better than TMT?"] == "").all()
    assert found["n"].tolist() == [5, 5, 1] and "Corr better than TMT?" not in found
    few = verdicts.gains(pd.concat([rows_of("tmt", [0.4], [1]), rows_of("tmt_amw", [0.5], [0.9])]))
    assert tables.judged(table, few.assign(method="tmt_amw"))["MAE better than TMT?"][1] == "cannot tell"


def test_table_of_real_runs_has_every_metric_of_each_family(smoke):
    rows = smoke.ensure("tmt", "tmt_amw")
    trivial = pd.concat([trivial_baselines.rows(d) for d in smoke.datasets()], ignore_index=True)
    table = tables.table1(pd.concat([rows, trivial], ignore_index=True))
    mosi, sims = (set(table.loc[table["dataset"] == d, "metric"]) for d in ("mosi", "sims"))
    assert {"acc2_has0", "acc2_non0", "acc3", "acc5", "acc7", "f1_has0", "f1_non0", "mae", "corr"} <= mosi
    assert {"acc2", "acc3", "acc5", "f1", "mae", "corr"} <= sims and "acc7" not in sims and "f1" not in mosi
    assert {"constant", "train_mean", "linear_text", "linear_all"} <= set(table["method"])
    assert not table.duplicated(["dataset", "method", "metric"]).any() and table["mean"].notna().all()


# --- Trivial baselines ----------------------------------------------------------------------------------------------


def test_constant_is_the_train_median(smoke):
    data = next(smoke.datasets())
    rows = trivial_baselines.rows(data).set_index("method")
    expected = np.abs(data.test.labels - np.median(data.train.labels)).mean()
    assert rows.loc["constant", "mae"] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(rows.loc["constant", "corr"])
    assert rows.loc["oracle", "mae"] == rows["mae"].min(), "synthetic data have a best predictor"


def test_linear_baseline_learns_what_pooled_features_show():
    from tmtlib.data.loading import load, resolve
    from tmtlib.data.schema import SyntheticSize

    data = load(resolve("mosi", synthetic_size=SyntheticSize((800, 20, 400), (10, 10, 10))))
    rows = trivial_baselines.rows(data).set_index("method")
    assert rows.loc["linear_all", "mae"] < 0.9 * rows.loc["constant", "mae"]
    assert rows.loc["linear_text", "corr"] > rows.loc["linear_vision", "corr"] + 0.1


def test_absent_modality_has_no_linear_baseline(smoke):
    from dataclasses import replace

    from tmtlib.data.corrupt import keep_only

    data = next(smoke.datasets())
    left = {s: keep_only(data[s], ("text", "audio")) for s in ("train", "valid", "test")}
    without = replace(data, **left, truth=None)
    assert set(trivial_baselines.predictions(without)) == {
        "constant",
        "train_mean",
        "linear_text",
        "linear_audio",
        "linear_all",
    }


def test_three_valued_labels_are_shown_by_the_metrics_that_suit_them(smoke):
    from dataclasses import replace

    from tmtlib.study.runs import read_record

    run = next(r for r in smoke.runs("tmt") if r.data.name == "sims")
    data, record = load(run.data), read_record(run)
    assert "f1_macro" not in record.scores() and record.scores()["acc5"] >= 0
    signs = {s: replace(data[s], labels=np.sign(data[s].labels)) for s in ("train", "valid", "test")}
    three = replace(record, labels={s: np.sign(label) for s, label in record.labels.items()}).scores()
    rows = trivial_baselines.rows(replace(data, **signs, truth=None))
    mine = rows.iloc[:1].assign(method="tmt", **three)
    both = pd.concat([mine, rows], ignore_index=True).assign(dataset="mine")
    shown = tables.shown(tables.table1(both))
    assert shown.columns.tolist() == ["data", "method", "Acc-3", "F1 (3-class, macro)", "MAE", "Corr", "n"]
    assert (shown[["Acc-3", "F1 (3-class, macro)", "MAE"]] != "").all(axis=None)


# --- Verdicts -------------------------------------------------------------------------------------------------------


def world(gain: float, spread: float, seeds: int = 5, dataset: str = "mosi") -> pd.DataFrame:
    """Runs in which TMT+AMW is better by `gain` in every metric, with that much spread of the difference."""
    rng = np.random.default_rng(0)
    base, noise = rng.normal(0.5, 0.05, seeds), rng.normal(0, spread, seeds)
    after = base + gain + noise - noise.mean()
    worse = 1 - after
    return pd.concat([rows_of("tmt", base, 1 - base, dataset), rows_of("tmt_amw", after, worse, dataset)])


def everywhere(gain: float, spread: float) -> pd.DataFrame:
    return pd.concat([world(gain, spread, dataset=d) for d in facts.DATASETS], ignore_index=True)


COST = ledger.Cost(384, 768, 1e-4, Interval(0.02, 0.01, 0.03, 15))


def areas_of(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(modality="all").rename(columns={"mae": "area"})


@pytest.mark.parametrize(
    ("gain", "spread", "verdict"),
    [(0.03, 0.005, "supported"), (-0.03, 0.005, "not supported"), (0.001, 0.02, "cannot tell")],
)
def test_gain_claims_follow_the_runs(gain, spread, verdict):
    rows = everywhere(gain, spread)
    found = ledger.claims(rows, areas_of(rows), COST, {}).set_index("claim")
    for claim in ("gain_everywhere", "gain_sims", "gain_mosi", "gain_mosei", "noise_robust"):
        assert found.loc[claim, "verdict"] == verdict
        assert found.loc[claim, "judged_from"] == "synthetic" and "n = 5 seeds" in found.loc[claim, "evidence"]
    assert len(found) == len(facts.CLAIMS), "all claims, as all their data sets are there"
    assert list(found.reset_index().columns) == ledger.COLUMNS and set(found["verdict"]) <= set(facts.VERDICTS)


@pytest.mark.parametrize("dataset", ["sims", "mosi", "mosi_glove_covarep"])
def test_every_claim_about_the_data_at_hand_has_one_row_and_evidence(dataset):
    rows = world(0.03, 0.001, dataset=dataset)
    found = ledger.claims(rows, areas_of(rows), COST, {}).set_index("claim")
    named = {c.key: c.rule.split(":")[1] for c in facts.CLAIMS if facts.gain_cells(c.rule)}
    elsewhere = {key for key, data in named.items() if data not in ("all", dataset)}
    assert {"gain_mosei"} <= elsewhere and len(elsewhere) in (4, 7)
    assert found.index.tolist() == [c.key for c in facts.CLAIMS if c.key not in elsewhere]
    assert (found["evidence"].str.len() > 10).all()
    assert found.loc["audio_anecdote", "verdict"] == "impossible as written"


def test_failed_trainings_leave_no_verdict():
    rows = everywhere(0.03, 0.005).reset_index(drop=True)
    rows.loc[rows["method"] == "tmt_amw", "mae"] = float("nan")
    cells = verdicts.gains(rows)
    assert (cells["verdict"] == "cannot tell").any() and (cells["verdict"] != "not supported").all()


def test_one_failed_seed_leaves_its_metric_open():
    rows = world(0.03, 0.001).reset_index(drop=True)
    rows.loc[(rows["method"] == "tmt_amw") & (rows["seed"] == 0), "mae"] = np.nan
    cells = verdicts.gains(rows).set_index("metric")
    assert cells.loc["mae", ["difference", "low", "p", "sd"]].isna().all()
    assert cells.loc["mae", "verdict"] == "cannot tell" != cells.loc["acc5", "verdict"]


def test_methods_are_paired_on_the_seeds_of_both():
    """The compared methods may have more seeds than others; a metric that labels do not define has no cell."""
    rows = world(0.03, 0.005).reset_index(drop=True)
    few = rows[(rows["method"] == "tmt") | (rows["seed"] < 3)]
    assert (verdicts.gains(rows)["n"] == 5).all() and (verdicts.gains(few)["n"] == 3).all()
    assert verdicts.gains(few)["difference"].notna().all()
    assert verdicts.gains(rows[(rows["method"] == "tmt") | (rows["seed"] > 9)]).empty
    assert set(verdicts.gains(rows.assign(acc5=np.nan))["metric"]) == {"f1_5class", "mae"}


def test_the_sampling_of_the_test_set_widens_an_interval():
    rows = world(0.03, 0.001)
    alone = verdicts.gains(rows, "amw_gain:mosi:acc5").iloc[0]
    cell = {"dataset": "mosi", "source": alone["source"], "metric": "acc5"}
    wide, narrow = (pd.DataFrame([cell | {"low": low, "high": high}]) for low, high in ((-0.1, 0.2), (0.03, 0.03)))
    both = verdicts.gains(rows, "amw_gain:mosi:acc5", sampled=wide).iloc[0]
    assert (both["low"], both["high"], both["verdict"]) == (-0.1, 0.2, "cannot tell") != alone["verdict"]
    again = verdicts.gains(rows, "amw_gain:mosi:acc5", sampled=narrow).iloc[0]
    assert (again["low"], again["high"]) == (alone["low"], alone["high"])
    mae = verdicts.gains(rows, "amw_gain:mosi:mae", sampled=wide).iloc[0]
    assert mae["low"] == verdicts.gains(rows, "amw_gain:mosi:mae").iloc[0]["low"], "of another metric"


def test_evidence_says_whose_data_it_is():
    for dataset, source, words in [
        ("mosi", "synthetic", "Synthetic data. "),
        ("mine", "real", "Other data than the paper's. "),
        ("mosi", "real", "AMW minus TMT"),
    ]:
        rows = world(0.03, 0.001, dataset=dataset).assign(source=source)
        found = ledger.claims(rows, areas_of(rows), COST, {}).set_index("claim")
        assert found.loc["gain_everywhere", "evidence"].startswith(words)


def test_gains_pair_seeds_whatever_the_order_of_rows():
    rows = world(0.03, 0.001).sample(frac=1, random_state=1)
    cell = verdicts.gains(rows, "amw_gain:mosi:acc5").iloc[0]
    assert cell["difference"] == pytest.approx(0.03) and cell["n"] == 5 and cell["low"] > 0.02


def test_report_reads_back_brief_and_whole(own_results):
    rows = world(0.03, 0.001)
    claims = ledger.claims(rows, areas_of(rows), COST, {})
    with pytest.raises(FileNotFoundError, match="run the study first: tmt run --profile smoke"):
        report.read("smoke")
    (own_results / "smoke").mkdir(parents=True)
    parts = {"table1": tables.table1(rows), "claims": claims, "runs": rows.assign(commit="abc")}
    for name, frame in parts.items():
        frame.to_csv(own_results / "smoke" / f"{name}.csv", index=False)
    text = report.write(own_results / "smoke")
    assert "Trained at commit abc." in text and "## Is a weight" not in text, "its tables are not there"
    (own_results / "smoke" / report.NAME).write_text(text, encoding="utf-8")
    assert report.read("smoke") == text and "SYNTHETIC" in text and "n = 5 seeds" in text
    brief = report.read("smoke", brief=True)
    assert "| gain_mosi" in brief and "n = 5 seeds" not in brief


def test_what_is_judged_from_reading_synthetic_and_real_data_is_counted_apart():
    judged = [("reading", "supported")] * 2 + [("synthetic", v) for v in ("not supported", "cannot tell", "withheld")]
    judged += [("real", "no practical difference")]
    claims = pd.DataFrame(judged, columns=["judged_from", "verdict"])
    words = report.decided(claims)
    assert (
        "Judged from reading, 2 claims: 2 supported. Judged from synthetic data, 3 claims: 1 not supported, 1" in words
    )
    assert words.endswith("2 of 4 claims judged from runs are decided.")


def test_the_report_says_what_each_claim_was_judged_from(own_results):
    rows = world(0.03, 0.001).assign(time="2026-11-30T10:00:00+00:00", commit="abc")
    folder = own_results / "smoke"
    folder.mkdir(parents=True)
    claims = ledger.claims(rows, areas_of(rows), COST, {})
    for name, frame in {"table1": tables.table1(rows), "claims": claims, "runs": rows}.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    text = report.write(folder)
    basis = "Judged from 10 runs of tmt, tmt_amw, 5 seeds on CMU-MOSI (synthetic), trained by 2026-11-30 ("
    assert (
        f"{basis}amw_differences.csv)." in text
        and "claims judged from runs are decided." in text
        and " nan" not in text
    )
