"""Processes that are killed: their work is begun again, and none goes on when its parent is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from test_runs import a_run

from tmtlib.common import ROOT
from tmtlib.models.amw import WEIGHTINGS
from tmtlib.study import runs
from tmtlib.study.workers import TRIES, KilledError, in_parallel

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


def lethal(place: Path, times: int) -> type:
    """A weighting that kills its process with SIGKILL the first so many times that one is made in a training."""

    class Lethal(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.A = torch.nn.Parameter(torch.full((1, 3, config.width), 1 / 3))
            deaths = len([*place.iterdir()])
            if deaths < times:
                (place / str(deaths)).touch()
                os.kill(os.getpid(), signal.SIGKILL)

        def forward(self, tokens):
            return self.A

    Lethal.__module__ = "__main__"
    return Lethal


def a_study(tmp_path, monkeypatch, times: int) -> list[runs.Run]:
    (tmp_path / "deaths").mkdir()
    monkeypatch.setitem(WEIGHTINGS, "lethal", lethal(tmp_path / "deaths", times))
    return [a_run(seed=0), a_run("mine", seed=7, weighting="lethal"), *(a_run(seed=s) for s in range(1, 6))]


@pytest.mark.parametrize("times", [1, TRIES - 1])
def test_a_killed_worker_does_not_end_the_study(own_results, tmp_path, monkeypatch, times):
    rows = runs.ensure(a_study(tmp_path, monkeypatch, times), "cpu", jobs=2, progress=False)
    assert rows["mae"].notna().all() and len(rows) == 7


def test_a_run_that_kills_its_process_each_time_is_named(own_results, tmp_path, monkeypatch):
    with pytest.raises(KilledError, match=f"the process of mosi mine seed 7 was killed {TRIES} times") as error:
        runs.ensure(a_study(tmp_path, monkeypatch, 99), "cpu", jobs=2, progress=False)
    assert "\n" not in str(error.value) and len([*(tmp_path / "deaths").iterdir()]) == TRIES


def test_results_come_in_order_and_errors_through():
    assert [*in_parallel(pow, ((i, 2) for i in range(20)), 2)] == [i**2 for i in range(20)]
    with pytest.raises(ZeroDivisionError):
        [*in_parallel(divmod, [(1, 1), (1, 0)], 2)]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_workers_do_not_outlive_their_parent(tmp_path, how):
    """Each works for a minute; they are gone seconds after their parent."""
    code = textwrap.dedent(f"""
        import sys; sys.path[:0] = ["tests/study"]
        from test_workers import at_work, in_parallel
        [*in_parallel(at_work, [({str(tmp_path)!r},)] * 2, 2)]
    """)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    began = time.monotonic()
    while len(workers := [*tmp_path.iterdir()]) < 2 and time.monotonic() < began + 60:
        time.sleep(0.1)
    process.send_signal(how)
    process.wait()
    began = time.monotonic()
    while (left := [p.name for p in workers if Path(f"/proc/{p.name}").exists()]) and time.monotonic() < began + 20:
        time.sleep(0.1)
    assert len(workers) == 2 and not left


def at_work(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)
