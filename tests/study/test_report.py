"""What a report says before its tables, of profile smoke and of a user's own data."""

import re
import shutil

import pandas as pd
import pytest

from tmtlib import common
from tmtlib.study import report
from tmtlib.study.study import Study, open_study


@pytest.fixture
def folder(committed, tmp_path):
    """The tables of profile quick as if of one real file, in a folder of profile smoke."""
    made = shutil.copytree(committed / "results" / "quick", tmp_path / "smoke_2seeds")
    full = committed / "results" / "full"
    for name in ("against_linear", "against_constant", "weights"):
        shutil.copy(full / f"{name}.csv", made)
    for path in made.glob("*.csv"):
        table = pd.read_csv(path)
        if {"dataset", "source"} <= {*table}:
            table[table["dataset"] == "mosi"].assign(source="real", dataset="mine").to_csv(path, index=False)
    return made


def change(folder, name, **columns):
    path = folder / f"{name}.csv"
    pd.read_csv(path).assign(**columns).to_csv(path, index=False)


def start(folder) -> str:
    return report.write(folder).partition("## Table 1")[0]


def test_a_loss_is_said_before_table_1(folder):
    assert "mine: TMT (MAE " in start(folder) and "beats the training median" in start(folder)
    change(folder, "against_linear", linear="linear_all", linear_mae=0.099, single_verdict="does not beat")
    change(folder, "against_constant", constant_mae=0.85, verdict="ranks nothing")
    words = "cannot be told from the training median (0.850) and **loses to** linear, all modalities (0.099)"
    assert words in start(folder)


def test_smoke_says_how_little_it_trained(folder):
    assert "Trained for 2 epochs" in start(folder) and "mean nothing" in start(folder)
    assert "mean nothing" not in start(folder.rename(folder.with_name("quick")))


def test_weights_of_what_is_not_there_are_said(folder):
    assert "has no" not in start(folder)
    path = folder / "weights.csv"
    pd.read_csv(path).query("modality == 'text'").assign(weight=1 / 3).to_csv(path, index=False)
    words = "mine has no audio and no vision: of weights that sum to one, what is not there is given"
    assert words in start(folder) and "0.667 by TMT+AMW" in start(folder)


def test_a_study_is_set_beside_the_reported_one(monkeypatch):
    monkeypatch.delenv("TMT_RESULTS", raising=False)
    quick = open_study("quick", device="cpu")
    monkeypatch.setattr(Study, "table", lambda self, name: pd.read_csv(self.results / f"{name}.csv"))
    text = report.beside_reported(quick)
    ours, theirs = (pd.read_csv(common.ROOT / "results" / name / "claims.csv") for name in ("quick", "full"))
    same = (ours.set_index("claim")["verdict"] == theirs.set_index("claim")["verdict"]).sum()
    assert f"{same} of {len(ours)} verdicts are the reported ones (profile full)." in text
    other = ours.merge(theirs, on="claim").query("verdict_x != verdict_y").iloc[0]
    row = rf"\| {other.claim} +\| {other.verdict_x} +\| {other.verdict_y} +\|"
    assert re.search(row, text), "here first, then as reported"
    assert "| CMU-MOSI (synthetic)  | TMT+AMW " in text and text.count(" mae ") == 7
    assert report.beside_reported(open_study("full", device="cpu")) == ""
