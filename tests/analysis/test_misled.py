"""Gain reached against gain possible, from planted scores and from runs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tmtlib import figures
from tmtlib.analysis import misled
from tmtlib.data.schema import SyntheticSize
from tmtlib.study import runs
from tmtlib.study.study import open_study


def planted(shares: dict[str, float], possible: float = 0.1, spread: float = 0.005, draws: int = 5) -> pd.DataFrame:
    """Scores of methods that gain such shares of what is possible, with noise over draws and seeds."""
    rng, rows = np.random.default_rng(0), []
    for world in misled.WORLDS:
        for draw in range(draws):
            level = 0.7 + 0.05 * rng.standard_normal()  # of a draw, the same for all methods
            for method, share in {"tmt": 0.0, "tmt_oracle": 1.0, **shares}.items():
                for seed in range(3):
                    mae = level - share * possible + spread * rng.standard_normal()
                    rows.append((world, draw, method, seed, 100, mae, mae + 0.1, mae - 0.1, np.nan, np.nan))
    columns = "world draw method seed n_test mae mae_misled mae_rest auc least"
    return pd.DataFrame(rows, columns=columns.split())


def test_shares_and_readings_are_those_that_were_planted():
    table = misled.reached(planted({"tmt_reliability": 0.8, "tmt_gated": 0.3, "tmt_amw": 0.0, "tmt_amw_r3": -0.4}))
    assert set(table["n"]) == {5} and set(table["seeds"]) == {3} and table["test"].all()
    readings = table.set_index(["world", "method"])["reading"].unstack("world")
    for world in misled.WORLDS:
        found = readings[world].to_dict()
        assert found == {
            "tmt": "",
            "tmt_oracle": "reaches half",
            "tmt_reliability": "reaches half",
            "tmt_gated": "gains",
            "tmt_amw": "cannot tell",
            "tmt_amw_r3": "loses",
        }
    row = table.set_index(["world", "method"]).loc[("misled", "tmt_reliability")]
    assert row["share"] == pytest.approx(0.8, abs=0.08) and row["share_low"] < row["share"] < row["share_high"]
    assert row["low"] < row["gain"] < row["high"]


def test_a_world_where_being_told_gains_nothing_is_no_test():
    table = misled.reached(planted({"tmt_amw": 0.5}, possible=0.001, spread=0.02))
    assert not table["test"].any() and table["share_low"].isna().all()
    assert not table["reading"].eq("reaches half").any()


def test_a_method_is_compared_on_the_draws_that_it_has():
    scored = planted({"tmt_amw": 0.5})
    some = scored[(scored["method"] != "tmt_amw") | (scored["draw"] < 3)]
    row = misled.reached(some).set_index(["world", "method"]).loc[("misled", "tmt_amw")]
    assert row["n"] == 3 and row["share"] == pytest.approx(0.5, abs=0.1)


def test_the_ratios_interval_holds_the_true_ratio_95_times_of_100():
    rng, held = np.random.default_rng(1), []
    for _ in range(400):
        below = 0.1 + 0.02 * rng.standard_normal(5)
        above = 0.6 * 0.1 + 0.02 * rng.standard_normal(5)
        low, high = misled.ratio_interval(above, below)
        held.append(low <= 0.6 <= high)
    assert stats.binom.ppf(0.001, 400, 0.95) <= sum(held) <= stats.binom.ppf(0.999, 400, 0.95)
    assert np.isnan(misled.ratio_interval(np.ones(1), np.ones(1))).all()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMT_RESULTS", str(tmp_path_factory.mktemp("misled")))
        study = open_study("smoke", device="cpu")
        profile = replace(study.profile, draws=2, draw_size=SyntheticSize((64, 32, 200), (8, 8, 8)))
        todo = misled.todo(replace(study, profile=profile), "tmt", "tmt_oracle", "tmt_reliability", "tmt_amw")
        runs.ensure(todo, "cpu", jobs=1, progress=False)
        yield todo


def test_scores_are_those_of_the_runs(finished):
    scored = misled.scores(finished)
    assert len(scored) == len(finished) == 2 * 2 * 4 * 2 and set(scored["draw"]) == {20, 21}
    for run, row in zip(finished, scored.itertuples(), strict=True):
        record = runs.read_record(run)
        assert row.mae == pytest.approx(record.scores()["mae"], abs=1e-6)
        assert min(row.mae_misled, row.mae_rest) <= row.mae <= max(row.mae_misled, row.mae_rest)
        assert (record.test_weights is None) == (run.method == "tmt")
        if record.test_weights is not None:
            np.testing.assert_allclose(record.test_weights.sum(1), 1, rtol=1e-4)
    by_method = scored.groupby("method")[["auc", "least"]].mean()
    assert (by_method.loc["tmt_oracle"] == 1).all(), "told, it never errs"
    assert by_method.loc["tmt_amw"].isna().all(), "static weights tell nothing"


def test_the_figure_has_a_line_a_method_in_each_world(finished):
    table = misled.reached(misled.scores(finished))
    figure = figures.reached(table, misled.WORLDS)
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == ["told, in attention", "TMT, reliability", "TMT+AMW"]
    assert [ax.get_title().split("\n")[0] for ax in figure.axes] == list(misled.WORLDS.values())
    assert "over draws of the data, n = 2, of 2 seeds each" in figure.legends[0].get_title().get_text()


def test_failed_trainings_are_left_out_and_said(monkeypatch):
    """`succeeded` warns of them; a run that it leaves out is not read."""
    asked = []
    monkeypatch.setattr(misled, "succeeded", lambda todo: asked.extend(todo) or [])
    assert misled.scores(["a failed run"]).empty and asked == ["a failed run"]
