"""Files that are broken or made to do harm are read or refused in one line; TMT_HOSTILE_FILES sets how many."""

import os
import sys
import time

import hostile
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and measured as on Linux")


def test_nothing_runs_hangs_crashes_or_fills_the_memory():
    hostile.honest_model()
    faults = []
    for kind, path in hostile.files(int(os.environ.get("TMT_HOSTILE_FILES", 400)), seed=0):
        if (verdict := hostile.judge(path)).fault:
            faults.append(f"{kind}: {verdict}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("suffix", hostile.HONEST)
def test_honest_files_are_read(suffix, tmp_path):
    for make in hostile.HONEST[suffix]:
        (path := tmp_path / f"file{suffix}").write_bytes(make(np.random.default_rng(0)))
        assert hostile.judge(path).outcome == "read"


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda path: (path.parent / hostile.MARK).touch(), "code was run"),
        (lambda path: time.sleep(30), "hang"),
        (lambda path: os.abort(), "crash"),
        (lambda path: np.ones(40 << 20), "memory"),
        (lambda path: {}["key"], "KeyError"),
    ],
    ids=["code", "hang", "crash", "memory", "error"],
)
def test_each_fault_is_noticed(read, outcome, tmp_path, monkeypatch):
    monkeypatch.setitem(hostile.READERS, ".pkl", read)
    monkeypatch.setattr(hostile, "LONG", 1)
    (tmp_path / "file.pkl").touch()
    verdict = hostile.judge(tmp_path / "file.pkl")
    assert verdict.fault and verdict.outcome.startswith(outcome)
