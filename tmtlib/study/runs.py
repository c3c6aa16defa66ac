"""Runs and their records: in `<results>/runs/`, `<id>.pt` (parameters of the best epoch) and `<id>.npz` (the record),
which is written last and atomically, so an interrupted study repeats only unfinished runs."""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, cpu_count, delayed
from tqdm.auto import tqdm

from tmtlib import common
from tmtlib.common import EMOTIONS, as_json, digest, pick_device, write_atomic
from tmtlib.data.loading import load
from tmtlib.data.schema import DataError, DataRef, Dataset, DataShape
from tmtlib.models import BUILT_IN, build_model
from tmtlib.models.amw import WEIGHTINGS
from tmtlib.models.base import Model, ModelConfig, count_parameters
from tmtlib.stats.metrics import for_three_values, scores_of, three_valued
from tmtlib.study.provenance import code_sha256, provenance
from tmtlib.training.fit import SELECT_BY, Fit, Training, fit, precision_on, predict, utterance_weights

# joblib restarts a worker whose memory grows (as with each data set that `load` caches) and warns; no run is lost
warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")


@dataclass(frozen=True)
class Run:
    """All settings that can change the numbers of one training."""

    data: DataRef
    method: str
    model: ModelConfig
    training: Training
    seed: int

    @property
    def id(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the run as canonical JSON."""
        return digest(self)[:12]


JUDGED = ("valid", "test")  # the splits whose predictions a record keeps
# What it keeps of a `Fit`
OF_FIT = ("history", "best_epoch", "other_epoch", "seconds", "peak_memory_mb", "device")


@dataclass(frozen=True)
class Record:
    """The stored record of a finished run."""

    meta: dict  # run, card, provenance and history, as JSON types
    predictions: dict[str, np.ndarray]  # by split: values on the label scale (N,), or probabilities of emotions (N, K)
    labels: dict[str, np.ndarray]  # by split, of the run's task: (N,) or (N, K)
    weights: np.ndarray | None  # (epochs + 1, M, d) mean A on validation; None without a weighting
    test_weights: np.ndarray | None = None  # (N, M) mean over features of A, by test utterance
    other_test: np.ndarray | None = None  # test predictions of the epoch that the other rule of `SELECT_BY` selects

    def scores(self, split: str = "test", first: int | None = None) -> dict[str, float]:
        """Metrics of a split, or of its first utterances; of labels of three values those that suit them
        (`metrics.for_three_values`)."""
        return self._scores(self.predictions[split][:first], split)

    def by_rule(self) -> dict[str, dict[str, float]]:
        """Test metrics, and "epoch", by the rule that selected the epoch: "accuracy" and "loss"."""
        rule = self.meta["run"]["training"]["select_by"]
        (other,) = set(SELECT_BY) - {rule}
        chosen, others = ({"epoch": self.meta[name]} for name in ("best_epoch", "other_epoch"))
        return {rule: chosen | self.scores(), other: others | self._scores(self.other_test, "test")}

    def _scores(self, values: np.ndarray, split: str) -> dict[str, float]:
        task, card = self.meta["run"]["model"]["task"], self.meta["card"]
        judged = values, self.labels[split][: len(values)], card["family"]
        scores = scores_of(task, *judged, card.get("emotions") or EMOTIONS)
        if task == "emotions" or not three_valued(np.concatenate([*self.labels.values()]), card["family"]):
            return scores
        return for_three_values(scores, *judged)

    def history(self) -> pd.DataFrame:
        """One row an epoch: losses, validation metrics, learning rate."""
        return pd.DataFrame(self.meta["history"])


def ensure(runs: Iterable[Run], device: str = "auto", jobs: int | None = None, progress: bool = True) -> pd.DataFrame:
    """Trains the runs that have no record; returns one row a run, in the order given, with test metrics. `jobs`
    processes (default: one a core, or one on a GPU) take a run each."""
    runs = list(runs)
    missing = [run for run in dict.fromkeys(runs) if not record_path(run).exists()]
    jobs = min(jobs or (cpu_count() if pick_device(device).type == "cpu" else 1), max(1, len(missing)))
    title = f"training, into {common.results_folder() / 'runs'}"
    with tqdm(total=len(missing), desc=title, unit="run", disable=not progress or not missing) as bar:
        for _ in in_parallel(train, ((run, device, load(run.data)) for run in missing), jobs):
            bar.update()
    _warn_of_others(runs)
    return pd.DataFrame([row(run) for run in runs])


def in_parallel(function: Callable, arguments: Iterable[tuple], jobs: int) -> Iterator:
    """Results of `function(*arguments[i])` in order, from `jobs` processes (this one where jobs is 1). They share large
    arrays, memory-mapped, and are sent the results folder and registered weightings."""
    registered = {name: made for name, made in WEIGHTINGS.items() if name not in BUILT_IN}
    setting = str(common.results_folder()), registered
    calls = (delayed(_call)(setting if jobs > 1 else None, function, a) for a in arguments)
    return Parallel(n_jobs=jobs, return_as="generator", mmap_mode="c")(calls)


def _call(setting: tuple[str, dict] | None, function: Callable, arguments: tuple) -> object:
    if setting is not None:
        os.environ["TMT_RESULTS"], weightings = setting
        WEIGHTINGS.update(weightings)
    return function(*arguments)


def train(run: Run, device: str, data: Dataset) -> None:
    """Trains a run and saves it."""
    try:
        (done,) = fit(run.model, run.training, data.train, data.valid, data.shape, (run.seed,), device)
    except DataError as error:
        raise DataError(f"{run.data.name}: {error}") from None
    save(run, done, data, device)


def _warn_of_others(runs: list[Run]) -> None:
    """Warns of records from several devices or other code, neither of which is part of a run's id."""
    metas = [read_record(run).meta for run in runs]
    devices = {meta["device"] for meta in metas}
    if len(devices) > 1:
        warnings.warn(f"these runs were trained on different devices ({', '.join(sorted(devices))})", stacklevel=3)
    if other := sum(meta["code"] != code_sha256() for meta in metas):
        text = f"{other} of {len(runs)} runs were trained by another version of the code and are used as they are; "
        warnings.warn(f"{text}delete {common.results_folder() / 'runs'} to train them again", stacklevel=3)


def save(run: Run, done: Fit, data: Dataset, device: str) -> None:
    """Writes a finished run: parameters, then the record, each atomically."""
    model = build_model(run.model, data.shape)
    model.load_state_dict(done.state)
    arrays = {f"prediction_{s}": predict(model, data[s], run.training, device) for s in JUDGED}
    arrays |= {f"label_{s}": data[s].labels_for(run.model.task) for s in JUDGED}
    if done.weights is not None:
        arrays["weights"] = done.weights
        arrays["test_weights"] = utterance_weights(model, data.test, run.training, device)
    arrays["prediction_other"] = arrays["prediction_test"]
    if done.other_epoch != done.best_epoch:
        model.load_state_dict(done.other_state)
        arrays["prediction_other"] = predict(model, data.test, run.training, device)
    meta = {"id": run.id, "run": as_json(run), "card": asdict(data.card)}
    meta |= {name: getattr(done, name) for name in OF_FIT}
    meta |= {"precision": precision_on(run.training, pick_device(device)), "parameters": count_parameters(model)}
    meta |= {"code": code_sha256()} | provenance()
    path = record_path(run)
    write_atomic(path.with_suffix(".pt"), lambda file: torch.save(done.state, file))
    write_atomic(path, lambda file: np.savez_compressed(file, meta=np.array(json.dumps(meta)), **arrays))


def read_record(run: Run) -> Record:
    """The record of a finished run. Raises FileNotFoundError for an untrained run."""
    path = record_path(run)
    if not path.exists():
        raise FileNotFoundError(f"no record of {run.data.name} {run.method} seed {run.seed} at {path}; ensure() it")
    with np.load(path) as file:
        arrays = dict(file)
    predictions, labels = ({s: arrays[f"{kind}_{s}"] for s in JUDGED} for kind in ("prediction", "label"))
    meta = json.loads(str(arrays["meta"]))
    weights = arrays.get("weights"), arrays.get("test_weights")
    return Record(meta, predictions, labels, *weights, arrays["prediction_other"])


def load_model(run: Run, shape: DataShape | None = None) -> Model:
    """The trained model of a finished run, on the CPU; `shape` saves loading the data for it."""
    model = build_model(run.model, shape or load(run.data).shape)
    model.load_state_dict(load_state(run))
    return model.eval()


def load_state(run: Run) -> dict[str, torch.Tensor]:
    path = record_path(run).with_suffix(".pt")
    if not path.is_file():
        where = f"{run.data.name} {run.method} seed {run.seed} at {path}"
        raise FileNotFoundError(f"no model of {where}; ensure() it, or set TMT_RESULTS to the folder of its study")
    return torch.load(path, weights_only=True)


def row(run: Run) -> dict:
    """One flat row of a finished run: its settings, data, test metrics, costs and provenance."""
    record = read_record(run)
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


def histories(todo: Iterable[Run]) -> pd.DataFrame:
    """One row a run and epoch: dataset, source, method, seed, epoch, learning rate, losses, validation metrics."""
    rows = []
    for run in todo:
        meta = read_record(run).meta
        which = {"dataset": meta["card"]["name"], "source": meta["card"]["source"]}
        rows += [epoch | which | {"method": run.method, "seed": run.seed} for epoch in meta["history"]]
    return pd.DataFrame(rows)


def record_path(run: Run) -> Path:
    """The path of a run's record, finished or not."""
    return common.results_folder() / "runs" / f"{run.id}.npz"
