"""Runs and their records: in `<results>/runs/`, `<id>.npz` (the record) and `<id>.safetensors` (parameters of the best
epoch).

A record ends with the SHA-256 of its content, and holds the run's id and the SHA-256 of the parameters, so that damage
is noticed. It is written last and atomically, so an interrupted study repeats only unfinished runs, and it is read
without the parameters.
"""

import io
import json
import math
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from tmtlib import common
from tmtlib.common import EMOTIONS, DamagedError, digest, read_sealed, write_sealed
from tmtlib.data.schema import DataRef
from tmtlib.models.base import ModelConfig
from tmtlib.stats.metrics import for_three_values, scores_of, three_valued
from tmtlib.training.fit import SELECT_BY, Training


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

    def __str__(self) -> str:
        return f"{self.data.name} {self.method} seed {self.seed}"


JUDGED = ("valid", "test")  # the splits whose predictions a record keeps


@dataclass(frozen=True)
class Record:
    """The stored record of a finished run."""

    meta: dict  # id, run, card, provenance and history, as JSON types; of a failed training also "failed": why
    predictions: dict[str, np.ndarray]  # by split: values on the label scale (N,), or probabilities of emotions (N, K)
    labels: dict[str, np.ndarray]  # by split, of the run's task: (N,) or (N, K)
    weights: np.ndarray | None  # (epochs + 1, M, d) mean A on validation; None without a weighting
    logits: np.ndarray | None = None  # (M, d) W at the best epoch; None where the weighting has no such parameter
    test_weights: np.ndarray | None = None  # (N, M) mean over features of A, by test utterance
    other_test: np.ndarray | None = None  # test predictions of the epoch that the other rule of `SELECT_BY` selects

    def scores(self, split: str = "test", first: int | None = None) -> dict[str, float]:
        """Metrics of a split, or of its first utterances; of labels of three values those that suit them
        (`metrics.for_three_values`); NaN for a failed training."""
        return self._scores(self.predictions[split][:first], split)

    def by_rule(self) -> dict[str, dict[str, float]]:
        """Test metrics, and "epoch", by the rule that selected the epoch: "accuracy" and "loss"."""
        rule = self.meta["run"]["training"]["select_by"]
        (other,) = set(SELECT_BY) - {rule}
        chosen, others = ({"epoch": self.meta[name]} for name in ("best_epoch", "other_epoch"))
        return {rule: chosen | self.scores(), other: others | self._scores(self.other_test, "test")}

    def _scores(self, values: np.ndarray, split: str) -> dict[str, float]:
        task, card = self.meta["run"]["model"]["task"], self.meta["card"]
        labels = self.labels[split][: len(values)]
        judged = labels if "failed" in self.meta else values, labels, card["family"]
        scores = scores_of(task, *judged, card.get("emotions") or EMOTIONS)
        if task != "emotions" and three_valued(np.concatenate([*self.labels.values()]), card["family"]):
            scores = for_three_values(scores, *judged)
        return dict.fromkeys(scores, math.nan) if "failed" in self.meta else scores


def record_path(run: Run) -> Path:
    """The path of a run's record, finished or not."""
    return common.results_folder() / "runs" / f"{run.id}.npz"


def write_record(run: Run, meta: dict, arrays: dict[str, np.ndarray]) -> None:
    """Arrays: prediction and label by split ("label_test"), and those of `Record`'s other fields that there are."""
    file = io.BytesIO()
    np.savez_compressed(file, meta=np.array(json.dumps({"id": run.id} | meta)), **arrays)
    write_sealed(record_path(run), file.getvalue())


def read_record(run: Run) -> Record:
    """The record of a finished run. Raises FileNotFoundError for an untrained run, and as `record_at`."""
    path = record_path(run)
    if not path.exists():
        raise FileNotFoundError(f"no record of {run} at {path}; ensure() it")
    return record_at(path, str(run))


def record_at(path: Path, name: str = "") -> Record:
    """The record in a file, of the run that messages call `name`. Raises DamagedError for a damaged record or one of
    another run."""
    with np.load(io.BytesIO(read_sealed(path))) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    if meta["id"] != path.stem:
        raise DamagedError(f"{path} is the record of {meta['id']}, another run, under the name of {name or path.stem}")
    predictions, labels = ({s: arrays.pop(f"{kind}_{s}") for s in JUDGED} for kind in ("prediction", "label"))
    return Record(meta, predictions, labels, arrays.pop("weights", None), **arrays)


def whole_record(run: Run) -> Record | None:
    """The record of a run, None for an untrained one. A damaged record is set aside, with a warning."""
    try:
        return read_record(run) if record_path(run).exists() else None
    except DamagedError as error:
        aside = set_aside(record_path(run))
        warnings.warn(f"{error}; it is set aside as {aside.name}, and {run} is trained again", stacklevel=3)
        return None


def set_aside(path: Path) -> Path:
    """Renames a file, which is never deleted: its new name ends with the beginning of its SHA-256."""
    aside = path.with_name(f"{path.name}.{sha256(path.read_bytes()).hexdigest()[:8]}.aside")
    os.replace(path, aside)
    return aside


def succeeded(todo: Iterable[Run]) -> list[Run]:
    """The runs but for those whose training failed; a warning says how many these are."""
    todo = list(todo)
    failed = {run for run in todo if record_path(run).exists() and "failed" in read_record(run).meta}
    if failed:
        text = f"left out: {len(failed)} of {len({*todo})} trainings, which failed ({', '.join(map(str, failed))})"
        warnings.warn(text, stacklevel=3)
    return [run for run in todo if run not in failed]
