"""Looks at finished runs: each run in a process of its own, and what was computed kept beside the runs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pandas as pd
from tqdm.auto import tqdm

from tmtlib import runs
from tmtlib.config import Run, digest
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset
from tmtlib.training import pick_device


def together(function: Callable, tasks: list[tuple], device: str, jobs: int | None, what: str) -> pd.DataFrame:
    """Rows of every task in order, each begun with dataset, source, method and seed of its run.

    A task is a run and what else `function(run, ..., device, data) -> list of rows` wants. `data` are the run's, with
    nothing done to train and valid, whatever the run was trained on. On a CPU `jobs` processes (default: one a core) do
    a task each.
    """
    cpu = pick_device(device).type == "cpu"
    jobs = min(jobs or runs.cpu_count(), max(1, len(tasks))) if cpu else 1
    arguments = ((i, function, task, device, load(task[0].data.clean)) for i, task in enumerate(tasks))
    found = {}
    with tqdm(total=len(tasks), desc=what, unit="run") as bar:
        for i, rows in runs.in_parallel(_numbered, arguments, jobs):
            found[i] = rows
            bar.update()
    return pd.DataFrame([row for i in range(len(tasks)) for row in found[i]])


def _numbered(i: int, function: Callable, task: tuple, device: str, data: Dataset) -> tuple[int, list[dict]]:
    run = task[0]
    start = {"dataset": data.card.name, "source": data.card.source, "method": run.method, "seed": run.seed}
    return i, [start | row for row in function(*task, device, data)]


def kept(
    run: Run, what: tuple, code: tuple[str, ...], compute: Callable[[], list[dict]], finished: bool = True
) -> list[dict]:
    """The rows of a look, read back where this code (files in tmtlib, beside those of a run) computed them before.

    A look at a `finished` run is one at this training of it; other looks train models of their own.
    """
    record = runs.record_path(run)
    trained = runs.read_record(run).meta["time"] if finished else ""
    code_sha256 = runs.code_sha256(*code, *runs.RESULT_CODE)
    path = record.with_name(f"{run.id}.{digest((*what, trained, code_sha256))[:8]}.json")
    if not path.exists():
        rows = compute()
        runs.write_aside(path, lambda file: file.write(json.dumps(rows).encode()))
    return json.loads(path.read_text(encoding="utf-8"))
