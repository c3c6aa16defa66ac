"""Trains runs, each once, and reads what they left: as rows of a table, as histories, as a model. Their files are
those of `records`."""

import math
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
from joblib import cpu_count
from tqdm.auto import tqdm

from tmtlib import common
from tmtlib.common import as_json, digest, pick_device, remove_leftovers, write_atomic
from tmtlib.data.loading import load
from tmtlib.data.schema import DataError, Dataset, DataShape
from tmtlib.models import build_model
from tmtlib.models.base import Model, count_parameters
from tmtlib.study import estimate
from tmtlib.study.cluster import train_on
from tmtlib.study.provenance import code_sha256, provenance
from tmtlib.study.records import JUDGED, Record, Run, read_record, record_path, set_aside, whole_record, write_record
from tmtlib.study.workers import in_parallel
from tmtlib.training.fit import Fit, NotFiniteError, device_name, fit, precision_on, predict, utterance_weights

# What a record keeps of a `Fit`
OF_FIT = ("history", "best_epoch", "other_epoch", "seconds", "peak_memory_mb", "device")
SAID_FROM = 300  # seconds of training that are said before they begin
UNTIMED = 2e6  # utterances x epochs x frames, three trainings of profile quick: less is not worth an estimate


def ensure(runs: Iterable[Run], device: str = "auto", jobs: int | None = None, progress: bool = True) -> pd.DataFrame:
    """Trains the runs that have no whole record; returns one row a run, in the order given, with test metrics. `jobs`
    processes (default: one a core, or one on a GPU) take a run each; where TMT_CLUSTER has the address of a dask
    scheduler, its workers do. With `progress`, it says before it begins what takes more than five minutes. A training
    whose loss is not finite is recorded as failed: its metrics are NaN. Raises KilledError for a run whose process is
    killed again and again, ClusterError as `cluster.train_on`."""
    runs = list(runs)
    remove_leftovers(common.results_folder() / "runs")
    records = {run: whole_record(run) for run in dict.fromkeys(runs)}
    missing = [run for run, record in records.items() if record is None]
    if progress:
        _say_long(missing, device, jobs)
    title = f"training, into {os.path.relpath(common.results_folder() / 'runs')}"
    with tqdm(total=len(missing), desc=title, unit="run", disable=not progress or not missing) as bar:
        for _ in _trained(missing, device, jobs) if missing else ():
            bar.update()
    records |= {run: read_record(run) for run in missing}
    _warn_of_others([records[run] for run in runs])
    return pd.DataFrame([row(run, records[run]) for run in runs])


def _trained(missing: list[Run], device: str, jobs: int | None) -> Iterator[None]:
    if address := os.environ.get("TMT_CLUSTER"):
        return train_on(address, train, missing, device)
    jobs = min(processes(device, jobs), len(missing))
    return in_parallel(train, ((run, device, load(run.data)) for run in missing), jobs)


def processes(device: str, jobs: int | None = None) -> int:
    """Trainings at a time: `jobs`, or by default one a core, or one on a GPU."""
    return jobs or (cpu_count() if pick_device(device).type == "cpu" else 1)


def _say_long(missing: list[Run], device: str, jobs: int | None) -> None:
    """Prints how long the trainings of this machine take where that is more than `SAID_FROM`."""
    if os.environ.get("TMT_CLUSTER") or sum(n * sum(frames) for n, frames in map(estimate.work, missing)) < UNTIMED:
        return
    n = min(processes(device, jobs), len(missing))
    if (seconds := estimate.seconds(missing, device, n)) > SAID_FROM:
        where = "a GPU" if pick_device(device).type == "cuda" else f"{n} core{'s' * (n > 1)}"
        takes = f"Training {len(missing)} run{'s' * (len(missing) > 1)} takes {estimate.said(seconds)} on {where}"
        print(f"{takes}; finished ones are kept, so it may be stopped.", flush=True)


def train(run: Run, device: str, data: Dataset) -> None:
    """Trains a run that has no record and saves it, as failed where its loss is not finite."""
    if record_path(run).exists():  # finished in a process that was killed before it could say so
        return
    try:
        save(run, _fit(run, device, data), data, device)
    except NotFiniteError as error:
        save_failed(run, f"{run}: {error}", data, device)


def _fit(run: Run, device: str, data: Dataset) -> Fit:
    made_by = digest((code_sha256(), str(pick_device(device))))[:8]  # others' checkpoints would give other numbers
    checkpoint = record_path(run).with_suffix(f".{made_by}.checkpoint")
    try:
        return fit(run.model, run.training, data.train, data.valid, data.shape, (run.seed,), device, checkpoint)[0]
    except DataError as error:
        raise DataError(f"{run.data.name}: {error}") from None


def _warn_of_others(records: list[Record]) -> None:
    """Warns of failed trainings, and of records from several devices or other code, neither of which is part of a
    run's id."""
    metas = [record.meta for record in records]
    if failed := [meta["failed"] for meta in metas if "failed" in meta]:
        text = f"{len(failed)} of {len(metas)} trainings failed, have NaN for metrics and are not tried again, as "
        text += f"{failed[0]}; to try again, delete their records"
        warnings.warn(text, stacklevel=3)
    devices = {meta["device"] for meta in metas}
    if len(devices) > 1:
        warnings.warn(f"these runs were trained on different devices ({', '.join(sorted(devices))})", stacklevel=3)
    if other := sum(meta["code"] != code_sha256() for meta in metas):
        text = f"{other} of {len(metas)} runs were trained by another version of the code and are used as they are; "
        warnings.warn(f"{text}delete {common.results_folder() / 'runs'} to train them again", stacklevel=3)


def save(run: Run, done: Fit, data: Dataset, device: str) -> None:
    """Writes a finished run: parameters, then the record, each atomically; removes its checkpoints."""
    model = build_model(run.model, data.shape)
    model.load_state_dict(done.state)
    arrays = {f"prediction_{s}": predict(model, data[s], run.training, device) for s in JUDGED}
    if done.weights is not None:
        arrays["weights"] = done.weights
        arrays["test_weights"] = utterance_weights(model, data.test, run.training, device)
    if "weighting.W" in done.state:
        arrays["logits"] = done.state["weighting.W"].numpy()
    arrays["other_test"] = arrays["prediction_test"]
    if done.other_epoch != done.best_epoch:
        model.load_state_dict(done.other_state)
        arrays["other_test"] = predict(model, data.test, run.training, device)
    parameters = _stored(done)
    write_atomic(parameters_path(run), lambda file: file.write(parameters))
    costs = {name: getattr(done, name) for name in OF_FIT} | {"parameters_sha256": sha256(parameters).hexdigest()}
    _write(run, data, device, costs, arrays)


def save_failed(run: Run, why: str, data: Dataset, device: str) -> None:
    """Writes the record of a failed training, so that it is not tried again: predictions are NaN, epochs 0."""
    unknown = {s: np.full_like(data[s].labels_for(run.model.task), np.nan) for s in JUDGED}
    arrays = {f"prediction_{s}": x for s, x in unknown.items()} | {"other_test": unknown["test"]}
    costs = dict.fromkeys(OF_FIT, math.nan) | {"history": [], "best_epoch": 0, "other_epoch": 0}
    _write(run, data, device, costs | {"failed": why, "device": device_name(pick_device(device))}, arrays)


def _write(run: Run, data: Dataset, device: str, costs: dict, arrays: dict[str, np.ndarray]) -> None:
    arrays |= {f"label_{s}": data[s].labels_for(run.model.task) for s in JUDGED}
    meta = {"run": as_json(run), "card": asdict(data.card)} | costs
    meta["parameters"] = count_parameters(build_model(run.model, data.shape))
    meta |= {"precision": precision_on(run.training, pick_device(device)), "code": code_sha256()} | provenance()
    write_record(run, meta, arrays)
    _remove_checkpoints(run)


def _remove_checkpoints(run: Run) -> None:
    for checkpoint in record_path(run).parent.glob(f"{run.id}.*.checkpoint"):
        checkpoint.unlink(missing_ok=True)


def _stored(done: Fit) -> bytes:
    return safetensors.torch.save({name: x.contiguous() for name, x in done.state.items()})


def parameters_path(run: Run) -> Path:
    return record_path(run).with_suffix(".safetensors")


def load_model(run: Run, shape: DataShape | None = None) -> Model:
    """The trained model of a finished run, on the CPU; `shape` saves loading the data for it. Where its parameters are
    missing or not those of the record, the run is trained again, and that is said. Raises FileNotFoundError for an
    untrained run, ValueError for one whose training failed."""
    record, path = read_record(run), parameters_path(run)
    if "failed" in record.meta:
        raise ValueError(f"a failed training has no model ({record.meta['failed']})")
    content = path.read_bytes() if path.is_file() else b""
    if sha256(content).hexdigest() != record.meta["parameters_sha256"]:
        content = _trained_again(run, record)
    model = build_model(run.model, shape or load(run.data).shape)
    model.load_state_dict(safetensors.torch.load(content))
    return model.eval()


def _trained_again(run: Run, record: Record) -> bytes:
    """The parameters of a finished run that lost them. The record stays where the same come out; else it is set
    aside, and another takes its place."""
    path, device = parameters_path(run), "cpu" if record.meta["device"] == "cpu" else "auto"
    what = f"are not those of its record and set aside as {set_aside(path).name}" if path.exists() else "are missing"
    warnings.warn(f"the parameters of {run} ({path}) {what}; it is trained again", stacklevel=3)
    done = _fit(run, device, data := load(run.data))
    if sha256(content := _stored(done)).hexdigest() == record.meta["parameters_sha256"]:
        write_atomic(path, lambda file: file.write(content))
        _remove_checkpoints(run)
    else:
        aside = set_aside(record_path(run))
        warnings.warn(
            f"other parameters come out here, so the record of {run} is set aside as {aside.name}", stacklevel=3
        )
        save(run, done, data, device)
    return content


def row(run: Run, record: Record | None = None) -> dict:
    """One flat row of a finished run: its settings, data, test metrics, costs and provenance."""
    record = record or read_record(run)
    meta, card = record.meta, record.meta["card"]
    which = {"dataset": card["name"], "source": card["source"], "alignment": card["alignment"], "method": run.method}
    which |= {"regime": run.data.regime, "seed": run.seed}
    size = {"n_test": len(record.labels["test"]), "best_epoch": meta["best_epoch"], "epochs": len(meta["history"])}
    settings = {
        "parameters": meta["parameters"],
        "learning_rate": run.training.learning_rate,
        "normalize": run.data.normalize,
        "data_sha256": card["sha256"],
        "select_by": run.training.select_by,
    }
    costs = {name: meta[name] for name in ("seconds", "peak_memory_mb", "device", "torch", "commit", "time")}
    return which | record.scores() | size | settings | costs | {"run_id": meta["id"]}


def selections(todo: Iterable[Run]) -> pd.DataFrame:
    """Two rows a run, one for each rule by which validation selects an epoch (`SELECT_BY`): dataset, source, method,
    seed, select_by, in_protocol (whether the run's protocol uses that rule), epoch, test metrics."""
    rows = []
    for run in todo:
        record = read_record(run)
        card = record.meta["card"]
        which = {"dataset": card["name"], "source": card["source"], "method": run.method, "seed": run.seed}
        for rule, scores in record.by_rule().items():
            rows.append(which | {"select_by": rule, "in_protocol": rule == run.training.select_by} | scores)
    return pd.DataFrame(rows)


def mean_selections(todo: Iterable[Run]) -> pd.DataFrame:
    """Means over seeds of `selections`: MAE and Acc-5 by data set, method and rule."""
    keys = ["dataset", "source", "method", "select_by", "in_protocol"]
    return selections(todo).groupby(keys, sort=False)[["mae", "acc5"]].mean().reset_index()


def histories(todo: Iterable[Run]) -> pd.DataFrame:
    """One row a run and epoch: dataset, source, method, seed, epoch, learning rate, losses, validation metrics."""
    rows = []
    for run in todo:
        meta = read_record(run).meta
        which = {"dataset": meta["card"]["name"], "source": meta["card"]["source"]}
        rows += [epoch | which | {"method": run.method, "seed": run.seed} for epoch in meta["history"]]
    return pd.DataFrame(rows)
