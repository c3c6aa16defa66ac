"""Checks of the protocol itself: what selection on test, speakers in two splits, and other settings do to a result.

selection_bonus    how much better a test result looks when its epoch was picked by test
split_comparison   the official split beside one that has no video in two splits
sensitivity        the gain of TMT+AMW over TMT at other batch sizes and learning rates
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from tmtlib.common import one_thread, pick_device
from tmtlib.data.regroup import regrouped, with_speakers
from tmtlib.data.schema import Dataset
from tmtlib.models import build_model
from tmtlib.paper.facts import printed
from tmtlib.stats import metrics
from tmtlib.stats.metrics import LOWER_IS_BETTER
from tmtlib.stats.statistics import over_seeds
from tmtlib.study import cache, runs
from tmtlib.study.runs import Run
from tmtlib.training.fit import Fit, fit, predict

PAIR = ("tmt", "tmt_amw")  # what `sensitivity` compares


def selection_bonus(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """What picking epochs by test adds over picking them by validation. Arguments and errors as `selection`.

    Columns: dataset, source, method, metric, paper (what it prints, of real data, or NaN; see `facts.printed`),
    selected_on_valid and selected_on_test (means over seeds, the metric's unit), bonus (their difference, positive
    where test selection looks better: for MAE the reduction), low and high (its 95 % t interval), n (seeds where the
    metric is defined; 0 leaves NaN).
    """
    keys = ["dataset", "source", "method", "metric"]
    table = _means(selection(todo, device, jobs), keys, ["selected_on_valid", "selected_on_test"], "bonus")
    cells = zip(table["dataset"], table["method"], table["metric"], strict=True)
    table.insert(len(keys), "paper", [printed(*cell) for cell in cells])
    return table


def selection(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """One row a run and metric: its test value at the epoch that validation picks, and at its own best test epoch.

    This is the only function that ever trains with the test split as held-out data. The second value is what the
    original TMT's code reports, which looks at test after every epoch and keeps each metric's maximum. Every run is
    trained twice to its last epoch (`patience` is not used, so that both choose among the same epochs), once with
    validation and once with test held out; what is held out has no part in training, so the parameters take the same
    path. Each run's own `select_by` picks on validation.

    Columns: dataset, source, method, seed, metric, selected_on_valid, selected_on_test, bonus, valid_epoch,
    test_epoch. Raises RuntimeError where the two trainings did not take the same path.
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
    for metric in (m for m in metrics.LABELS if f"valid_{m}" in test.history[0]):
        values = np.array([row[f"valid_{metric}"] for row in test.history])  # of the test split, whatever the name
        sign = -1 if metric in LOWER_IS_BETTER else 1
        best = int(np.where(np.isnan(values), -np.inf, sign * values).argmax())
        row = {"metric": metric, "selected_on_valid": values[epoch - 1], "selected_on_test": values[best]}
        bonus = sign * (values[best] - values[epoch - 1])
        rows.append(row | {"bonus": bonus, "valid_epoch": epoch, "test_epoch": best + 1})
    return rows


def check_same_path(first: Fit, second: Fit, device: str = "cpu") -> None:
    """Raises RuntimeError unless two trainings have the same training loss in every epoch (on a GPU: to 1 %)."""
    tolerance = 0.0 if pick_device(device).type == "cpu" else 0.01
    losses = [np.array([row["train_loss"] for row in f.history]) for f in (first, second)]
    if len(losses[0]) != len(losses[1]) or not np.allclose(*losses, rtol=tolerance, atol=0, equal_nan=True):
        raise RuntimeError(
            f"training losses of seed {first.seed} are {losses[0]} and {losses[1]}; wanted the same, as only then do "
            "their epochs belong together (on a GPU, where sums may differ in order, use device='cpu')"
        )


def split_comparison(
    todo: Sequence[Run], effects: Sequence[float] = (0.0, 1.0), device: str = "auto", jobs: int | None = None
) -> pd.DataFrame:
    """MAE and Acc-5 on the official split and on one without a video in two splits (`regrouped`), over seeds.

    A run's seed draws its regrouping and its speakers too; both splits have the same speakers. `effects` are synthetic
    speaker effects (`with_speakers`); real data have their own and take 0. Raises ValueError as those two do.

    Columns: dataset, source, method, effect, metric, official and grouped (means over seeds), difference (positive
    where the official split looks better: for MAE grouped - official), low, high (95 % t interval), n.
    """
    tasks = [(run, float(effect)) for effect in effects for run in todo]
    scores = cache.map_runs(_splits, tasks, device, jobs, "official and grouped splits")
    sign = np.where(scores["metric"].isin(LOWER_IS_BETTER), -1, 1)
    scores["difference"] = sign * (scores["official"] - scores["grouped"])
    return _means(scores, ["dataset", "source", "method", "effect", "metric"], ["official", "grouped"], "difference")


@cache.per_run("splits", finished=False)
def _splits(run: Run, effect: float, device: str, data: Dataset) -> list[dict]:
    spoken = with_speakers(data, effect, run.seed, run.data.normalize)
    official = _test_scores(run, spoken, device)
    grouped = _test_scores(run, regrouped(spoken, run.seed, run.data.normalize), device)
    return [{"effect": effect, "metric": m, "official": official[m], "grouped": grouped[m]} for m in ("mae", "acc5")]


def _test_scores(run: Run, data: Dataset, device: str) -> dict[str, float]:
    """Test metrics of the run's method and protocol on other data than the run's own."""
    with one_thread(device):
        (best,) = fit(run.model, run.training, data.train, data.valid, data.shape, (run.seed,), device)
        model = build_model(run.model, data.shape)
        model.load_state_dict(best.state)
        return metrics.score(predict(model, data.test, run.training, device), data.test.labels, data.family)


def sensitivity(
    todo: Sequence[Run], grid: Mapping[str, Sequence], device: str = "auto", jobs: int | None = None
) -> pd.DataFrame:
    """The gain of TMT+AMW over TMT at every combination of the grid's settings, over seeds.

    `todo` holds runs of both, others are left out; `grid` has values by field of `Training`, such as
    {"batch_size": (32, 64), "learning_rate": (1e-4, 1e-3)}. `runs.ensure` trains and keeps them as ordinary runs.

    Columns: dataset, source, the grid's fields, metric ("mae", "acc5"), tmt and tmt_amw (means), difference (TMT+AMW
    minus TMT: a gain is negative for MAE and positive for Acc-5), low, high (95 % t interval), n. Raises ValueError
    where the two have not the same data sets and seeds, TypeError for another field.
    """
    before, after = ({(run.data, run.seed) for run in todo if run.method == m} for m in PAIR)
    if before != after or not before:
        raise ValueError(
            f"{len(before)} runs of tmt and {len(after)} of tmt_amw, {len(before & after)} of them in "
            "pairs; wanted at least one pair, and both methods on the same data with the same seeds"
        )
    settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    todo = [run for run in todo if run.method in PAIR]
    wanted = [(replace(r, training=replace(r.training, **s)), s) for s in settings for r in todo]
    rows = runs.ensure([run for run, _ in wanted], device, jobs)
    rows = rows.assign(**{name: [setting[name] for _, setting in wanted] for name in grid})
    keys, tables = ["dataset", "source", *grid, "metric"], []
    for metric in ("mae", "acc5"):
        tmt, amw = (rows[rows["method"] == m].rename(columns={metric: m}).assign(metric=metric) for m in PAIR)
        pairs = amw.merge(tmt[[*keys, "seed", "tmt"]], on=[*keys, "seed"])
        pairs["difference"] = pairs["tmt_amw"] - pairs["tmt"]
        tables.append(_means(pairs, keys, list(PAIR), "difference"))
    return pd.concat(tables).sort_index(kind="stable", ignore_index=True)  # setting by setting


def _means(rows: pd.DataFrame, keys: list[str], shown: list[str], value: str) -> pd.DataFrame:
    """Means over the seeds in which `value` is defined: of the columns `shown`, and of `value` with its t interval."""
    means = rows.dropna(subset=value).groupby(keys, sort=False, dropna=False)[shown].mean().reset_index()
    table = over_seeds(rows, keys, value).rename(columns={"mean": value}).merge(means, on=keys, how="left")
    return table[[*keys, *shown, value, "low", "high", "n"]]
