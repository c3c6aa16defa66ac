"""Trained models on corrupted test data: noise by signal-to-noise ratio, and missing modalities.

Corruptions act on the test split alone, after training, and are the same for every model. Scores are kept beside the
run's record, so that a second look costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from tmtlib import metrics, paths, runs
from tmtlib.config import MODALITIES, Run, digest
from tmtlib.data.corrupt import add_noise, keep_only, noise_scale
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset, Split
from tmtlib.emotions import scores_of
from tmtlib.training import pick_device, predict

SUBSETS = tuple(s for k in (3, 2, 1) for s in combinations(MODALITIES, k))


@dataclass(frozen=True)
class Corruption:
    """Noise of `snr_db` on `modalities`, or, with `missing`, only `modalities` present."""

    modalities: tuple[str, ...]
    snr_db: float = float("inf")
    missing: bool = False

    @property
    def changes_nothing(self) -> bool:
        return self.modalities == MODALITIES if self.missing else self.snr_db == float("inf")

    def __call__(self, dataset: Dataset, seed: int = 0) -> Split:
        """The corrupted test split."""
        if self.missing:
            return keep_only(dataset.test, self.modalities)
        return add_noise(dataset.test, noise_scale(dataset.train), self.snr_db, self.modalities, seed)


def noise_grid(snr_db: Sequence[float]) -> list[Corruption]:
    """Each modality alone, then all together, from clean (infinity) to each ratio in decibels."""
    groups = [(m,) for m in MODALITIES] + [MODALITIES]
    return [Corruption(g, level) for g in groups for level in (float("inf"), *snr_db)]


def missing_grid() -> list[Corruption]:
    """The seven non-empty subsets of the modalities."""
    return [Corruption(s, missing=True) for s in SUBSETS]


def sweep(todo: Sequence[Run], grid: Sequence[Corruption], device: str = "auto", jobs: int | None = None):
    """Test metrics of finished runs under each corruption: a DataFrame with one row a run and corruption.

    Columns: dataset, source, method, seed, modality ("text", .., "all") and snr_db for noise, present
    ("text+audio") for missing modalities, n_test, and the metrics. Raises FileNotFoundError for a run that was not
    trained.
    """
    todo = list(todo)
    jobs = min(jobs or runs.cpu_count(), max(1, len(todo))) if pick_device(device).type == "cpu" else 1
    arguments = ((run, tuple(grid), device, load(run.data)) for run in todo)
    bar = tqdm(total=len(todo), desc="corrupted test data", unit="model")
    found = {}
    with bar:
        for run, rows in runs.in_parallel(scores, arguments, jobs):
            found[run] = rows
            bar.update()
    return pd.DataFrame([row for run in todo for row in found[run]])


def scores(run: Run, grid: tuple[Corruption, ...], device: str, data: Dataset) -> tuple[Run, list[dict]]:
    """The rows of one run, read back where this code computed them before."""
    code = runs.code_sha256("robustness.py", *runs.RESULT_CODE)
    path = paths.results() / "runs" / f"{run.id}.{digest((grid, code))[:8]}.json"
    if not path.exists():
        rows = _computed(run, grid, device, data)
        runs.write_aside(path, lambda file: file.write(json.dumps(rows).encode()))
    return run, json.loads(path.read_text(encoding="utf-8"))


def _computed(run: Run, grid: tuple[Corruption, ...], device: str, data: Dataset) -> list[dict]:
    model, card, rows, known = runs.load_model(run, data.shape), data.card, [], {}
    start = {"dataset": card.name, "source": card.source, "method": run.method, "seed": run.seed}
    with runs.one_thread(device):
        for corruption in grid:
            key = None if corruption.changes_nothing else corruption  # the clean split is looked at once
            if key not in known:
                values, task = predict(model, corruption(data), run.training, device), run.model.task
                known[key] = scores_of(task, values, data.test.labels_for(task), card.family)
            names = "+".join(corruption.modalities)
            noisy = "all" if corruption.modalities == MODALITIES else names
            where = {"present": names} if corruption.missing else {"modality": noisy, "snr_db": corruption.snr_db}
            rows.append(start | where | {"n_test": len(data.test)} | known[key])
    return rows


def area_under_curve(frame: pd.DataFrame, metric: str = "mae") -> pd.DataFrame:
    """Mean of a metric over the noise levels, one row a data set, method, seed and modality.

    The trapezoid rule over equally spaced levels, divided by their span: so it has the metric's own unit. Decibel
    steps differ, so levels count as equally spaced steps from clean to the noisiest.
    """

    def area(values: pd.Series) -> float:
        return float(np.trapezoid(values) / (len(values) - 1)) if len(values) > 1 else float(values.iloc[0])

    ordered = frame.sort_values("snr_db", ascending=False, kind="stable")
    keys = ["dataset", "source", "method", "seed", "modality"]
    return ordered.groupby(keys, sort=False)[metric].apply(area).rename("area").reset_index()


def summary(noisy: pd.DataFrame, reduced: pd.DataFrame) -> pd.DataFrame:
    """Both sweeps as one long table of means over seeds, sd (ddof 1) and n, for models trained on clean data.

    Columns: dataset, source, method, regime, protocol ("P7" noise by ratio, "P3" missing modalities), modality (which
    is corrupted, or which are present), level (decibels; NaN for P3), metric, mean, sd, n.
    """
    parts = [
        noisy.assign(protocol="P7", level=noisy["snr_db"]),
        reduced.assign(protocol="P3", level=float("nan"), modality=reduced["present"]),
    ]
    long = pd.concat(parts, ignore_index=True).assign(regime="clean")
    keys = ["dataset", "source", "method", "regime", "protocol", "modality", "level", "metric"]
    measured = [m for m in metrics.LABELS if m in long]
    long = long.melt(keys[:-1], measured, "metric", "value").dropna(subset="value")
    grouped = long.groupby(keys, sort=False, dropna=False)["value"]
    return grouped.agg(mean="mean", sd=lambda v: v.std(ddof=1), n="count").reset_index()
