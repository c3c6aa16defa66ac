"""A scheduler and two workers on this machine, as processes that share no results folder with the caller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from test_runs import a_run, files
from test_workers import a_study

from tmtlib.__main__ import main
from tmtlib.common import ROOT
from tmtlib.study import cluster, runs
from tmtlib.study.records import read_record, record_path
from tmtlib.study.workers import KilledError

pytest.importorskip("distributed", reason="needs the packages of [cluster]")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(tmp_path) -> Iterator[Start]:
    """Starts `dask scheduler` or `dask worker` with the arguments given; all are gone after the test."""
    started = []
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("TMT_RESULTS", None)

    def begin(kind: str, *arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *map(str, arguments), "--no-dashboard"]
        started.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def scheduler(start, tmp_path) -> tuple[subprocess.Popen, str]:
    """A scheduler's process and address."""
    place = tmp_path / "scheduler.json"
    process = start("scheduler", "--host", "127.0.0.1", "--port", 0, "--scheduler-file", place)
    while not place.exists() or not place.read_text():
        assert process.poll() is None, "the scheduler did not start"
        time.sleep(0.1)
    return process, json.loads(place.read_text())["address"]


def a_worker(start: Start, address: str, threads: int = 1) -> subprocess.Popen:
    """Not under a nanny, which would start a killed one again."""
    return start("worker", address, "--nthreads", threads, "--no-nanny", "--memory-limit", 0)


def trained(todo: list[runs.Run], monkeypatch, results: Path, address: str = "") -> list[runs.Run]:
    """The runs, trained here or on a cluster, into a results folder."""
    monkeypatch.setenv("TMT_RESULTS", str(results))
    monkeypatch.setenv("TMT_CLUSTER", address)
    runs.ensure(todo, "cpu", jobs=1, progress=False)
    return todo


def test_one_of_two_workers_is_killed_and_all_is_as_if_trained_here(start, scheduler, tmp_path, monkeypatch):
    todo = a_study(tmp_path, monkeypatch, times=1)  # the second run kills its worker the first time
    todo += [a_run("tmt_amw", name="sims", weighting="static")]
    workers = [a_worker(start, scheduler[1]) for _ in range(2)]
    there = {run: read_record(run) for run in trained(todo, monkeypatch, tmp_path / "there", scheduler[1])}
    assert [w.poll() for w in workers].count(None) == 1 and len(files(tmp_path / "there")) == 2 * len(todo)
    for run in trained(todo, monkeypatch, tmp_path / "here"):
        here = read_record(run)
        assert here.meta["parameters_sha256"] == there[run].meta["parameters_sha256"]
        assert all(np.array_equal(here.predictions[s], there[run].predictions[s]) for s in here.predictions)
        assert here.scores() == there[run].scores()


def test_data_travel_to_each_worker_once(start, scheduler, own_results, monkeypatch):
    loaded, workers = [], [a_worker(start, scheduler[1]) for _ in range(2)]
    monkeypatch.setattr(cluster, "load", lambda ref, load=cluster.load: loaded.append(ref.name) or load(ref))
    with cluster.connected(scheduler[1]) as client:
        client.wait_for_workers(len(workers))
        todo = [a_run(seed=s, name=n) for s in range(6) for n in ("mosi", "sims")]
        trained(todo, monkeypatch, own_results, scheduler[1])
        logs = client.run(lambda dask_worker: [key for t in dask_worker.transfer_incoming_log for key in t["keys"]])
    data = [(worker, key) for worker, keys in logs.items() for key in keys if key[0].startswith("data-")]
    assert loaded == ["mosi", "sims"] and 1 <= len(data) == len({*data}) <= 2


def test_a_run_that_kills_every_worker_is_named(start, scheduler, own_results, tmp_path, monkeypatch):
    for _ in range(4):
        a_worker(start, scheduler[1])
    lethal = a_study(tmp_path, monkeypatch, times=99)[1]
    with pytest.raises(KilledError, match=r"4 workers died with mosi mine seed 7, the last of them tcp://\S+; .*[^\n]"):
        trained([lethal], monkeypatch, own_results, scheduler[1])


def test_a_lost_scheduler_leaves_what_is_finished(start, scheduler, own_results):
    process, address = scheduler
    a_worker(start, address)
    todo = [a_run(seed=s) for s in range(12)]
    work = cluster.train_on(address, runs.train, todo, "cpu")
    next(work)
    process.kill()
    with pytest.raises(cluster.ClusterError, match="the scheduler at .* is lost; finished runs are kept in") as error:
        list(work)
    finished = [run for run in todo if record_path(run).exists()]
    assert "\n" not in str(error.value) and 1 <= len(finished) < 12
    assert all(read_record(run).scores()["mae"] > 0 and runs.load_model(run) for run in finished)


@pytest.mark.parametrize(
    ("threads", "code", "said"),
    [(2, None, "has 2 threads; wanted 1"), (1, "other", "has other code, torch or numpy than the caller")],
)
def test_a_worker_that_would_give_other_numbers_is_refused(
    start, scheduler, own_results, monkeypatch, threads, code, said
):
    a_worker(start, scheduler[1], threads)
    if code:
        monkeypatch.setattr(cluster, "code_sha256", lambda: code)
    with pytest.raises(cluster.ClusterError, match=said):
        trained([a_run()], monkeypatch, own_results, scheduler[1])


def test_no_scheduler_is_said_at_once_in_one_line(own_results, monkeypatch, capsys):
    monkeypatch.setenv("TMT_CLUSTER", "")
    assert main(["run", "--profile", "smoke", "--cluster", "tcp://127.0.0.1:9"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tmt: no dask scheduler answers at tcp://127.0.0.1:9; ")


def test_the_cluster_of_the_command_line_is_that_of_the_notebooks(scheduler, monkeypatch, capsys):
    monkeypatch.setenv("TMT_CLUSTER", "tcp://elsewhere:1")
    monkeypatch.setattr("tmtlib.study.notebooks.run", lambda *_: os.environ["TMT_CLUSTER"] != scheduler[1])
    assert main(["run", "--cluster", scheduler[1]]) == 0
