"""Damage is noticed: records, parameters and rows that changed on the disk are not believed, and none are deleted."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from test_runs import a_divided_run, a_run, files

from tmtlib.analysis import paired, weights
from tmtlib.common import DamagedError, remove_leftovers
from tmtlib.data.loading import load
from tmtlib.study import cache, runs, tables
from tmtlib.study.records import Record, read_record, record_path, succeeded


def flipped(content: bytes, bit: int) -> bytes:
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def bits(content: bytes, n: int = 100) -> list[int]:
    return random.Random(0).sample(range(8 * len(content)), n)


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "bit-flipped": lambda content: flipped(content, 4 * len(content)),
    "foreign": lambda content: b"something else",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_set_aside_and_made_again(own_results, damage):
    wanted = [a_run(seed=0), a_run(seed=1)]
    before = runs.ensure(wanted, "cpu", jobs=1, progress=False)
    path = record_path(wanted[0])
    path.write_bytes(broken := DAMAGE[damage](path.read_bytes()))
    with pytest.raises(DamagedError):
        read_record(wanted[0])
    with pytest.warns(UserWarning) as warned:
        after = runs.ensure(wanted, "cpu", jobs=1, progress=False)
    (line,) = (str(w.message) for w in warned)
    (aside,) = path.parent.glob("*.aside")
    assert path.name in line and aside.name in line and "\n" not in line
    assert aside.read_bytes() == broken and after["mae"].tolist() == before["mae"].tolist()


def test_a_record_of_another_run_is_not_believed(own_results):
    one, other = a_run(seed=0), a_run(seed=1)
    before = runs.ensure([one, other], "cpu", jobs=1, progress=False)
    record_path(other).replace(record_path(one))
    with pytest.warns(UserWarning, match=f"the record of {other.id}, another run, under the name of mosi tmt seed 0"):
        after = runs.ensure([one, other], "cpu", jobs=1, progress=False)
    assert after["mae"].tolist() == before["mae"].tolist() and before["mae"].nunique() == 2


def test_every_bit_counts(own_results):
    """A hundred single bits of a record, then of the parameters: each is noticed, and the same model comes back."""
    run = a_run("tmt_amw", weighting="static")
    runs.ensure([run], "cpu", progress=False)
    path = record_path(run)
    for bit in bits(whole := path.read_bytes()):
        path.write_bytes(flipped(whole, bit))
        with pytest.raises(DamagedError):
            read_record(run)
    path.write_bytes(whole)
    path, noticed = runs.parameters_path(run), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_trained_again", lambda *_: noticed.append(1) or whole)
        for bit in bits(whole := path.read_bytes()):
            path.write_bytes(flipped(whole, bit))
            runs.load_model(run)
    assert len(noticed) == 100


@pytest.mark.parametrize("damage", [None, *DAMAGE])
def test_lost_parameters_are_trained_again_and_the_record_stays(own_results, damage):
    run = a_run()
    rows = runs.ensure([run], "cpu", progress=False)
    path, record = runs.parameters_path(run), record_path(run).read_bytes()
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole)) if damage else path.unlink()
    assert runs.ensure([run], "cpu", progress=False)["mae"].tolist() == rows["mae"].tolist(), "without parameters"
    assert damage or not path.exists()
    with pytest.warns(UserWarning, match="the parameters of mosi tmt seed 0 .*; it is trained again"):
        model = runs.load_model(run)
    assert path.read_bytes() == whole and record_path(run).read_bytes() == record
    assert len(files(own_results)) == 2 + bool(damage)
    again = runs.predict(model, load(run.data).test, run.training, "cpu")
    np.testing.assert_allclose(again, read_record(run).predictions["test"], atol=1e-5)


def test_where_other_numbers_come_out_the_old_record_is_set_aside(own_results, monkeypatch):
    run = a_run()
    runs.ensure([run], "cpu", progress=False)
    runs.parameters_path(run).unlink()
    record = record_path(run).read_bytes()
    fit = runs.fit
    monkeypatch.setattr(runs, "fit", lambda *a: fit(*a[:5], (7,), *a[6:]))
    with pytest.warns(UserWarning, match="the record of mosi tmt seed 0 is set aside"):
        model = runs.load_model(run)
    (aside,) = own_results.glob("runs/*.aside")
    assert aside.read_bytes() == record
    again = runs.predict(model, load(run.data).test, run.training, "cpu")
    np.testing.assert_allclose(again, read_record(run).predictions["test"], atol=1e-5)


def test_a_record_holds_the_logits_of_its_model(own_results):
    run = a_divided_run()
    runs.ensure([run, a_run()], "cpu", jobs=1, progress=False)
    record, model = read_record(run), runs.load_model(run)
    assert record.meta["best_epoch"] != record.meta["other_epoch"], "else those of the last epoch would pass too"
    assert np.array_equal(record.logits, model.weighting.W.detach().numpy()) and read_record(a_run()).logits is None
    final = record.weights[record.meta["best_epoch"]]
    np.testing.assert_allclose(final, model.weighting.W.softmax(0).detach(), atol=1e-6)


def test_labels_of_all_splits_say_whether_they_have_three_values():
    label = {"valid": np.array([-3.0, -2, 0, 3], np.float32), "test": np.array([-1.0, 0, 1], np.float32)}
    meta = {"run": {"model": {"task": "regression"}}, "card": {"family": "mosi"}}
    scores = Record(meta, label, label, None).scores()
    assert scores["acc5"] == 1 and "f1_macro" not in scores


def test_damaged_rows_are_computed_again(own_results):
    run = a_run()
    runs.ensure([run], "cpu", progress=False)
    stored = cache.stored(run, "tmtlib.analysis.swap", ("x",), lambda: [{"a": 1.5}])
    path = cache.stored_path(run, "tmtlib.analysis.swap", ("x",))
    path.write_bytes(path.read_bytes().replace(b"1.5", b"9.5"))
    with pytest.warns(UserWarning, match=f"{path.name} is damaged"):
        assert cache.stored(run, "tmtlib.analysis.swap", ("x",), lambda: [{"a": 1.5}]) == stored == [{"a": 1.5}]


def test_half_written_files_of_dead_processes_alone_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ours = [f"{'ab12' * 3}.{kind}.{dead.pid}.part" for kind in ("npz", "safetensors", "0123abcd.json")]
    kept = [f"{'ab12' * 3}.npz.{alive.pid}.part", f"thesis.npz.{dead.pid}.part", f"{'ab12' * 3}.npz", "a.part"]
    for name in (*ours, *kept):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    alive.communicate(b"\n")
    assert {path.name for path in tmp_path.iterdir()} == {*kept}


# --- Failed trainings ------------------------------------------------------------------------------------------------


def test_a_training_that_diverges_is_recorded_as_failed_and_the_rest_goes_on(own_results, monkeypatch):
    bad = a_run("tmt_amw", seed=1, weighting="static")
    lost = replace(bad, training=replace(bad.training, learning_rate=1e30))
    wanted = [a_run(seed=s) for s in (0, 1)] + [a_run("tmt_amw", weighting="static"), lost]
    with pytest.warns(UserWarning, match=r"1 of 4 trainings failed.* tmt_amw seed 1: .* loss is (nan|inf) in epoch \d"):
        rows = runs.ensure(wanted, "cpu", jobs=1, progress=False)
    assert rows["mae"].isna().tolist() == [False] * 3 + [True] and set(read_record(lost).scores()) <= set(rows)
    assert np.isnan([*read_record(lost).scores().values()]).all()
    monkeypatch.setattr(runs, "fit", None)  # it is not tried again
    with pytest.warns(UserWarning, match="1 of 4 trainings failed"):
        runs.ensure(wanted, "cpu", jobs=1, progress=False)
    cell = tables.table1(rows).query("method == 'tmt_amw'").set_index("metric").loc["mae"]
    assert cell["n"] == 2 and np.isnan(cell["mean"]) and np.isnan(cell["p_adjusted"])
    with pytest.warns(UserWarning, match=r"left out: 1 of 4 trainings, which failed \(mosi tmt_amw seed 1\)"):
        assert paired.by_utterance(wanted)["n_seeds"].tolist() == [1]
    with pytest.warns(UserWarning, match="left out: 1 of 4"):
        assert succeeded(wanted) == wanted[:3]
    with pytest.warns(UserWarning, match="left out: 1 of 4"):
        assert len(cache.map_runs(lambda *_: [{"a": 1}], [(run,) for run in wanted], "cpu", 1, "")) == 3
    assert set(weights.chosen(wanted)["seed"]) == {0} and runs.selections(wanted)["mae"].isna().sum() == 2
    with pytest.raises(ValueError, match="a failed training has no model"):
        runs.load_model(lost)
