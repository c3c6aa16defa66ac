"""A modality that the data lack has no weight and no importance in any table, and nothing warns."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tmtlib import figures
from tmtlib.analysis import identifiability, importance, trivial_baselines, weights
from tmtlib.data import mmsa, synthetic
from tmtlib.data.corrupt import keep_only
from tmtlib.data.loading import resolve
from tmtlib.data.schema import SPLITS, SyntheticSize
from tmtlib.study import findings, runs
from tmtlib.study.methods import method_config
from tmtlib.study.profiles import PROFILES
from tmtlib.study.runs import Run

LEFT = ("text", "audio")


@pytest.fixture
def todo(own_results, tmp_path) -> list[Run]:
    """TMT+AMW and its gated variant, trained on a file without vision."""
    data = synthetic.generate("sims", SyntheticSize((64, 32, 32), (6, 6, 6)))
    card = replace(data.card, source="real")
    mmsa.write_mmsa(replace(data, card=card, **{s: keep_only(data[s], LEFT) for s in SPLITS}), tmp_path / "two.pkl")
    profile, ref = PROFILES["smoke"], resolve(tmp_path / "two.pkl")
    todo = [Run(ref, m, method_config(m, profile.model), profile.training, 0) for m in ("tmt_amw", "tmt_gated")]
    runs.ensure(todo, "cpu", jobs=1, progress=False)
    return todo


def test_an_absent_modality_has_no_weight_in_any_table(todo, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        path, chosen, each = weights.trajectories(todo), weights.chosen(todo), weights.by_utterance(todo)
        shares = importance.importance_table(todo, "cpu", jobs=1)
    for table in (path, chosen, shares):
        assert set(table["modality"]) == set(LEFT)
    assert not shares["mean"].isna().any() and not path["weight"].isna().any()
    np.testing.assert_allclose(shares.groupby(["method", "measure"])["mean"].sum(), 1, atol=1e-6)
    by_weight = shares[(shares["measure"] == "weight") & (shares["method"] == "tmt_amw")]
    np.testing.assert_allclose(by_weight["mean"], 1 / 2, atol=0.02)
    assert each["vision"].isna().all() and each[list(LEFT)].notna().all(axis=None)
    for _, a in weights.mean_matrices(todo).set_index("modality").iloc[:, 3:].groupby(level=0):
        assert a.isna().all(axis=None) == (a.index[0] == "vision") and a.isna().any(axis=None) == (
            a.index[0] == "vision"
        )
    moved = weights.reach(todo[:1]).iloc[0]
    final = weights.chosen(todo[:1])
    assert (moved["a_low"], moved["a_high"]) == pytest.approx((final["low"].min(), final["high"].max()))
    record = runs.read_record(todo[0])
    record.logits[2] = 9.0  # of the absent modality
    monkeypatch.setattr(weights, "read_record", lambda _: record)
    w_max = np.abs(record.logits[:2]).max()
    assert weights.reach(todo[:1]).iloc[0]["w_max"] == moved["w_max"] == pytest.approx(w_max) and w_max < 9


def test_what_absent_modalities_are_given_is_said(todo):
    final = weights.chosen(todo)
    given = 1 - final[final["method"] == "tmt_amw"]["weight"].sum()
    said = findings.on_absent(final)
    assert said.startswith("two has no vision: ") and f"{given:.3f} by TMT+AMW, " in said and 0.3 < given < 0.37
    there = pd.concat([final, final.assign(modality="vision", weight=0)])
    assert findings.on_absent(there) == ""


def test_one_modality_has_one_linear_model(todo, tmp_path):
    data = mmsa.read(tmp_path / "two.pkl")
    assert "linear_all" in trivial_baselines.predictions(data)
    alone = trivial_baselines.predictions(replace(data, **{s: keep_only(data[s], ("text",)) for s in SPLITS}))
    assert [name for name in alone if name.startswith("linear_")] == ["linear_text"]


def test_pairs_of_equal_models_have_no_row_of_an_absent_modality(todo):
    found = identifiability.pairs(todo[0])
    of_run = found[~found["pair"].str.startswith("linear layer")]  # those are of arrays, of any data
    assert set(of_run["pair"]) == {"shift of W"} and set(of_run["modality"]) == set(LEFT)
    assert not of_run[["weight_before", "weight_after"]].isna().any(axis=None)


def test_figures_of_weights_leave_an_absent_modality_out(todo):
    figures.weight_trajectories(weights.trajectories(todo))
    map_ = figures.weight_heatmap(
        {"mine": weights.mean_matrices(todo).query("method == 'tmt_amw'").iloc[:, 4:].to_numpy()}
    ).axes[0]
    assert [label.get_text().split()[1] for label in map_.get_yticklabels()].count("absent") == 1
    dots = figures.ternary(weights.by_utterance(todo)).axes[0].collections[0].get_offsets()
    assert np.isfinite(dots).all() and np.allclose(dots[:, 1], 0), "on the edge of text and audio"
    figures.importance(importance.importance_table(todo, "cpu", jobs=1))
