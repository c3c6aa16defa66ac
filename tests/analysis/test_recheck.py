"""`tmt check` finds what was changed: a prediction, a cell, a hash, a parameter, a line of the report."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tmtlib import common
from tmtlib.__main__ import main
from tmtlib.analysis import recheck
from tmtlib.study import report, runs
from tmtlib.study.records import record_path
from tmtlib.study.study import Study, open_study, read_table

METHODS = ("tmt", "tmt_amw", "tmt_uniform", "tmt_random", "tmt_amw_fast")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, committed) -> tuple[Study, Path]:
    """A small study and its results folder, where the tables that models make are another study's."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMT_RESULTS", str(folder))
        patch.delenv("TMT_DATA", raising=False)
        study = open_study("smoke", device="cpu", datasets="mosi")
        study = replace(study, profile=replace(study.profile, methods=METHODS, draws=0))
        study.ensure()
        others = {n: pd.read_csv(committed / "results/quick" / f"{n}.csv") for n in recheck.NEEDED.split()}
        made = others | recheck.from_records(study) | {"claims": others["claims"][:0]}
        saved = {name: read_table(study.save_table(table, name)) for name, table in made.items()}
        for name, table in recheck.from_tables(study, saved).items():
            study.save_table(table, name)
        study.save_text(report.write(study.results), report.NAME)
    return study, folder


@pytest.fixture
def study(finished, tmp_path, monkeypatch) -> Study:
    """That study in a copy of its folder."""
    study, folder = finished
    monkeypatch.setenv("TMT_RESULTS", str(shutil.copytree(folder, tmp_path / "results")))
    monkeypatch.delenv("TMT_DATA", raising=False)
    return study


def test_an_untouched_study_has_no_differences(study):
    differences, unchecked = recheck.check(study)
    assert differences == [] and len(unchecked) == 1 and unchecked[0].startswith("what is in attention_entropy.csv, co")


def edited(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """A record with other content under a seal that is valid."""
    with np.load(io.BytesIO(common.read_sealed(path))) as file:
        arrays = dict(file)
    change(arrays)
    np.savez_compressed(content := io.BytesIO(), **arrays)
    common.write_sealed(path, content.getvalue())


def shifted(split: str) -> Callable[[dict], None]:
    def change(arrays: dict) -> None:
        arrays[f"prediction_{split}"][3] += 0.5

    return change


def other_hash(arrays: dict) -> None:
    name, text = "parameters_sha256", str(arrays["meta"])
    at = text.index(name) + len(name) + 4
    arrays["meta"] = np.array(text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1 :])


@pytest.mark.parametrize(
    ("change", "file", "column"),
    [
        (shifted("test"), "runs.csv", "mae"),
        (shifted("valid"), "{id}.npz", "mae"),
        (other_hash, "{id}.safetensors", "SHA-256"),
    ],
    ids=["test prediction", "validation prediction", "hash of parameters"],
)
def test_a_change_under_a_valid_seal_is_found(study, change, file, column):
    run = study.runs("tmt_amw")[0]
    edited(record_path(run), change)
    found = {(d.file, d.column) for d in recheck.check(study)[0]}
    assert (file.format(id=run.id), column) in found


def test_a_bit_of_a_record_or_of_parameters_is_found(study):
    run, other = study.runs("tmt_random")
    for path in (record_path(run), runs.parameters_path(other)):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    differences, unchecked = recheck.check(study)
    assert [d.file for d in differences] == sorted([f"{run.id}.npz", f"{other.id}.safetensors"])
    assert run.id in unchecked[0], "tables were made from tables"


@pytest.mark.parametrize(
    ("name", "column"), [("table1", "mean"), ("runs", "corr"), ("selections", "mae"), ("amw_differences", "low")]
)
def test_one_changed_cell_is_found(study, name, column):
    path = study.results / f"{name}.csv"
    table = pd.read_csv(path)
    table.loc[1, column] += 1e-3
    table.to_csv(path, index=False)
    found = {(d.file, d.column) for d in recheck.check(study)[0]}
    assert {(path.name, "file"), (path.name, column)} <= found


def test_tables_alone_are_checked_against_each_other(study):
    shutil.rmtree(common.results_folder() / "runs")
    differences, unchecked = recheck.check(study)
    assert differences == [] and unchecked[0].startswith("any table against records: no record of mosi tmt")
    assert "runs.csv" in unchecked[1] and "table1.csv" not in unchecked[1]
    for name, old, new in (
        ("claims.csv", "cannot tell", "supported"),
        ("runs.csv", "0.", "0.9"),
        ("report.md", "n", "m"),
    ):
        path = study.results / name
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        assert recheck.check(study)[0], name
        path.write_text(text, encoding="utf-8")


def test_the_committed_tables_agree_and_an_unfinished_study_is_refused(committed, tmp_path, monkeypatch, capsys):
    results = shutil.copytree(committed / "results", tmp_path / "results")
    monkeypatch.setenv("TMT_RESULTS", str(results))
    assert main(["check", "--profile", "quick", "--results", str(results)]) == 0
    assert f"{results / 'quick'}: no differences" in capsys.readouterr().out
    (results / "quick" / "costs.csv").unlink()
    assert main(["check", "--profile", "quick"]) == 1
    assert "quick has no costs; run the whole series first" in capsys.readouterr().err


def test_differences_are_a_table_and_exit_code_1(monkeypatch, own_results, capsys):
    found = [recheck.Difference("a.csv", "mosi tmt", "mae", "0.5", "0.6")], ["b.csv"]
    monkeypatch.setattr(recheck, "check", lambda study: found)
    assert main(["check", "--profile", "smoke"]) == 1
    printed = capsys.readouterr().out
    assert "not checked: b.csv" in printed and "| a.csv  | mosi tmt | mae " in printed
