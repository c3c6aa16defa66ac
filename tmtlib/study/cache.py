"""Rows computed from finished runs, in parallel, and stored beside each run."""

import json
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from functools import lru_cache, partial, wraps
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from tmtlib.common import DamagedError, digest, pick_device, read_sealed, write_sealed
from tmtlib.data.loading import load
from tmtlib.data.schema import DataRef, Dataset
from tmtlib.data.synthetic import SplitTruth
from tmtlib.study import runs
from tmtlib.study.provenance import code_sha256
from tmtlib.study.records import succeeded
from tmtlib.study.runs import Run

Rows = list[dict]
LOOKED_AT = 500  # of the test utterances of synthetic data, the first so many are looked at; scores are of all


def stored(run: Run, module: str, key: tuple, compute: Callable[[], Rows], finished: bool = True) -> Rows:
    """The rows of `compute`, stored as JSON beside the run. They are computed again where `key`, `code_sha256(module)`
    or, with `finished`, the run's training differs. With `finished`, raises FileNotFoundError for an untrained run."""
    path = stored_path(run, module, key, finished)
    if not _whole(path):
        write_sealed(path, json.dumps(compute()).encode())
    return json.loads(read_sealed(path))


def _whole(path: Path) -> bool:
    """Whether rows are stored there; damaged ones are said not to be."""
    try:
        return path.exists() and bool(read_sealed(path))
    except DamagedError as error:
        warnings.warn(f"{error}; its rows are computed again", stacklevel=3)
        return False


def stored_path(run: Run, module: str, key: tuple, finished: bool = True) -> Path:
    """Where `stored` keeps its rows."""
    trained = runs.read_record(run).meta["time"] if finished else ""
    name = f"{run.id}.{digest((*key, LOOKED_AT, trained, code_sha256(module)))[:8]}.json"
    return runs.record_path(run).with_name(name)


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


def per_group(name: str) -> Callable:
    """As `per_run`, of `function(runs, *options, device, data) -> rows of each`, for work that runs on one data set
    share: it is called with the runs that have nothing stored."""

    def decorate(function: Callable[..., list[Rows]]) -> Callable[..., list[Rows]]:
        @wraps(function)
        def kept(group: tuple[Run, ...], *arguments) -> list[Rows]:
            kind = function.__module__, (name, *arguments[:-2])
            missing = [run for run in group if not _whole(stored_path(run, *kind))]
            rows = dict(zip(missing, function(missing, *arguments), strict=True)) if missing else {}
            return [stored(run, *kind, partial(rows.get, run)) for run in group]

        return kept

    return decorate


@lru_cache(maxsize=4)
def looked_at(ref: DataRef) -> Dataset:
    """The data of a reference without training corruption; of synthetic test data the first `LOOKED_AT` utterances."""
    data = load(ref.clean)
    if data.truth is None or len(data.test) <= LOOKED_AT:
        return data
    of_test = data.truth.splits["test"]
    first = SplitTruth(**{f.name: getattr(of_test, f.name)[:LOOKED_AT] for f in fields(of_test)})
    truth = replace(data.truth, splits=data.truth.splits | {"test": first})
    return replace(data, test=data.test.take(np.arange(LOOKED_AT)), truth=truth)


def map_runs(
    function: Callable[..., Rows],
    tasks: list[tuple],
    device: str,
    jobs: int | None,
    name: str,
    data_of: Callable[[DataRef], Dataset] = looked_at,
) -> pd.DataFrame:
    """Rows of all runs in order, as a DataFrame that begins with the run's dataset, source, method and seed. A task is
    (run, ...), the arguments of `function(run, ..., device, data) -> rows` before the device, or (runs, ...) for a
    function of `per_group`; `data` are the run's, from `data_of`. On a CPU `jobs` processes (default: one a core) share
    the tasks. Runs whose training failed are left out (`records.succeeded`)."""
    sound = {*succeeded(chain.from_iterable(map(_group, tasks)))}
    tasks = [_only(sound, task) for task in tasks if sound.intersection(_group(task))]
    cpu = pick_device(device).type == "cpu"
    jobs = min(jobs or runs.cpu_count(), max(1, len(tasks))) if cpu else 1
    arguments = ((task, function, device, data_of(_group(task)[0].data.clean)) for task in tasks)
    results = tqdm(runs.in_parallel(_of_task, arguments, jobs), desc=name, total=len(tasks), unit="run")
    of_run = {run: [] for task in tasks for run in _group(task)}
    for task, rows_of_runs in zip(tasks, results, strict=True):
        for run, rows in zip(_group(task), rows_of_runs, strict=True):
            of_run[run] += rows
    return pd.DataFrame(list(chain.from_iterable(of_run.values())))


def _group(task: tuple) -> tuple[Run, ...]:
    return task[0] if isinstance(task[0], tuple) else task[:1]


def _only(sound: set[Run], task: tuple) -> tuple:
    return (tuple(run for run in task[0] if run in sound), *task[1:]) if isinstance(task[0], tuple) else task


def _of_task(task: tuple, function: Callable, device: str, data: Dataset) -> list[Rows]:
    results = function(*task, device, data)
    results = results if isinstance(task[0], tuple) else [results]
    of_data = {"dataset": data.card.name, "source": data.card.source}
    starts = (of_data | {"method": run.method, "seed": run.seed} for run in _group(task))
    return [[start | row for row in rows] for start, rows in zip(starts, results, strict=True)]
