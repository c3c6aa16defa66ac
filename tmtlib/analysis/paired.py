"""Two methods compared utterance by utterance, from the predictions that finished runs left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tmtlib.data.schema import FAMILY_RANGE
from tmtlib.stats import metrics
from tmtlib.stats.statistics import hierarchical_bootstrap, mcnemar, permutation_p, probability_of_improvement
from tmtlib.study.runs import Record, Run, read_record


def by_utterance(todo: Sequence[Run], before: str = "tmt", after: str = "tmt_amw") -> pd.DataFrame:
    """`after` against `before` on the test utterances, one row a data set; only seeds that both have.

    Columns: dataset, source, n_seeds, n_utterances; mae_difference (after - before, label units) with low and high
    (95 % bootstrap over seeds and utterances at once); permutation_p (paired signs of the seeds' differences); gained
    and lost (utterances whose class of Acc-5 only `after`, or only `before`, has right: means over seeds);
    mcnemar_p_median (exact, of each seed; their median is a summary and no p itself); p_better with p_low and p_high
    (probability that a seed of `after` has a lower MAE than a seed of `before`, bootstrap). Raises FileNotFoundError
    for a run that was not trained.
    """
    grouped: dict[tuple, dict[str, dict[int, Run]]] = {}
    for run in todo:
        if run.method in (before, after):
            grouped.setdefault(run.data, {}).setdefault(run.method, {})[run.seed] = run
    rows = []
    for methods in grouped.values():
        seeds = sorted(set(methods.get(before, ())) & set(methods.get(after, ())))
        if seeds:
            pairs = [[read_record(methods[m][seed]) for seed in seeds] for m in (after, before)]
            rows.append(_compared(*pairs))
    return pd.DataFrame(rows)


def _compared(after: list[Record], before: list[Record]) -> dict:
    card, label = after[0].meta["card"], after[0].labels["test"]
    errors = [np.stack([_error(r, label, card["family"]) for r in records]) for records in (after, before)]
    right = [[_right(r, label, card["family"]) for r in records] for records in (after, before)]
    mean, low, high, n = hierarchical_bootstrap(*errors)
    mae = [x.mean(1) for x in errors]
    tests = [mcnemar(a, b) for a, b in zip(*right, strict=True)]
    better = probability_of_improvement(*mae, better=-1)
    return {
        "dataset": card["name"],
        "source": card["source"],
        "n_seeds": n,
        "n_utterances": len(label),
        "mae_difference": mean,
        "low": low,
        "high": high,
        "permutation_p": permutation_p(*mae),
        "gained": float(np.mean([t.gained for t in tests])),
        "lost": float(np.mean([t.lost for t in tests])),
        "mcnemar_p_median": float(np.median([t.p for t in tests])),
        "p_better": better.mean,
        "p_low": better.low,
        "p_high": better.high,
    }


def _error(record: Record, label: np.ndarray, family: str) -> np.ndarray:
    """(N,) absolute error as MAE has it: predictions of the family "sims" are clipped to the label range."""
    value = record.predictions["test"]
    return np.abs((np.clip(value, *FAMILY_RANGE[family]) if family == "sims" else value) - label)


def _right(record: Record, label: np.ndarray, family: str) -> np.ndarray:
    """(N,) whether each test utterance's predicted class of Acc-5 is its own."""
    return metrics.classes5(record.predictions["test"], family) == metrics.classes5(label, family)
