"""Effects of the protocol: selection on test, videos in two splits, training settings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from tmtlib.common import one_thread, pick_device
from tmtlib.data.loading import load
from tmtlib.data.regroup import regrouped, with_speakers
from tmtlib.data.schema import Dataset
from tmtlib.models import build_model
from tmtlib.paper.facts import printed
from tmtlib.stats import metrics
from tmtlib.stats.metrics import LOWER_IS_BETTER
from tmtlib.stats.statistics import over_seeds
from tmtlib.study import cache, runs
from tmtlib.study.runs import Run
from tmtlib.training.fit import fit, predict

PAIR = ("tmt", "tmt_amw")  # what `sensitivity` compares


def selection_bonus(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """What picking each metric's epoch by test adds over picking it by validation. Arguments and errors as `selection`.

    Columns: dataset, source, method, metric, paper (`facts.printed`, of real data), selected_on_valid and
    selected_on_test (means over seeds, the metric's unit), bonus (their difference, never negative: for MAE the
    reduction), low, high (its 95 % t interval), n (seeds where the metric is defined; 0: NaN).
    """
    keys = ["dataset", "source", "method", "metric"]
    table = _means(selection(todo, device, jobs), keys, ["selected_on_valid", "selected_on_test"], "bonus")
    cells = zip(table["dataset"], table["method"], table["metric"], strict=True)
    table.insert(len(keys), "paper", [printed(*cell) for cell in cells])
    return table


def selection(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """One row a run and metric: its test value at the epoch where it is best on validation, and at its best on test,
    which is what the original TMT's code reports. Both pick by the same metric: the split alone differs.

    Every run is trained once more, to the last epoch (without `patience`), with test held out, which does not change
    the parameters. No other function gives `fit` the test split. Columns: dataset, source, method, seed, metric,
    selected_on_valid, selected_on_test, bonus, valid_epoch, test_epoch. Raises RuntimeError unless both have the same
    training losses.
    """
    runs.ensure(todo, device, jobs)
    return cache.map_runs(_selected, [(run,) for run in todo], device, jobs, "selection on test", load)


@cache.per_run("selection")
def _selected(run: Run, device: str, data: Dataset) -> list[dict]:
    record, training, rows = runs.read_record(run), replace(run.training, patience=None), []
    with one_thread(device):
        (test,) = fit(run.model, training, data.train, data.test, data.shape, (run.seed,), device)
        history = record.meta["history"]
        if not same_path(history, test.history, device):  # the record is of another machine
            (valid,) = fit(run.model, run.training, data.train, data.valid, data.shape, (run.seed,), device)
            history = valid.history
    if not same_path(history, test.history, device):
        raise RuntimeError(
            f"training losses of seed {run.seed} differ between two trainings; wanted the same, as only then do their "
            "epochs belong together (on a GPU, where sums may differ in order, use device='cpu')"
        )
    for metric in (m for m in metrics.LABELS if f"valid_{m}" in test.history[0]):
        sign = -1 if metric in LOWER_IS_BETTER else 1
        epochs = [_best(h, metric, sign) for h in (history, test.history)]
        values = [test.history[epoch][f"valid_{metric}"] for epoch in epochs]  # of the test split, whatever the name
        row = {"metric": metric, "selected_on_valid": values[0], "selected_on_test": values[1]}
        row |= {"bonus": sign * (values[1] - values[0]), "valid_epoch": epochs[0] + 1, "test_epoch": epochs[1] + 1}
        rows.append(row)
    return rows


def _best(history: Sequence[dict], metric: str, sign: int) -> int:
    """The first of the epochs, from 0, at which the metric of the held-out split is best."""
    values = np.array([row[f"valid_{metric}"] for row in history])
    return int(np.where(np.isnan(values), -np.inf, sign * values).argmax())


def same_path(first: Sequence[dict], second: Sequence[dict], device: str = "cpu") -> bool:
    """Whether a training's history begins with another's training losses (on a GPU: to 1 %)."""
    tolerance = 0.0 if pick_device(device).type == "cpu" else 0.01
    losses = [np.array([row["train_loss"] for row in history]) for history in (first, second[: len(first)])]
    return len(second) >= len(first) and np.allclose(*losses, rtol=tolerance, atol=0, equal_nan=True)


def split_comparison(
    todo: Sequence[Run], effects: Sequence[float] = (0.0, 1.0), device: str = "auto", jobs: int | None = None
) -> pd.DataFrame:
    """MAE and Acc-5 on the official split and on one without a video in two splits (`regrouped`), over seeds.

    `effects`: of synthetic speakers (`with_speakers`). A run's seed draws its regrouping and speakers, the same in both
    splits. Raises ValueError as those two functions do. Columns: dataset, source, method, effect, metric, official and
    grouped (means over seeds), difference (positive where the official split looks better: for MAE grouped - official),
    low, high (95 % t interval), n.
    """
    tasks = [(run, float(effect)) for effect in effects for run in todo]
    scores = cache.map_runs(_splits, tasks, device, jobs, "official and grouped splits", load)
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
    """Test metrics of the run's settings, trained on other data."""
    with one_thread(device):
        (best,) = fit(run.model, run.training, data.train, data.valid, data.shape, (run.seed,), device)
        model = build_model(run.model, data.shape)
        model.load_state_dict(best.state)
        return metrics.score(predict(model, data.test, run.training, device), data.test.labels, data.family)


def sensitivity(
    todo: Sequence[Run], grid: Mapping[str, Sequence], device: str = "auto", jobs: int | None = None
) -> pd.DataFrame:
    """The gain of TMT+AMW over TMT at every combination of the grid's settings, over seeds.

    Other methods in `todo` are left out. `grid`: values by field of `Training`, as {"batch_size": (32, 64)}. Columns:
    dataset, source, the grid's fields, metric ("mae", "acc5"), tmt and tmt_amw (means), difference (TMT+AMW - TMT),
    low, high (95 % t interval), n. Raises ValueError for unpaired or no runs, TypeError for another field.
    """
    before, after = ({(run.data, run.seed) for run in todo if run.method == m} for m in PAIR)
    if before != after or not before:
        raise ValueError(
            f"{len(before)} runs of tmt and {len(after)} of tmt_amw, {len(before & after)} of them in "
            "pairs; wanted at least one pair, and both methods on the same data with the same seeds"
        )
    settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    wanted = [(replace(r, training=replace(r.training, **s)), s) for s in settings for r in todo if r.method in PAIR]
    rows = runs.ensure([run for run, _ in wanted], device, jobs)
    rows = rows.assign(**{name: [setting[name] for _, setting in wanted] for name in grid})
    keys = ["dataset", "source", *grid, "method"]
    values = rows.set_index([*keys, "seed"])[["mae", "acc5"]].rename_axis(columns="metric").stack().rename("value")
    table = over_seeds(values.reset_index(), [*keys, "metric"], "value", against={"method": "tmt"})
    table = table[table["method"] == "tmt_amw"].drop(columns=["low", "high", "n"])
    names = {"against": "tmt", "difference_low": "low", "difference_high": "high", "pairs": "n"}
    table = table.rename(columns=names).assign(tmt_amw=table["against"] + table["difference"])  # means over pairs
    return table[[*keys[:-1], "metric", *PAIR, "difference", "low", "high", "n"]].reset_index(drop=True)


def halved(todo: Sequence[Run], fields: Sequence[str], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """`sensitivity` to each of these fields of `Training`, "learning_rate" and "batch_size": half of it, and as it is;
    rows of one field after those of another."""
    values = {"learning_rate": lambda x: (x / 2, x), "batch_size": lambda x: (x // 2,)}
    base = {name: getattr(todo[0].training, name) for name in values}
    grids = [{name: values[name](x) if name == field else (x,) for name, x in base.items()} for field in fields]
    return pd.concat([sensitivity(todo, grid, device, jobs) for grid in grids], ignore_index=True)


def _means(rows: pd.DataFrame, keys: list[str], shown: list[str], value: str) -> pd.DataFrame:
    """Means of the columns `shown` over seeds in which `value` is defined, and of `value` with its t interval."""
    means = rows.dropna(subset=value).groupby(keys, sort=False, dropna=False)[shown].mean().reset_index()
    table = over_seeds(rows, keys, value).rename(columns={"mean": value}).merge(means, on=keys, how="left")
    return table[[*keys, *shown, value, "low", "high", "n"]]
