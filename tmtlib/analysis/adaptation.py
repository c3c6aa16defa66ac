"""The weight on a modality as that modality is corrupted: a test of the paper's claim that weights "emphasize
informative modalities while suppressing irrelevant or noisy ones". `at_test_time` corrupts test data alone,
`at_training_time` training data too. Weights are means over utterances and features of A_m, at the best epoch."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import spearmanr

from tmtlib.analysis.robustness import measured
from tmtlib.common import MODALITIES, one_thread, pick_device
from tmtlib.data.corruption import Corruption
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset, Split
from tmtlib.models.base import Model
from tmtlib.paper.verdicts import LEAST, RULES, combined_verdict, with_power
from tmtlib.stats.statistics import Interval, interval_or_nan
from tmtlib.study import cache, runs
from tmtlib.study.methods import method_config
from tmtlib.study.runs import Run
from tmtlib.study.study import Study
from tmtlib.training.batches import passes
from tmtlib.training.fit import Training, autocast

VARIANTS = ("tmt_amw", "tmt_amw_fast", "tmt_uniform", "tmt_gated", "tmt_gated_fast", "tmt_token")
UNIFORM = "tmt_uniform"  # what a gain is relative to
# Clean first. Noise in dB: above 0 it averages out in synthetic text, which varies in 12 of 768 directions
LEVELS = {"noise": (math.inf, 0.0, -10.0, -20.0), "missing_frames": (0.0, 0.5, 1.0)}
GRID = tuple(Corruption(kind, (m,), x) for m in MODALITIES for kind, levels in LEVELS.items() for x in levels)
LEVEL = "dataset source method regime when seed modality kind level".split()
COLUMNS = [*LEVEL, "weight", "mae"]
CELL = ["dataset", "source", "when", "regime", "modality", "kind"]
MEASURES, ENDS = ("change", "spearman", "gain", "gain_all"), ("", "_low", "_high")
VERDICT_COLUMNS = [
    *("dataset", "source", "method", "when", "regime", "modality", "kind", "n", "clean", "noisiest"),
    *(f"{measure}{end}" for measure in MEASURES for end in ENDS),
    *("verdict", "evidence", "rules"),
]


def weighted(todo: Sequence[Run]) -> list[Run]:
    """The runs with weights whose model predicts a label: emotions have no MAE."""
    return [run for run in todo if run.model.weighting != "none" and run.model.task != "emotions"]


@torch.no_grad()
def seen(
    model: Model, split: Split, training: Training, device: str = "auto"
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N M"]]:
    """Values, and weights as means over features, by utterance. Raises ValueError for a model without weights."""
    values, weights = np.zeros(len(split), np.float32), np.zeros((len(split), len(MODALITIES)), np.float32)
    for index, batch in passes(model, split, 4 * training.batch_size, device):
        with autocast(training, pick_device(device)):
            prediction, trace = model(batch)
        if trace.weights is None:
            raise ValueError("the model has no weights; wanted one with a weighting, such as TMT+AMW")
        values[index], weights[index] = model.values(prediction.float()).cpu(), trace.weights.float().mean(-1).cpu()
    return values, weights


TABLES = ("adaptation", "adaptation_verdicts", "adaptation_combined")


def tables(study: Study) -> dict[str, pd.DataFrame]:
    """`TABLES` of the first data set, whose missing runs are trained: weights and errors under corruption at test time
    and in training too, their `verdict`, and those `combined`."""
    device, jobs, variants = study.device, study.profile.jobs, [m for m in VARIANTS if m in study.methods]
    weighted = [run for run in study.runs(*variants, few=True) if run.data == study.refs[0]]
    noisy = training_runs(study)
    runs.ensure(weighted + noisy, device, jobs)
    moved = [
        at_test_time(weighted, masks=study.profile.masks, device=device, jobs=jobs),
        at_training_time(noisy, study.profile.masks, device, jobs),
    ]
    moved = pd.concat(moved, ignore_index=True)
    judged = with_power(verdict(moved), "change")
    return dict(zip(TABLES, (moved, judged, combined(judged)), strict=True))


def at_test_time(
    todo: Sequence[Run],
    grid: Sequence[Corruption] = GRID,
    masks: int = 1,
    device: str = "auto",
    jobs: int | None = None,
) -> pd.DataFrame:
    """The weight on a modality, and MAE, where that modality alone is corrupted in the test data of finished runs.

    `COLUMNS`: regime (of the training data), when ("test"), level (dB, or rate of missing frames), weight (mean of
    A_m), mae (label units); both are means over `masks` draws. No rows for models without weights and absent
    modalities. Raises ValueError for a corruption of several modalities, FileNotFoundError for an untrained run.
    """
    return _rows([(run, tuple(grid), masks) for run in weighted(todo)], "test", device, jobs)


def training_runs(study: Study) -> list[Run]:
    """Runs of `VARIANTS` on the first data set, trained clean and with noise in one modality at a time, by the
    profile's `noisy_training` and `training_snr_db`, with its few seeds."""
    profile, first = study.profile, study.refs[0]
    lengths = load(first).train.lengths  # noise in an absent modality changes nothing
    noisy = [("noise", (m,), x) for m in profile.noisy_training if lengths[m].any() for x in profile.training_snr_db]
    refs = [first, *(replace(first, training_corruption=Corruption(*how)) for how in noisy)]
    configs = {m: method_config(m, profile.model) for m in VARIANTS if m in study.methods}
    methods = product(refs, configs.items(), profile.seeds[: profile.few_seeds])
    return [Run(ref, method, config, profile.training, seed) for ref, (method, config), seed in methods]


def at_training_time(
    todo: Sequence[Run], masks: int = 1, device: str = "auto", jobs: int | None = None
) -> pd.DataFrame:
    """As `at_test_time` for models trained on corrupted data, each tested with the same corruption, and on clean data
    (the first level); regime "noisy", when "training"."""
    todo = weighted(todo)
    trained_on = [run.data.training_corruption for run in todo]
    clean = (replace(how, level=math.inf if how.kind == "noise" else 0.0) for how in trained_on if how)
    clean = tuple(dict.fromkeys(clean))
    tasks = [(run, (how,) if how else clean, masks) for run, how in zip(todo, trained_on, strict=True)]
    return _rows(tasks, "training", device, jobs).assign(regime="noisy")


def _rows(tasks: list[tuple], when: str, device: str, jobs: int | None) -> pd.DataFrame:
    for how in {how for _, grid, _ in tasks for how in grid}:
        if len(how.modalities) != 1:
            raise ValueError(f"{how.kind} acts on {how.where}; wanted one modality, whose weight is then measured")
    rows = cache.map_runs(_computed, tasks, device, jobs, "weights under corruption").assign(when=when)
    return rows.reindex(columns=COLUMNS).groupby(LEVEL, sort=False, as_index=False).mean()  # over masks


@cache.per_run("adaptation")
def _computed(run: Run, grid: tuple[Corruption, ...], masks: int, device: str, data: Dataset) -> list[dict]:
    model, rows = runs.load_model(run, data.shape), []
    with one_thread(device):
        cases = measured(data, grid, masks, lambda split: seen(model, split, run.training, device))
        for how, _, (values, weights) in cases:
            (m,) = how.modalities
            level = {"regime": run.data.regime, "modality": m, "kind": how.kind, "level": how.level}
            weight, mae = weights[:, MODALITIES.index(m)], np.abs(values - data.test.labels)
            rows.append(level | {"weight": float(weight.mean(dtype=np.float64)), "mae": float(mae.mean())})
    return rows


def verdict(frame: pd.DataFrame) -> pd.DataFrame:
    """Whether a variant down-weights a corrupted modality and that lowers the error: one row a method and `CELL`.

    `frame`: rows of `at_test_time` and `at_training_time`. `VERDICT_COLUMNS`: n (seeds), clean and noisiest (mean
    weights at the two ends), and with 95 % t intervals (`_low`, `_high`; not adjusted for the number of cells) change
    (noisiest - clean), spearman (of weight and strength of corruption, by seed; NaN for a constant weight), gain (MAE
    minus that of uniform weights with the same seed at the noisiest level; negative is better), gain_all (its mean over
    levels); verdict, evidence, rules (version and date).

    Rules, in this order:
        impossible as written  in every seed the weight is exactly the same at every level
        not supported          the interval of the change lies above -`LEAST`
        supported              the intervals of the change, of Spearman's rho and of the gain all lie below 0
        cannot tell            else
    """
    rows = []
    for key, cell in frame.groupby(CELL, sort=False):
        uniform = _by_level(cell[cell["method"] == UNIFORM], "mae")
        for method, subset in cell.groupby("method", sort=False):
            rows.append(dict(zip(CELL, key, strict=True)) | {"method": method} | _judged(subset, uniform))
    return pd.DataFrame(rows, columns=VERDICT_COLUMNS).assign(rules=RULES)


def combined(judged: pd.DataFrame) -> pd.DataFrame:
    """One verdict a variant and time over the cells of `verdict`: "impossible as written" if all are, else
    `combined_verdict`. Columns: dataset, source, method, when, verdict, cells (how many), of the cell in which the
    weight fell most modality, kind, change, change_low, change_high, gain, gain_low, gain_high, n; rules."""
    keys, rows = ["dataset", "source", "method", "when"], []
    shown = ["modality", "kind", *(f"{measure}{end}" for measure in ("change", "gain") for end in ENDS), "n"]
    for key, cells in judged.groupby(keys, sort=False):
        still = (cells["verdict"] == "impossible as written").all()
        verdict = "impossible as written" if still else combined_verdict(cells["verdict"])
        rows.append((*key, verdict, len(cells), *cells.loc[cells["change"].fillna(math.inf).idxmin(), shown]))
    return pd.DataFrame(rows, columns=[*keys, "verdict", "cells", *shown]).assign(rules=RULES)


def _judged(rows: pd.DataFrame, uniform: pd.DataFrame) -> dict:
    """The columns of `verdict` for one method in one cell; `uniform`: MAE (seeds, levels) with uniform weights."""
    weight, mae = _by_level(rows, "weight"), _by_level(rows, "mae")
    if weight.empty:  # a training failed, or a level is missing, in every seed
        return {"n": 0, "verdict": "cannot tell", "evidence": "no seed with every level"}
    rho = [spearmanr(range(len(w)), w).statistic if np.ptp(w) else math.nan for w in weight.to_numpy()]
    gain = (mae - uniform).loc[mae.index.intersection(uniform.index), mae.columns]
    clean, noisiest = weight.iloc[:, 0], weight.iloc[:, -1]
    by_seed = noisiest - clean, rho, gain.iloc[:, -1], gain.mean(axis=1, skipna=False)
    intervals = [interval_or_nan(values, skipna=False) for values in by_seed]
    row = {"n": len(weight), "clean": clean.mean(), "noisiest": noisiest.mean()}
    for name, interval in zip(MEASURES, intervals, strict=True):
        row |= {f"{name}{end}": bound for end, bound in zip(ENDS, interval[:3], strict=True)}
    for end in ("spearman_low", "spearman_high"):
        row[end] = float(np.clip(row[end], -1, 1))  # a t interval may exceed the range of rho
    still = bool((np.ptp(weight.to_numpy(), axis=1) == 0).all())
    verdict, words = _rule(still, *intervals[:3])
    return row | {"verdict": verdict, "evidence": f"{words}: {_numbers(row)}"}


def _rule(still: bool, change: Interval, rho: Interval, gain: Interval) -> tuple[str, str]:
    """Verdict, and what happens in words, by the rules of `verdict`. Comparisons with NaN are False."""
    if still:
        return "impossible as written", "cannot move"
    if change.low > 0:
        return "not supported", "rises"
    if change.low > -LEAST:
        return "not supported", f"{'falls' if change.high < 0 else 'may fall'}, but by less than {LEAST:g}"
    if not (change.high < 0 and rho.high < 0):
        return "cannot tell", "falls or not, open" if change.n > 1 else "one seed, no interval"
    if gain.high < 0:
        return "supported", "falls, with less error than uniform weights"
    if math.isnan(gain.high):
        return "cannot tell", "falls, uniform weights not compared"
    return "cannot tell", "falls, but costs error" if gain.low > 0 else "falls, but buys nothing"


def _numbers(row: dict) -> str:
    """The evidence in numbers; NaN is left out."""
    parts = [f"weight {row['clean']:.4f} to {row['noisiest']:.4f}"]
    shown = {"change": ("change", "+.4f"), "spearman": ("Spearman", "+.2f"), "gain": ("MAE minus uniform's", "+.3f")}
    for name, (title, form) in shown.items():
        mean, low, high = (row[f"{name}{end}"] for end in ENDS)
        if not math.isnan(mean):
            parts.append(f"{title} {mean:{form}}" + ("" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]"))
    return ", ".join([*parts, f"n = {row['n']}"])


def _by_level(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """(seeds, levels), clean first; seeds that lack a level are left out."""
    wide = rows.pivot(index="seed", columns="level", values=column).dropna()
    return wide.sort_index(axis=1, ascending=not (rows["kind"] == "noise").all())
