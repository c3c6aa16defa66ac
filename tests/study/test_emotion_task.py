"""The task of six emotions: models, training, runs and trivial baselines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_helpers import SMALL, batch_of, make, synthetic

from tmtlib.analysis import robustness, trivial_baselines
from tmtlib.common import EMOTIONS
from tmtlib.data import corruption, mmsa
from tmtlib.data.loading import load, load_dataset, resolve
from tmtlib.data.schema import SPLITS, DataError, Dataset, SyntheticSize, normalize, normalizer
from tmtlib.data.synthetic import generate
from tmtlib.models.base import ModelConfig
from tmtlib.models.late_fusion import LateFusionConfig
from tmtlib.models.misa import MISAConfig
from tmtlib.models.mult import MulTConfig
from tmtlib.stats import emotions
from tmtlib.study import runs
from tmtlib.study.methods import family, method_config, method_titles
from tmtlib.study.profiles import PROFILES, synthetic_sizes
from tmtlib.study.runs import Run
from tmtlib.study.study import open_study
from tmtlib.training.batches import OnDevice
from tmtlib.training.fit import Training, fit, predict

METHODS = family("emotions")
METRICS = tuple(emotions.metrics_of(EMOTIONS))

CPU = torch.device("cpu")
TASK = replace(SMALL, task="emotions", weighting="static")
TRAINING = Training(learning_rate=3e-3, batch_size=16, epochs=2, patience=None, precision="float32")


@pytest.fixture(scope="module")
def many() -> Dataset:
    """Enough utterances for their rates, with little to store."""
    return generate("mosei", SyntheticSize((20_000, 20, 20), (1, 1, 1)))


def test_trivial_baselines_are_what_constants_reach(many):
    rows = trivial_baselines.emotion_rows(many).set_index("method")
    test_rates = (many.test.emotion_labels > 0).mean(0)
    assert rows["wa_mean"].tolist() == [0.5, 0.5]
    always = 2 * test_rates / (1 + test_rates)
    np.testing.assert_allclose(rows.loc["always", [f"f1_{name}" for name in EMOTIONS]].astype(float), always)
    assert rows.loc["majority", "f1_happy"] == pytest.approx(always[0]), "more than half of train"
    assert not rows.loc["majority", [f"f1_{name}" for name in EMOTIONS[1:]]].any(), "less than half"
    assert {*rows.index, *METHODS} <= set(method_titles())
    with pytest.raises(DataError, match="no emotion labels"):
        trivial_baselines.emotion_rows(synthetic("mosi"))


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


@pytest.mark.parametrize("method", ["tmt_emotions", "tmt_reliability_emotions", "late_fusion"])
def test_other_emotions_than_six_are_learned_scored_and_named(method, own_results, tmp_path):
    data, names = synthetic("mosi"), ("anger", "joy", "neutral")
    parts = {s: np.digitize(data[s].labels, [-0.5, 0.5]) for s in SPLITS}
    felt = {s: replace(data[s], emotion_labels=np.eye(3, dtype=np.float32)[parts[s]]) for s in SPLITS}
    named = replace(data, card=replace(data.card, emotions=names), **felt)
    mmsa.write_mmsa(named, tmp_path / "features.pkl")
    config = replace(method_config(method, replace(SMALL, encoder_layers=1, cross_layers=1)), task="emotions")
    run = Run(resolve(tmp_path / "features.pkl"), method, config, TRAINING, 0)
    row = runs.ensure([run], "cpu", jobs=1, progress=False).iloc[0]
    assert {f"{kind}_{name}" for kind in emotions.KINDS for name in ("mean", *names)} <= {*row.index}
    assert "wa_happy" not in row and runs.read_record(run).predictions["test"].shape == (len(data.test), 3)
    assert runs.load_model(run).outputs == 3
    rows = trivial_baselines.emotion_rows(named)
    assert set(emotions.table(rows)["emotion"]) == {"mean", *names}
    reduced = robustness.sweep([run], corruption.missing_modalities(), device="cpu", jobs=1)
    assert reduced[reduced["modality"] == "all"].iloc[0]["wa_mean"] == pytest.approx(row["wa_mean"])


def test_the_task_is_a_choice():
    with pytest.raises(ValueError, match="task is 'moods'; wanted one of 'regression', 'classification', 'emotions'"):
        ModelConfig(task="moods")


@pytest.mark.parametrize(("select_by", "best"), [("accuracy", max), ("loss", min)])
def test_the_best_epoch_has_the_highest_mean_f1_or_the_lowest_loss(select_by, best):
    data = synthetic("mosei")
    training = replace(TRAINING, epochs=6, select_by=select_by)
    (done,) = fit(TASK, training, data.train, data.valid, data.shape, device="cpu")
    assert {f"valid_{name}" for name in METRICS} <= set(done.history[0])
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
    (done,) = fit(config, protocol, data.train, data.valid, data.shape, device="cpu")
    model = make(config, data).float()
    model.load_state_dict(done.state)
    found = emotions.score(predict(model, data.test, protocol, "cpu"), data.test.emotion_labels)
    baseline = trivial_baselines.emotion_rows(data).set_index("method").loc["majority"]
    assert found["wa_mean"] > baseline["wa_mean"] + 0.08
    assert found["f1_mean"] > baseline["f1_mean"] + 0.15
    assert found["wf1_mean"] > baseline["wf1_mean"] + 0.06
    assert found["wa_happy"] > 0.7


# --- Runs ------------------------------------------------------------------------------------------------------------


def a_run(method: str, name: str = "mosei", seed: int = 0) -> Run:
    base = replace(PROFILES["smoke"].model, encoder_layers=1, cross_layers=1)
    size = synthetic_sizes((64, 24, 40), aligned=6, unaligned=(6, 8, 7))[name]
    return Run(resolve(name, synthetic_size=size), method, method_config(method, base), TRAINING, seed)


def test_runs_records_and_rows(own_results):
    todo = [a_run(method) for method in METHODS]
    rows = runs.ensure(todo, "cpu", jobs=1, progress=False)
    assert rows["method"].tolist() == list(METHODS) and set(METRICS) <= set(rows) and "mae" not in rows
    for run, (_, row) in zip(todo, rows.iterrows(), strict=True):
        record, data = runs.read_record(run), load(run.data)
        for s in runs.JUDGED:
            assert record.predictions[s].shape == (len(data[s]), 6)
            np.testing.assert_array_equal(record.labels[s], data[s].emotion_labels)
        assert record.scores() == pytest.approx({name: row[name] for name in METRICS}, nan_ok=True)
        assert row["n_test"] == 40 and len(record.meta["history"]) == 2
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
    with pytest.raises(
        DataError, match=r"mosi: no emotion labels, .* wanted .* 'emotion_labels' \(N, 6\): happy, sad.* or 'emotion'"
    ):
        runs.ensure([a_run("tmt_emotions", "mosi")], "cpu", jobs=1, progress=False)
    path = tmp_path / "features.pkl"
    mmsa.write_mmsa(synthetic("mosi"), path)
    assert load_dataset(path).train.emotion_labels is None
    run = replace(a_run("tmt_emotions"), data=resolve(path))
    with pytest.raises(DataError, match="features: no emotion labels"):
        runs.ensure([run], "cpu", jobs=1, progress=False)
