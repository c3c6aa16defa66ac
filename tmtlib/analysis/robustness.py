"""Trained models on test data corrupted by the protocols of `tmtlib.data.corruption`, `masks` times where random, the
same for every model and seed. Functions of the rows of `sweep` take means over masks first: n counts training seeds."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from tmtlib.analysis import trivial_baselines
from tmtlib.analysis.paired import CONTROLS
from tmtlib.data import corruption
from tmtlib.data.corrupt import corrupt, noise_scale
from tmtlib.data.corruption import CURVES, Corruption
from tmtlib.data.schema import Dataset, Split
from tmtlib.models.base import Model
from tmtlib.paper import verdicts
from tmtlib.stats import metrics
from tmtlib.stats.metrics import LOWER_IS_BETTER, scores_of
from tmtlib.stats.statistics import over_seeds
from tmtlib.study import cache, runs
from tmtlib.study.methods import family
from tmtlib.study.profiles import Profile
from tmtlib.study.runs import Run
from tmtlib.study.study import Study
from tmtlib.training.fit import predict_together

EVERYWHERE = (*family("main"), "tmt_gated")
ON_THE_FIRST = ("tmt_token", "text_only", *family("baseline"))
METHOD = ["dataset", "source", "method", "regime"]
CORRUPTION = ["protocol", "kind", "modality", "level"]
CURVE = ["protocol", "kind", "modality", "metric"]  # one value a level


def grid(profile: Profile, everything: bool = True) -> list[Corruption]:
    """The corruptions of a profile: P1, P3 and P7; with `everything` also P8 and P9."""
    parts = [corruption.missing_frames(profile.missing_rates), corruption.missing_modalities()]
    parts += [corruption.noise(profile.snr_db)]
    if everything:
        parts += [corruption.in_time(profile.blocks, profile.shifts), corruption.swapped()]
    return list(chain.from_iterable(parts))


def suits(how: Corruption, split: Split) -> bool:
    """False where a corruption acts on absent modalities alone (all lengths 0), keeps an absent one, takes a block out
    of single frames, or delays a modality by its longest utterance or more."""
    least = {"missing_block": 1, "shift": max(1, how.level or 0)}.get(how.kind, 0)
    enough = [split.lengths[m].max(initial=0) > least for m in how.modalities]
    keeps_all = how.kind == "missing_modalities" and how.changes_nothing
    return keeps_all or (all(enough) if how.kind in ("missing_modalities", "shift") else any(enough))


def sweep(
    todo: Sequence[Run], grid: Sequence[Corruption], masks: int = 1, device: str = "auto", jobs: int | None = None
) -> pd.DataFrame:
    """Test metrics of finished runs: METHOD, seed, CORRUPTION, mask, n_test (utterances) and the metrics.

    regime: of the training data; modality: `Corruption.where`; level: NaN for a kind without one. No rows where not
    `suits`, nor for noise or shift of text read as token ids. Raises FileNotFoundError for an untrained run.
    """
    kinds = [tuple(group) for _, group in groupby(grid, key=lambda how: how.kind)]  # one task each, for many cores
    tasks = [(group, kind, masks) for group in groups(todo) for kind in kinds]
    rows = cache.map_runs(_computed, tasks, device, jobs, "corrupted test data")
    return rows.astype({"level": float}) if len(rows) else rows


def groups(todo: Sequence[Run], together: int = 12) -> list[tuple[Run, ...]]:
    """Runs on the same test data with the same protocol; few in a group, as what is finished is kept group by group."""
    alike: dict[tuple, list[Run]] = {}
    for run in todo:
        alike.setdefault((run.data.clean, run.training), []).append(run)
    return [tuple(some[i : i + together]) for some in alike.values() for i in range(0, len(some), together)]


TABLES = "robustness auilc robustness_differences worst_case ranking_stability".split()


def tables(study: Study) -> dict[str, pd.DataFrame]:
    """`TABLES` of what is `swept`: its `summary`, `auilc`, the differences of areas between TMT+AMW and each control
    (the area itself, and what lies beyond the value on clean data), `worst_case`, `ranking_stability`; and for the
    claims "noise_areas", those under noise of TMT+AMW and the controls by seed."""
    rows = swept(study)
    plainly = rows[rows["regime"] == "clean"]
    under = {kind: area_under_curve(plainly, kind=kind) for kind in ("noise", "missing_frames")}
    parts = [
        verdicts.noise_gains(areas.assign(area=areas[what]), before=b).assign(kind=kind, what=what, before=b)
        for kind, areas in under.items()
        for what in ("area", "beyond")
        for b in CONTROLS
    ]
    unlearned = verdicts.unlearned(trivial_baselines.against_constant(study.runs("tmt")))
    stable = [ranking_stability(areas).assign(kind=kind) for kind, areas in under.items()]
    compared = under["noise"]["method"].isin(("tmt_amw", *CONTROLS))
    made = summary(rows), auilc(rows), verdicts.withhold(pd.concat(parts, ignore_index=True), unlearned)
    made = (*made, worst_case(rows), pd.concat(stable, ignore_index=True))
    return dict(zip(TABLES, made, strict=True)) | {"noise_areas": under["noise"][compared]}


def swept(study: Study) -> pd.DataFrame:
    """`sweep` of a study, whose missing runs are trained, and `constant_rows`: P1, P3 and P7 for `EVERYWHERE` on all
    data sets, with `family_seeds`; on the first one `ON_THE_FIRST` and regime "masked" too, with `few_seeds`, and P8
    and P9."""
    profile, first = study.profile, study.refs[0]
    everywhere, there = ([m for m in methods if m in study.methods] for methods in (EVERYWHERE, ON_THE_FIRST))
    few = study.runs(*there, few=True) + study.runs(*profile.masked, regime="masked", few=True)
    todo = [run for run in study.runs(*everywhere) if run.seed in profile.seeds[: profile.family_seeds]]
    runs.ensure(todo + few, study.device, profile.jobs)
    on_first = [run for run in todo + few if run.data.clean == first]
    elsewhere = [run for run in todo if run.data != first]
    wanted = (on_first, grid(profile)), (elsewhere, grid(profile, everything=False))
    parts = [sweep(*pair, profile.masks, study.device, profile.jobs) for pair in wanted]
    rows = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return pd.concat([rows, constant_rows(rows, todo)], ignore_index=True)


def constant_rows(rows: pd.DataFrame, todo: Sequence[Run]) -> pd.DataFrame:
    """Scores of the constant trivial baseline, which reads no features, under each corruption of `rows`."""
    parts = []
    for ref in dict.fromkeys(run.data.clean for run in todo):
        data = cache.looked_at(ref)
        constant = trivial_baselines.rows(data, trivial_baselines.constants).query("method == 'constant'")
        cases = rows[(rows["dataset"] == data.card.name) & (rows["regime"] == "clean")][[*CORRUPTION, "mask"]]
        cases = cases.drop_duplicates().assign(regime="clean", seed=0, n_test=len(data.test))
        parts.append(cases.merge(constant, how="cross"))
    return pd.concat(parts, ignore_index=True).reindex(columns=rows.columns)


@cache.per_group("robustness")
def _computed(
    group: Sequence[Run], grid: tuple[Corruption, ...], masks: int, device: str, data: Dataset
) -> list[list[dict]]:
    models, rows = [runs.load_model(run, data.shape) for run in group], [[] for _ in group]
    for how, mask, each in measured(data, grid, masks, lambda split: scores(group, models, split, device)):
        unread = how.kind in ("noise", "shift") and "text" in how.modalities  # by a BERT, which reads token ids
        for run, scored, of_run in zip(group, each, rows, strict=True):
            if not (unread and run.model.reads_token_ids):
                of_run.append(row_start(run, how, mask, len(data.test)) | scored)
    return rows


def scores(group: Sequence[Run], models: Sequence[Model], split: Split, device: str) -> list[dict[str, float]]:
    """Metrics of each run's model on a split. The runs share their training protocol."""
    values = predict_together(models, split, group[0].training, device)
    tasks = [run.model.task for run in group]
    return [
        scores_of(t, v, split.labels_for(t), models[0].family, models[0].config.emotions)
        for t, v in zip(tasks, values, strict=True)
    ]


def measured(
    data: Dataset, grid: Sequence[Corruption], masks: int, measure: Callable[[Split], Any]
) -> Iterator[tuple[Corruption, int, Any]]:
    """`measure` of the test split in each of the `cases` that suit it; the clean split is measured once."""
    scale, clean = noise_scale(data.train) if any(how.kind == "noise" for how in grid) else {}, []
    for how, mask in cases([how for how in grid if suits(how, data.test)], masks):
        if how.changes_nothing:
            clean = clean or [measure(data.test)]
            yield how, mask, clean[0]
        else:
            yield how, mask, measure(corrupt(data.test, how, scale, mask))


def cases(grid: Sequence[Corruption], masks: int) -> list[tuple[Corruption, int]]:
    """Each corruption with each mask, or once where it is not random."""
    return [(how, mask) for how in grid for mask in range(masks if how.is_random else 1)]


def row_start(run: Run, how: Corruption, mask: int, n_test: int) -> dict:
    """regime, CORRUPTION, mask and n_test, as in `sweep`."""
    where = {"protocol": how.protocol, "kind": how.kind, "modality": how.where, "level": how.level}
    return {"regime": run.data.regime} | where | {"mask": mask, "n_test": n_test}


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds: METHOD, CORRUPTION, metric, mean, sd (ddof 1), n."""
    seeds = by_seed(rows).dropna(subset="value")
    values = seeds.groupby([*METHOD, *CORRUPTION, "metric"], sort=False, dropna=False)["value"]
    return values.agg(mean="mean", sd="std", n="count").reset_index()


def by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over masks in long form: METHOD, seed, CORRUPTION, metric, value; NaN where a mask's is undefined (Corr of
    a constant prediction). Metrics that a data set lacks have no rows."""
    names, keys = [m for m in metrics.LABELS if m in rows], [*METHOD, "seed", *CORRUPTION]
    means = rows.groupby(keys, sort=False, dropna=False)[names].mean(skipna=False).reset_index()
    long = means.melt(keys, names, "metric", "value")
    return long[long.groupby([*METHOD, "metric"], sort=False)["value"].transform(lambda v: v.notna().any())]


def area_under_curve(rows: pd.DataFrame, metric: str = "mae", kind: str = "noise") -> pd.DataFrame:
    """Normalised AUILC of one kind: METHOD, seed, modality, area, clean (without corruption), beyond (area - clean)."""
    seeds = by_seed(rows[rows["kind"] == kind])
    areas = _areas(seeds[seeds["metric"] == metric]).rename(columns={"auilc_normalised": "area"})
    return areas.assign(beyond=areas["area"] - areas["clean"])[[*METHOD, "seed", "modality", "area", "clean", "beyond"]]


def auilc(rows: pd.DataFrame, wanted: Sequence[str] = ("mae", "acc5", "f1_5class", "corr")) -> pd.DataFrame:
    """The area under each curve of a metric over levels, AUILC (Yuan et al. 2021): one row a method and curve.

    AUILC = sum over neighbouring levels of (x_i + x_{i+1}) / 2 (r_{i+1} - r_i), where r is the rate of missing frames
    (P1), share of a block or frames of a shift (P8), and for noise (P7) equal steps from 0 (clean) to 1 (noisiest).

    Columns: METHOD, CURVE, auilc (mean over seeds), auilc_normalised (over the range of r: in the metric's unit), low,
    high (its 95 % t interval), clean (without corruption), relative_drop ((auilc_normalised - clean) / |clean|: a loss
    is positive for MAE, negative for others), worst (of the means over levels), n. NaN where undefined at some level.
    """
    seeds = by_seed(rows)
    seeds = seeds[seeds["kind"].isin(CURVES) & seeds["metric"].isin(wanted)]
    areas, keys = _areas(seeds), [*METHOD, *CURVE]
    table = over_seeds(areas, keys, "auilc_normalised", skipna=False).rename(columns={"mean": "auilc_normalised"})
    means = areas.groupby(keys, sort=False)[["auilc", "clean"]].mean(skipna=False)
    levels = seeds.groupby([*keys, "level"], sort=False)["value"].mean().groupby(keys, sort=False)
    table = table.join(means.join(levels.agg(["min", "max"])), on=keys)
    table["relative_drop"] = (table["auilc_normalised"] - table["clean"]) / table["clean"].abs()
    table["worst"] = table["max"].where(table["metric"].isin(LOWER_IS_BETTER), table["min"])
    return table[[*keys, *"auilc auilc_normalised low high clean relative_drop worst n".split()]]


def _areas(seeds: pd.DataFrame) -> pd.DataFrame:
    """METHOD, seed, CURVE, auilc, auilc_normalised and clean of each curve in the rows of `by_seed`."""
    keys, areas = [*METHOD, "seed", *CURVE], []
    for key, curve in seeds.groupby(keys, sort=False):
        noise = curve["kind"].iloc[0] == "noise"
        level, value = curve.sort_values("level", ascending=not noise, kind="stable")[["level", "value"]].to_numpy().T
        x = np.linspace(0, 1, len(level)) if noise else level - level[0]
        area = np.trapezoid(value, x)
        areas.append((*key, area, area / x[-1] if x[-1] else value[0], value[0]))
    return pd.DataFrame(areas, columns=[*keys, "auilc", "auilc_normalised", "clean"])


def worst_case(rows: pd.DataFrame, metric: str = "mae") -> pd.DataFrame:
    """The worst corruption of each method: METHOD, metric, clean, worst (means over seeds), n, CORRUPTION."""
    table = summary(rows)
    table = table[table["metric"] == metric]
    means = table.groupby(METHOD, sort=False)["mean"]
    worst = table.loc[means.idxmax() if metric in LOWER_IS_BETTER else means.idxmin()].rename(columns={"mean": "worst"})
    clean = table[(table["kind"] == "missing_modalities") & (table["modality"] == "all")].set_index(METHOD)["mean"]
    worst = worst.join(clean.rename("clean"), on=METHOD).reset_index(drop=True)
    return worst[[*METHOD, "metric", "clean", "worst", "n", *CORRUPTION]]


def ranking_stability(areas: pd.DataFrame, draws: int = 1000, seed: int = 0, confidence: float = 0.95) -> pd.DataFrame:
    """Whether three or more trained methods rank by area (`area_under_curve`, less is better) as on clean data.

    Columns: dataset, source, regime, modality, tau (Kendall's, of mean clean values and areas), low, high (percentiles
    over bootstrap draws of seeds), best (least mean area), best_again (its share of draws), methods, n (seeds).
    """
    rng, keys, rows = np.random.default_rng(seed), ["dataset", "source", "regime", "modality"], []
    for key, cell in areas[areas["method"] != "constant"].groupby(keys, sort=False):
        wide = cell.pivot(index="seed", columns="method", values=["clean", "area"])
        wide = wide.dropna(axis=1, how="all").dropna()  # the seeds that all methods have
        clean, area = wide["clean"], wide["area"]
        seeds, methods = area.shape
        if methods >= 3 and seeds:
            picks = rng.integers(0, seeds, (draws, seeds))
            drawn = [values.to_numpy()[picks].mean(1) for values in (clean, area)]  # (draws, methods) each
            bounds = np.nanquantile(_kendall_tau(*drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
            best, tau = area.mean().idxmin(), _kendall_tau(clean.mean().to_numpy(), area.mean().to_numpy())
            again = np.mean(area.columns[drawn[1].argmin(1)] == best)
            rows.append((*key, tau, *bounds, best, again, methods, seeds))
    return pd.DataFrame(rows, columns=[*keys, "tau", "low", "high", "best", "best_again", "methods", "n"])


def _kendall_tau(x: Float[np.ndarray, "*R n"], y: Float[np.ndarray, "*R n"]) -> Float[np.ndarray, "*R"]:
    """Kendall's tau-b of each row, many rows at once; NaN where all of x or of y are equal."""
    (x, y), pairs = (np.sign(v[..., :, None] - v[..., None, :]) for v in (x, y)), (-2, -1)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(pairs) / np.sqrt((x * x).sum(pairs) * (y * y).sum(pairs))
