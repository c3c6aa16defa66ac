"""How many test labels the prediction intervals of finished runs hold (split conformal, from the validation errors)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tmtlib.data.schema import split_name
from tmtlib.stats.statistics import conformal_half_width, over_seeds
from tmtlib.study.records import Run, read_record, succeeded

LEVELS = (0.8, 0.9, 0.95)


def table(todo: Sequence[Run], levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """Share of the test labels within the intervals, and half an interval's width (label units), over seeds.

    Worlds of a recipe (synthetic data with other variances and utterances) count as one data set, "mosi-worlds".
    Columns: dataset, source, method, level, mean, low, high, n (of the share), n_valid, n_test, half_width (mean).
    """
    rows = []
    for run in succeeded(todo):
        record = read_record(run)
        errors = {s: np.abs(record.predictions[s] - record.labels[s]) for s in ("valid", "test")}
        card = record.meta["card"]
        name, world = split_name(card["name"])
        which = {"dataset": name if world is None else f"{name}-worlds", "source": card["source"]}
        which |= {"method": run.method, "seed": run.seed}
        for level in levels:
            half = conformal_half_width(errors["valid"], level)
            sizes = {f"n_{s}": len(error) for s, error in errors.items()}
            rows.append(which | {"level": level, "share": (errors["test"] <= half).mean(), "half_width": half} | sizes)
    frame, keys = pd.DataFrame(rows), ["dataset", "source", "method", "level"]
    rest = frame.groupby(keys, sort=False)[["n_valid", "n_test", "half_width"]].mean().reset_index()
    return over_seeds(frame, keys, "share").merge(rest, on=keys)
