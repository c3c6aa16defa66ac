"""The comparison with linear models: chosen on validation, judged on test with intervals."""

import numpy as np
import pandas as pd
import pytest

from tmtlib.analysis import trivial_baselines
from tmtlib.data.loading import load, resolve
from tmtlib.data.schema import SyntheticSize
from tmtlib.models.tmt import TMTConfig
from tmtlib.paper import verdicts
from tmtlib.study.runs import Record, Run
from tmtlib.training.fit import Training

REF = resolve("sims", synthetic_size=SyntheticSize((300, 60, 200), (6, 6, 6)))
LABEL = load(REF).test.labels


def tmt_runs(task="regression"):
    return [Run(REF, "tmt", TMTConfig(task=task), Training(), s) for s in range(3)]


def against(monkeypatch, prediction) -> dict:
    """The row of three seeds with `prediction(seed)` on test."""

    def read(run):
        return Record({}, {"test": prediction(run.seed)}, {"test": LABEL}, None)

    monkeypatch.setattr(trivial_baselines, "read_record", read)
    return trivial_baselines.against_linear(tmt_runs()).iloc[0]


def noisy(sd: float):
    return lambda seed: LABEL + np.random.default_rng(seed).normal(0, sd, len(LABEL)).astype(np.float32)


def test_validation_chooses_the_linear_model_whatever_test_says(monkeypatch):
    """audio is exact on validation and far off on test."""
    known = load(REF)
    wrong = np.where(LABEL > 0, -1, 1).astype(np.float32)
    by_name = {
        "constant": {"valid": known.valid.labels, "test": LABEL},
        "linear_text": {"valid": known.valid.labels + 0.1, "test": LABEL},
        "linear_audio": {"valid": known.valid.labels, "test": wrong},
    }
    monkeypatch.setattr(trivial_baselines, "predictions", lambda dataset: by_name)
    row = against(monkeypatch, noisy(0.1))
    assert (row["linear"], row["linear_valid_mae"]) == ("linear_audio", 0)
    assert row["linear_mae"] == pytest.approx(np.abs(wrong - LABEL).mean(), abs=1e-6)
    assert row["linear_low"] < row["linear_mae"] < row["linear_high"] and row["single_verdict"] == "beats"


def test_verdicts_are_said_with_intervals_only(monkeypatch):
    linear = trivial_baselines.predictions(load(REF))
    best = against(monkeypatch, noisy(0.1))
    assert best["single_verdict"] == best["ensemble_verdict"] == "beats" and best["single_high"] < 0
    assert (best["n_seeds"], best["n_utterances"]) == (3, 200)
    mean = np.clip([noisy(0.1)(s) for s in range(3)], -1, 1).mean(0)
    assert best["ensemble_mae"] == pytest.approx(np.abs(mean - LABEL).mean(), abs=1e-6)
    assert best["ensemble_mae"] < best["single_mae"], "errors of independent seeds cancel"
    assert best["single_difference"] == pytest.approx(best["single_mae"] - best["linear_mae"], abs=1e-6)
    worse = against(monkeypatch, lambda seed: -LABEL)
    assert worse["single_verdict"] == worse["ensemble_verdict"] == "does not beat" and worse["single_low"] > 0
    error = np.abs(linear[best["linear"]]["test"] - LABEL)
    shuffled = LABEL + np.where(LABEL > 0, -1, 1) * np.roll(error, 1)  # the same errors on other utterances
    level = against(monkeypatch, lambda seed: shuffled.astype(np.float32))
    assert level["single_verdict"] == level["ensemble_verdict"] == "ranks nothing"
    assert level["single_low"] < 0 < level["single_high"]


def test_tmt_beats_the_constant_or_does_not(monkeypatch):
    def row(prediction):
        monkeypatch.setattr(
            trivial_baselines,
            "read_record",
            lambda run: Record({}, {"test": prediction(run.seed)}, {"test": LABEL}, None),
        )
        return trivial_baselines.against_constant(tmt_runs()).iloc[0]

    best, median = row(noisy(0.1)), np.median(load(REF).train.labels)
    assert best["verdict"] == "beats" and (best["n_seeds"], best["n_utterances"]) == (3, 200)
    assert best["constant_mae"] == pytest.approx(np.abs(median - LABEL).mean(), abs=1e-6)
    assert best["difference"] == pytest.approx(best["mae"] - best["constant_mae"], abs=1e-6) and best["high"] < 0
    assert row(lambda seed: -LABEL)["verdict"] == "does not beat"
    nothing = row(lambda seed: np.full_like(LABEL, median + 0.01 * (seed - 1)))
    assert nothing["verdict"] == "ranks nothing" and nothing["low"] < 0 < nothing["high"]
    assert verdicts.unlearned(pd.DataFrame([nothing])) == {"sims"} and not verdicts.unlearned(pd.DataFrame([best]))


def test_emotions_and_untrained_runs_are_refused(own_results):
    with pytest.raises(ValueError, match="tmt predicts emotions; wanted runs that predict sentiment"):
        trivial_baselines.against_linear(tmt_runs("emotions"))
    with pytest.raises(FileNotFoundError, match="no record of sims tmt seed 0"):
        trivial_baselines.against_linear(tmt_runs())


def test_few_seeds_that_differ_much_beat_nothing():
    """The bootstrap alone would say that they do: its interval over three seeds is too narrow."""
    label = np.zeros(200, np.float32)
    values = np.repeat([[0.96], [1.05], [1.16]], 200, axis=1)
    found = trivial_baselines._against(values, np.full(200, 1.178), label)
    assert found["verdict"] == "ranks nothing" and found["low"] < -0.3 and found["high"] > 0.1
    assert trivial_baselines._against(values[:1], np.full(200, 1.178), label)["verdict"] == "beats"
