"""The grid is balanced and the same for every model, validation alone chooses, and one frame is the salient one."""

from dataclasses import replace
from itertools import combinations, product
from types import SimpleNamespace

import numpy as np
import pytest

from tmtlib.analysis import tuning
from tmtlib.common import MODALITIES
from tmtlib.data.loading import load, synthetic_ref
from tmtlib.data.schema import DataRef, SyntheticSize
from tmtlib.data.synthetic import LATENT, MARKER
from tmtlib.models import build_model
from tmtlib.models.base import count_parameters
from tmtlib.models.bert import BertTextConfig
from tmtlib.models.misa import MISAConfig
from tmtlib.models.mult import MulTConfig
from tmtlib.study import runs
from tmtlib.study.methods import method_config
from tmtlib.study.profiles import PROFILES
from tmtlib.study.runs import Run
from tmtlib.training.fit import Training

MODEL = replace(PROFILES["smoke"].model, encoder_layers=1, cross_layers=1)
REF = synthetic_ref("mosi", SyntheticSize((48, 24, 40), (6, 6, 6)))
GRID = (tuning.Trial(epochs=2), tuning.Trial(learning_rate=1e-2, size="other"))


def some_runs(*methods: str, seeds=(0, 1, 2)) -> list[Run]:
    training = Training(learning_rate=3e-3, epochs=1, patience=None, select_by="loss")
    return [Run(REF, m, method_config(m, MODEL), training, seed) for m in methods for seed in seeds]


def test_the_half_of_the_grid_has_every_three_settings_together_once():
    assert tuning.TRIALS[0] == tuning.Trial() and len(set(tuning.TRIALS)) == 9
    levels = (tuning.RATES, tuning.BATCHES, tuning.EPOCHS, tuning.SIZES)
    for three in combinations(range(4), 3):
        seen = {tuple(settings[i] for i in three) for settings in tuning.HALF}
        assert seen == set(product(*(levels[i] for i in three)))


def test_a_trial_changes_what_it_says_alone():
    (run,) = some_runs("tmt", seeds=(0,))
    assert tuning.Trial().of(run) == run
    training = replace(run.training, learning_rate=5e-4, batch_size=16, epochs=8)
    assert tuning.TRIALS[1] == tuning.Trial(5e-4, 16, 8, "study")
    assert tuning.TRIALS[1].of(run) == replace(run, training=training)
    assert tuning.Trial(size="other").of(run).training == run.training


def test_other_sizes_are_published_or_twice_as_wide():
    shape = load(REF).shape
    for method in ("tmt", "late_fusion"):
        config = method_config(method, MODEL)
        other = tuning.other_size(config, "mosi")
        assert count_parameters(build_model(other, shape)) > 2 * count_parameters(build_model(config, shape))
        assert other.schedule == config.schedule
    assert tuning.other_size(MISAConfig(), "sims") == MISAConfig.published("sims")
    mult = tuning.other_size(method_config("mult", MODEL), "my_file")
    assert mult == MulTConfig.published("mosi", schedule=MODEL.schedule) and mult.layers == 4
    with pytest.raises(ValueError, match="BertTextConfig has no other size"):
        tuning.other_size(BertTextConfig(bert="folder"), "mosi")


def test_validation_alone_chooses_by_the_measure_that_models_share(monkeypatch):
    """The records have no test split. Trial 1 is better in each model's own loss, trial 0 of tmt in MAE."""
    mae = {("tmt", "study"): 0.5, ("tmt", "other"): 0.6, ("misa", "study"): 0.9, ("misa", "other"): 0.8}

    def read(run):
        size = "study" if run.model == method_config(run.method, MODEL) else "other"
        at = {"valid_loss": 2.0 - (size == "other"), "valid_mae": mae[run.method, size] + run.seed / 100}
        history = [{"valid_loss": 0.0, "valid_mae": 0.0}, at]
        card = {"name": "mosi", "source": "synthetic"}
        return SimpleNamespace(meta={"card": card, "history": history, "best_epoch": 2, "parameters": 7})

    monkeypatch.setattr(runs, "read_record", read)
    monkeypatch.setattr(runs, "ensure", lambda todo, *rest: None)
    monkeypatch.setattr(tuning, "SEEDS", 2)
    todo = some_runs("tmt", "misa")
    table = tuning.trials(todo, GRID)
    assert table["chosen"].tolist() == [True, False, False, True]
    assert table["n"].eq(tuning.SEEDS).all() and table["trial"].tolist() == [0, 1, 0, 1]
    assert table["valid_mae"].tolist() == pytest.approx([0.505, 0.605, 0.905, 0.805])
    chosen = tuning.chosen_runs(todo, table, GRID)
    assert chosen == [GRID[run.method == "misa"].of(run) for run in todo]


def test_a_setting_whose_training_failed_is_not_chosen(own_results, monkeypatch):
    monkeypatch.setattr(tuning, "SEEDS", 1)
    run = some_runs("tmt")[0]
    wild = replace(GRID[0], learning_rate=1e30)
    with pytest.warns(UserWarning, match="1 of 2 trainings failed"):
        table = tuning.trials([run], (wild, GRID[0]), "cpu", 1)
    assert table["chosen"].tolist() == [False, True] and table["valid_mae"].isna().tolist() == [True, False]


def test_tuned_models_are_compared_with_tuned_tmt_and_the_linear_model(own_results):
    todo = some_runs("tmt", "late_fusion", seeds=(0, 1))
    tried = tuning.trials(todo, GRID, "cpu", 1)
    assert tried.groupby("method")["chosen"].sum().eq(1).all() and (tried["epochs"] <= 2).all()
    chosen = tuning.chosen_runs(todo, tried, GRID)
    table = tuning.tuned(chosen, "cpu", 1).set_index(["method", "metric"])
    errors = [np.abs(r.predictions["test"] - r.labels["test"]).mean() for r in map(runs.read_record, chosen)]
    assert table.loc[("late_fusion", "mae"), "mean"] == pytest.approx(np.mean(errors[2:]), abs=1e-5)
    difference = np.mean(errors[2:]) - np.mean(errors[:2])
    assert table.loc[("late_fusion", "mae"), "difference"] == pytest.approx(difference, abs=1e-5)
    row = table.loc[("tmt", "mae")]
    assert row["over_linear"] == pytest.approx(row["mean"] - row["linear_mae"], abs=1e-5)
    assert row["over_linear_low"] <= row["over_linear"] <= row["over_linear_high"] and row["difference"] == 0
    assert table.xs("acc5", level="metric")["verdict"].isna().all()


def test_a_linear_model_gains_from_salient_frames_alone(own_results):
    both = tuning.without_distractors(some_runs("tmt", seeds=(0,)), "cpu", 1)
    assert both["frames"].tolist() == ["all", "salient"] and both["linear_mae"].is_monotonic_decreasing


def test_one_frame_keeps_labels_and_holds_the_signal_wherever_it_is_shown():
    """The mean frame of reliable utterances has the marker's full length."""
    all_ = synthetic_ref("mosi", SyntheticSize((8, 8, 800), (6, 6, 6)), normalize=False)
    one, many = load(tuning.one_frame(all_)), load(all_)
    reliable = one.truth.splits["test"].reliable
    assert np.array_equal(one.test.labels, many.test.labels)
    assert np.array_equal(reliable, many.truth.splits["test"].reliable)
    for i, m in enumerate(MODALITIES):
        frame = one.test.features[m][reliable[:, i], 0]
        marker = MARKER * np.sqrt(frame.shape[1] / min(LATENT, frame.shape[1]))
        assert (one.test.lengths[m] == 1).all()
        assert np.linalg.norm(frame.mean(0)) == pytest.approx(marker, rel=0.1)
    with pytest.raises(ValueError, match="mine is real; wanted synthetic data"):
        tuning.one_frame(DataRef("mine", "real"))
