"""Utterance-level comparisons are those of the records' own predictions."""

from types import SimpleNamespace

import numpy as np
import pytest

from tmtlib.analysis import paired
from tmtlib.data.schema import DataRef
from tmtlib.models.tmt import TMTConfig
from tmtlib.study.runs import Record, Run
from tmtlib.training.fit import Training

RNG = np.random.default_rng(0)
LABEL = RNG.choice(np.arange(-3, 4), 300).astype(np.float32)


def runs(*methods, seeds=(0, 1, 2)):
    return [Run(DataRef("mosi"), m, TMTConfig(), Training(), s) for m in methods for s in seeds]


@pytest.fixture
def records(monkeypatch):
    """TMT errs by sd 1; TMT+AMW by `spread` in the same directions."""
    setting = SimpleNamespace(spread=1.0)

    def read(run):
        error = np.random.default_rng(run.seed).normal(0, 1, len(LABEL))
        scale = setting.spread if run.method == "tmt_amw" else 1.0
        meta = {"card": {"name": "mosi", "source": "synthetic", "family": "mosi"}}
        return Record(meta, {"test": (LABEL + scale * error).astype(np.float32)}, {"test": LABEL}, None)

    monkeypatch.setattr(paired, "read_record", read)
    return setting


def test_a_better_method_is_seen_in_every_column(records):
    records.spread = 0.5
    row = paired.by_utterance(runs("tmt", "tmt_amw")).iloc[0]
    assert (row["dataset"], row["n_seeds"], row["n_utterances"]) == ("mosi", 3, 300)
    assert row["low"] < row["mae_difference"] < row["high"] < 0
    assert row["mae_difference"] == pytest.approx(-0.5 * np.sqrt(2 / np.pi), abs=0.03)
    assert row["gained"] > row["lost"] and row["mcnemar_p_median"] < 0.001
    assert row["acc5_difference"] == pytest.approx((row["gained"] - row["lost"]) / 300)
    assert 0 < row["acc5_low"] < row["acc5_difference"] < row["acc5_high"]
    assert row["p_better"] == 1 and row["permutation_p"] == pytest.approx(2 / 2**3)


def test_equal_methods_differ_in_nothing(records):
    row = paired.by_utterance(runs("tmt", "tmt_amw")).iloc[0]
    assert (
        row["mae_difference"] == row["acc5_difference"] == row["gained"] == row["lost"] == 0
        and row["mcnemar_p_median"] == 1
    )
    assert row["p_better"] == 0.5


def test_one_seed_has_no_permutations(records):
    row = paired.by_utterance(runs("tmt", "tmt_amw", seeds=(0,))).iloc[0]
    assert row["n_seeds"] == 1 and np.isnan(row["permutation_p"]) and row["mcnemar_p_median"] == 1
    assert np.isfinite(row[["mae_difference", "low", "high"]].astype(float)).all()


def test_only_seeds_of_both_count(records):
    some = runs("tmt") + runs("tmt_amw", seeds=(1, 2, 7))
    assert paired.by_utterance(some)["n_seeds"].item() == 2
    assert paired.by_utterance(runs("tmt")).empty
