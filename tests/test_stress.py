"""The stress of `benchmarks.stress`, in short: what is killed is finished later, bit for bit, and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tmtlib import common


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_processes_leave_whole_files_and_are_resumed(tmp_path):
    options = f"--kills 6 --files 0 --step 3 --json {tmp_path / 'stress.json'}".split()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(common.ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stress", *options], cwd=common.ROOT, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    counts = json.loads((tmp_path / "stress.json").read_text())
    total, killed = counts["total"], counts["killed"]
    assert {"ensure", "workers"} <= {name for name, each in killed.items() if each["kills"]}
    assert killed["points of writing"]["kills"] > 9 and total["kills"] >= 16
    assert total["corrupt"] == total["part_files_left"] == 0 and total["bit_equal"] == total["studies"] > 4
