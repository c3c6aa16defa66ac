"""Whether weights adapt: verdicts on frames made by hand, and every look on the trained smoke study."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from model_helpers import SMALL, synthetic

from tmtlib import figures
from tmtlib.analysis import adaptation, attention, reliability, robustness, weights
from tmtlib.common import MODALITIES
from tmtlib.data.corrupt import corrupt, noise_scale
from tmtlib.data.corruption import Corruption
from tmtlib.data.loading import load
from tmtlib.models import build_model
from tmtlib.paper import verdicts
from tmtlib.study import cache, runs
from tmtlib.study.study import open_study
from tmtlib.training.batches import OnDevice
from tmtlib.training.fit import Training

NOISE = (math.inf, 0.0, -10.0, -20.0)
EXACT = Training(precision="float32")


def world(rng, falls=0.0, gain=0.0, seeds=5, spread=0.002, levels=NOISE, kind="noise", **more) -> pd.DataFrame:
    """Rows of one variant and of uniform weights: the variant's weight falls by `falls` from clean to the noisiest, its
    MAE is `gain` from uniform's there. Seeds differ by `spread`."""
    rows = []
    for seed in range(seeds):
        own = rng.normal(0, 0.01)
        for i, level in enumerate(levels):
            far, common = i / (len(levels) - 1), 1 + 0.3 * i + own
            change = -falls * far + rng.normal(0, spread)
            rows.append(("variant", seed, level, 1 / 3 + own + change, common + gain * far + rng.normal(0, spread)))
            rows.append(("tmt_uniform", seed, level, 1 / 3, common))
    frame = pd.DataFrame(rows, columns=["method", "seed", "level", "weight", "mae"])
    frame = frame.assign(dataset="mosi", source="synthetic", regime="clean", when="test", modality="text", kind=kind)
    return frame.assign(**more).sample(frac=1, random_state=0)  # in no order


def test_only_runs_with_weights_and_a_label_are_measured():
    study = open_study("smoke", datasets="mosei")
    of = {m: study.runs(m) for m in ("tmt", "tmt_amw", "tmt_amw_emotions")}
    assert adaptation.weighted([*of["tmt"], *of["tmt_amw"], *of["tmt_amw_emotions"]]) == of["tmt_amw"] != []
    assert of["tmt_amw_emotions"]


def judged(frame, method="variant"):
    return adaptation.verdict(frame).set_index("method").loc[method]


def test_a_weight_that_falls_with_less_error_is_supported(rng):
    row = judged(world(rng, falls=0.1, gain=-0.05))
    assert row["verdict"] == "supported" and row["n"] == 5
    assert row["change"] == pytest.approx(-0.1, abs=0.01) and row["change_low"] < row["change"] < row["change_high"] < 0
    assert row["spearman"] < -0.7 and row["gain"] == pytest.approx(-0.05, abs=0.01)
    assert row["gain_all"] == pytest.approx(-0.025, abs=0.01), "mean over all levels"
    assert "falls, with less error" in row["evidence"] and "n = 5" in row["evidence"]


@pytest.mark.parametrize(
    ("options", "verdict", "words"),
    [
        ({}, "not supported", "by less than 0.01"),
        ({"falls": 0.005, "spread": 1e-4, "gain": -0.05}, "not supported", "falls, but by less than 0.01"),
        ({"falls": -0.1, "gain": -0.05}, "not supported", "rises"),
        ({"falls": 0.1}, "cannot tell", "falls, but buys nothing"),
        ({"falls": 0.1, "gain": 0.05}, "cannot tell", "falls, but costs error"),
        ({"falls": 0.1, "gain": -0.05, "seeds": 1}, "cannot tell", "one seed"),
        ({"falls": 0.03, "gain": -0.05, "seeds": 2, "spread": 0.03}, "cannot tell", "open"),
    ],
)
def test_what_else_can_be_found(rng, options, verdict, words):
    row = judged(world(rng, **options))
    assert row["verdict"] == verdict and words in row["evidence"] and "nan" not in row["evidence"]


def test_a_fall_at_the_last_level_alone_is_no_trend(rng):
    levels = (math.inf, 10.0, 0.0, -10.0, -20.0)
    frame = world(rng, gain=-0.05, levels=levels)
    bump = frame["level"].map(dict(zip(levels, (0, 0.05, 0.1, 0.15, -0.05), strict=True)))
    frame.loc[frame["method"] == "variant", "weight"] += bump
    row = judged(frame)
    assert row["change_high"] < 0 <= row["spearman_high"] and row["gain_high"] < 0 and row["verdict"] == "cannot tell"


def test_what_cannot_move_is_impossible_and_its_change_is_exactly_nothing(rng):
    row = judged(world(rng, falls=0.1, gain=-0.05), "tmt_uniform")
    assert row["verdict"] == "impossible as written" and row["evidence"].startswith("cannot move")
    assert row["change"] == row["change_low"] == row["change_high"] == 0 and math.isnan(row["spearman"])
    frame = world(rng)
    frame.loc[frame["method"] == "variant", "weight"] = frame["seed"] / 10  # seeds differ, levels do not
    assert judged(frame)["verdict"] == "impossible as written"
    frame.loc[frame.index[frame["method"] == "variant"][0], "weight"] += 1e-9
    assert judged(frame)["verdict"] == "not supported", "a weight that moves at all is not impossible"


def test_missing_frames_are_worse_the_more_there_are(rng):
    row = judged(world(rng, falls=0.1, gain=-0.05, levels=(0.0, 0.5, 1.0), kind="missing_frames"))
    assert row["verdict"] == "supported" and row["clean"] > row["noisiest"]


def test_gain_needs_uniform_weights_of_the_same_seeds(rng):
    frame = world(rng, falls=0.1, gain=-0.05)
    alone = judged(frame[frame["method"] == "variant"])
    assert alone["verdict"] == "cannot tell" and "not compared" in alone["evidence"] and math.isnan(alone["gain"])
    odd = frame[(frame["method"] == "variant") | (frame["seed"] != 0)]
    assert judged(odd)["verdict"] == "supported"
    frame.loc[(frame["method"] == "tmt_uniform") & (frame["seed"] == 4), "mae"] -= 1
    assert judged(frame)["verdict"] == "cannot tell", "one seed in which uniform weights are far better"


def test_each_cell_is_judged_by_itself(rng):
    some = [
        world(rng, falls=0.1, gain=-0.05),
        world(rng, modality="audio"),
        world(rng, when="training", regime="noisy"),
    ]
    table = adaptation.verdict(pd.concat(some))
    assert list(table.columns) == adaptation.VERDICT_COLUMNS and len(table) == 6
    assert set(table["rules"]) == {verdicts.RULES}
    assert table[table["method"] == "variant"]["verdict"].tolist() == ["supported", *["not supported"] * 2]


def test_weights_that_do_nothing_are_hardly_ever_supported(rng):
    found = [judged(world(rng, seeds=3, spread=0.03))["verdict"] for _ in range(25)]
    assert found.count("supported") <= 1


@pytest.fixture
def rng():
    return np.random.default_rng(5)


# --- Weights under corruption, in trained models ----------------------------------------------------------------------

GRID = [Corruption("noise", ("text",), level) for level in (math.inf, -20.0)]
GRID += [Corruption("missing_frames", ("audio",), rate) for rate in (0.0, 1.0)]


def first(study, *methods):
    return [run for run in study.runs(*methods) if run.data == study.refs[0]]


@pytest.fixture(scope="module")
def trained(smoke):
    todo = first(smoke, "tmt", "tmt_amw", "tmt_gated")
    runs.ensure(todo, "cpu", 1, progress=False)
    return todo


@pytest.fixture(scope="module")
def tested(trained):
    return adaptation.at_test_time(trained, GRID, 2, "cpu", 1)


def test_a_static_weight_does_not_move_and_a_gated_one_does(tested):
    assert list(tested.columns) == adaptation.COLUMNS and set(tested["method"]) == {"tmt_amw", "tmt_gated"}
    assert len(tested) == 2 * 2 * len(GRID) and set(tested["when"]) == {"test"} and set(tested["regime"]) == {"clean"}
    spans = tested.groupby(["method", "seed", "kind"])["weight"].agg(np.ptp)
    assert (spans["tmt_amw"] == 0).all() and (spans["tmt_gated"] > 0).all()
    assert (tested.groupby(["method", "seed", "kind"])["mae"].agg(np.ptp) > 0).all()


def test_errors_are_those_of_the_sweep(tested, trained):
    swept = robustness.sweep(adaptation.weighted(trained), GRID, 2, "cpu", 1)
    keys = ["method", "seed", "kind", "modality", "level"]
    means = swept.groupby([*keys, "mask"])["mae"].first().groupby(keys).mean()
    np.testing.assert_allclose(tested.set_index(keys)["mae"].sort_index(), means.sort_index(), atol=1e-5)


def test_an_utterance_has_its_own_weights_whatever_stands_beside_it():
    torch.manual_seed(0)
    model, split = build_model(replace(SMALL, weighting="gated", mixup="off"), synthetic()), synthetic().train
    torch.nn.init.normal_(model.weighting.scorer[2].weight)
    values, found = adaptation.seen(model, split, replace(EXACT, batch_size=2), "cpu")
    assert found.shape == (len(split), 3) and np.ptp(found, axis=0).min() > 1e-3
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    for i in (0, 7, len(split) - 1):
        value, weight = adaptation.seen(model, split.take([i]), EXACT, "cpu")
        np.testing.assert_allclose(found[i], weight[0], atol=1e-5)
        assert value[0] == pytest.approx(values[i], abs=1e-5)
    np.testing.assert_allclose(values, runs.predict(model, split, EXACT, "cpu"), atol=1e-6)
    with pytest.raises(ValueError, match="the model has no weights"):
        adaptation.seen(build_model(SMALL, synthetic()), split, EXACT, "cpu")


def test_corruption_of_several_modalities_has_no_weight_to_look_at(trained):
    with pytest.raises(ValueError, match="noise acts on all; wanted one modality"):
        adaptation.at_test_time(trained, [Corruption("noise", level=0.0)], 1, "cpu", 1)


def test_the_grid_begins_clean_and_has_one_modality_each():
    assert all(len(how.modalities) == 1 for how in adaptation.GRID)
    assert len(set(adaptation.GRID)) == len(adaptation.GRID)
    assert sum(how.changes_nothing for how in adaptation.GRID) == 6, "three modalities, two kinds"
    curves = {(how.kind, how.modalities): how for how in reversed(adaptation.GRID)}
    assert all(how.changes_nothing for how in curves.values()), "clean comes first"


def test_trained_on_noise_and_looked_at_with_the_same_noise(smoke):
    everything = adaptation.training_runs(smoke)
    assert {run.data.regime for run in everything} == {"clean", "noise text -20"}
    assert {run.method for run in everything} == set(adaptation.VARIANTS) & set(smoke.methods)
    other = replace(smoke.profile, noisy_training=("audio",), training_snr_db=(-10.0,))
    todo = [run for run in adaptation.training_runs(replace(smoke, profile=other)) if run.method == "tmt_amw"]
    assert todo[:2] == first(smoke, "tmt_amw"), "clean runs are the study's own"
    runs.ensure(todo, "cpu", 1, progress=False)
    rows = adaptation.at_training_time(todo, 1, "cpu", 1)
    assert rows["level"].tolist() == [math.inf] * 2 + [-10.0] * 2 and set(rows["modality"]) == {"audio"}
    assert set(rows["when"]) == {"training"} and set(rows["regime"]) == {"noisy"}
    run = todo[-1]
    data = load(run.data.clean)
    hurt = corrupt(data.test, run.data.training_corruption, noise_scale(data.train), 0)
    wanted = np.abs(runs.predict(runs.load_model(run), hurt, run.training, "cpu") - hurt.labels).mean()
    assert rows["mae"].iloc[-1] == pytest.approx(wanted, abs=1e-5)
    final = weights.chosen([run])
    assert rows["weight"].iloc[-1] == pytest.approx(final[final["modality"] == "audio"]["weight"].item(), abs=1e-6)


# --- By utterance -----------------------------------------------------------------------------------------------------


def test_weights_that_follow_reliability_are_found(trained, monkeypatch):
    reliable = load(trained[0].data).truth.splits["test"].reliable
    follow = np.where(reliable, np.float32(0.5), np.float32(0.25))
    monkeypatch.setattr(reliability, "seen", lambda model, split, training, device: (None, follow))
    monkeypatch.setattr(cache, "stored", lambda run, module, key, compute, finished=True: compute())
    table = reliability.by_reliability(trained, "cpu", 1)
    assert (table["difference"] == 0.25).all() and (table["auc"] == 1).all() and set(table["verdict"]) == {"supported"}
    assert table[table["method"] == "tmt_amw"]["utterances"].tolist() == (~reliable).sum(0).tolist()


def test_a_static_weight_follows_nothing(trained):
    table = reliability.by_reliability(trained, "cpu", 1).set_index(["method", "modality"])
    static = table.loc["tmt_amw"]
    assert (static["difference"] == 0).all() and (static["auc"] == 0.5).all() and (static["n"] == 2).all()
    assert set(static["verdict"]) == {"impossible as written"}
    assert "impossible as written" not in set(table.loc["tmt_gated"]["verdict"])
    told = reliability.example(trained, "cpu", 1)
    static = told[told["method"] == "tmt_amw"]
    assert (static["change"] == 0).all() and set(static[static["claimed"]]["verdict"]) == {"impossible as written"}
    assert told.groupby("method")["claimed"].sum().tolist() == [3, 3]
    assert set(told["rules"]) == set(table["rules"]) == {verdicts.RULES}
    moved = told[told["method"] == "tmt_gated"].groupby("scene")["change"]
    np.testing.assert_allclose(moved.sum(), 0, atol=1e-6)
    assert (moved.agg(np.ptp) > 0).all()


def test_the_scenes_are_what_they_say():
    data = synthetic("mosi", (8, 8, 120))
    reliable = data.truth.splits["test"].reliable
    clear, scenes = reliability.staged(data)
    assert len(clear) == reliable.all(1).sum()
    face, silent = scenes["face ambiguous"], scenes["audio silent"]
    ambiguous = data.test.features["vision"][~reliable[:, 2]]
    assert all((x == ambiguous).all((1, 2)).any() for x in face.features["vision"])
    assert not silent.features["audio"].any() and np.array_equal(silent.lengths["audio"], clear.lengths["audio"])
    for split, changed in ((face, "vision"), (silent, "audio")):
        for m in MODALITIES:
            assert np.array_equal(split.features[m], clear.features[m]) == (m != changed)
        assert np.array_equal(split.labels, clear.labels)
    sure = replace(data.truth.splits["test"], reliable=np.ones_like(reliable))
    none = replace(data, truth=replace(data.truth, splits={"test": sure}))
    with pytest.raises(ValueError, match="0 with ambiguous vision; wanted at least one"):
        reliability.staged(none)


@pytest.mark.parametrize(
    ("interval", "still", "verdict"),
    [
        ((0.2, 0.1, 0.3), False, "supported"),
        ((0.2, -0.1, 0.5), False, "cannot tell"),
        ((0.002, 0.001, 0.003), False, "not supported"),
        ((-0.2, -0.3, -0.1), False, "not supported"),
        ((0.2, math.nan, math.nan), False, "cannot tell"),
        ((0.0, 0.0, 0.0), True, "impossible as written"),
    ],
)
def test_verdict_on_a_weight_that_should_be_higher(interval, still, verdict):
    assert reliability.follows(*interval[1:], still) == verdict


def test_bins_of_a_reliability_diagram():
    rows = reliability.binned(np.array([3.0, 1, 2, 0, 5, 4]), np.array([30.0, 10, 20, 0, 50, 40]), bins=3)
    assert rows == [
        {"bin": 0, "prediction": 0.5, "label": 5, "n": 2},
        {"bin": 1, "prediction": 2.5, "label": 25, "n": 2},
        {"bin": 2, "prediction": 4.5, "label": 45, "n": 2},
    ]
    assert len(reliability.binned(np.zeros(2), np.zeros(2))) == 2, "no bin is empty"


def test_diagram_means_are_those_of_the_split(trained):
    rows = reliability.diagram(trained[:1], "cpu", 1, (math.inf, -20.0))
    record = runs.read_record(trained[0])
    clean = rows[np.isinf(rows["level"])]
    assert clean["n"].sum() == 64 and clean["prediction"].is_monotonic_increasing
    assert np.average(clean["label"], weights=clean["n"]) == pytest.approx(record.labels["test"].mean(), abs=1e-5)
    wanted = record.predictions["test"].mean()
    assert np.average(clean["prediction"], weights=clean["n"]) == pytest.approx(wanted, abs=1e-5)
    assert not np.allclose(rows[rows["level"] == -20]["prediction"], clean["prediction"], atol=1e-6)


# --- Attention --------------------------------------------------------------------------------------------------------


def test_entropy_is_one_where_even_nought_where_sure_and_blind_to_padding():
    keys = torch.tensor([[True, True, True, False], [True, True, True, True], [True, False, False, False]])
    map_ = torch.tensor([[1.0, 1, 1, 5], [0, 1, 0, 0], [1, 0, 0, 0]])[:, None, None]
    assert attention.normalised_entropy(map_, keys).flatten().tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    half = torch.tensor([0.5, 0.5, 0, 0]).reshape(1, 1, 1, 4)
    assert attention.normalised_entropy(half, keys[1:2]).item() == pytest.approx(0.5)


@pytest.mark.parametrize("masked", [True, False])
def test_entropies_are_those_of_the_maps_utterance_by_utterance(masked, monkeypatch):
    torch.manual_seed(0)
    data = synthetic("sims", (16, 8, 7))
    model = build_model(replace(SMALL, masked=masked, weighting="static"), data).eval()
    for layer in model.encoder:
        torch.nn.init.normal_(layer.attention.query.weight)
    monkeypatch.setattr(attention, "SIZE", 3)
    found = attention.entropies(model, data, "cpu")
    split, sums = OnDevice(data.test, torch.device("cpu"), model.config, "sims"), {b: [] for b in attention.BLOCKS}
    for i in range(len(split)):
        batch = split.batch(torch.tensor([i]))
        there = [True] * 12 + [bool(v) for m in MODALITIES for v in batch.valid(m)[0]]
        for name, map_ in model(batch, attention=True)[1].attention.items():
            for row in (map_[0, h, q] for h in range(map_.shape[1]) for q in range(map_.shape[2])):
                sums[name.split(".")[0]].append((row.detach().numpy(), np.array(there)))
    for block, rows in sums.items():
        each = []
        for p, there in rows:
            if block == "encoder":
                p = p[there] / p[there].sum()
            each.append(-(p[p > 0] * np.log(p[p > 0])).sum() / np.log(len(p)))
        if block != "encoder" or masked:  # unmasked queries at padding are left out, which a trimmed batch still holds
            assert found[block] == pytest.approx(np.mean(each), abs=1e-4), block
    assert 0 < found["encoder"] < 0.999


def test_sharpness_is_paired_with_tmt(trained):
    table = attention.table(trained, device="cpu", jobs=1)
    assert list(table.columns) == attention.COLUMNS and len(table) == 3 * 3
    assert table["entropy"].between(0, 1).all() and (table["n"] == 2).all()
    assert set(table["rules"]) == {verdicts.RULES}
    wide = table.pivot(index="block", columns="method", values="entropy")
    changes = table.pivot(index="block", columns="method", values="difference")
    np.testing.assert_allclose(changes["tmt_amw"], wide["tmt_amw"] - wide["tmt"], atol=1e-9)
    assert changes["tmt"].isna().all() and (table[table["method"] == "tmt"]["verdict"] == "").all()


def entropies(mutual, other=0.0, method="tmt_amw", dataset="mosi", width=0.005):
    """A row a block, as `attention.table` gives them."""
    frame = pd.DataFrame({"block": attention.BLOCKS, "difference": [other, mutual, mutual]})
    frame = frame.assign(low=frame["difference"] - width, high=frame["difference"] + width, method=method, n=3)
    judged = [verdicts.interval_verdict(c.low, c.high, -1, least=0.01) for c in frame.itertuples()]
    return frame.assign(verdict=judged, dataset=dataset, source="synthetic", regime="clean", entropy=0.9)


def with_controls(*measured, controls=0.05):
    """Attention of AMW on two data sets, and of both controls."""
    others = [entropies(controls, method=m, dataset=d) for m in ("tmt_uniform", "tmt_random") for d in ("mosi", "sims")]
    return pd.concat([*measured, *others])


def test_claim_of_sharper_attention_follows_both_halves_on_every_data_set():
    sharper = entropies(-0.05, other=0.2), entropies(-0.05, dataset="sims")
    verdict, evidence = verdicts.sharpness_verdict(with_controls(*sharper))
    assert verdict == "supported" and "-0.050 [-0.055, -0.045]" in evidence and "CMU-MOSI (synthetic)" in evidence
    assert verdicts.sharpness_verdict(entropies(0.05, other=-0.2))[0] == "not supported"
    assert verdicts.sharpness_verdict(entropies(-0.002))[0] == "not supported", "too little to count"
    assert verdicts.sharpness_verdict(with_controls(entropies(-0.05, width=0.1), sharper[1]))[0] == "cannot tell"
    assert verdicts.sharpness_verdict(with_controls(sharper[0], entropies(0.05, dataset="sims")))[0] == "not supported"


def test_sharper_attention_is_not_owed_to_learning_where_fixed_weights_bring_it_too():
    sharper = entropies(-0.05), entropies(-0.05, dataset="sims")
    verdict, evidence = verdicts.sharpness_verdict(with_controls(*sharper, controls=-0.05))
    assert verdict == "cannot tell" and "Uniform weights: sharper than TMT in 4 of 4" in evidence
    assert verdicts.sharpness_verdict(pd.concat(sharper))[0] == "cannot tell", "no control was run"
    assert verdicts.sharpness_verdict(with_controls(sharper[0]))[0] == "cannot tell", "one data set"


def test_claim_of_sharper_attention_is_open_where_nothing_was_measured():
    for nothing in (None, entropies(-0.05).iloc[:0], entropies(-0.05, method="tmt_gated")):
        assert verdicts.sharpness_verdict(nothing)[0] == "cannot tell"


# --- Figures ----------------------------------------------------------------------------------------------------------


def test_the_panel_shows_the_weight_and_the_gain_over_uniform_weights_clean_first(rng):
    seeds = {"spread": 0, "falls": 0.1, "gain": -0.05}
    figure = figures.adaptation(pd.concat([world(rng, **seeds), world(rng, when="training", regime="noisy", **seeds)]))
    assert [ax.get_title() for ax in figure.axes[:2]] == [
        "noise in text\nat test time",
        "noise in text\nin training too",
    ]
    weight, gain = (ax.lines for ax in (figure.axes[0], figure.axes[2]))
    fall = {line.get_color(): line.get_ydata() for line in weight}[figures.method_colour("variant")]
    assert fall[0] - fall[-1] == pytest.approx(0.1)
    less = {line.get_color(): line.get_ydata() for line in gain}
    np.testing.assert_allclose(less[figures.method_colour("variant")], [0, -0.05 / 3, -0.1 / 3, -0.05], atol=1e-9)
    np.testing.assert_allclose(less[figures.method_colour("tmt_uniform")], 0)
    assert [t.get_text() for t in figure.axes[2].get_xticklabels()] == ["clean", "0", "−10", "−20"]
    with pytest.raises(ValueError, match="no rows of missing_frames"):
        figures.adaptation(world(rng), "missing_frames")


def test_hollow_marks_are_where_a_modality_is_not_reliable():
    table = pd.DataFrame({"modality": MODALITIES, "reliable": 0.4, "unreliable": 0.3, "difference": 0.1})
    table = table.assign(low=0.05, high=0.15, n=3, method="tmt_gated", dataset="mosi", source="synthetic")
    ax = figures.reliability_weights(table).axes[0]
    marks = {line.get_markerfacecolor(): line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"}
    assert marks["white"] == 0.3 and sorted(marks.values()) == [0.3, 0.4]
    (whisker,) = ax.collections
    assert whisker.get_segments()[0][:, 0].tolist() == pytest.approx([0.25, 0.35])


def test_one_verdict_a_variant_and_time():
    def rows(method, verdicts, changes):
        start = {"dataset": "mosi", "source": "synthetic", "method": method, "when": "test", "kind": "noise", "n": 3}
        cells = zip(MODALITIES, verdicts, changes, strict=True)
        return [start | {"modality": m, "verdict": v, "change": c} for m, v, c in cells]

    cases = {
        "never": (["impossible as written"] * 3, [0.0, 0.0, 0.0]),
        "always": (["supported"] * 3, [-0.1, -0.2, -0.05]),
        "sometimes": (["supported", "not supported", "supported"], [-0.1, 0.0, -0.3]),
        "open": (["supported", "cannot tell", "supported"], [-0.1, math.nan, -0.3]),
    }
    judged = pd.DataFrame([row for name, case in cases.items() for row in rows(name, *case)])
    found = adaptation.combined(judged.reindex(columns=adaptation.VERDICT_COLUMNS)).set_index("method")
    wanted = {
        "never": "impossible as written",
        "always": "supported",
        "sometimes": "not supported",
        "open": "cannot tell",
    }
    assert found["verdict"].to_dict() == wanted and (found["cells"] == 3).all()
    assert set(found["rules"]) == {verdicts.RULES}
    assert found.loc["always", "modality"] == "audio" and found.loc["open", "change"] == -0.3


def test_a_variant_without_a_whole_seed_cannot_be_told():
    frame = pd.DataFrame({"level": [math.inf, 0.0], "weight": [math.nan, 0.3], "mae": [1.0, 1.0], "seed": 0})
    frame = frame.assign(dataset="mosi", source="synthetic", method="tmt_gated", when="test", regime="clean")
    row = adaptation.verdict(frame.assign(modality="text", kind="noise")).iloc[0]
    assert row["verdict"] == "cannot tell" and row["n"] == 0
