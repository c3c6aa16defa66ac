"""Results of runs and measures of importance against ground truth: explained variance, true importance over many
synthetic worlds, and the modality that "carried" an utterance by its unimodal labels (CH-SIMS).

The carrier is the modality whose unimodal label goes farthest to the side of the utterance's label (this study's
definition). Utterances labelled 0, those where no modality goes to that side and ties are left out. In synthetic data
true importance names the carrier in about nine of ten utterances.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from scipy import stats

from tmtlib.analysis.importance import (
    KEYS,
    Measure,
    importance_table,
    removal_measures,
    removal_values,
    shares,
    true_shares,
    weight_values,
)
from tmtlib.common import MODALITIES, one_thread
from tmtlib.data.loading import load, synthetic_ref
from tmtlib.data.schema import DataError, Dataset, Split
from tmtlib.models.base import Model
from tmtlib.paper.verdicts import RULES
from tmtlib.stats.statistics import hierarchical_bootstrap
from tmtlib.study import cache, runs
from tmtlib.study.methods import method_config
from tmtlib.study.records import Run, read_record, succeeded
from tmtlib.study.runs import load_model
from tmtlib.study.study import Study

TIE = 1e-3  # unimodal labels as near as this are equal: official files round them to three digits
Points = Float[np.ndarray, "*R W M"]  # shares of W worlds and M modalities; R resamples
POINTS = (-2, -1)  # axes


def explained_variance(prediction: np.ndarray, label: np.ndarray) -> float:
    """R^2 = 1 - sum of squared errors / sum of squares about the mean; at most 1."""
    return float(1 - np.mean((prediction - label) ** 2) / np.var(label))


def explained_share(todo: Sequence[Run]) -> pd.DataFrame:
    """Test R^2 of finished runs, of the best prediction (least expected absolute error), and their ratio: dataset,
    source, method, seed, r2, oracle_r2, share; no rows for real data."""
    rows = []
    for run in succeeded(todo):
        data = load(run.data)
        if data.truth is not None:
            values = read_record(run).predictions["test"], data.truth.splits["test"].best_value
            model, oracle = (explained_variance(value, data.test.labels) for value in values)
            rows.append((data.card.name, data.card.source, run.method, run.seed, model, oracle, model / oracle))
    return pd.DataFrame(rows, columns=["dataset", "source", "method", "seed", "r2", "oracle_r2", "share"])


def true_importance(todo: Sequence[Run]) -> pd.DataFrame:
    """The true importance of each modality as shares that sum to one: columns dataset, source, modality, truth."""
    rows = [
        (data.card.name, data.card.source, m, share)
        for data in map(load, dict.fromkeys(run.data for run in todo))  # one at a time in memory
        if data.truth is not None
        for m, share in zip(MODALITIES, true_shares(data), strict=True)
    ]
    return pd.DataFrame(rows, columns=["dataset", "source", "modality", "truth"])


def oracle_importance(todo: Sequence[Run]) -> pd.DataFrame:
    """The ground truth measured as models are, by mean |importance| over test utterances: the agreement that a measure
    of sizes can reach. Rows for `worlds_agreement`, to stand below those of `importance_table`: dataset, source, method
    ("oracle"), measure ("truth"), modality, mean (a share), truth (the true share); none for real data."""
    rows = [
        (data.card.name, data.card.source, "oracle", "truth", *row)
        for data in map(load, dict.fromkeys(run.data for run in todo))
        if data.truth is not None
        for size in [np.abs(data.truth.splits["test"].importance).mean(0)]
        for row in zip(MODALITIES, shares(size), true_shares(data), strict=True)
    ]
    return pd.DataFrame(rows, columns=[*KEYS, "mean", "truth"])


def runs_in_worlds(study: Study, *methods: str, worlds: Iterable[int] | None = None) -> list[Run]:
    """One run a method and synthetic world of CMU-MOSI (numbers; default: 0, 1, ..., as many as the profile says), with
    the study's model, training and first seed."""
    p = study.profile
    refs = [synthetic_ref("mosi", replace(p.world_size, world=w)) for w in worlds or range(p.worlds)]
    return [Run(ref, m, method_config(m, p.model), p.training, p.seeds[0]) for m in methods for ref in refs]


WORLDS = ("importance_in_worlds", "worlds_agreement", "readable")


def in_worlds(study: Study) -> dict[str, pd.DataFrame]:
    """The tables `WORLDS`: each measure of importance in every world, its agreement with the truth over worlds, and
    what it may be read as. Missing runs are trained."""
    todo = runs_in_worlds(study, *study.profile.world_methods)
    runs.ensure(todo, study.device, study.profile.jobs)
    measured = importance_table(todo, study.device, study.profile.jobs)
    agreement = worlds_agreement(pd.concat([measured, oracle_importance(todo)], ignore_index=True))
    return dict(zip(WORLDS, (measured, agreement, readable(agreement)), strict=True))


def worlds_agreement(importances: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How well each measure of importance agrees with the ground truth, over worlds and modalities.

    importances: `importance_table` of runs in several worlds, and `oracle_importance` of them. Columns: source
    ("synthetic"), method, measure, statistic, value, low, high (95 % percentile bootstrap over worlds), chance and n
    (worlds; below 30 the intervals are too narrow). Statistics of shares:

    spearman, pearson  correlation with the true share over all worlds and modalities; chance 0
    slope              of the share on the true share, least squares; 0 for a constant, 1 for shares of variance as true
                       ones are; about .67 for the oracle's mean |value|, which goes as a standard deviation
    top                share of worlds whose most important modality the measure names; chance: naming always the one
                       that is most often on top

    Correlations of a measure that never varies are NaN. Raises ValueError for a table without a truth.
    """
    with_truth, keys, rows = importances.dropna(subset="truth"), ["source", "method", "measure"], []
    if with_truth.empty:
        n = importances["dataset"].nunique()
        raise ValueError(f"none of {n} data sets has a ground truth; wanted synthetic worlds")
    for names, group in with_truth.groupby(keys, sort=False):
        wide = group.pivot(index=["dataset", "source"], columns="modality")
        share, truth = (wide[column][list(MODALITIES)].to_numpy() for column in ("mean", "truth"))
        top_chance = np.bincount(truth.argmax(1)).max() / len(truth)
        for name, statistic in STATISTICS.items():
            interval = _over_worlds(statistic, share, truth, resamples, seed)
            rows.append((*names, name, *interval, top_chance if name == "top" else 0.0, len(truth)))
    return pd.DataFrame(rows, columns=[*keys, "statistic", "value", "low", "high", "chance", "n"])


def _over_worlds(statistic: Callable, share: Points, truth: Points, resamples: int, seed: int) -> tuple[float, ...]:
    """A statistic and its 95 % percentile interval over whole worlds drawn with replacement; NaN for one world. Draws
    without a value are left out."""
    n = len(truth)
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(share, truth))
        if n == 1 or np.isnan(value):
            return value, np.nan, np.nan
        return value, *np.nanquantile(statistic(share[drawn], truth[drawn]), [0.025, 0.975])


def _covariance(x: Points, y: Points) -> Float[np.ndarray, "*R"]:
    return ((x - x.mean(POINTS, keepdims=True)) * (y - y.mean(POINTS, keepdims=True))).mean(POINTS)


def pearson(share: Points, truth: Points) -> Float[np.ndarray, "*R"]:
    """Correlation over all worlds and modalities; NaN where the share never varies, beyond rounding."""
    variance = np.where(np.ptp(share, axis=POINTS) < 1e-9, np.nan, _covariance(share, share))
    return _covariance(share, truth) / np.sqrt(variance * _covariance(truth, truth))


def spearman(share: Points, truth: Points) -> Float[np.ndarray, "*R"]:
    """Rank correlation over all worlds and modalities, ties by mean ranks; shares equal to nine digits are ties."""
    flat = (np.round(x, 9).reshape(*x.shape[:-2], -1) for x in (share, truth))
    return pearson(*(stats.rankdata(x, axis=-1)[..., None] for x in flat))


def slope(share: Points, truth: Points) -> Float[np.ndarray, "*R"]:
    """Of the regression line of share on true share."""
    return _covariance(share, truth) / _covariance(truth, truth)


def top(share: Points, truth: Points) -> Float[np.ndarray, "*R"]:
    """Share of worlds whose greatest share is that of the truly most important modality; k that tie count 1/k each."""
    return names_it(share, truth.argmax(-1), 1e-9).mean(-1)


STATISTICS = {"spearman": spearman, "pearson": pearson, "slope": slope, "top": top}


def names_it(sizes: Float[np.ndarray, "*R M"], wanted: Int64[np.ndarray, "*R"], tie: float) -> Float[np.ndarray, "*R"]:
    """Whether the largest of each row's sizes is the wanted one's; of k that are equally large, to `tie`, 1/k."""
    largest = sizes >= sizes.max(-1, keepdims=True) - tie
    return np.take_along_axis(largest, wanted[..., None], -1)[..., 0] / largest.sum(-1)


def readable(agreement: pd.DataFrame, least: float = 0.25) -> pd.DataFrame:
    """What each measure may be read as, from `worlds_agreement`: one row a method and measure.

    Columns: method, measure, spearman, slope and top (values), chance (of top), n (worlds) and readable: "size" where
    the intervals of the rank correlation and of the slope lie above 0 and `least`; "order" where the first does; "not"
    else, and where either is undefined; rules (`verdicts.RULES`).
    """
    wide = agreement.pivot(index=["method", "measure"], columns="statistic", values=["value", "low", "chance", "n"])
    rows = wide["value"][["spearman", "slope", "top"]]
    rows = rows.assign(chance=wide["chance", "top"], n=wide["n", "top"].astype(int))
    follows = wide["low", "spearman"] > 0
    rows["readable"] = np.select([follows & (wide["low", "slope"] > least), follows], ["size", "order"], "not")
    return rows.reset_index().rename_axis(columns=None).assign(rules=RULES)


def carriers(split: Split) -> Int64[np.ndarray, " N"]:
    """The index in MODALITIES of the one whose unimodal label goes farthest to the side of the label; -1 for none.
    Raises DataError for a split without unimodal labels of all modalities."""
    lacking = [m for m in MODALITIES if m not in split.unimodal_labels]
    if lacking:
        raise DataError(f"no unimodal labels of {', '.join(lacking)}; wanted a label a modality, as CH-SIMS has them")
    push = _to_the_side_of(split, np.stack([split.unimodal_labels[m] for m in MODALITIES]))
    _, second, first = np.sort(push, axis=0)
    return np.where((first > TIE) & (first - second > TIE), push.argmax(0), -1)


def _to_the_side_of(split: Split, values: Measure) -> Measure:
    """Values that are positive where they have the sign of the label; 0 where the label is 0."""
    return np.sign(np.where(np.abs(split.labels) > TIE, split.labels, 0)) * values


def has_carriers(data: Dataset) -> bool:
    """Whether train and test have labels of all modalities, and some test utterance has a carrier."""
    labelled = all(set(MODALITIES) <= set(split.unimodal_labels) for split in (data.train, data.test))
    return labelled and bool((carriers(data.test) >= 0).any())


def unimodal_agreement(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """Share of test utterances in which a measure names the modality that carried them, by finished runs.

    Columns: dataset, source, method, measure; agreement with its 95 % interval (low, high); chance (always naming the
    modality that carried most training utterances); above (agreement - chance) with above_low and above_high; third
    (naming at random, 1/3); n (utterances with a carrier) and seeds. Intervals are of `hierarchical_bootstrap`.
    Measures: `removal_measures` and `weight_values`, by utterance; in synthetic data also "truth", the utterance's true
    importance. Raises DataError for data without unimodal labels or carriers.
    """
    hits = cache.map_runs(_hits, [(run,) for run in todo], device, jobs, "unimodal labels")
    keys, rows = ["dataset", "source", "method", "measure"], []
    for key, group in hits.groupby(keys, sort=False):
        named, always = np.array(group["named"].tolist()), np.array(group["always"].tolist())
        agreement, above = (hierarchical_bootstrap(named, before)[:3] for before in (np.zeros_like(named), always))
        rows.append((*key, *agreement, always.mean(), *above, 1 / len(MODALITIES), named.shape[1], len(named)))
    numbers = "agreement low high chance above above_low above_high third n seeds"
    return pd.DataFrame(rows, columns=[*keys, *numbers.split()])


@cache.per_run("unimodal")
def _hits(run: Run, device: str, data: Dataset) -> list[dict]:
    """A row a measure: whether it names each utterance's carrier, and whether the commonest one of training does."""
    carrier, in_training = carriers(data.test), carriers(data.train)
    commonest = np.bincount(in_training[in_training >= 0], minlength=len(MODALITIES)).argmax()
    clear = carrier >= 0
    if not clear.any():
        raise DataError(f"in none of {len(carrier)} test utterances of {data.card.name} one modality goes farthest")
    with one_thread(device):
        measures = _signed_measures(run, load_model(run, data.shape), data, device)
    always = (carrier[clear] == commonest).astype(float).tolist()
    named = {k: names_it(x.T[clear], carrier[clear], 1e-7).tolist() for k, x in measures.items()}
    return [{"measure": k, "named": hits, "always": always} for k, hits in named.items()]


def _signed_measures(run: Run, model: Model, data: Dataset, device: str) -> dict[str, Measure]:
    """Importance by test utterance, by measure, see `unimodal_agreement`; of predictions to the side of the label."""
    measures = removal_measures(removal_values(run, model, data, device))
    if data.truth is not None:
        measures["truth"] = data.truth.splits["test"].importance.T
    weights = {k: np.nan_to_num(x) for k, x in weight_values(model, data.test, device).items()}  # absent: never named
    return {k: _to_the_side_of(data.test, x) for k, x in measures.items()} | weights
