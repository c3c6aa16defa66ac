"""The explorer's table against the records, models and truth that it is made from."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tmtlib.analysis import explorer, utterance, weights
from tmtlib.common import MODALITIES
from tmtlib.data.corrupt import corrupt, noise_scale
from tmtlib.data.corruption import Corruption
from tmtlib.data.loading import load
from tmtlib.stats.statistics import conformal_half_width
from tmtlib.study import runs
from tmtlib.study.records import read_record

ROUNDED = {"abs": 6e-4}


@pytest.fixture(scope="module")
def made(smoke):
    """A run whose weights differ by utterance, its data, and its rows by utterance and noise."""
    smoke.ensure("tmt_gated")
    run = smoke.runs("tmt_gated")[0]
    return run, load(run.data), explorer.table([run], "cpu", 1).set_index(["noise", "utterance"])


def test_clean_rows_are_the_record_s(made):
    run, data, table = made
    record, clean = read_record(run), table.loc["clean"]
    assert clean["prediction"].to_numpy() == pytest.approx(record.predictions["test"].clip(-3, 3), **ROUNDED)
    assert clean["label"].to_numpy() == pytest.approx(data.test.labels, **ROUNDED)
    assert clean["id"].tolist() == [*data.test.ids] and clean["transcript"].tolist() == [*data.test.raw_text]
    half = conformal_half_width(np.abs(record.predictions["valid"] - record.labels["valid"]), 0.9)
    inside = clean[(clean["low"] > -3) & (clean["high"] < 3)]
    assert len(inside) and (inside["high"] - inside["low"]).to_numpy() == pytest.approx(2 * half, abs=2e-3)
    before = weights.by_utterance([run]).set_index("utterance")
    for m in MODALITIES:
        assert clean[f"weight_{m}"].to_numpy() == pytest.approx(before[m].to_numpy(), **ROUNDED)
    assert clean["unreliable"].tolist() == before["unreliable"].tolist()


def test_contributions_and_truth_are_those_of_an_explanation(made):
    run, _, table = made
    explained = utterance.explain_run(run, 7)
    for name, values in {"shapley": explained.contribution, "truth": explained.truth}.items():
        assert table.loc["clean", 7][[f"{name}_{m}" for m in MODALITIES]].tolist() == pytest.approx(
            [*values.values()], **ROUNDED
        )


def test_noisy_rows_are_predictions_from_noise_beside_the_same_truth(made):
    run, data, table = made
    assert [*dict.fromkeys(noise for noise, _ in table.index)] == ["clean", "text 0 dB", "audio 0 dB"]
    noisy = corrupt(data.test, Corruption("noise", ("audio",), 0.0), noise_scale(data.train))
    wanted = runs.predict(runs.load_model(run), noisy, run.training, "cpu").clip(-3, 3)
    assert table.loc["audio 0 dB", "prediction"].to_numpy() == pytest.approx(wanted, **ROUNDED)
    assert not np.allclose(table.loc["audio 0 dB", "prediction"], table.loc["clean", "prediction"])
    assert table.loc["audio 0 dB", "truth_text"].equals(table.loc["clean", "truth_text"])


def test_rows_are_kept_beside_the_run(made, monkeypatch):
    run, _, table = made
    monkeypatch.setattr(explorer, "load_model", lambda *_: pytest.fail("computed again"))
    assert explorer.table([run], "cpu", 1).set_index(["noise", "utterance"]).equals(table)


def test_a_model_without_sentiment_is_refused(made):
    run = made[0]
    with pytest.raises(ValueError, match="tmt_gated predicts emotions or reads token ids"):
        explorer.table([replace(run, model=replace(run.model, task="emotions"))], "cpu", 1)


def test_the_committed_table_is_synthetic_whole_and_small(committed, made):
    path = committed / "results" / "full" / "explorer.csv"
    table = pd.read_csv(path)
    assert path.stat().st_size < 600_000 and set(table["source"]) == {"synthetic"} and table.notna().all(axis=None)
    assert {*table} == {*made[2].reset_index()} and set(table["dataset"]) == {"mosi", "mosei", "sims"}
    assert (table.groupby(["dataset", "method", "noise"]).size() == explorer.UTTERANCES).all()
