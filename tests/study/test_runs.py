"""Runs and records: nothing is trained twice, nothing half-written is believed, and a record says how it was made."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from tmtlib.common import write_atomic
from tmtlib.data.loading import load, resolve
from tmtlib.data.schema import DataRef
from tmtlib.models.amw import WEIGHTINGS
from tmtlib.models.tmt import TMTConfig
from tmtlib.study import runs
from tmtlib.study.profiles import PROFILES, synthetic_sizes
from tmtlib.study.runs import Run
from tmtlib.training import fit
from tmtlib.training.fit import SELECT_BY, Training

SIZES = synthetic_sizes((64, 24, 40), aligned=6, unaligned=(6, 8, 7))
MODEL = replace(PROFILES["smoke"].model, encoder_layers=1, cross_layers=1)
TRAINING = Training(learning_rate=3e-3, epochs=2, patience=None)


def a_run(method: str = "tmt", seed: int = 0, name: str = "mosi", **changes) -> Run:
    return Run(resolve(name, synthetic_size=SIZES[name]), method, replace(MODEL, **changes), TRAINING, seed)


def a_long_run() -> Run:
    return replace(a_run("tmt_amw", weighting="gated"), training=replace(TRAINING, epochs=40))


def a_divided_run(select_by: str = "accuracy") -> Run:
    """A run of which the two rules select different epochs."""
    training = replace(TRAINING, epochs=6, learning_rate=1e-2, select_by=select_by)
    return replace(a_run("tmt_amw", weighting="static"), training=training)


def files(folder) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}


def test_missing_is_trained_and_finished_is_left_alone(own_results):
    first = runs.ensure([a_run(seed=0)], "cpu", progress=False)
    before = files(own_results)
    both = runs.ensure([a_run(seed=1), a_run(seed=0)], "cpu", progress=False)
    assert both["seed"].tolist() == [1, 0], "rows come in the order asked for"
    after = files(own_results)
    assert {name: after[name] for name in before} == before and len(after) == 2 * len(before)
    assert both.iloc[1]["mae"] == first.iloc[0]["mae"]


def test_processes_give_what_one_process_gives(own_results, tmp_path, monkeypatch):
    wanted = [a_run(seed=s, name=n) for n in ("mosi", "sims") for s in (0, 1)]
    alone = runs.ensure(wanted, "cpu", jobs=1, progress=False)
    monkeypatch.setenv("TMT_RESULTS", str(tmp_path / "elsewhere"))  # of workers that are running already, too
    beside = runs.ensure(wanted, "cpu", jobs=2, progress=False)
    assert len(files(tmp_path / "elsewhere")) == 8
    assert alone["mae"].tolist() == beside["mae"].tolist()


def test_selections_are_what_each_rule_would_have_given(own_results):
    """Records of two runs that differ in the rule alone hold each other's test scores."""
    by_rule = [a_divided_run(rule) for rule in SELECT_BY]
    scores = runs.ensure(by_rule, "cpu", jobs=1, progress=False)
    assert scores["best_epoch"].nunique() == scores["mae"].nunique() == 2, "else nothing is told apart"
    table = runs.selections(by_rule)
    assert table["select_by"].tolist() == ["accuracy", "loss", "loss", "accuracy"]
    assert table["in_protocol"].tolist() == [True, False] * 2
    for rule, row in zip(SELECT_BY, scores.itertuples(), strict=True):
        cells = table[table["select_by"] == rule]
        assert cells["mae"].tolist() == pytest.approx([row.mae] * 2) and set(cells["epoch"]) == {row.best_epoch}


def test_record_says_how_it_was_made(own_results):
    run = a_run("tmt_amw", weighting="static")
    runs.ensure([run], "cpu", progress=False)
    record = runs.read_record(run)
    assert record.meta["run"]["seed"] == 0 and record.meta["run"]["model"]["weighting"] == "static"
    assert record.meta["card"]["sha256"] == run.data.sha256
    assert {"torch", "numpy", "python", "platform", "commit", "time", "code"} <= set(record.meta)
    assert record.meta["device"] == "cpu" and record.meta["seconds"] > 0 and record.meta["peak_memory_mb"] > 0
    assert len(history := runs.histories([run])) == 2 and {"train_loss", "valid_loss", "valid_acc5"} <= set(history)
    data = load(run.data)
    for split in runs.JUDGED:
        assert record.predictions[split].shape == data[split].labels.shape
        assert np.array_equal(record.labels[split], data[split].labels)
    assert record.weights.shape == (3, 3, MODEL.width)
    np.testing.assert_allclose(record.weights.sum(1), 1, atol=1e-5)


def test_stored_model_gives_the_stored_predictions(own_results):
    run = a_run()
    runs.ensure([run], "cpu", progress=False)
    assert not (model := runs.load_model(run)).training
    again = runs.predict(model, load(run.data).test, run.training, "cpu")
    np.testing.assert_allclose(again, runs.read_record(run).predictions["test"], atol=1e-5)


def test_row_states_source_hash_and_protocol(own_results):
    row = runs.ensure([a_run()], "cpu", progress=False).iloc[0]
    assert (row["source"], row["alignment"], row["n_test"]) == ("synthetic", "aligned", 40)
    assert row["learning_rate"] == 3e-3 and bool(row["normalize"]) and row["data_sha256"] == a_run().data.sha256
    assert re.fullmatch(r"unknown|[0-9a-f]{12}(-dirty)?", row["commit"])


def test_id_depends_on_all_that_changes_a_result_and_on_nothing_else():
    run = a_run()
    changed = [
        replace(run, seed=1),
        replace(run, model=replace(run.model, dropout=0.2)),
        replace(run, training=replace(run.training, learning_rate=1e-4)),
        replace(run, data=replace(run.data, normalize=False)),
        replace(run, data=replace(run.data, sha256="0")),
    ]
    assert len({run.id, *(r.id for r in changed)}) == 1 + len(changed)
    moved = replace(run, data=DataRef("a", "real", "ab", path="x"))
    assert moved.id == replace(run, data=DataRef("a", "real", "ab", path="y")).id, "a moved file is the same data"
    assert TMTConfig().width == 128, "the paper's"


def test_half_written_record_does_not_count(own_results):
    run = a_run()
    folder = own_results / "runs"
    folder.mkdir(parents=True)
    (folder / f"{run.id}.npz.123.part").write_bytes(b"half")
    (folder / f"{run.id}.pt").write_bytes(b"parameters are written first")
    assert len(runs.ensure([run], "cpu", progress=False)) == 1
    assert runs.load_model(run) is not None


def test_parameters_are_written_before_their_record(own_results, monkeypatch):
    run, there, write = a_run(), [], runs.write_record
    monkeypatch.setattr(runs, "write_record", lambda *a: (there.append(runs.parameters_path(run).exists()), write(*a)))
    runs.ensure([run], "cpu", progress=False)
    assert there == [True]


def test_failed_write_leaves_nothing(tmp_path):
    def broken(file):
        file.write(b"half")
        raise OSError("disk full")

    (tmp_path / "kept").write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        write_atomic(tmp_path / "kept", broken)
    assert (tmp_path / "kept").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced there")
def test_a_file_is_on_the_disk_before_it_has_its_name_and_so_is_its_folder(tmp_path, monkeypatch):
    done = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (done.append(stat.S_ISDIR(os.fstat(f).st_mode)), sync(f)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("renamed"), rename(*paths)))
    write_atomic(tmp_path / "x", lambda file: file.write(b"whole"))
    assert done == [False, "renamed", True] and (tmp_path / "x").read_bytes() == b"whole"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_study_keeps_finished_runs(own_results):
    """A process is killed in the middle of many runs; the next call trains the rest only."""
    code = textwrap.dedent("""
        import sys; sys.path[:0] = ["tests/study"]
        from test_runs import a_run, runs
        runs.ensure([a_run(seed=s) for s in range(200)], "cpu", jobs=1, progress=False)
    """)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=runs.common.ROOT)
    deadline = time.monotonic() + 120
    while len(list(own_results.glob("runs/*.npz"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = files(own_results)
    finished = [s for s in range(200) if f"{a_run(seed=s).id}.npz" in before]
    assert 2 <= len(finished) < 200
    rows = runs.ensure([a_run(seed=s) for s in range(max(finished) + 2)], "cpu", jobs=1, progress=False)
    after = files(own_results)
    assert all(after[f"{a_run(seed=s).id}.npz"] == before[f"{a_run(seed=s).id}.npz"] for s in finished)
    assert rows["mae"].notna().all()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_training_goes_on_where_it_was(own_results, tmp_path, monkeypatch):
    """It is killed in the middle; the parameters are those of a training that was not, and the checkpoint is gone."""
    run = a_long_run()
    code = textwrap.dedent("""
        import sys; sys.path[:0] = ["tests/study"]
        from test_runs import a_long_run, runs
        from tmtlib.training import checkpoint
        checkpoint.EVERY = 0.0
        runs.ensure([a_long_run()], "cpu", progress=False)
    """)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=runs.common.ROOT)
    deadline = time.monotonic() + 120
    while not list(own_results.glob("runs/*.checkpoint")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not runs.record_path(run).exists()
    epochs, epoch = [], fit.train_epoch
    monkeypatch.setattr(fit, "train_epoch", lambda *a: (epochs.append(1), epoch(*a))[1])
    runs.ensure([run], "cpu", progress=False)
    resumed = runs.parameters_path(run).read_bytes()
    assert 0 < len(epochs) < 40 and set(files(own_results)) == {f"{run.id}.npz", f"{run.id}.safetensors"}
    monkeypatch.setenv("TMT_RESULTS", str(tmp_path / "elsewhere"))
    runs.ensure([run], "cpu", progress=False)
    assert runs.parameters_path(run).read_bytes() == resumed


def test_missing_record_names_what_and_where(own_results):
    with pytest.raises(FileNotFoundError, match=r"no record of mosi tmt seed 0 at .*runs"):
        runs.read_record(a_run())


def test_records_of_other_code_are_used_and_said(own_results, monkeypatch):
    runs.ensure([a_run()], "cpu", progress=False)
    monkeypatch.setattr(runs, "code_sha256", lambda: "changed")
    with pytest.warns(UserWarning, match="1 of 1 runs were trained by another version of the code"):
        runs.ensure([a_run()], "cpu", progress=False)


def test_own_weighting_reaches_worker_processes(own_results):
    class Reversed(torch.nn.Module):
        """Fixed weights 1/6, 2/6, 3/6: a class that workers cannot import."""

        def __init__(self, config):
            super().__init__()
            self.register_buffer("A", torch.tensor([1.0, 2.0, 3.0]).div(6)[None, :, None].repeat(1, 1, config.width))

        def forward(self, tokens):
            return self.A

    Reversed.__module__ = "__main__"
    WEIGHTINGS["reversed"] = Reversed
    try:
        wanted = [a_run("mine", seed=s, weighting="reversed") for s in (0, 1)]
        runs.ensure(wanted, "cpu", jobs=2, progress=False)
        np.testing.assert_allclose(runs.read_record(wanted[1]).weights[-1][:, 0], [1 / 6, 2 / 6, 3 / 6], rtol=1e-5)
    finally:
        del WEIGHTINGS["reversed"]
