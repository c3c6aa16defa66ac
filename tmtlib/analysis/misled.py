"""Where a weighting can help: synthetic worlds in which one modality misleads in 40 % of the utterances.

`WORLDS` are two recipes (`data/synthetic_recipes.toml`), each drawn several times. What can be gained is what TMT gains
when it is told which modality misleads and hides that modality's frames ("tmt_oracle"); a method's share is what it
gains of that. Where being told gains nothing for sure, a world is no test of a weighting.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import special
from scipy.stats import mannwhitneyu

from tmtlib.analysis import robustness
from tmtlib.analysis.trivial_baselines import against_constant
from tmtlib.data.loading import load, synthetic_ref
from tmtlib.data.schema import split_name
from tmtlib.paper.verdicts import gains, unlearned, withhold
from tmtlib.stats.statistics import interval_or_nan
from tmtlib.study import runs
from tmtlib.study.methods import method_config
from tmtlib.study.records import succeeded
from tmtlib.study.runs import Run, read_record
from tmtlib.study.study import Study

WORLDS = {"misled": "only disagreement tells", "misled_cued": "a frame tells, too"}
FIRST = 20  # the first draw that is reported: 0, 1, 10 and 11 were looked at while the weighting was made


def todo(study: Study, *methods: str) -> list[Run]:
    """Runs of methods (default: the profile's `draw_methods`) in every draw of both worlds, with the profile's first
    `few_seeds` seeds."""
    p = study.profile
    refs = [synthetic_ref(w, replace(p.draw_size, world=FIRST + k)) for w in WORLDS for k in range(p.draws)]
    pairs = [(ref, m) for ref in refs for m in methods or p.draw_methods]
    return [Run(r, m, method_config(m, p.model), p.training, s) for r, m in pairs for s in p.seeds[: p.few_seeds]]


def scores(finished: Sequence[Run]) -> pd.DataFrame:
    """One row a run: world, draw, method, seed, n_test; MAE over all test utterances (mae), those in which a modality
    misleads (mae_misled) and the others (mae_rest); of methods whose weights differ between utterances auc, the chance
    that a modality has more weight where it is reliable than where it misleads (mean over modalities), and least, the
    share of misled utterances in which the misleading modality has the least weight; and data hash, device, torch and
    commit."""
    rows = []
    for run in succeeded(finished):
        world, draw = split_name(load(run.data).card.name)
        record, reliable = read_record(run), load(run.data).truth.splits["test"].reliable
        error = np.abs(record.predictions["test"] - record.labels["test"])
        misled = ~reliable.all(1)
        row = {"world": world, "draw": draw, "method": run.method, "seed": run.seed, "n_test": len(error)}
        row |= {"mae": error.mean(), "mae_misled": error[misled].mean(), "mae_rest": error[~misled].mean()}
        row |= {"auc": np.nan, "least": np.nan}
        if (weights := record.test_weights) is not None and np.ptp(weights, axis=0).max() > 1e-6:
            row["auc"] = np.mean([_auc(w[r], w[~r]) for w, r in zip(weights.T, reliable.T, strict=True)])
            row["least"] = np.mean((weights.argmin(1) == (~reliable).argmax(1))[misled])
        meta = record.meta
        row |= {"data_sha256": meta["card"]["sha256"]} | {k: meta[k] for k in ("device", "torch", "commit")}
        rows.append(row)
    return pd.DataFrame(rows)


TABLES = ("misled_scores", "misled")
GATES = ("tmt", "tmt_reliability", "tmt_reliability_open")
ELSEWHERE = ("reliability_clean", "reliability_corrupted")


def tables(study: Study) -> dict[str, pd.DataFrame]:
    """`TABLES` of both worlds, whose missing runs are trained: `scores`, and what is `reached`."""
    runs.ensure(told := todo(study), study.device, study.profile.jobs)
    scored = scores(told)
    return dict(zip(TABLES, (scored, reached(scored)), strict=True))


def elsewhere(study: Study) -> dict[str, pd.DataFrame]:
    """The tables `ELSEWHERE`, where no modality misleads: gains of reliability weighting over TMT and over itself with
    open gates, and their summary under corruption on the first data set."""
    rows, unsure = study.ensure(*GATES), unlearned(against_constant(study.runs("tmt")))
    parts = [gains(rows, before=b, after=GATES[1]).assign(before=b, after=GATES[1]) for b in GATES[::2]]
    few, p = [run for run in study.runs(*GATES, few=True) if run.data == study.refs[0]], study.profile
    corrupted = robustness.sweep(few, robustness.grid(p), p.masks, study.device, p.jobs)
    clean = withhold(pd.concat(parts, ignore_index=True), unsure)
    return dict(zip(ELSEWHERE, (clean, robustness.summary(corrupted)), strict=True))


def _auc(higher: np.ndarray, lower: np.ndarray) -> float:
    return float(mannwhitneyu(higher, lower).statistic) / (len(higher) * len(lower)) if len(lower) else np.nan


def reached(scored: pd.DataFrame, before: str = "tmt", possible: str = "tmt_oracle") -> pd.DataFrame:
    """What each method gains over TMT and of what can be gained, from `scores`: one row a world and method.

    Columns: world, method, mae, mae_misled, mae_rest (means); gain (MAE of TMT - MAE), low, high (95 % t interval over
    draws of the data, seeds averaged first); share (gain / gain of "tmt_oracle"), share_low, share_high (Fieller's
    interval of the ratio over draws); auc, least (means); n (draws), seeds; test: whether the world is a test of a
    weighting, that is whether being told surely gains; reading: "reaches half" where surely more than half of it is
    gained, "gains" and "loses" where the interval excludes 0, else "cannot tell". The intervals are not adjusted for
    the number of methods.
    """
    rows = []
    for world, group in scored.groupby("world", sort=False):
        by_draw = group.groupby(["method", "draw"])["mae"].mean().unstack("draw")
        can = (by_draw.loc[before] - by_draw.loc[possible]).to_numpy()
        tests = bool(interval_or_nan(can).low > 0)
        for method, own in group.groupby("method", sort=False):
            gain = (by_draw.loc[before] - by_draw.loc[method]).to_numpy()
            there = ~np.isnan(gain)  # the draws that the method has
            gain, could = gain[there], can[there]
            mean, low, high, n = interval_or_nan(gain)
            row = {"world": world, "method": method} | own[["mae", "mae_misled", "mae_rest"]].mean().to_dict()
            row |= {"gain": mean, "low": low, "high": high, "share": mean / could.mean()}
            row["share_low"], row["share_high"] = ratio_interval(gain, could) if tests else (np.nan, np.nan)
            row |= own[["auc", "least"]].mean().to_dict() | {"n": n, "seeds": own["seed"].nunique(), "test": tests}
            half = interval_or_nan(gain - could / 2).low > 0
            words = [tests and half, low > 0, high < 0], ["reaches half", "gains", "loses"]
            row["reading"] = "" if method == before else str(np.select(*words, "cannot tell"))
            rows.append(row)
    return pd.DataFrame(rows)


def ratio_interval(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
    """95 % interval of mean(above) / mean(below) by Fieller (1954): the ratios s for which the t interval of
    above - s below holds 0. NaN for fewer than two pairs, and where it is not bounded (mean(below) may be 0)."""
    n = len(above)
    if n < 2:
        return np.nan, np.nan
    t2 = special.stdtrit(n - 1, 0.975) ** 2 / n
    (aa, ab), (_, bb) = np.array([above.mean(), below.mean()])[:, None] * [above.mean(), below.mean()] - t2 * np.cov(
        above, below
    )
    if bb <= 0:
        return np.nan, np.nan
    half = np.sqrt(max(0.0, ab**2 - aa * bb)) / bb
    return float(ab / bb - half), float(ab / bb + half)
