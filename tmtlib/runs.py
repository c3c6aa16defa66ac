"""Runs and their records: `ensure` trains what is missing, nothing twice, and returns one row a run.

A finished run is two files in `<results>/runs/`: `<id>.pt`, the best epoch's parameters, and `<id>.npz`, the record.
The record is written last and atomically, so a killed study keeps every finished run and repeats only the rest.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from tmtlib import __version__, metrics, paths
from tmtlib.config import Run, as_json
from tmtlib.data.loading import load
from tmtlib.data.schema import SPLITS, Dataset
from tmtlib.models import Model, build_model, count_parameters
from tmtlib.training import Fit, fit, predict


@dataclass(frozen=True)
class Record:
    """What one finished run left on disk."""

    meta: dict  # run, card, provenance and history, as JSON types
    predictions: dict[str, np.ndarray]  # by split: values on the label scale (N,)
    labels: dict[str, np.ndarray]  # by split (N,)
    weights: np.ndarray | None  # (epochs + 1, M, d) mean A on validation; None without a weighting

    def scores(self, split: str = "test") -> dict[str, float]:
        """All metrics of one split."""
        return metrics.evaluate(self.predictions[split], self.labels[split], self.meta["card"]["family"])

    def history(self) -> pd.DataFrame:
        """One row an epoch: losses, validation metrics, learning rate."""
        return pd.DataFrame(self.meta["history"])


def ensure(runs: Iterable[Run], device: str = "auto", progress: bool = True) -> pd.DataFrame:
    """Trains the runs that have no record yet and returns one row a run, in the order given, with test metrics.

    Runs that differ only in their seed are handed to `fit` together.
    """
    runs = list(runs)
    missing = [run for run in dict.fromkeys(runs) if not _record_path(run).exists()]
    groups: dict[Run, list[int]] = {}
    for run in missing:
        groups.setdefault(replace(run, seed=0), []).append(run.seed)
    with tqdm(total=len(missing), desc="training", unit="run", disable=not progress or not missing) as bar:
        for group, seeds in groups.items():
            bar.set_postfix_str(f"{group.data.name} {group.method}")
            data = load(group.data)

            def keep(done: Fit, group=group, data=data) -> None:
                save(replace(group, seed=done.seed), done, data, device)
                bar.update()

            fit(group, data.train, data.valid, data.shape, seeds, device, keep)
    return pd.DataFrame([row(run) for run in runs])


def save(run: Run, done: Fit, data: Dataset, device: str) -> None:
    """Writes a finished run: parameters first, then the record, each by writing aside and renaming."""
    model = build_model(run.model, data.shape)
    model.load_state_dict(done.state)
    arrays = {f"prediction_{s}": predict(model, data[s], run.training, device) for s in SPLITS}
    arrays |= {f"label_{s}": data[s].labels for s in SPLITS}
    if done.weights is not None:
        arrays["weights"] = done.weights
    meta = {
        "id": run.id,
        "run": as_json(run),
        "card": asdict(data.card),
        "history": done.history,
        "best_epoch": done.best_epoch,
        "seconds": done.seconds,
        "peak_memory_mb": done.peak_memory_mb,
        "device": done.device,
        "parameters": count_parameters(model),
    } | provenance()
    path = _record_path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path.with_suffix(".pt"), lambda file: torch.save(done.state, file))
    _replace(path, lambda file: np.savez_compressed(file, meta=np.array(json.dumps(meta)), **arrays))


def _replace(path: Path, write) -> None:
    """Writes beside the target and renames: a reader sees the old file or the whole new one."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(aside, "wb") as file:
        write(file)
    os.replace(aside, path)


def read_record(run: Run) -> Record:
    """The record of a finished run. Raises FileNotFoundError when it has not been trained."""
    path = _record_path(run)
    if not path.exists():
        raise FileNotFoundError(f"no record of {run.data.name} {run.method} seed {run.seed} at {path}; ensure() it")
    with np.load(path) as file:
        arrays = dict(file)
    return Record(
        meta=json.loads(str(arrays["meta"])),
        predictions={s: arrays[f"prediction_{s}"] for s in SPLITS},
        labels={s: arrays[f"label_{s}"] for s in SPLITS},
        weights=arrays.get("weights"),
    )


def load_model(run: Run) -> Model:
    """The trained model of a finished run, on the CPU."""
    model = build_model(run.model, load(run.data).shape)
    model.load_state_dict(torch.load(_record_path(run).with_suffix(".pt"), weights_only=True))
    return model.eval()


def row(run: Run) -> dict:
    """One flat row: what was run, where, on what, and its test metrics."""
    record = read_record(run)
    meta = record.meta
    return {
        "dataset": meta["card"]["name"],
        "source": meta["card"]["source"],
        "alignment": meta["card"]["alignment"],
        "method": run.method,
        "seed": run.seed,
        **record.scores(),
        "n_test": len(record.labels["test"]),
        "best_epoch": meta["best_epoch"],
        "epochs": len(meta["history"]),
        "parameters": meta["parameters"],
        "learning_rate": run.training.learning_rate,
        "normalize": run.data.normalize,
        "data_sha256": meta["card"]["sha256"],
        "seconds": meta["seconds"],
        "peak_memory_mb": meta["peak_memory_mb"],
        "device": meta["device"],
        "torch": meta["torch"],
        "commit": meta["commit"],
        "run_id": meta["id"],
    }


def provenance() -> dict[str, str]:
    """Versions, platform, commit and time, as every record and table states them."""
    return {
        "tmtlib": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@lru_cache
def commit() -> str:
    """The code's git commit, with "-dirty" for uncommitted changes to it; "unknown" outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _record_path(run: Run) -> Path:
    return paths.results() / "runs" / f"{run.id}.npz"
