"""Two methods compared utterance by utterance, from the predictions that finished runs left."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tmtlib.data.schema import FAMILY_RANGE
from tmtlib.paper.verdicts import gains, unlearned, withhold
from tmtlib.stats.metrics import classes5
from tmtlib.stats.statistics import hierarchical_bootstrap, mcnemar, permutation_p, probability_of_improvement
from tmtlib.study.records import Run, read_record, succeeded

CONTROLS = ("tmt", "tmt_uniform", "tmt_random")  # what TMT+AMW is compared with


def by_utterance(todo: Sequence[Run], before: str = "tmt", after: str = "tmt_amw") -> pd.DataFrame:
    """`after` against `before` on the test utterances, one row a data set; only seeds that both have
    and in which neither's training failed (a warning says how many did).

    Columns: dataset, source, n_seeds, n_utterances; mae_difference (after - before, label units) with low and high
    (95 % bootstrap over seeds and utterances at once), and acc5_difference with acc5_low and acc5_high; permutation_p
    (paired signs of the seeds' differences in MAE; NaN for one seed); gained and lost (utterances whose class of Acc-5
    only `after`, or only `before`, has right: means over seeds); mcnemar_p_median (exact, of each seed; their median is
    a summary and no p itself); p_better with p_low and p_high (probability that a seed of `after` has a lower MAE than
    a seed of `before`, bootstrap). Raises FileNotFoundError for an untrained run.
    """
    rows, todo = [], succeeded(todo)
    for data in dict.fromkeys(run.data for run in todo):
        methods = [{r.seed: r for r in todo if (r.data, r.method) == (data, method)} for method in (after, before)]
        if seeds := sorted(methods[0].keys() & methods[1].keys()):
            rows.append(_compared(*([by_seed[seed] for seed in seeds] for by_seed in methods)))
    return pd.DataFrame(rows)


def against_controls(todo: Sequence[Run]) -> pd.DataFrame:
    """`by_utterance` of TMT+AMW against each of `CONTROLS`, which the column before names."""
    parts = {control: by_utterance(todo, before=control) for control in CONTROLS}
    return pd.concat(parts, names=["before"]).reset_index("before")


def differences(rows: pd.DataFrame, table: pd.DataFrame, constant: pd.DataFrame) -> pd.DataFrame:
    """`verdicts.gains` of TMT+AMW over each of `CONTROLS` in the rows of runs, with the intervals over utterances of
    `against_controls` (table); withheld where TMT does not surely beat the training median (`against_constant`)."""
    over = {before: sampled(part) for before, part in table.groupby("before")}
    parts = [gains(rows, before=b, sampled=over.get(b)).assign(before=b, after="tmt_amw") for b in CONTROLS]
    return withhold(pd.concat(parts, ignore_index=True), unlearned(constant))


def sampled(table: pd.DataFrame) -> pd.DataFrame:
    """The intervals over seeds and utterances of `by_utterance` in long form, for `verdicts.gains`: its columns but for
    metric ("mae", "acc5"), low and high."""
    bounds = {"mae": ("low", "high"), "acc5": ("acc5_low", "acc5_high")}
    parts = [table.assign(metric=m, low=table[low], high=table[high]) for m, (low, high) in bounds.items()]
    return pd.concat(parts, ignore_index=True)


def _compared(after: list[Run], before: list[Run]) -> dict:
    """The row of one data set, from the runs of two methods on the same seeds."""
    records = [[read_record(run) for run in method] for method in (after, before)]
    card, label = records[0][0].meta["card"], records[0][0].labels["test"]
    values = [np.stack([record.predictions["test"] for record in method]) for method in records]  # (S, N) each
    right = [[classes5(x, card["family"]) == classes5(label, card["family"]) for x in method] for method in values]
    if card["family"] == "sims":  # as in its MAE
        values = [np.clip(x, *FAMILY_RANGE["sims"]) for x in values]
    errors = [np.abs(x - label) for x in values]
    mae = [x.mean(1) for x in errors]
    difference, better = hierarchical_bootstrap(*errors), probability_of_improvement(*mae, better=-1)
    tests = pd.DataFrame([mcnemar(*pair) for pair in zip(*right, strict=True)])
    row = {"dataset": card["name"], "source": card["source"], "n_seeds": difference.n, "n_utterances": len(label)}
    row |= {"mae_difference": difference.mean, "low": difference.low, "high": difference.high}
    in_acc5 = hierarchical_bootstrap(*(np.array(x, float) for x in right))
    row |= {"acc5_difference": in_acc5.mean, "acc5_low": in_acc5.low, "acc5_high": in_acc5.high}
    row |= {"permutation_p": permutation_p(*mae) if difference.n > 1 else np.nan}
    row |= {"gained": tests["gained"].mean(), "lost": tests["lost"].mean(), "mcnemar_p_median": tests["p"].median()}
    return row | {"p_better": better.mean, "p_low": better.low, "p_high": better.high}
