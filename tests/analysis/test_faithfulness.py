"""Deletion and insertion: exact on a model that is a sum over frames, and in order for measures good and bad."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_helpers import synthetic
from test_attribution import CONFIGS, Linear, made

from tmtlib.analysis import faithfulness
from tmtlib.common import MODALITIES
from tmtlib.data.loading import resolve
from tmtlib.data.schema import SyntheticSize, valid_frames
from tmtlib.study import runs
from tmtlib.study.methods import method_config
from tmtlib.study.profiles import PROFILES
from tmtlib.study.runs import Run

SPLIT = synthetic().valid
FEATURES = {m: x.shape[2] for m, x in SPLIT.features.items()}


class OnlyAudio(Linear):
    """The sum over audio's frames alone."""

    weights = {"text": 0.0, "audio": 1.0, "vision": 0.0}


def ones(split=SPLIT):
    """Every feature of every valid frame is one: each frame is worth w_m D_m to a linear model."""
    features = {m: valid_frames(split, m)[..., None] * np.ones_like(x) for m, x in split.features.items()}
    return replace(split, features={m: x.astype(np.float32) for m, x in features.items()})


def level(**values):
    """The same score for all frames of a modality."""
    return {m: np.full(SPLIT.features[m].shape[:2], float(values.get(m, 0))) for m in MODALITIES}


def test_curves_of_one_modality_that_alone_matters_are_straight_and_then_flat():
    """Its frames first, the change grows with the frames until they are used up; last, it starts when others are."""
    split = ones()
    total = sum(split.lengths.values())
    gone = np.rint(np.array(faithfulness.FRACTIONS, np.float32)[:, None] * total.astype(np.float32))
    n, d = split.lengths["audio"], FEATURES["audio"]
    best = faithfulness.changes(OnlyAudio(), split, level(audio=1), "cpu")
    np.testing.assert_allclose(best["deletion"], d * np.minimum(gone, n), rtol=1e-5)
    np.testing.assert_allclose(best["insertion"], d * np.maximum(n - gone, 0), rtol=1e-5, atol=1e-4)
    worst = faithfulness.changes(OnlyAudio(), split, level(text=1, vision=1), "cpu")
    np.testing.assert_allclose(worst["deletion"], d * np.maximum(gone - (total - n), 0), rtol=1e-5, atol=1e-4)


def test_the_ends_are_all_and_nothing_whatever_the_order():
    model, rng = made("late_fusion"), np.random.default_rng(0)
    for _ in range(2):
        score = {m: rng.random(SPLIT.features[m].shape[:2]) for m in MODALITIES}
        found = faithfulness.changes(model, SPLIT, score, "cpu")
        assert found["deletion"].shape == (11, len(SPLIT))
        np.testing.assert_allclose(found["deletion"][0], 0)
        np.testing.assert_allclose(found["insertion"][-1], 0, atol=1e-6)
        np.testing.assert_allclose(found["insertion"][0], found["deletion"][-1], atol=1e-6)
        assert found["deletion"][-1].mean() > 1e-3


@given(st.integers(0, 1000))
def test_ranks_put_greater_scores_first_and_padding_last(seed):
    rng = np.random.default_rng(seed)
    score = {m: rng.integers(0, 4, (3, t)).astype(float) for m, t in zip(MODALITIES, (4, 2, 5), strict=True)}
    lengths = {m: rng.integers(0, x.shape[1] + 1, 3) for m, x in score.items()}
    found = faithfulness.ranks(score, lengths, seed)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(11), (3, 1)))
    value = np.concatenate([score[m] for m in MODALITIES], axis=1)
    valid = np.concatenate([np.arange(x.shape[1]) < lengths[m][:, None] for m, x in score.items()], axis=1)
    for rank, v, ok in zip(found, value, valid, strict=True):
        inside = np.flatnonzero(ok)
        assert set(rank[inside]) == set(range(len(inside)))
        assert (np.diff(v[inside][np.argsort(rank[inside])]) <= 0).all()


def test_equal_scores_are_in_a_random_order_that_the_seed_repeats():
    lengths = SPLIT.lengths
    one, again, other = (faithfulness.ranks(level(), lengths, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    curves = [faithfulness.changes(OnlyAudio(), ones(), level(), "cpu", seed)["deletion"] for seed in (0, 0, 1)]
    assert np.array_equal(curves[0], curves[1]) and not np.array_equal(curves[0], curves[2])
    places = np.corrcoef(one.ravel(), np.tile(np.arange(one.shape[1]), len(one)))[0, 1]
    assert places < 0.9  # not simply from first to last


@pytest.mark.parametrize("name", ["amw", "gated", "tmt", "mult", "window"])
def test_every_model_gets_the_scores_that_it_has(name):
    found = faithfulness.scores(made(name), SPLIT, "cpu")
    wanted = {"gradient_input", "integrated_gradients", "random"}
    wanted |= {"rollout"} if name != "mult" else set()
    wanted |= {"weighted_size"} if name in ("amw", "gated") else set()
    assert set(found) == wanted and list(found)[-1] == "random"
    assert all((x >= 0).all() for of in found.values() for x in of.values())
    frames = CONFIGS[name].window or 99 if name == "window" else 99
    changed = faithfulness.changes(made(name), SPLIT, found["integrated_gradients"], "cpu")
    assert found["random"]["text"].shape[1] == min(frames, SPLIT.features["text"].shape[1])
    assert np.isfinite(changed["insertion"]).all()


def test_integrated_gradients_beat_chance_and_their_own_reverse_on_a_linear_model():
    """On a sum of terms of one sign, the largest terms first is the best order that there is."""
    positive = replace(SPLIT, features={m: np.abs(x) for m, x in SPLIT.features.items()})
    model = OnlyAudio()
    scores = faithfulness.scores(model, positive, "cpu")
    scores["reverse"] = {m: -x for m, x in scores["integrated_gradients"].items()}
    area = {
        k: {o: c.mean() for o, c in faithfulness.changes(model, positive, s, "cpu").items()} for k, s in scores.items()
    }
    for order, sign in (("deletion", 1), ("insertion", -1)):
        best, chance, worst = (sign * area[k][order] for k in ("integrated_gradients", "random", "reverse"))
        assert best > chance > worst


def test_areas_are_those_under_the_curves_and_their_difference_from_chance():
    keys = {"dataset": "mosi", "source": "synthetic", "method": "tmt"}
    rows = [
        keys | {"seed": s, "measure": m, "order": o, "fraction": f, "change": (height + s) * f}
        for s in (0, 1) for m, height in (("rollout", 3.0), ("random", 1.0))
        for o in faithfulness.ORDERS for f in (1.0, 0.0, 0.5)
    ]  # fmt: skip
    found = faithfulness.faithfulness_areas(pd.DataFrame(rows)).set_index(["measure", "order"])
    assert len(found) == 4
    row = found.loc[("rollout", "deletion")]
    assert row["area"] == pytest.approx((1.5 + 2.0) / 2) and row["n"] == 2
    assert row["low"] == pytest.approx(1.75 - 12.706 * 0.25, abs=1e-3)
    assert row[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx([1, 1, 1])
    assert found.loc[("random", "insertion"), "difference"] == 0


def test_table_of_a_study(own_results, monkeypatch):
    seeds, changes = set(), faithfulness.changes
    monkeypatch.setattr(faithfulness, "changes", lambda *a: seeds.add(a[4]) or changes(*a))
    profile = PROFILES["smoke"]
    ref = resolve("mosi", synthetic_size=SyntheticSize((60, 24, 24), (6, 6, 6)))
    todo = [
        Run(ref, m, method_config(m, profile.model), profile.training, s) for m in ("tmt_amw", "mult") for s in (0, 1)
    ]
    runs.ensure(todo, "cpu", jobs=1, progress=False)
    table = faithfulness.faithfulness_curves(todo, "cpu", jobs=1)
    assert list(table.columns) == "dataset source method seed measure order fraction change".split()
    assert len(table) == 2 * (5 + 3) * 2 * 11 and not table["change"].isna().any()
    assert set(table["source"]) == {"synthetic"} and seeds == {0, 1}, "equal scores are in an order by the run's seed"
    pd.testing.assert_frame_equal(faithfulness.faithfulness_curves(todo, "cpu", jobs=1), table)  # read back
    assert len(faithfulness.faithfulness_areas(table)) == (5 + 3) * 2


def test_a_model_without_one_predicted_number_is_refused(own_results):
    profile = PROFILES["smoke"]
    ref = resolve("mosi", synthetic_size=SyntheticSize((60, 24, 24), (6, 6, 6)))
    run = Run(ref, "tmt_5class", method_config("tmt_5class", profile.model), profile.training, 0)
    runs.ensure([run], "cpu", jobs=1, progress=False)
    with pytest.raises(ValueError, match="tmt_5class predicts classification; faithfulness curves need"):
        faithfulness.faithfulness_curves([run], "cpu", jobs=1)
