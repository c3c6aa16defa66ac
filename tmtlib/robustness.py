"""Trained models on corrupted test data, by the protocols of `tmtlib.corruption`, and what can be said of the curves.

Corruptions act on the test split alone, after training, and are the same for every model and training seed: a
corruption that is drawn is drawn `masks` times, from seeds of its own. Scores are kept beside the run's record, so that
a second look costs nothing.

`sweep` has a row a run, corruption and mask; everything else is a pure function of its rows. Means are over masks
first, so n always counts training seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from tmtlib import corruption, floors, looks, metrics, runs
from tmtlib.config import Profile, Run
from tmtlib.corruption import CURVES, Corruption
from tmtlib.data.corrupt import corrupt, noise_scale
from tmtlib.data.joined import joined
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset, Split
from tmtlib.emotions import scores_of
from tmtlib.models import Model
from tmtlib.statistics import t_interval
from tmtlib.study import Study
from tmtlib.training import pick_device, predict

BYTES = 2**27  # about so much corrupted data goes through a model at once
METHOD = ["dataset", "source", "method", "regime"]
WHAT = ["protocol", "kind", "modality", "level"]
LOWER_IS_BETTER = ("mae",)
EVERYWHERE = ("tmt", "tmt_amw", "tmt_uniform", "tmt_random", "tmt_gated")
ON_THE_FIRST = ("tmt_token", "text_only", "late_fusion", "mult", "misa")


def grid(profile: Profile, everything: bool = True) -> list[Corruption]:
    """The corruptions of a profile: P1, P3 and P7, and with `everything` P8 and P9 too."""
    found = [
        *corruption.missing_frames(profile.missing_rates),
        *corruption.missing_modalities(),
        *corruption.noise(profile.snr_db),
    ]
    if everything:
        found += [*corruption.in_time(profile.blocks, profile.shifts), *corruption.swapped()]
    return found


def sweep(
    todo: Sequence[Run], grid: Sequence[Corruption], masks: int = 1, device: str = "auto", jobs: int | None = None
) -> pd.DataFrame:
    """Test metrics of finished runs under each corruption: a row a run, corruption and mask.

    Columns: dataset, source, method, regime ("clean" or "masked": what it was trained on), seed, protocol, kind,
    modality (see `corruption`; "all", or names such as "text+audio"), level (NaN where a kind has none), mask, n_test,
    and the metrics. Raises FileNotFoundError for a run that was not trained.
    """
    # Where there are more cores than models, a model's corruptions are shared out among them
    cores = (jobs or runs.cpu_count()) if pick_device(device).type == "cpu" else 1
    size = -(-len(grid) // max(1, cores // max(1, len(todo))))
    tasks = [(run, tuple(grid[i : i + size]), masks) for run in todo for i in range(0, len(grid), size)]
    rows = looks.together(_scores, tasks, device, jobs, "corrupted test data")
    if rows.empty:
        return rows
    rows["level"] = rows["level"].astype(float)
    return rows


def swept(study: Study) -> pd.DataFrame:
    """`sweep` of a study, which trains what is missing, and the constant predictor.

    All methods of `EVERYWHERE` go under P1, P3 and P7 on all data sets; on the first one those of `ON_THE_FIRST` and
    what the profile trains with frames missing do too, and P8 and P9 are added.
    """
    profile, first = study.profile, study.refs[0]
    methods = [m for m in (*EVERYWHERE, *ON_THE_FIRST) if m in study.methods]
    study.ensure(*methods)
    masked = study.runs(*profile.masked, regime="masked")
    runs.ensure(masked, study.device, profile.jobs)
    todo = study.runs(*methods)
    here = [run for run in todo if run.data == first] + masked
    rest = [run for run in todo if run.data != first and run.method in EVERYWHERE]
    options = profile.masks, study.device, profile.jobs
    parts = [sweep(here, grid(profile), *options), sweep(rest, grid(profile, everything=False), *options)]
    rows = pd.concat([p for p in parts if len(p)], ignore_index=True)
    return pd.concat([rows, constant_rows(rows, todo)], ignore_index=True)


def constant_rows(rows: pd.DataFrame, todo: Sequence[Run]) -> pd.DataFrame:
    """What the constant of `floors` scores under each corruption of `rows`: always the same, as it sees no features."""
    found = []
    for ref in dict.fromkeys(run.data.clean for run in todo):
        data = load(ref)
        known = floors.rows(data).set_index("method").loc[["constant"]].reset_index()
        here = rows[(rows["dataset"] == data.card.name) & (rows["regime"] == "clean")]
        cases = here[[*WHAT, "mask"]].drop_duplicates().assign(regime="clean", seed=0, n_test=len(data.test))
        found.append(cases.merge(known, how="cross"))
    return pd.concat(found, ignore_index=True).reindex(columns=rows.columns)


def _scores(run: Run, grid: tuple[Corruption, ...], masks: int, device: str, data: Dataset) -> list[dict]:
    code = "robustness.py", "looks.py"
    return looks.kept(run, ("robustness", grid, masks), code, lambda: _computed(run, grid, masks, device, data))


def _computed(run: Run, grid: tuple[Corruption, ...], masks: int, device: str, data: Dataset) -> list[dict]:
    model, task = runs.load_model(run, data.shape), run.model.task
    found = {}
    with runs.one_thread(device):
        for case, values in _predictions(model, data, cases(grid, masks, distinct=True), run, device):
            found[case] = scores_of(task, values, data.test.labels_for(task), data.family)
    return as_rows(run, grid, masks, found, len(data.test))


def cases(grid: Sequence[Corruption], masks: int, distinct: bool = False) -> list[tuple[Corruption | None, int]]:
    """Each corruption with each mask, if it is drawn at all; `distinct`: what changes nothing once, as (None, 0)."""
    found = [(how, mask) for how in grid for mask in range(masks if how.is_random else 1)]
    if not distinct:
        return found
    return list(dict.fromkeys((None, 0) if how.changes_nothing else (how, mask) for how, mask in found))


def as_rows(run: Run, grid: Sequence[Corruption], masks: int, found: dict[tuple, dict], n: int) -> list[dict]:
    """The rows of a sweep, but for what `looks.together` puts before them, from the scores of the distinct cases."""
    rows = []
    for how, mask in cases(grid, masks):
        what = {"protocol": how.protocol, "kind": how.kind, "modality": how.where, "level": how.level, "mask": mask}
        known = found[(None, 0) if how.changes_nothing else (how, mask)]
        rows.append({"regime": run.data.regime} | what | {"n_test": n} | known)
    return rows


def _predictions(
    model: Model, data: Dataset, cases: list[tuple[Corruption | None, int]], run: Run, device: str
) -> Iterator[tuple[tuple, np.ndarray]]:
    """Each case with its predictions; several corrupted splits go through the model as one."""
    scale, n = noise_scale(data.train), len(data.test)
    size = max(1, BYTES // sum(x.nbytes for x in data.test.features.values()))
    for start in range(0, len(cases), size):
        some = cases[start : start + size]
        splits = [_corrupted(data.test, how, scale, mask) for how, mask in some]
        values = predict(model, joined(splits) if len(splits) > 1 else splits[0], run.training, device)
        yield from zip(some, values.reshape(len(some), n, *values.shape[1:]), strict=True)


def _corrupted(split: Split, how: Corruption | None, scale: dict, mask: int) -> Split:
    return split if how is None else corrupt(split, how, scale, mask)


# --- Curves ----------------------------------------------------------------------------------------------------------


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One long table of means over training seeds (of means over masks), sd (ddof 1) and n.

    Columns: dataset, source, method, regime, protocol, kind, modality, level, metric, mean, sd, n.
    """
    seeds = by_seed(rows)
    grouped = seeds.groupby([*METHOD, *WHAT, "metric"], sort=False, dropna=False)["value"]
    return grouped.agg(mean="mean", sd=lambda v: v.std(ddof=1), n="count").reset_index()


def by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over masks in long form: METHOD, seed, WHAT, metric, value; without what is undefined."""
    measured = [m for m in metrics.LABELS if m in rows]
    keys = [*METHOD, "seed", *WHAT]
    means = rows.groupby(keys, sort=False, dropna=False)[measured].mean().reset_index()
    return means.melt(keys, measured, "metric", "value").dropna(subset="value")


def area_under_curve(rows: pd.DataFrame, metric: str = "mae", kind: str = "noise") -> pd.DataFrame:
    """Mean of a metric over the levels of one kind of corruption: a row a run and modality.

    Columns: dataset, source, method, regime, seed, modality, area (the metric's own unit: the normalised AUILC), clean
    (the metric where nothing is corrupted) and beyond (area minus clean: what the corruption adds).
    """
    some = rows[rows["kind"] == kind].rename(columns={metric: "value"})
    seeds = some.groupby([*METHOD, "seed", *WHAT], sort=False, dropna=False)["value"].mean().reset_index()
    found = _areas(seeds, [*METHOD, "seed", "modality"])
    return found.assign(area=found["auilc_normalised"], beyond=found["auilc_normalised"] - found["clean"])[
        [*METHOD, "seed", "modality", "area", "clean", "beyond"]
    ]


def auilc(rows: pd.DataFrame, measured: Sequence[str] = ("mae", "acc5", "f1_5class", "corr")) -> pd.DataFrame:
    """The area under each curve of a metric over levels, AUILC (Yuan et al. 2021): one row a method and curve.

    AUILC = sum over neighbouring levels of (x_i + x_{i+1}) / 2 (r_{i+1} - r_i), where r is the rate of missing frames
    (P1), the share of a block or the frames of a shift (P8), and for noise (P7), where decibels from infinity have no
    width, equal steps from 0 (clean) to 1 (the noisiest).

    Columns: dataset, source, method, regime, protocol, kind, modality, metric, auilc (mean over seeds),
    auilc_normalised (divided by the range of r: the metric's own unit), low, high (95 % t interval of
    auilc_normalised), clean (the metric where nothing is corrupted), relative_drop ((auilc_normalised - clean) /
    |clean|: a loss is positive for MAE and negative for all others), worst (over levels, of the means) and n.
    """
    seeds = by_seed(rows)
    seeds = seeds[seeds["kind"].isin(CURVES) & seeds["metric"].isin(measured)]
    areas = _areas(seeds, [*METHOD, "seed", "protocol", "kind", "modality", "metric"])
    keys, found = [*METHOD, "protocol", "kind", "modality", "metric"], []
    for key, some in areas.groupby(keys, sort=False):
        mean, low, high, n = t_interval(some["auilc_normalised"])
        clean = some["clean"].mean()
        found.append((*key, some["auilc"].mean(), mean, low, high, clean, (mean - clean) / abs(clean), n))
    columns = [*keys, "auilc", "auilc_normalised", "low", "high", "clean", "relative_drop", "n"]
    table = pd.DataFrame(found, columns=columns)
    means = seeds.groupby([*keys, "level"], sort=False)["value"].mean().groupby(keys, sort=False)
    worst = pd.concat([means.max(), means.min()], axis=1, keys=["max", "min"]).reset_index()
    table = table.merge(worst, on=keys)
    table["worst"] = np.where(table["metric"].isin(LOWER_IS_BETTER), table["max"], table["min"])
    return table[[*columns[:-1], "worst", "n"]]


def _areas(seeds: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """auilc, auilc_normalised and clean for each group of rows with `kind`, `level` and `value`."""
    found = []
    for key, some in seeds.groupby(keys, sort=False):
        ordered = some.sort_values("level", ascending=some["kind"].iloc[0] != "noise", kind="stable")
        value, level = ordered["value"].to_numpy(), ordered["level"].to_numpy()
        if some["kind"].iloc[0] == "noise":
            level = np.linspace(0, 1, len(level)) if len(level) > 1 else np.zeros(1)
        span = level[-1] - level[0]
        area = float(np.trapezoid(value, level))
        found.append((*key, area, area / span if span else float(value[0]), float(value[0])))
    return pd.DataFrame(found, columns=[*keys, "auilc", "auilc_normalised", "clean"])


# --- Over all protocols ----------------------------------------------------------------------------------------------


def worst_case(rows: pd.DataFrame, metric: str = "mae") -> pd.DataFrame:
    """Where each method is worst, over all corruptions: METHOD, metric, clean, worst (means over seeds and masks), n,
    and the protocol, kind, modality and level of the worst."""
    table = summary(rows)
    table, found = table[table["metric"] == metric], []
    for key, some in table.groupby(METHOD, sort=False):
        at = some["mean"].idxmax() if metric in LOWER_IS_BETTER else some["mean"].idxmin()
        clean = some[(some["kind"] == "missing_modalities") & (some["modality"] == "all")]["mean"]
        place = some.loc[at]
        known = clean.iloc[0] if len(clean) else float("nan")
        found.append((*key, metric, known, place["mean"], int(place["n"]), *(place[w] for w in WHAT)))
    return pd.DataFrame(found, columns=[*METHOD, "metric", "clean", "worst", "n", *WHAT])


def ranking_stability(areas: pd.DataFrame, draws: int = 1000, seed: int = 0, confidence: float = 0.95) -> pd.DataFrame:
    """Whether the methods' order by area under a curve is their order on clean data, and whether it can be relied on.

    For each data set, regime and modality of `area_under_curve`'s rows (only methods that all have the same seeds):
    tau, Kendall's rank correlation of the methods' mean clean values and mean areas; low and high, its percentiles over
    bootstrap draws of seeds; best (method with the least mean area), best_again (share of draws in which it is best
    again), methods and n (seeds). Areas must be of a metric where less is better.
    """
    rng, found = np.random.default_rng(seed), []
    keys = ["dataset", "source", "regime", "modality"]
    for key, some in areas.groupby(keys, sort=False):
        wide = some.pivot(index="seed", columns="method", values=["clean", "area"]).dropna(axis=1)
        clean, area = (wide[c] for c in ("clean", "area"))
        names, n = list(area.columns), len(area)
        if len(names) < 2:
            continue
        picks = rng.integers(0, n, (draws, n))
        taus = [kendalltau(clean.iloc[p].mean(), area.iloc[p].mean()).statistic for p in picks]
        best = area.mean().idxmin()
        again = np.mean([area.iloc[p].mean().idxmin() == best for p in picks])
        low, high = np.nanquantile(taus, [(1 - confidence) / 2, (1 + confidence) / 2])
        tau = kendalltau(clean.mean(), area.mean()).statistic
        found.append((*key, tau, low, high, best, again, len(names), n))
    columns = [*keys, "tau", "low", "high", "best", "best_again", "methods", "n"]
    return pd.DataFrame(found, columns=columns)
