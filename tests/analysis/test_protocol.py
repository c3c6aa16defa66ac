"""Checks of the protocol: the bonus of selecting on test, splits by video with synthetic speakers, other settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmtlib.analysis import protocol
from tmtlib.common import MODALITIES
from tmtlib.data.check import leakage_table
from tmtlib.data.loading import load, resolve
from tmtlib.data.recipes import recipe_of
from tmtlib.data.regroup import _placed, regrouped, video_names, with_speakers
from tmtlib.data.schema import SPLITS, Split, SyntheticSize, valid_frames
from tmtlib.data.synthetic import generate, grid
from tmtlib.stats import metrics
from tmtlib.study import runs
from tmtlib.study.methods import method_config
from tmtlib.study.profiles import PROFILES
from tmtlib.study.runs import Run
from tmtlib.training.fit import Training, fit

MODEL = replace(PROFILES["smoke"].model, encoder_layers=1, cross_layers=1)
TRAINING = Training(learning_rate=3e-3, epochs=4, patience=1)
SIZES = {"mosi": SyntheticSize((64, 24, 40), (6, 6, 6)), "sims": SyntheticSize((100, 45, 63), (6, 8, 7))}


def some_runs(method: str = "tmt", name: str = "mosi", seeds=(0, 1, 2), training=TRAINING, size=None) -> list[Run]:
    ref = resolve(name, synthetic_size=size or SIZES[name])
    return [Run(ref, method, method_config(method, MODEL), training, seed) for seed in seeds]


def sims(normalize: bool = False):
    return load(resolve("sims", synthetic_size=SIZES["sims"], normalize=normalize))


# --- Selection on test ----------------------------------------------------------------------------------------------


@pytest.fixture
def noise(monkeypatch):
    """Synthetic data whose labels have nothing to do with the features: what selection finds is luck."""

    def shuffled(ref):
        data, rng = load(ref), np.random.default_rng(0)
        splits = {s: replace(data[s], labels=rng.permutation(data[s].labels)) for s in SPLITS}
        return replace(data, truth=None, **splits)

    for module in (protocol, runs):
        monkeypatch.setattr(module, "load", shuffled)


def test_bonus_is_never_negative_and_positive_on_noise(own_results, noise):
    todo = some_runs(training=replace(TRAINING, epochs=12, learning_rate=1e-2))
    each = protocol.selection(todo, "cpu", 1)
    assert set(each["metric"]) == {*metrics.METRICS["mosi"], "f1_5class", "f1_5class_swapped"}, "all of the family"
    assert (each.groupby("metric").size() == len(todo)).all() and (each["bonus"] >= 0).all()
    assert each["test_epoch"].between(1, 12).all()
    table = protocol.selection_bonus(todo, "cpu", 1).set_index("metric")
    wanted = "dataset source method paper selected_on_valid selected_on_test bonus low high n"
    assert list(table.columns) == wanted.split() and (table["n"] == 3).all()
    assert (table["bonus"] > 0).mean() > 0.8
    assert table.loc["mae", "selected_on_test"] < table.loc["mae", "selected_on_valid"]


def test_both_sides_pick_each_metric_s_own_epoch(own_results):
    """What differs is the split, not the rule: the run's rule (here loss) is not asked."""
    (run,) = some_runs(name="sims", seeds=(3,), training=replace(TRAINING, select_by="loss", patience=None))
    found = protocol.selection([run], "cpu", 1).set_index("metric")
    assert set(found.index) == {*metrics.METRICS["sims"], "f1_5class", "f1_5class_swapped"}
    history = pd.DataFrame(runs.read_record(run).meta["history"])
    for metric, row in found.iterrows():
        column = history[f"valid_{metric}"]
        best = column.idxmin() if metric == "mae" else column.idxmax()
        assert row["valid_epoch"] == best + 1, metric
    assert found["valid_epoch"].nunique() > 1, "else one rule for all would pass too"
    record = runs.ensure([run], "cpu", 1, progress=False).iloc[0]
    same = found.index[found["valid_epoch"] == record["best_epoch"]]
    for metric in same:
        assert found.loc[metric, "selected_on_valid"] == pytest.approx(record[metric], abs=1e-6)
    assert len(same)


def test_validation_or_test_beside_it_training_takes_the_same_path():
    data = load(some_runs()[0].data)
    run = some_runs("tmt_amw", training=replace(TRAINING, patience=None))[0]
    trained = (fit(run.model, run.training, data.train, data[s], data.shape, device="cpu") for s in ("valid", "test"))
    (valid,), (test,) = trained
    assert [r["train_loss"] for r in valid.history] == [r["train_loss"] for r in test.history]
    assert protocol.same_path(valid.history, test.history)
    assert protocol.same_path(valid.history[:2], test.history), "one that stopped early"
    (other,) = fit(run.model, run.training, data.train, data.test, data.shape, seeds=(1,), device="cpu")
    assert not protocol.same_path(valid.history, other.history)
    assert not protocol.same_path(valid.history, test.history[:2])


def test_a_run_of_another_machine_is_trained_twice_for_its_bonus(own_results, monkeypatch):
    (run,) = some_runs(seeds=(3,))
    wanted = protocol.selection([run], "cpu", 1)
    record = runs.read_record(run)
    record.meta["history"][0]["train_loss"] += 1e-6
    monkeypatch.setattr(runs, "read_record", lambda _: record)
    again = protocol._selected.__wrapped__(run, "cpu", load(run.data))
    assert again == wanted.drop(columns=["dataset", "source", "method", "seed"]).to_dict("records")
    monkeypatch.setattr(protocol, "same_path", lambda *_: False)
    with pytest.raises(RuntimeError, match="wanted the same"):
        protocol._selected.__wrapped__(run, "cpu", load(run.data))


def test_each_method_has_its_bonus_beside_the_paper_s_number(own_results):
    todo = some_runs(seeds=(0, 1)) + some_runs("tmt_amw", seeds=(0, 1)) + some_runs("tmt_uniform", seeds=(0, 1))
    table = protocol.selection_bonus(todo, "cpu", 1)
    paper = table.set_index(["method", "metric"])["paper"]
    assert paper[("tmt", "acc5")] == 0.43 and paper[("tmt_amw", "mae")] == 0.517
    assert paper["tmt_uniform"].isna().all() and np.isnan(paper[("tmt", "acc7")])
    one = protocol.selection_bonus(some_runs("tmt_amw", seeds=(0, 1)), "cpu", 1)
    pd.testing.assert_frame_equal(table[table["method"] == "tmt_amw"].reset_index(drop=True), one)


def test_undefined_metric_is_left_out_of_the_mean(monkeypatch):
    rows = pd.DataFrame(
        {"dataset": "mosi", "source": "synthetic", "method": "tmt", "metric": m, "seed": s, "bonus": b}
        | {"selected_on_valid": 0.0, "selected_on_test": b}
        for m, s, b in [("corr", 0, np.nan), ("corr", 1, 0.5), ("mae", 0, np.nan)]
    )
    monkeypatch.setattr(protocol, "selection", lambda *_: rows)
    corr, mae = protocol.selection_bonus([]).to_dict("records")
    assert (corr["bonus"], corr["n"]) == (0.5, 1) and mae["n"] == 0 and np.isnan(mae["bonus"])


# --- Splits by video ------------------------------------------------------------------------------------------------


def by_id(dataset) -> dict[str, tuple]:
    """Everything of every utterance, whatever its split."""
    return {
        split.ids[i]: (split.labels[i], *(split.features[m][i, : split.lengths[m][i]].tobytes() for m in MODALITIES))
        for split in (dataset[s] for s in SPLITS)
        for i in range(len(split))
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_regrouped_shares_no_video_and_loses_no_utterance(seed):
    data = sims()
    assert leakage_table(data)["videos shared"].min() > 0, "as the real CH-SIMS"
    new = regrouped(data, seed)
    assert leakage_table(new)["videos shared"].max() == 0
    assert by_id(new) == by_id(data)
    # Videos have 5 to 60 clips here, so sizes cannot be met exactly
    assert all(abs(len(new[s]) - len(data[s])) <= 60 for s in SPLITS)
    assert new.card.sha256 != data.card.sha256 and new.ref is None
    assert new.test.unimodal_labels.keys() == data.test.unimodal_labels.keys()


def test_regrouping_is_drawn_by_the_seed():
    data = generate("sims", SyntheticSize((400, 100, 100), (3, 3, 3)))
    first, again, other = (set(regrouped(data, seed).test.ids) for seed in (0, 0, 1))
    assert first == again != other


def test_regrouped_is_normalised_by_its_own_train():
    plain, scaled = regrouped(sims(), 1), regrouped(sims(normalize=True), 1)
    assert plain.test.ids == scaled.test.ids
    for m in MODALITIES:
        frames = plain.train.features[m][valid_frames(plain.train, m)].astype(np.float64)
        mean, std = frames.mean(0), frames.std(0)
        inside = valid_frames(plain.test, m)
        wanted = (plain.test.features[m][inside] - mean) / std
        np.testing.assert_allclose(scaled.test.features[m][inside], wanted, atol=1e-4)
        assert not scaled.test.features[m][~inside].any(), "padding stays zero"


def test_splits_of_other_lengths_are_joined():
    data = sims()
    cut, room = data.test, max(data.test.lengths["text"].max(), 1)
    tokens = {s: np.ones((len(data[s]), 3, 6), np.int64) for s in SPLITS}
    tokens["test"] = tokens["test"][..., :room]
    splits = {s: replace(data[s], text_bert=tokens[s]) for s in ("train", "valid")}
    short = {**cut.features, "text": cut.features["text"][:, :room]}
    splits["test"] = Split(short, cut.lengths, cut.labels, cut.ids, cut.raw_text, text_bert=tokens["test"])
    new = regrouped(replace(data, **splits), 0)
    assert by_id(new) == by_id(data) and new.shapes == data.shapes
    assert new.test.text_bert.shape == (len(new.test), 3, 6)
    was_test = np.array([i in cut.ids for i in new.train.ids])
    assert (new.train.text_bert[was_test].sum((1, 2)) == 3 * room).all()
    assert not new.test.unimodal_labels, "one split has none"


@given(st.lists(st.integers(1, 60), min_size=3, max_size=8), st.integers(0, 9), st.data())
def test_every_split_has_a_video_however_few_and_large_they_are(sizes, seed, data):
    videos = {s: [] for s in SPLITS}
    for i, size in enumerate(sizes):
        videos[data.draw(st.sampled_from(SPLITS))] += [f"v{i}"] * size
    place = _placed(videos, seed)
    assert set(place.values()) == set(SPLITS) and set(place) == {f"v{i}" for i in range(len(sizes))}


def test_ids_without_videos_and_too_few_videos_are_refused():
    data = sims()
    nameless = replace(data, train=replace(data.train, ids=tuple(f"a{i}x" for i in range(len(data.train)))))
    with pytest.raises(ValueError, match="name no video"):
        regrouped(nameless)
    two = {s: replace(data[s], ids=tuple(f"v{i % 2}$_${s}{i}" for i in range(len(data[s])))) for s in SPLITS}
    with pytest.raises(ValueError, match="2 videos; wanted at least 3"):
        regrouped(replace(data, **two))


# --- Synthetic speakers -----------------------------------------------------------------------------------------------


def test_no_effect_changes_nothing_but_truth():
    data = sims()
    new = with_speakers(data, 0.0)
    assert new.truth is None and data.truth is not None
    assert new.card == data.card and by_id(new) == by_id(data)
    assert replace(new, truth=data.truth) == data


def test_speakers_show_in_features_and_labels_wherever_they_are():
    data, new = sims(), with_speakers(sims(), 1.5, seed=4)
    videos, values = video_names(new), grid(recipe_of("sims"))
    added: dict[str, list] = {}
    for s in SPLITS:
        assert np.isin(new[s].labels, values).all() and new[s].ids == data[s].ids
        inside = valid_frames(data[s], "audio")
        assert not new[s].features["audio"][~inside].any(), "padding stays zero"
        change = new[s].features["audio"] - data[s].features["audio"]
        for i, video in enumerate(videos[s]):
            added.setdefault(video, []).extend(change[i][inside[i]])
            assert all(np.isin(y[i], values) for y in new[s].unimodal_labels.values())
    spread = max(np.ptp(np.array(frames), axis=0).max() for frames in added.values())
    assert spread < 1e-5, "one signature a video, in every frame and split"
    signatures = np.array([frames[0] for frames in added.values()])
    deviation = data.train.features["audio"][valid_frames(data.train, "audio")].std(0)
    assert (signatures / deviation).std() == pytest.approx(1.5, rel=0.2)
    assert (new.train.labels != data.train.labels).mean() > 0.3


def test_speakers_are_for_synthetic_data_and_effects_from_0():
    data = sims()
    real = replace(data, card=replace(data.card, source="real"))
    assert with_speakers(real, 0.0).train is real.train, "real data have speakers and take an effect of 0 (notebook 02)"
    with pytest.raises(ValueError, match="wanted synthetic data to give speakers to"):
        with_speakers(real, 1.0)
    with pytest.raises(ValueError, match="wanted 0 or more"):
        with_speakers(data, -1.0)


def test_official_split_flatters_where_speakers_matter(own_results):
    size = SyntheticSize((600, 120, 120), (5, 5, 5))
    training = Training(learning_rate=3e-3, epochs=8, patience=None, select_by="loss")
    todo = some_runs(name="sims", seeds=(0, 1), training=training, size=size)
    table = protocol.split_comparison(todo, (0.0, 2.0), "cpu", 1)
    wanted = "dataset source method effect metric official grouped difference low high n"
    assert list(table.columns) == wanted.split() and (table["n"] == 2).all()
    found = table.set_index(["effect", "metric"])
    assert found.loc[(2.0, "mae"), "difference"] > 0.2 and found.loc[(2.0, "acc5"), "difference"] > 0.15
    assert abs(found.loc[(0.0, "mae"), "difference"]) < found.loc[(2.0, "mae"), "difference"] / 2


# --- Other settings, and a second look ------------------------------------------------------------------------------


def test_sensitivity_is_the_paired_gain_of_ordinary_runs(own_results):
    todo = some_runs("tmt", seeds=(0, 1)) + some_runs("tmt_amw", seeds=(0, 1))
    table = protocol.sensitivity(todo, {"batch_size": (16, 64), "learning_rate": (3e-3,)}, "cpu", 1)
    wanted = "dataset source batch_size learning_rate metric tmt tmt_amw difference low high n"
    assert list(table.columns) == wanted.split() and len(table) == 4 and (table["n"] == 2).all()
    rows = runs.ensure(todo, "cpu", 1, progress=False).groupby("method")["mae"].mean()  # batch size 64
    assert len(list((own_results / "runs").glob("*.npz"))) == 8, "nothing was trained again"
    here = table.set_index(["batch_size", "metric"]).loc[(64, "mae")]
    assert here["difference"] == pytest.approx(rows["tmt_amw"] - rows["tmt"]) and here["tmt"] == rows["tmt"]


def test_sensitivity_wants_pairs():
    with pytest.raises(ValueError, match="2 runs of tmt and 1 of tmt_amw, 1 of them in pairs"):
        protocol.sensitivity(some_runs("tmt", seeds=(0, 1)) + some_runs("tmt_amw", seeds=(0,)), {})


def test_second_call_computes_nothing(own_results, monkeypatch):
    todo = some_runs(name="sims", seeds=(0, 1))
    pair = todo + some_runs("tmt_amw", name="sims", seeds=(0, 1))

    def look():
        one = protocol.selection_bonus(todo, "cpu", 1), protocol.split_comparison(todo, (0.0,), "cpu", 1)
        return *one, protocol.sensitivity(pair, {"batch_size": (32,)}, "cpu", 1)

    first = look()
    monkeypatch.setattr(protocol, "fit", None)
    monkeypatch.setattr(runs, "fit", None)
    assert all(a.equals(b) for a, b in zip(first, look(), strict=True))


def test_processes_give_what_one_process_gives(own_results, tmp_path, monkeypatch):
    todo = some_runs(name="sims", seeds=(0, 1))
    alone = protocol.selection(todo, "cpu", 1)
    monkeypatch.setenv("TMT_RESULTS", str(tmp_path / "elsewhere"))
    assert protocol.selection(todo, "cpu", 2).equals(alone)
