"""The second task, six emotions: its metrics, labels from files and from the generator, training, and records."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from model_helpers import SMALL, assert_alike, batch_of, make, synthetic
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score
from test_readers import content, good_split

from tmtlib.analysis import robustness
from tmtlib.common import EMOTIONS
from tmtlib.data import check, corruption, mmsa
from tmtlib.data.loading import load, load_dataset, resolve
from tmtlib.data.schema import SPLITS, DataError, DataRef, Dataset, SyntheticSize, normalize, normalizer
from tmtlib.data.synthetic import VERSION, generate
from tmtlib.models.base import ModelConfig
from tmtlib.models.late_fusion import LateFusionConfig
from tmtlib.models.misa import MISAConfig
from tmtlib.models.mult import MulTConfig
from tmtlib.stats import emotions, metrics
from tmtlib.study import runs
from tmtlib.study.methods import family, method_config, method_titles
from tmtlib.study.profiles import PROFILES, synthetic_sizes
from tmtlib.study.runs import Run
from tmtlib.study.study import open_study
from tmtlib.training.batches import OnDevice
from tmtlib.training.fit import Training, fit, predict

METHODS = family("emotions")

CPU = torch.device("cpu")
TASK = replace(SMALL, task="emotions", weighting="static")
TRAINING = Training(learning_rate=3e-3, batch_size=16, epochs=2, patience=None, precision="float32")
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap has no fused attention there


@pytest.fixture(scope="module")
def many() -> Dataset:
    """Enough utterances for their rates, with little to store."""
    return generate("mosei", SyntheticSize((20_000, 20, 20), (1, 1, 1)))


# --- Metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_by_hand():
    """Happy: 3 of 4 present are found, 1 of 6 absent is called present: TP 3, TN 5, P 4, N 6."""
    label, chance = np.zeros((10, 6)), np.full((10, 6), 0.1)
    label[:4, 0], label[:5, 1:] = 1 / 3, 3
    chance[[0, 1, 2, 9], 0] = 0.9
    found = emotions.score(chance, label)
    assert tuple(found) == emotions.METRICS
    assert found["wa_happy"] == pytest.approx((3 * 6 / 4 + 5) / 12) == pytest.approx((3 / 4 + 5 / 6) / 2)
    assert found["f1_happy"] == pytest.approx(2 * 3 / (4 + 4))
    assert found["wf1_happy"] == pytest.approx(0.4 * 6 / 8 + 0.6 * 10 / 12)
    assert (found["wa_sad"], found["f1_sad"]) == (0.5, 0), "never predicted"
    assert found["wa_mean"] == pytest.approx((found["wa_happy"] + 5 * 0.5) / 6)
    assert found["f1_mean"] == pytest.approx(0.75 / 6)


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    label, chance = np.maximum(0, rng.integers(-2, 4, (200, 6))), rng.random((200, 6))
    found = emotions.score(chance, label)
    for i, name in enumerate(EMOTIONS):
        truth, said = label[:, i] > 0, chance[:, i] > 0.5
        assert found[f"wa_{name}"] == pytest.approx(balanced_accuracy_score(truth, said))
        assert found[f"f1_{name}"] == pytest.approx(f1_score(truth, said))
        assert found[f"wf1_{name}"] == pytest.approx(f1_score(truth, said, average="weighted"))
    for kind in emotions.KINDS:
        assert found[f"{kind}_mean"] == pytest.approx(np.mean([found[f"{kind}_{name}"] for name in EMOTIONS]))


def test_what_cannot_be_measured_is_nan_and_left_out_of_the_mean():
    label = np.eye(4, 6)
    label[:, 1] = 1
    found = emotions.score(label, label)
    unmeasured = {name for name in emotions.METRICS if np.isnan(found[name])}
    assert unmeasured == {"wa_sad", "wa_disgust", "wa_fear", "f1_disgust", "f1_fear"}
    assert found["wa_mean"] == found["f1_mean"] == found["wf1_fear"] == 1
    assert np.isnan(emotions.score(label, np.zeros((4, 6)))["f1_mean"])


def test_a_nan_prediction_is_wrong():
    label = np.tile([[1.0], [0.0]], (2, 6))
    found = emotions.score(np.where(np.arange(4)[:, None] < 2, np.nan, label), label)
    assert found["wa_happy"] == 0.5 and found["f1_happy"] == pytest.approx(2 / 3)
    assert found["wf1_happy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("chance", "label", "message"),
    [
        (np.zeros((3, 6)), np.zeros((4, 6)), r"chances are \(3, 6\) and labels \(4, 6\); wanted one row of 6"),
        (np.zeros(4), np.zeros(4), r"labels \(4,\)"),
        (np.zeros((0, 6)), np.zeros((0, 6)), r"\(0, 6\)"),
        (np.zeros((2, 6)), np.full((2, 6), np.nan), "labels hold NaN"),
    ],
)
def test_scores_of_nothing_sensible_are_refused(chance, label, message):
    with pytest.raises(ValueError, match=message):
        emotions.score(chance, label)


def test_scores_of_a_task_are_the_tasks_own():
    label = np.array([-1.0, 0.0, 2.0], np.float32)
    assert emotions.scores_of("regression", label, label, "mosi") == metrics.evaluate(label, label, "mosi")
    assert tuple(emotions.scores_of("emotions", np.eye(6), np.eye(6), "mosi")) == emotions.METRICS


def test_floors_are_what_constants_reach(many):
    rows = emotions.floors(many).set_index("method")
    test_rates = (many.test.emotion_labels > 0).mean(0)
    assert rows["wa_mean"].tolist() == [0.5, 0.5]
    always = 2 * test_rates / (1 + test_rates)
    np.testing.assert_allclose(rows.loc["always", [f"f1_{name}" for name in EMOTIONS]].astype(float), always)
    assert rows.loc["majority", "f1_happy"] == pytest.approx(always[0]), "more than half of train"
    assert not rows.loc["majority", [f"f1_{name}" for name in EMOTIONS[1:]]].any(), "less than half"
    assert {*rows.index, *METHODS} <= set(method_titles())
    with pytest.raises(DataError, match="no emotion labels"):
        emotions.floors(synthetic("mosi"))


def test_table_is_long_with_the_mean_over_runs():
    start = {"dataset": "mosei", "source": "synthetic", "alignment": "aligned"}
    good, bad = emotions.score(np.eye(6), np.eye(6)), emotions.score(1 - np.eye(6), np.eye(6))
    rows = [start | {"method": "b"} | good, start | {"method": "b"} | bad, start | {"method": "a"} | good]
    found = emotions.table(pd.DataFrame([*rows, start | {"method": "tmt", "mae": 1.0}]))
    assert len(found) == 2 * len(emotions.METRICS), "a run of another task has no row"
    assert found["method"].drop_duplicates().tolist() == ["b", "a"]
    assert found["emotion"][:7].tolist() == ["mean", *EMOTIONS]
    assert found["metric"].unique().tolist() == ["wa", "f1", "wf1"]
    first, last = found.iloc[0], found.iloc[-1]
    assert (first["mean"], first["n"]) == (0.5, 2) and first["sd"] == pytest.approx(np.sqrt(0.5))
    assert (last["mean"], last["n"]) == (1, 1) and np.isnan(last["sd"])


def test_differences_pair_seeds_and_have_t_intervals():
    rng, names = np.random.default_rng(0), ["tmt_emotions", "tmt_amw_emotions"]
    values = {m: rng.uniform(0.4, 0.8, (4, len(emotions.METRICS))) for m in names}
    rows = pd.concat(
        pd.DataFrame(v, columns=emotions.METRICS).assign(dataset="mosei", source="synthetic", method=m, seed=range(4))
        for m, v in values.items()
    )
    found = emotions.differences(rows.sample(frac=1, random_state=0))
    assert len(found) == len(emotions.METRICS) and (found["n"] == 4).all(), "no pairs of what did not run"
    assert set(found["after"]) == {"tmt_amw_emotions"} and set(found["before"]) == {"tmt_emotions"}
    gain = values["tmt_amw_emotions"] - values["tmt_emotions"]
    np.testing.assert_allclose(found["difference"], gain.mean(0))
    half = stats.t.ppf(0.975, 3) * gain.std(0, ddof=1) / 2
    np.testing.assert_allclose(found["high"] - found["difference"], half)
    np.testing.assert_allclose(found["difference"] - found["low"], half)
    assert found.loc[0, ["metric", "emotion"]].tolist() == ["wa", "mean"]

    unmeasured = rows.assign(f1_fear=rows["f1_fear"].where(rows["seed"] > 0))
    assert not ((emotions.differences(unmeasured)[["metric", "emotion"]] == ["f1", "fear"]).all(axis=1)).any()
    with pytest.raises(
        ValueError, match=r"seeds of tmt_amw_emotions are \[0, 1, 2, 3\] and of tmt_emotions \[1, 2, 3\]"
    ):
        emotions.differences(rows[(rows["method"] != "tmt_emotions") | (rows["seed"] > 0)])
    uniform = rows[rows["method"] == "tmt_emotions"].assign(method="tmt_uniform_emotions")
    three = emotions.differences(pd.concat([rows, uniform]))
    assert tuple(three[["after", "before"]].drop_duplicates().itertuples(index=False, name=None)) == emotions.COMPARED


# --- Labels from files -----------------------------------------------------------------------------------------------


def written(tmp_path, change, splits=SPLITS):
    """A small MMSA file; `change(n)` gives `emotion_labels` of a split of n utterances."""
    raw = content()
    for s in splits:
        raw[s]["emotion_labels"] = change(len(raw[s]["id"]))
    (tmp_path / "features.pkl").write_bytes(pickle.dumps(raw, protocol=4))
    return tmp_path / "features.pkl"


def strengths(n: int) -> np.ndarray:
    return (np.arange(6 * n).reshape(n, 6) % 10) / 3


@pytest.mark.parametrize(
    "change", [strengths, lambda n: strengths(n)[:, None], lambda n: strengths(n).tolist()], ids=["6", "1x6", "list"]
)
def test_readers_take_six_strengths_an_utterance(tmp_path, change):
    path = written(tmp_path, change)
    dataset = mmsa.read(path)
    for s in SPLITS:
        found = dataset[s].emotion_labels
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, strengths(len(dataset[s])).astype(np.float32))
    assert "emotion labels" in check.report(path)
    assert not [o for o in dataset.oddities if "emotion" in o.what]


def broken(value):
    def change(n):
        labels = strengths(n)
        labels[1, 2] = value
        return labels

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: np.zeros((n, 5)), r"\(4, 5\); wanted \(4, 6\) or \(4, 1, 6\), the columns happy, sad, anger"),
        (lambda n: np.zeros((n, 7)), r"\(4, 7\); wanted .*; leave out the first column, the sentiment"),
        (lambda n: np.zeros((n + 1, 6)), r"emotion_labels is \(5, 6\); wanted \(4, 6\)"),
        (lambda n: np.zeros(6 * n), r"emotion_labels is \(24,\)"),
        (lambda n: [["much"] * 6] * n, "emotion_labels holds <U4; wanted numbers"),
        (broken(np.nan), r"emotion_labels of 1 of 4 rows are not within 0\.\.3 \(the first in row 1"),
        (broken(-1.0), r"not within 0\.\.3"),
        (broken(3.5), r"not within 0\.\.3"),
    ],
)
def test_readers_refuse_other_emotion_labels(tmp_path, change, message):
    with pytest.raises(DataError, match=rf"features\.pkl.*{message}"):
        mmsa.read(written(tmp_path, change))


def test_emotion_labels_are_in_every_split_or_in_none(tmp_path):
    with pytest.raises(DataError, match=r"features\.pkl: no emotion labels in valid, test; wanted them in every split"):
        mmsa.read(written(tmp_path, strengths, splits=["train"]))


def test_a_split_checks_keeps_and_gives_its_emotion_labels(tmp_path):
    labels = np.arange(12, dtype=np.float32).reshape(2, 6) / 4
    split = good_split(emotion_labels=labels)
    assert split.take(np.array([1])).emotion_labels.tolist() == labels[1:].tolist()
    assert normalize(split, normalizer(split)).emotion_labels is labels
    assert split.labels_for("emotions") is labels and split.labels_for("regression") is split.labels
    for wrong in (labels.astype(float), labels[:, :5], labels[:1]):
        with pytest.raises(DataError, match=r"emotion_labels are .*; wanted float32 \(2, 6\)"):
            good_split(emotion_labels=wrong)


def test_emotion_labels_survive_writing(tmp_path):
    dataset = generate("mosei", SyntheticSize((12, 5, 6), (6, 6, 6)))
    mmsa.write_mmsa(dataset, tmp_path / "out.pkl")
    found = mmsa.read(tmp_path / "out.pkl", name="mosei")
    for s in SPLITS:
        np.testing.assert_array_equal(found[s].emotion_labels, dataset[s].emotion_labels)
    assert found.oddities == ()


# --- Synthetic labels ------------------------------------------------------------------------------------------------


def test_synthetic_emotions_have_plausible_rates_and_strengths(many):
    labels = many.train.emotion_labels
    rates = (labels > 0).mean(0)
    assert (rates > 0.05).all() and (rates < 0.6).all()
    assert set(np.unique(labels)) == {np.float32(k / 3) for k in range(10)}
    assert (labels > 0).sum(1).max() > 2 and (labels == 0).all(1).any(), "several at once, or none"


def test_synthetic_emotions_follow_the_sentiment_and_their_own_modalities(many):
    latent = many.train.labels
    correlation = [np.corrcoef(latent, many.train.emotion_labels[:, i])[0, 1] for i in range(6)]
    assert correlation[0] > 0.2 and max(correlation[1], correlation[4]) < -0.2
    # One reliable frame shows (2, u_0, u_m, p or q): least squares on it tells which modality an emotion leans on
    target = (many.train.emotion_labels > 0).astype(float)
    explained = {}
    for m in ("text", "audio", "vision"):
        x = many.train.features[m][:, 0]
        x = np.column_stack([x @ np.linalg.svd(x[:500], full_matrices=False)[2][:12].T, np.ones(len(x))])
        left = target - x @ np.linalg.lstsq(x, target, rcond=None)[0]
        explained[m] = 1 - left.var(0) / target.var(0)
    leans = {name: max(explained, key=lambda m: explained[m][i]) for i, name in enumerate(EMOTIONS)}
    assert [leans[name] for name in ("happy", "anger", "disgust")] == ["vision", "audio", "text"]


def test_synthetic_emotions_are_the_same_bytes_for_a_seed_and_belong_to_mosei_alone():
    size = SyntheticSize((30, 10, 20), (6, 6, 6))
    first, again, other = (generate("mosei", size, seed) for seed in (0, 0, 1))
    for s in SPLITS:
        np.testing.assert_array_equal(first[s].emotion_labels, again[s].emotion_labels)
        assert (first[s].emotion_labels != other[s].emotion_labels).any()
    assert all(generate(name, size).train.emotion_labels is None for name in ("mosi", "sims"))


def test_synthetic_emotions_are_those_of_this_version():
    """Loadings and rates are no part of `settings_sha256`: other labels need a new VERSION, and then new sums here."""
    labels = generate("mosei", SyntheticSize((200, 10, 20), (1, 1, 1))).train.emotion_labels
    assert (VERSION, np.rint(3 * labels.sum(0)).astype(int).tolist()) == (2, [415, 175, 165, 49, 130, 45])


# --- Models and training ---------------------------------------------------------------------------------------------


def test_the_model_gives_logits_a_loss_and_chances():
    data = synthetic("mosei")
    model, batch = make(TASK, data), batch_of(data.valid)
    prediction, trace = model(batch)
    assert prediction.shape == (24, 6) and model.outputs == 6
    target = torch.from_numpy((data.valid.emotion_labels > 0).astype(float))
    p = model.values(prediction)
    assert p.shape == (24, 6) and (p > 0).all() and (p < 1).all()
    by_hand = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    assert model.task_loss(prediction, target).item() == pytest.approx(by_hand.item(), rel=1e-6)
    with pytest.raises(ValueError, match=r"prediction is \(24, 6\), target \(24,\); wanted equal"):
        model.task_loss(prediction, target[:, 0])
    on_device = OnDevice(data.valid, CPU, TASK, "mosi")
    assert torch.equal(on_device.target(torch.tensor([3, 1])), target[[3, 1]].float())


@pytest.mark.parametrize("config", [LateFusionConfig(), MulTConfig(), MISAConfig()], ids=lambda c: type(c).__name__)
def test_the_baselines_have_the_task_too(config):
    data = synthetic("mosei")
    model, batch = make(replace(config, task="emotions"), data), batch_of(data.valid)
    prediction, trace = model(batch)
    assert prediction.shape == model.values(prediction).shape == (24, 6)
    target = torch.from_numpy((data.valid.emotion_labels > 0).astype(float))
    assert torch.isfinite(model.loss(prediction, target, trace))


def test_the_task_is_a_choice():
    with pytest.raises(ValueError, match="task is 'moods'; wanted one of 'regression', 'classification', 'emotions'"):
        ModelConfig(task="moods")


@pytest.mark.parametrize("mixup", ["off", "correct"])
def test_a_stack_gives_what_models_alone_give(mixup):
    config = replace(TASK, dropout=0.0, embedding_dropout=0.0, mixup=mixup)
    data, run = synthetic("mosei"), Run(DataRef("mosei"), "m", config, TRAINING, 0)
    both = [fit(run, data.train, data.valid, data.shape, (0, 1), "cpu", stacked=stacked) for stacked in (True, False)]
    for together, alone in zip(*both, strict=True):
        assert_alike(together, alone)


@pytest.mark.parametrize(("select_by", "best"), [("accuracy", max), ("loss", min)])
def test_the_best_epoch_has_the_highest_mean_f1_or_the_lowest_loss(select_by, best):
    data = synthetic("mosei")
    run = Run(DataRef("mosei"), "m", TASK, replace(TRAINING, epochs=6, select_by=select_by), 0)
    (done,) = fit(run, data.train, data.valid, data.shape, device="cpu")
    assert {f"valid_{name}" for name in emotions.METRICS} <= set(done.history[0])
    column = "valid_f1_mean" if select_by == "accuracy" else "valid_loss"
    values = [row[column] for row in done.history]
    assert values[done.best_epoch - 1] == best(values)


def test_tmt_learns_emotions():
    """Better than the majority in every mean, and far better for happiness, the commonest."""
    data = generate("mosei", SyntheticSize((1200, 200, 400), (8, 8, 8)))
    statistics = normalizer(data.train)
    data = replace(data, **{s: normalize(data[s], statistics) for s in SPLITS})
    config = replace(TASK, encoder_layers=1, cross_layers=1)
    protocol = replace(TRAINING, learning_rate=5e-3, batch_size=32, epochs=8)
    (done,) = fit(Run(DataRef("mosei"), "m", config, protocol, 0), data.train, data.valid, data.shape, device="cpu")
    model = make(config, data).float()
    model.load_state_dict(done.state)
    found = emotions.score(predict(model, data.test, protocol, "cpu"), data.test.emotion_labels)
    floor = emotions.floors(data).set_index("method").loc["majority"]
    assert found["wa_mean"] > floor["wa_mean"] + 0.08
    assert found["f1_mean"] > floor["f1_mean"] + 0.15
    assert found["wf1_mean"] > floor["wf1_mean"] + 0.06
    assert found["wa_happy"] > 0.7


# --- Runs ------------------------------------------------------------------------------------------------------------


def a_run(method: str, name: str = "mosei", seed: int = 0) -> Run:
    base = replace(PROFILES["smoke"].model, encoder_layers=1, cross_layers=1)
    size = synthetic_sizes((64, 24, 40), aligned=6, unaligned=(6, 8, 7))[name]
    return Run(resolve(name, synthetic_size=size), method, method_config(method, base), TRAINING, seed)


def test_runs_records_and_rows(own_results):
    todo = [a_run(method) for method in METHODS]
    rows = runs.ensure(todo, "cpu", jobs=1, progress=False)
    assert rows["method"].tolist() == list(METHODS) and set(emotions.METRICS) <= set(rows) and "mae" not in rows
    for run, (_, row) in zip(todo, rows.iterrows(), strict=True):
        record, data = runs.read_record(run), load(run.data)
        for s in runs.JUDGED:
            assert record.predictions[s].shape == (len(data[s]), 6)
            np.testing.assert_array_equal(record.labels[s], data[s].emotion_labels)
        assert record.scores() == pytest.approx({name: row[name] for name in emotions.METRICS}, nan_ok=True)
        assert row["n_test"] == 40 and len(record.history()) == 2
        again = predict(runs.load_model(run), data.test, run.training, "cpu")
        np.testing.assert_allclose(again, record.predictions["test"], atol=1e-5)
    assert set(emotions.table(rows)["n"]) == {1}
    reduced = robustness.sweep(todo[:1], corruption.missing_modalities(), device="cpu", jobs=1)
    complete = reduced[reduced["modality"] == "all"].iloc[0]
    assert complete["wa_mean"] == pytest.approx(rows.iloc[0]["wa_mean"])


def test_default_methods_have_no_emotions():
    assert not any(set(METHODS) & {*p.methods, *p.five_class} for p in PROFILES.values())


def test_a_study_runs_emotions_where_there_are_labels(own_results):
    study = open_study("smoke", device="cpu")
    found = study.runs("tmt_amw_emotions", "tmt")
    assert [(r.data.name, r.method) for r in found if "emotions" in r.method] == [("mosei", "tmt_amw_emotions")] * 2
    assert len(found) == 2 + 3 * 2
    with pytest.raises(DataError, match=r"tmt_emotions needs emotion labels, which none .* \(mosi, sims\)"):
        replace(study, refs=(study.refs[0], study.refs[2])).runs("tmt_emotions")


def test_data_without_emotion_labels_say_so_before_any_training(own_results, tmp_path):
    with pytest.raises(DataError, match=r"mosi: no emotion labels, .* wanted 'emotion_labels' \(N, 6\).*happy, sad"):
        runs.ensure([a_run("tmt_emotions", "mosi")], "cpu", jobs=1, progress=False)
    path = written(tmp_path, strengths, splits=[])
    assert load_dataset(path).train.emotion_labels is None
    run = replace(a_run("tmt_emotions"), data=resolve(path))
    with pytest.raises(DataError, match="features: no emotion labels"):
        runs.ensure([run], "cpu", jobs=1, progress=False)
