"""Checks of the protocol itself: what selection on test, speakers in two splits, and other settings do to a result.

    selection_bonus    how much better a test result looks when its epoch was picked by test
    split_comparison   the official split beside one that has no video in two splits
    sensitivity        the gain of TMT+AMW over TMT at other batch sizes and learning rates

What was computed is kept beside the runs, so that a second look costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from tmtlib.common import one_thread, pick_device
from tmtlib.data.regroup import regrouped, with_speakers
from tmtlib.data.schema import Dataset
from tmtlib.models import build_model
from tmtlib.stats import metrics
from tmtlib.stats.statistics import Interval, paired_interval, t_interval
from tmtlib.study import cache, runs, tables
from tmtlib.study.runs import Run
from tmtlib.training.fit import Fit, fit, predict

METRICS = tuple(metrics.LABELS)  # those of them that a training history has
LOWER_IS_BETTER = ("mae",)


def selection_bonus(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """What picking epochs by test adds over picking them by validation, as a mean over seeds.

    Columns: dataset, source, method, metric, paper (what the paper prints for TMT and TMT+AMW on the data set of that
    name, of real data, else NaN; its selection is by validation as it says, see `tables.printed`), selected_on_valid
    and selected_on_test (means over seeds, the metric's unit), bonus (their difference, positive where test selection
    looks better: for MAE the reduction), low and high (95 % t interval of the bonus), n (seeds where the metric is
    defined; 0 leaves NaN). Arguments and errors as `selection`.
    """
    keys = ["dataset", "source", "method", "metric"]
    rows = []
    for key, group in selection(todo, device, jobs).groupby(keys, sort=False):
        known = group.dropna(subset="bonus")  # Corr of a constant prediction
        means = {c: known[c].mean() for c in ("selected_on_valid", "selected_on_test")}
        beside = {"paper": tables.printed(key[0], *key[2:])} | means
        found = _or_nothing(t_interval, known["bonus"])
        rows.append(dict(zip(keys, key, strict=True)) | beside | _named(found, "bonus"))
    return pd.DataFrame(rows)


def selection(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """One row a run and metric: its test value at the epoch that validation picks, and at its own best test epoch.

    The second is what the original TMT's code reports: test is looked at after every epoch and each metric keeps its
    maximum. Every run is trained twice to its last epoch (`patience` is not used, so that both choose among the same
    epochs), once with validation and once with test where the trainer wants validation; the parameters take the same
    path, as what is not trained on has no part in training. Each run's own `select_by` picks on validation.

    Columns: dataset, source, method, seed, metric, selected_on_valid, selected_on_test, bonus, valid_epoch,
    test_epoch. Metrics are those of `METRICS` that a training history has. Raises RuntimeError where the two
    trainings did not take the same path.
    """
    todo = [replace(run, training=replace(run.training, patience=None)) for run in todo]
    return cache.map_runs(_selected, [(run,) for run in todo], device, jobs, "selection on test")


@cache.per_run("selection", finished=False)
def _selected(run: Run, device: str, data: Dataset) -> list[dict]:
    with one_thread(device):
        valid, test = (
            fit(run.model, run.training, data.train, data[s], data.shape, (run.seed,), device)[0]
            for s in ("valid", "test")
        )
    check_same_path(valid, test, device)
    epoch, rows = valid.best_epoch, []
    for metric in (m for m in METRICS if f"valid_{m}" in test.history[0]):
        values = np.array([row[f"valid_{metric}"] for row in test.history])  # of the test split, whatever the name
        sign = -1 if metric in LOWER_IS_BETTER else 1
        best = int(np.where(np.isnan(values), -np.inf, sign * values).argmax())
        found = {"selected_on_valid": float(values[epoch - 1]), "selected_on_test": float(values[best])}
        bonus = sign * (found["selected_on_test"] - found["selected_on_valid"])
        rows.append({"metric": metric} | found | {"bonus": bonus, "valid_epoch": epoch, "test_epoch": best + 1})
    return rows


def check_same_path(one: Fit, other: Fit, device: str = "cpu") -> None:
    """Raises RuntimeError unless two trainings have the same training loss in every epoch (on a GPU: to 1 %)."""
    tolerance = 0.0 if pick_device(device).type == "cpu" else 0.01
    losses = [np.array([row["train_loss"] for row in f.history]) for f in (one, other)]
    if len(losses[0]) != len(losses[1]) or not np.allclose(*losses, rtol=tolerance, atol=0, equal_nan=True):
        raise RuntimeError(
            f"training losses of seed {one.seed} are {losses[0]} and {losses[1]}; wanted the same, as only then do "
            "their epochs belong together (on a GPU, where sums may differ in order, use device='cpu')"
        )


def split_comparison(
    todo: Sequence[Run], effects: Sequence[float] = (0.0, 1.0), device: str = "auto", jobs: int | None = None
) -> pd.DataFrame:
    """MAE and Acc-5 on the official split and on one without a video in two splits (`regrouped`), over seeds.

    A run's seed draws its regrouping and its speakers too, so the interval is one over all of these; both splits have
    the same speakers. `effects` are synthetic speaker effects (`with_speakers`); real data have their own and take 0.

    Columns: dataset, source, method, effect, metric, official and grouped (means over seeds, the metric's unit),
    difference (positive where the official split looks better: for MAE grouped - official), low and high (95 % t
    interval, paired by seed), n. Raises ValueError as `regrouped` and `with_speakers` do.
    """
    tasks = [(run, float(effect)) for effect in effects for run in todo]
    scores = cache.map_runs(_splits, tasks, device, jobs, "official and grouped splits")
    keys, rows = ["dataset", "source", "method", "effect", "metric"], []
    for key, group in scores.groupby(keys, sort=False):
        sign = -1 if key[-1] in LOWER_IS_BETTER else 1
        found = paired_interval(sign * group["official"], sign * group["grouped"])
        means = {c: group[c].mean() for c in ("official", "grouped")}
        rows.append(dict(zip(keys, key, strict=True)) | means | _named(found, "difference"))
    return pd.DataFrame(rows)


@cache.per_run("splits", finished=False)
def _splits(run: Run, effect: float, device: str, data: Dataset) -> list[dict]:
    spoken = with_speakers(data, effect, run.seed, run.data.normalize)
    official = _test_scores(run, spoken, device)
    grouped = _test_scores(run, regrouped(spoken, run.seed, run.data.normalize), device)
    both = {m: {"official": official[m], "grouped": grouped[m]} for m in ("mae", "acc5")}
    return [{"effect": effect, "metric": m} | values for m, values in both.items()]


def _test_scores(run: Run, data: Dataset, device: str) -> dict[str, float]:
    """Test metrics of the run's method and protocol on other data than the run's own."""
    with one_thread(device):
        model = build_model(run.model, data.shape)
        model.load_state_dict(
            fit(run.model, run.training, data.train, data.valid, data.shape, (run.seed,), device)[0].state
        )
        return metrics.score(predict(model, data.test, run.training, device), data.test.labels, data.family)


def sensitivity(
    todo: Sequence[Run],
    grid: Mapping[str, Sequence],
    device: str = "auto",
    jobs: int | None = None,
    methods: tuple[str, str] = ("tmt", "tmt_amw"),
) -> pd.DataFrame:
    """The gain of the second method over the first at every combination of the grid's settings, over seeds.

    Args:
        todo: runs of both methods with the same seeds, such as `study.runs("tmt", "tmt_amw")`; others are left out.
        grid: values by field of `Training`, such as {"batch_size": (32, 64), "learning_rate": (1e-4, 1e-3)}.
        device, jobs: as `runs.ensure`, which trains and keeps them as ordinary runs.

    Columns: dataset, source, the grid's fields, metric ("mae" in label units, "acc5"), a column of means for each
    method, difference (second minus first: a gain is negative for MAE and positive for Acc-5), low and high (95 % t
    interval, paired by seed), n. Raises ValueError where the methods have not the same data sets and seeds, TypeError
    for a field that `Training` does not have.
    """
    todo = [run for run in todo if run.method in methods]
    _check_pairs(todo, methods)
    settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    wanted = [(replace(r, training=replace(r.training, **s)), s) for s in settings for r in todo]
    frame = runs.ensure([run for run, _ in wanted], device, jobs)
    for name in grid:
        frame[name] = [s[name] for _, s in wanted]
    keys, rows = ["dataset", "source", *grid], []
    for key, group in frame.groupby(keys, sort=False, dropna=False):  # None is a patience too
        for metric in ("mae", "acc5"):
            table = group.pivot(index="seed", columns="method", values=metric)
            found = paired_interval(table[methods[1]], table[methods[0]])
            means = {m: table[m].mean() for m in methods}
            rows.append(dict(zip(keys, key, strict=True)) | {"metric": metric} | means | _named(found, "difference"))
    return pd.DataFrame(rows)


def _check_pairs(todo: Sequence[Run], methods: tuple[str, str]) -> None:
    first, second = ({(r.data, r.seed) for r in todo if r.method == m} for m in methods)
    if first != second or not first:
        raise ValueError(
            f"{len(first)} runs of {methods[0]} and {len(second)} of {methods[1]}, {len(first & second)} of them in "
            "pairs; wanted at least one pair, and both methods on the same data with the same seeds"
        )


def _named(found: Interval, name: str) -> dict[str, float | int]:
    return {name: found.mean, "low": found.low, "high": found.high, "n": found.n}


def _or_nothing(interval: Callable, values: pd.Series) -> Interval:
    return interval(values) if len(values) else Interval(*3 * (float("nan"),), 0)
