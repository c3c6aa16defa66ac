"""The swap test: what the learned weights contribute to trained models, whose every other parameter stays.

Two predictions of one model do not hold the noise of training, as two trainings do. So the test says what the learned
values do; whether learning them changed the other parameters is for the trained control with uniform weights.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tmtlib.analysis.adaptation import weighted
from tmtlib.common import MODALITIES
from tmtlib.data.loading import load
from tmtlib.data.schema import FAMILY_RANGE, Dataset
from tmtlib.models.amw import AMW
from tmtlib.models.base import Model
from tmtlib.paper.facts import BETTER
from tmtlib.paper.verdicts import (
    OUR_METRICS,
    RULES,
    interval_verdict,
    margin,
    practical_margin,
    unlearned,
    with_power,
    withhold,
)
from tmtlib.stats.metrics import classes5, evaluate
from tmtlib.stats.statistics import adjusted_p, hierarchical_bootstrap, over_seeds, paired_p, t_tests
from tmtlib.study import cache
from tmtlib.study.runs import Run, load_model, read_record
from tmtlib.training.fit import predict

KEYS = ["dataset", "source", "method", "regime", "replaced_by", "metric"]
NAMES = {"mean": "learned", "against": "replaced", "difference_low": "low", "difference_high": "high"}
PAPER_METRICS = {column: name for name, column in OUR_METRICS.items()}
LEAST_SHARE = 1e-12  # in place of 0: weights stay defined where nothing else is present


def with_weights(model: Model, shares: Float[Tensor, " M #d"]) -> Model:
    """A copy of a model whose A is in proportion to `shares` in every utterance, masked as the model's own. Raises
    ValueError for a model without weights."""
    if model.config.weighting == "none":
        raise ValueError("the model has no weights; wanted one with a weighting, such as TMT+AMW")
    fixed = AMW(replace(model.config, weighting_init_std=0.0)).to(next(model.parameters()))
    fixed.W.data[:] = fixed.temperature * shares.clamp(min=LEAST_SHARE).log()
    copied = deepcopy(model).eval()
    copied.weighting = fixed
    return copied


def by_seed(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """Test metrics of finished runs as they are and with their weights replaced: a row a run, replacement and metric.
    None for models without weights and for emotions. Raises FileNotFoundError for an untrained run.

    Columns: dataset, source, method, seed, regime, replaced_by ("uniform": 1/M; of input-dependent weights also "mean",
    theirs over validation at the tested epoch), metric (acc5, f1_5class, mae), learned, replaced, difference (learned -
    replaced), utterances, and by_utterance (differences (N,) to six digits; empty for F1, which is no mean over them).
    """
    tasks = [(run,) for run in weighted(todo) if run.model.task != "emotions"]
    return cache.map_runs(_swapped, tasks, device, jobs, "swap test", load)


@cache.per_run("swap")
def _swapped(run: Run, device: str, data: Dataset) -> list[dict]:
    model, record, rows = load_model(run, data.shape), read_record(run), []
    shares = {"uniform": torch.ones(len(MODALITIES), 1)}
    with torch.no_grad():  # two utterances have one row of weights unless these depend on the input
        if len(model.weighting(torch.zeros(2, len(MODALITIES), 1, model.config.width))) > 1:
            shares["mean"] = torch.from_numpy(record.weights[record.meta["best_epoch"]])
    learned = _scored(predict(model, data.test, run.training, device), data)
    for name, share in shares.items():
        replaced = _scored(predict(with_weights(model, share), data.test, run.training, device), data)
        for metric in PAPER_METRICS:
            (after, each), (before, each_before) = learned[metric], replaced[metric]
            row = {"regime": run.data.regime, "replaced_by": name, "metric": metric, "learned": after}
            row |= {"replaced": before, "difference": after - before, "utterances": len(data.test)}
            rows.append(row | {"by_utterance": np.round(each - each_before, 6).tolist()})
    return rows


def _scored(values: Float[np.ndarray, " N"], data: Dataset) -> dict[str, tuple[float, np.ndarray]]:
    """Each metric on test, and its terms by utterance (N,); none of F1."""
    labels, family = data.test.labels, data.card.family
    scores = evaluate(values, labels, family)
    if family == "sims":  # as in its MAE
        values = np.clip(values, *FAMILY_RANGE["sims"])
    terms = {"acc5": classes5(values, family) == classes5(labels, family), "mae": np.abs(values - labels)}
    return {metric: (scores[metric], 1.0 * terms.get(metric, np.empty(0))) for metric in PAPER_METRICS}


def table(todo: Sequence[Run], constant: pd.DataFrame, device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """`summary` of `by_seed` with its power, withheld where TMT has not learned (constant: `against_constant`)."""
    return with_power(withhold(summary(by_seed(todo, device, jobs)), unlearned(constant)))


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """What learned weights gain over those that replace them, from `by_seed`: one row for each of `KEYS`.

    Columns: `KEYS`, learned and replaced (means over seeds), difference (learned - replaced), low and high (95 % t
    interval over seeds), crossed_low and crossed_high (95 % bootstrap over seeds and utterances at once; NaN for F1), n
    (seeds), utterances, p (paired t test), p_adjusted (Benjamini-Hochberg over a method's data sets and metrics),
    margin and practical (`verdicts.margin`, `practical_margin`), p_below (twice the one-sided p of the t test against a
    gain of margin, adjusted likewise), verdict (of "better", by the outermost bounds of both intervals) and rules.
    """
    table = over_seeds(rows, KEYS, "learned", "replaced", skipna=False).drop(columns=["low", "high", "pairs"])
    table, groups = table.rename(columns=NAMES), [group for _, group in rows.groupby(KEYS, sort=False)]
    table[["crossed_low", "crossed_high"]] = [_crossed(group["by_utterance"]) for group in groups]
    table["utterances"] = [group["utterances"].iloc[0] for group in groups]
    table["p"] = [paired_p(group["learned"], group["replaced"]) for group in groups]
    table["p_adjusted"] = table.groupby(KEYS[2:5])["p"].transform(adjusted_p)
    table["margin"] = [margin(c.dataset, PAPER_METRICS[c.metric]) for c in table.itertuples()]
    table["practical"] = [practical_margin(c.dataset, PAPER_METRICS[c.metric]) for c in table.itertuples()]
    better = {column: BETTER[name] for column, name in PAPER_METRICS.items()}
    error = [group["difference"].std() / len(group) ** 0.5 for group in groups]
    gain = table["metric"].map(better) * table["difference"] - table["margin"]
    table["p_below"] = np.where(gain >= 0, 1, t_tests(gain, error, table["n"] - 1).p)
    table["p_below"] = table.groupby(KEYS[2:5])["p_below"].transform(adjusted_p)
    known = table["low"].notna()  # one seed has no interval over seeds, and no verdict
    low, high = (table[[end, f"crossed_{end}"]] for end in ("low", "high"))
    bounds = table.assign(low=low.min(axis=1).where(known), high=high.max(axis=1).where(known)).itertuples()
    verdicts = [
        interval_verdict(c.low, c.high, better[c.metric], c.p_adjusted, c.margin, c.practical, c.p_below)
        for c in bounds
    ]
    return table.assign(verdict=verdicts, rules=RULES)


def _crossed(by_utterance: pd.Series) -> tuple[float, float]:
    changes = np.array(by_utterance.tolist())
    return hierarchical_bootstrap(changes, np.zeros_like(changes))[1:3] if changes.size else (np.nan, np.nan)
