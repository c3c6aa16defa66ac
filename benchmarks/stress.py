"""Whether results survive processes that are killed at any moment, and readers survive hostile files.

    python -m benchmarks.stress --kills 200 --files 5000

Kills with SIGKILL at random moments what trains (`runs.ensure`, its parallel workers, `tmt run`) and begins it again
until it is finished, and once at every point of writing. After each kill every file that has its final name has to be
whole, and at the end all are, bit for bit, those of a study that nobody killed. `make stress` writes the counts to
`results/benchmarks/stress.json`.
"""

from __future__ import annotations

import argparse
import builtins
import io
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import nbformat
import numpy as np
import psutil
import torch
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks import machine
from tmtlib import common
from tmtlib.__main__ import main as tmt
from tmtlib.common import DamagedError, read_sealed
from tmtlib.study import runs
from tmtlib.study.records import record_at
from tmtlib.study.study import open_study
from tmtlib.training import checkpoint

KILLS = {"ensure": 0.8, "workers": 0.15, "tmt run": 0.05}  # shares
CELL = """import tmtlib
from tmtlib.training import checkpoint
checkpoint.EVERY = 0.0
study = tmtlib.open_study(profile, data, device, seeds, datasets, methods)
study.save_table(study.ensure("tmt", "tmt_amw"), "runs")"""
PARAMETERS = 'profile = "smoke"\ndata = ""\ndevice = "cpu"\nseeds = 0\ndatasets = ""\nmethods = ""'


# What is killed: each trains the same runs into the results folder


def wanted() -> list[runs.Run]:
    return open_study("smoke", device="cpu", seeds=2, datasets="mosi").runs("tmt", "tmt_amw")


def ensure(jobs: int = 1) -> None:
    checkpoint.EVERY = 0.0  # a checkpoint an epoch
    runs.ensure(wanted(), "cpu", jobs, progress=False)


def tmt_run() -> None:
    if tmt("run --profile smoke --seeds 2 --datasets mosi --device cpu".split()):
        raise SystemExit(1)


WORK: dict[str, Callable[[], None]] = {"ensure": ensure, "workers": partial(ensure, 2), "tmt run": tmt_run}


@contextmanager
def one_notebook() -> Iterator[None]:
    """A series of one notebook, which trains the runs."""
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(CELL)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), Path(folder) / "02_train.ipynb")
        common.NOTEBOOKS, before = Path(folder), common.NOTEBOOKS
        yield
        common.NOTEBOOKS = before


def begin(work: Callable[[], None], folder: Path) -> int:
    """A process of its own, forked: what is imported here is not imported again. Exits with 0 when finished."""
    if process := os.fork():
        return process
    code = 1
    try:
        os.environ["TMT_RESULTS"] = str(folder)
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        work()
        code = 0
    finally:
        os._exit(code)


def finish(work: Callable[[], None], folder: Path) -> float:
    """Seconds that it takes when nobody kills it."""
    started = time.monotonic()
    if os.waitpid(begin(work, folder), 0)[1]:
        raise RuntimeError(f"what was begun in {folder} did not finish")
    return time.monotonic() - started


# Killing


def kill_within(seconds: float, process: int, rng: np.random.Generator) -> tuple[int, bool]:
    """Kills the process, or one of its own, at random moments until it has ended. Returns kills, and whether it
    finished."""
    for kills in range(1000):
        time.sleep(rng.uniform(0, seconds))
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return kills, status == 0
        victims = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
        victim = victims[rng.integers(len(victims))]
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
        if victim.pid == process:
            os.waitpid(process, 0)
            return kills + 1, False
    raise RuntimeError("a process that never ends")


def at_random(name: str, kills: int, reference: dict[str, str], seconds: float, rng: np.random.Generator) -> Counter:
    """So many kills of one kind of work, in as many studies as that takes."""
    counts = Counter()
    while counts["kills"] < kills:
        with tempfile.TemporaryDirectory() as place:
            folder, finished = Path(place), False
            while not finished and counts["kills"] < kills:
                killed, finished = kill_within(seconds, begin(WORK[name], folder), rng)
                counts.update(kills=killed, corrupt=corrupt(folder))
            counts.update(resumed(name, folder, reference))
    return counts


def at_every_point(reference: dict[str, str], step: int = 1) -> Counter:
    """Kills at each point (or each `step`-th) of writing the files of a study, whose first run is enough."""
    counts, point, ended = Counter(), 1, False
    while not ended:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            _, status = os.waitpid(begin(partial(dying_at, point), folder), 0)
            if ended := status == 0:
                break
            counts.update(kills=1, corrupt=corrupt(folder))
            counts.update(resumed("one", folder, reference))
        point += step
    return counts


def dying_at(point: int) -> None:
    """Trains a run, and dies at that call, before, within or after it, of what writes files."""
    passed = 0

    def pass_point() -> None:
        nonlocal passed
        passed += 1
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(function: Callable) -> Callable:
        def call(*arguments, **options):
            pass_point()
            result = function(*arguments, **options)
            pass_point()
            return result

        return call

    class Writer(io.FileIO):
        def write(self, content: bytes) -> int:
            pass_point()
            super().write(content[: len(content) // 2])
            pass_point()
            return len(content) // 2 + super().write(content[len(content) // 2 :])

    def opened(path: Path, mode: str = "r", **options):
        return Writer(path, "w") if mode == "wb" else builtins.open(path, mode, **options)

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, around(getattr(os, name)))
    common.open = around(opened)
    one()


def one() -> None:
    checkpoint.EVERY = 0.0
    runs.ensure(wanted()[:1], "cpu", 1, progress=False)


WORK["one"] = one


# Looking at what is left


def corrupt(folder: Path) -> int:
    """How many records, parameters of a record, checkpoints and rows are not whole."""
    bad = 0
    for path in (folder / "runs").glob("*.*"):
        try:
            if path.suffix == ".npz":
                meta = record_at(path).meta
                bad += sha256(path.with_suffix(".safetensors").read_bytes()).hexdigest() != meta["parameters_sha256"]
            elif path.suffix in (".checkpoint", ".json"):
                read_sealed(path)
        except FileNotFoundError:  # a checkpoint that a worker is done with
            bad += path.suffix == ".npz"
        except DamagedError:
            bad += 1
    return bad


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of what records (but for times) and parameters hold, by file name."""
    found = {}
    for path in sorted((folder / "runs").glob("*.npz")):
        with np.load(io.BytesIO(read_sealed(path))) as arrays:
            raw = b"".join(name.encode() + arrays[name].tobytes() for name in sorted({*arrays} - {"meta"}))
        found[path.name] = sha256(raw).hexdigest()
        found[path.stem] = sha256(path.with_suffix(".safetensors").read_bytes()).hexdigest()
    return found


def resumed(name: str, folder: Path, reference: dict[str, str]) -> dict[str, int]:
    """Finishes a study, and compares it with one that nobody killed."""
    left = len([*folder.glob("runs/*.part")])
    finish(WORK[name], folder)
    found = content(folder)
    equal = found == {key: reference[key] for key in found} and len(found) == (2 if name == "one" else len(reference))
    now = len([*folder.glob("runs/*.part")])
    return {"studies": 1, "bit_equal": int(equal), "part_files_met": left, "part_files_left": now}


def hostile_files(count: int, seed: int) -> dict[str, int]:
    """How many hostile files (`tests/hostile.py`) had each outcome."""
    sys.path.insert(0, str(common.ROOT / "tests"))  # h5py and joblib are needed for these alone
    import hostile

    outcomes = Counter(hostile.judge(path).outcome for _, path in hostile.files(count, seed))
    return dict(sorted(outcomes.items()))


def stress(kills: dict[str, int], files: int, step: int = 1, seed: int = 0) -> dict:
    """Counts by kind of work: kills, corrupt, studies, bit_equal, part_files_met and part_files_left; and outcomes of
    hostile files."""
    rng, counts = np.random.default_rng(seed), {}
    os.environ.pop("TMT_DATA", None)
    with one_notebook(), tempfile.TemporaryDirectory() as place:
        with patch.dict(os.environ, TMT_RESULTS=place):
            ensure()  # here, so that forked processes import nothing and have the data
        reference = content(Path(place))
        for name, number in ((name, number) for name, number in kills.items() if number):
            seconds = finish(WORK[name], Path(place) / name)
            counts[name] = dict(at_random(name, number, reference, seconds, rng))
            print(f"{name}, {seconds:.1f} s: {counts[name]}", flush=True)
        counts["points of writing"] = dict(at_every_point(reference, step))
        print(f"points of writing: {counts['points of writing']}", flush=True)
    return {"killed": counts} | ({"hostile files": hostile_files(files, seed)} if files else {})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="stress", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="at random moments")
    parser.add_argument("--files", type=int, default=5000, help="hostile files; 0: none")
    parser.add_argument("--step", type=int, default=1, help="each so manieth point of writing (1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write counts to this file")
    o = parser.parse_args(argv)
    counts = stress({name: round(share * o.kills) for name, share in KILLS.items()}, o.files, o.step, o.seed)
    total = Counter()
    for each in counts["killed"].values():
        total.update(each)
    text = json.dumps({"machine": machine.describe(torch.device("cpu")), "total": dict(total)} | counts, indent=2)
    print(text)
    if o.json:
        common.write_atomic(o.json, lambda file: file.write(f"{text}\n".encode()))
    return int(total["corrupt"] > 0 or total["part_files_left"] > 0 or total["bit_equal"] < total["studies"])


if __name__ == "__main__":
    sys.exit(main())
