"""Measures of importance against the ground truth of many worlds, and people's labels of each modality alone."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import SMALL, synthetic
from scipy import stats

from tmtlib.analysis import truth
from tmtlib.analysis.importance import importance_table
from tmtlib.common import MODALITIES
from tmtlib.data.loading import load, resolve, synthetic_ref
from tmtlib.data.recipes import recipe_of
from tmtlib.data.schema import DataError, SyntheticSize, split_name
from tmtlib.data.synthetic import explained_variance, generate
from tmtlib.paper.verdicts import RULES
from tmtlib.stats.statistics import shapley
from tmtlib.study import runs
from tmtlib.study.methods import method_config
from tmtlib.study.profiles import PROFILES
from tmtlib.study.runs import Run
from tmtlib.study.study import open_study
from tmtlib.training.fit import Training

SIMS = synthetic("sims")
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
FOLDER = Path(os.environ.get("TMT_REAL_DATA") or BESIDE)


def labelled(labels, text, audio, vision):
    split = SIMS.valid.take(np.arange(len(labels)))
    by = {m: np.array(x, np.float32) for m, x in zip(MODALITIES, (text, audio, vision), strict=True)}
    return replace(split, labels=np.array(labels, np.float32), unimodal_labels=by)


def test_the_label_farthest_to_the_right_side_carries_and_ties_say_nothing():
    split = labelled(
        [0.8, -0.4, 0.0, 0.2, 0.6], [0.6, 0.4, 0.2, 0.2, -1], [-1, -0.4, -0.2, 0.2, -0.2], [0, -1, 0.6, 0, 0]
    )
    assert truth.carriers(split).tolist() == [0, 2, -1, -1, -1]
    assert truth.carriers(labelled([0.2], [0.4], [0.4001], [-1.0])).tolist() == [-1], "equal but for rounding"


def test_synthetic_importance_names_the_carrier():
    """So the yardstick measures importance where that is known; nearness of labels would not (47 % against 42 %)."""
    data = generate("sims", SyntheticSize((2, 2, 4000), (1, 1, 1)))
    carrier, importance = truth.carriers(data.test), data.truth.splits["test"].importance
    named = (np.sign(data.test.labels)[:, None] * importance).argmax(1)
    clear = carrier >= 0
    assert clear.mean() > 0.4 and (named == carrier)[clear].mean() > 0.85


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-5, 5)] * 4), min_size=1, max_size=20), st.permutations(range(3)))
def test_the_carrier_moves_with_its_modality(rows, order):
    """Whatever the names of the modalities, the same labels carry."""
    labels, *by = np.array(rows).T / 5
    before = truth.carriers(labelled(labels, *by))
    after = truth.carriers(labelled(labels, *[by[i] for i in order]))
    assert ((before < 0) == (after < 0)).all()
    assert (np.array(order)[after[after >= 0]] == before[before >= 0]).all()


def test_naming_is_shared_by_what_is_equally_large():
    sizes, carrier = np.array([[1.0, 2, 0], [1, 1, 1], [2, 2, 1]]), np.array([1, 2, 2])
    assert truth.names_it(sizes, carrier, 1e-7).tolist() == [1, pytest.approx(1 / 3), 0]


def test_data_without_unimodal_labels_are_refused():
    with pytest.raises(DataError, match="no unimodal labels of text, audio, vision"):
        truth.carriers(synthetic("mosi").test)
    half = replace(SIMS.test, unimodal_labels={"text": SIMS.test.labels})
    with pytest.raises(DataError, match="no unimodal labels of audio, vision"):
        truth.carriers(half)


def trained(ref, methods, training, base=SMALL, seeds=(0,)):
    todo = [Run(ref, m, method_config(m, base), training, s) for m in methods for s in seeds]
    runs.ensure(todo, "cpu", jobs=1, progress=False)
    return todo


def test_agreement_by_hand_and_read_back(own_results):
    ref = synthetic_ref("sims", SyntheticSize((64, 32, 50), (5, 6, 7)))
    todo = trained(ref, ("tmt_amw", "late_fusion"), Training(epochs=1, patience=None), seeds=(0, 1))
    frame = truth.unimodal_agreement(todo, "cpu", jobs=1)
    data = load(ref)
    carrier, in_training = truth.carriers(data.test), truth.carriers(data.train)
    clear = carrier >= 0
    assert (frame["n"] == clear.sum()).all() and (frame["seeds"] == 2).all() and 10 < clear.sum() < 50
    commonest = np.bincount(in_training[in_training >= 0]).argmax()
    np.testing.assert_allclose(frame["chance"], (carrier[clear] == commonest).mean())
    assert frame.groupby("method").size().to_dict() == {"tmt_amw": 7, "late_fusion": 5}
    importance = (np.sign(data.test.labels)[:, None] * data.truth.splits["test"].importance).argmax(1)
    by_truth = frame.set_index(["method", "measure"])["agreement"].xs("truth", level="measure")
    np.testing.assert_allclose(by_truth, (importance == carrier)[clear].mean(), atol=0.05)
    hits = []
    for run in todo[:2]:
        sizes = truth._signed_measures(run, runs.load_model(run), data, "cpu")["shapley_mean"]
        hits.append((sizes.argmax(0) == carrier)[clear].mean())
    row = frame.set_index(["method", "measure"]).loc[("tmt_amw", "shapley_mean")]
    assert row["agreement"] == pytest.approx(np.mean(hits))
    assert row["above"] == pytest.approx(row["agreement"] - row["chance"])
    assert row["low"] < row["agreement"] < row["high"] and row["above_low"] < row["above"] < row["above_high"]
    pd.testing.assert_frame_equal(truth.unimodal_agreement(todo, "cpu", jobs=1), frame)


def test_static_weights_name_one_modality_whatever_the_utterance(own_results):
    ref = synthetic_ref("sims", SyntheticSize((64, 32, 50), (5, 6, 7)))
    frame = truth.unimodal_agreement(
        trained(ref, ("tmt_mostly_vision",), Training(epochs=1, patience=None)), "cpu", jobs=1
    )
    carrier = truth.carriers(load(ref).test)
    row = frame.set_index("measure").loc["weight"]
    assert row["agreement"] == pytest.approx((carrier[carrier >= 0] == MODALITIES.index("vision")).mean())


def test_real_labels_have_a_carrier_in_most_utterances(own_results):
    path = FOLDER / "simsv2_expert_scores.pkl"
    if not path.is_file():
        pytest.skip(f"no real data: {path} is not there (set TMT_REAL_DATA to a folder that has it)")
    ref = resolve(path)
    carrier = truth.carriers(load(ref).test)
    shares = np.bincount(carrier[carrier >= 0], minlength=3) / len(carrier)
    assert (carrier >= 0).mean() > 0.3 and (shares > 0.05).all()
    training = replace(PROFILES["quick"].training, epochs=1)
    frame = truth.unimodal_agreement(trained(ref, ("tmt_gated",), training), "cpu", jobs=1)
    assert frame["agreement"].between(0, 1).all() and (frame["n"] == (carrier >= 0).sum()).all()


# --- Many worlds -----------------------------------------------------------------------------------------------------


def worlds_table(share, true_share, measure="m"):
    rows = [
        {"dataset": f"mosi-world{w}", "source": "synthetic", "method": "tmt_amw", "measure": measure, "modality": m}
        | {"mean": share[w, i], "truth": true_share[w, i]}
        for w in range(len(true_share))
        for i, m in enumerate(MODALITIES)
    ]
    return pd.DataFrame(rows)


def agreement_of(share, true_share):
    return truth.worlds_agreement(worlds_table(share, true_share)).set_index("statistic")


@pytest.fixture
def true_share():
    return np.random.default_rng(0).dirichlet([1, 1, 1], 12)


def test_statistics_are_those_of_scipy(true_share):
    share = np.random.default_rng(1).dirichlet([1, 1, 1], 12) + true_share
    share /= share.sum(1, keepdims=True)
    agreement = agreement_of(share, true_share)
    assert agreement["value"]["pearson"] == pytest.approx(stats.pearsonr(share.ravel(), true_share.ravel())[0])
    assert agreement["value"]["spearman"] == pytest.approx(stats.spearmanr(share.ravel(), true_share.ravel())[0])
    assert agreement["value"]["slope"] == pytest.approx(stats.linregress(true_share.ravel(), share.ravel()).slope)
    assert agreement["value"]["top"] == pytest.approx((share.argmax(1) == true_share.argmax(1)).mean())
    assert (
        agreement["chance"]["top"] == np.bincount(true_share.argmax(1)).max() / 12 and agreement["chance"]["slope"] == 0
    )
    assert (agreement["low"] < agreement["value"]).all() and (agreement["value"] < agreement["high"]).all()
    assert (agreement["n"] == 12).all()


def test_the_truth_agrees_with_itself_and_a_constant_with_nothing(true_share):
    agreement = agreement_of(true_share, true_share)
    np.testing.assert_allclose(agreement[["value", "low", "high"]], 1)
    assert agreement_of(true_share / 2 + 1 / 6, true_share)["value"].to_dict() == pytest.approx(
        {"spearman": 1, "pearson": 1, "slope": 0.5, "top": 1}
    )
    constant = agreement_of(np.full((12, 3), 1 / 3), true_share)
    assert constant["value"][["spearman", "pearson"]].isna().all()
    assert constant["value"]["slope"] == pytest.approx(0) and constant["value"]["top"] == pytest.approx(1 / 3)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(12)), st.integers(0, 100))
def test_the_order_of_worlds_does_not_matter(order, seed):
    rng = np.random.default_rng(seed)
    share, true_share = rng.dirichlet([1, 1, 1], 12), rng.dirichlet([1, 1, 1], 12)
    for statistic in truth.STATISTICS.values():
        assert statistic(share[order], true_share[order]) == pytest.approx(statistic(share, true_share))


def test_intervals_cover_and_worlds_are_drawn_whole():
    """A measure that is truth plus noise: in 95 of 100 draws of worlds, about, the interval holds the true slope."""
    rng, held = np.random.default_rng(2), []
    for _ in range(100):
        true_share = rng.dirichlet([1, 1, 1], 30)
        share = 1 / 3 + 0.6 * (true_share - 1 / 3) + rng.normal(0, 0.1, true_share.shape)
        _, low, high = truth._over_worlds(truth.slope, share, true_share, 400, 0)
        held.append(low < 0.6 < high)
    assert 85 <= sum(held) <= 99


def test_one_world_has_no_interval_and_real_data_no_agreement(true_share):
    one = agreement_of(true_share[:1], true_share[:1])
    assert one["low"].isna().all() and (one["n"] == 1).all()
    table = worlds_table(true_share, true_share).assign(truth=np.nan)
    with pytest.raises(ValueError, match="none of 12 data sets has a ground truth"):
        truth.worlds_agreement(table)


def test_runs_in_worlds_go_through_training_and_importance(own_results, monkeypatch, tmp_path):
    study = open_study("smoke", device="cpu")
    monkeypatch.setenv("TMT_DATA", str(tmp_path))  # synthetic, whatever data there are
    todo = truth.runs_in_worlds(study, "tmt_amw_fast", "tmt")
    assert [split_name(load(r.data).card.name)[1] for r in todo] == [0, 1, 0, 1] and len({r.id for r in todo}) == 4
    assert len({run.id for run in truth.runs_in_worlds(study, "tmt", worlds=range(30))}) == 30
    rows = runs.ensure(todo, "cpu", jobs=1, progress=False)
    assert rows["dataset"].tolist() == ["mosi-world0", "mosi-world1"] * 2
    table = importance_table(todo, "cpu", jobs=1)
    for world in (0, 1):
        rows = table[(table["dataset"] == f"mosi-world{world}") & (table["measure"] == "occlusion")]
        variance = partial(explained_variance, recipe_of("mosi", world))
        wanted = {m: v / variance(MODALITIES) for m, v in shapley(variance).items()}
        assert rows[rows["method"] == "tmt"].set_index("modality")["truth"].to_dict() == pytest.approx(wanted)
    agreement = truth.worlds_agreement(table)
    assert set(agreement["method"]) == {"tmt", "tmt_amw_fast"} and (agreement["n"] == 2).all()
    assert agreement[agreement["statistic"] == "top"]["value"].between(0, 1).all()


def test_the_oracle_row_is_the_ceiling_of_measures_of_sizes():
    """Shares of mean |value| move by two thirds of what shares of variance move, for the truth itself."""
    refs = [synthetic_ref("mosi", SyntheticSize((2, 2, 300), (1, 1, 1), world=w)) for w in range(12)]
    todo = [Run(ref, m, SMALL, Training(), 0) for ref in refs for m in ("tmt", "tmt_amw")]
    oracle = truth.oracle_importance(todo)
    assert len(oracle) == 12 * 3 and set(oracle["method"]) == {"oracle"}
    np.testing.assert_allclose(oracle.groupby("dataset")["mean"].sum(), 1)
    size = np.abs(load(refs[3]).truth.splits["test"].importance).mean(0)
    np.testing.assert_allclose(oracle.query("dataset == 'mosi-world3'")["mean"], size / size.sum())
    models = worlds_table(*(oracle[c].to_numpy().reshape(12, 3) for c in ("truth", "truth")))
    agreement = truth.worlds_agreement(pd.concat([models, oracle])).set_index(["method", "statistic"])["value"]
    assert agreement["oracle"]["spearman"] > 0.9 and 0.6 < agreement["oracle"]["slope"] < 0.75
    assert agreement["tmt_amw"]["slope"] == pytest.approx(1)
    row = truth.readable(truth.worlds_agreement(pd.concat([models, oracle]))).set_index("method").loc["oracle"]
    assert row["measure"] == "truth" and row["readable"] == "size"


def test_what_may_be_read_follows_from_both_intervals():
    def rows(measure, spearman, slope):
        values = {"spearman": (*spearman, 0), "pearson": (0.5, 0.4, 0), "slope": (*slope, 1), "top": (0.8, 0.6, 0.5)}
        return [
            {"method": "tmt_amw", "measure": measure, "statistic": s, "value": v, "low": low, "high": 1, "chance": c}
            for s, (v, low, c) in values.items()
        ]

    over = [
        *rows("follows", (0.9, 0.8), (0.8, 0.6)),
        *rows("hardly moves", (0.9, 0.8), (0.01, 0.005)),
        *rows("open", (0.3, -0.1), (0.8, 0.6)),
        *rows("constant", (np.nan, np.nan), (0.0, 0.0)),
    ]
    agreement = truth.readable(pd.DataFrame(over).assign(n=12)).set_index("measure")
    wanted = {"follows": "size", "hardly moves": "order", "open": "not", "constant": "not"}
    assert agreement["readable"].to_dict() == wanted and set(agreement["rules"]) == {RULES}
    assert (agreement["n"] == 12).all() and (agreement["chance"] == 0.5).all()
