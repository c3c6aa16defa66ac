"""Rows computed from finished runs, in parallel, and stored beside each run."""

import json
from collections.abc import Callable
from functools import wraps

import pandas as pd
from tqdm.auto import tqdm

from tmtlib.common import digest, pick_device, write_atomic
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset
from tmtlib.study import runs
from tmtlib.study.provenance import code_sha256
from tmtlib.study.runs import Run

Rows = list[dict]


def stored(run: Run, module: str, key: tuple, compute: Callable[[], Rows], finished: bool = True) -> Rows:
    """The rows of `compute`, stored as JSON beside the run. They are computed again where `key`, `code_sha256(module)`
    or, with `finished`, the run's training differs. With `finished`, raises FileNotFoundError for an untrained run."""
    trained = runs.read_record(run).meta["time"] if finished else ""
    name = f"{run.id}.{digest((*key, trained, code_sha256(module)))[:8]}.json"
    path = runs.record_path(run).with_name(name)
    if not path.exists():
        rows = compute()
        write_atomic(path, lambda file: file.write(json.dumps(rows).encode()))
    return json.loads(path.read_text(encoding="utf-8"))


def per_run(name: str, finished: bool = True) -> Callable:
    """Decorator of `function(run, *options, device, data) -> rows`: rows are `stored` by `name`, run and options.
    `finished`: False for functions that train models themselves."""

    def decorate(function: Callable[..., Rows]) -> Callable[..., Rows]:
        @wraps(function)
        def kept(run: Run, *arguments) -> Rows:
            options = arguments[:-2]  # without device and data
            return stored(run, function.__module__, (name, *options), lambda: function(run, *arguments), finished)

        return kept

    return decorate


def map_runs(function: Callable[..., Rows], tasks: list[tuple], device: str, jobs: int | None, name: str):
    """Rows of all tasks in order, as a DataFrame that begins with the run's dataset, source, method and seed. A task is
    (run, ...), the arguments of `function(run, ..., device, data) -> rows` before the device; `data` are the run's
    without training corruption. On a CPU `jobs` processes (default: one a core) share the tasks."""
    cpu = pick_device(device).type == "cpu"
    jobs = min(jobs or runs.cpu_count(), max(1, len(tasks))) if cpu else 1
    arguments = ((function, task, device, load(task[0].data.clean)) for task in tasks)
    results = tqdm(runs.in_parallel(_of_task, arguments, jobs), desc=name, total=len(tasks), unit="run")
    return pd.DataFrame([row for rows in results for row in rows])


def _of_task(function: Callable[..., Rows], task: tuple, device: str, data: Dataset) -> Rows:
    which = {"dataset": data.card.name, "source": data.card.source, "method": task[0].method, "seed": task[0].seed}
    return [which | row for row in function(*task, device, data)]
