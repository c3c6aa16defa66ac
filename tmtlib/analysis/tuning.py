"""The same small grid of settings for every model, chosen on validation: whether TMT leads because it alone is tuned.

The grid is half of the 2^4 combinations of two learning rates, batch sizes, numbers of epochs and sizes, such that no
two settings always change together (resolution IV), and the study's own settings: nine trials for every model.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product

import pandas as pd

from tmtlib.analysis.trivial_baselines import against_linear
from tmtlib.data.loading import synthetic_ref
from tmtlib.data.schema import DataRef, SyntheticSize
from tmtlib.models.base import ModelConfig
from tmtlib.models.late_fusion import LateFusionConfig
from tmtlib.models.misa import MISAConfig
from tmtlib.models.mult import MulTConfig
from tmtlib.models.tmt import TMTConfig
from tmtlib.stats.statistics import over_seeds
from tmtlib.study import runs
from tmtlib.study.runs import Run

RATES, BATCHES, EPOCHS, SIZES = (5e-4, 2e-3), (16, 64), (8, 24), ("study", "other")  # low and high
WIDTHS = {  # fields that the other size doubles
    TMTConfig: ("width", "head_width", "encoder_hidden", "cross_hidden"),
    LateFusionConfig: ("widths", "fusion_width"),
}
SEEDS = 1  # of each trial
OVER_LINEAR = {"single_difference": "over_linear", "single_low": "over_linear_low", "single_high": "over_linear_high"}
OVER_LINEAR |= {"single_verdict": "verdict"}


@dataclass(frozen=True)
class Trial:
    """Settings to try; None: as the study has it. `size` "other": `other_size`."""

    learning_rate: float | None = None
    batch_size: int | None = None
    epochs: int | None = None  # more where the study's `least_steps` need more
    size: str = "study"

    def of(self, run: Run) -> Run:
        """The run with these settings. Raises ValueError where its model has no other size."""
        changes = {k: v for k, v in asdict(self).items() if k != "size" and v is not None}
        model = run.model if self.size == "study" else other_size(run.model, run.data.name)
        return replace(run, model=model, training=replace(run.training, **changes))


HALF = [(RATES[a], BATCHES[b], EPOCHS[c], SIZES[a ^ b ^ c]) for a, b, c in product((0, 1), repeat=3)]
TRIALS = (Trial(), *(Trial(*settings) for settings in HALF))


def other_size(config: ModelConfig, dataset: str) -> ModelConfig:
    """MulT and MISA: as published for the data set (for one without published settings: those of CMU-MOSI), layers
    included. TMT and late fusion, for which none are: twice as wide. Raises ValueError for other models."""
    if isinstance(config, (MulTConfig, MISAConfig)):
        kept = {field.name: getattr(config, field.name) for field in fields(ModelConfig)} | {"compat": config.compat}
        try:
            return type(config).published(dataset, **kept)
        except ValueError:
            return type(config).published("mosi", **kept)
    if type(config) not in WIDTHS:
        raise ValueError(f"{type(config).__name__} has no other size; wanted TMT, late fusion, MulT or MISA")
    values = {name: getattr(config, name) for name in WIDTHS[type(config)]}
    return replace(config, **{k: tuple(2 * x for x in v) if isinstance(v, tuple) else 2 * v for k, v in values.items()})


def trials(
    todo: Sequence[Run], grid: Sequence[Trial] = TRIALS, device: str = "auto", jobs: int | None = None
) -> pd.DataFrame:
    """Every trial of `grid` with the first `SEEDS` seeds (one: trials cost much) of each data set and method in `todo`.

    Columns: dataset, source, method, trial (its place in `grid`), learning_rate, batch_size, epochs (trained), size,
    parameters, valid_loss (the model's own, at each seed's selected epoch; mean over seeds), valid_mae (likewise), n
    (seeds), chosen (the least valid_mae of the method: the one measure that all models share). Nothing of test. NaN,
    and never chosen, where a seed's training failed.
    """
    first: dict[tuple, list[Run]] = {}
    for run in todo:
        first.setdefault((run.data, run.method), []).append(run)
    wanted = [(i, t, [t.of(run) for run in group[:SEEDS]]) for group in first.values() for i, t in enumerate(grid)]
    runs.ensure([run for *_, group in wanted for run in group], device, jobs)
    table = pd.DataFrame([_trial_row(i, t.size, group) for i, t, group in wanted])
    least = table.groupby(["dataset", "source", "method"])["valid_mae"].transform("min")
    return table.assign(chosen=table["valid_mae"] == least)


def _trial_row(number: int, size: str, todo: Sequence[Run]) -> dict:
    metas = [runs.read_record(run).meta for run in todo]
    card, training = metas[0]["card"], todo[0].training
    row = {"dataset": card["name"], "source": card["source"], "method": todo[0].method, "trial": number}
    row |= {"learning_rate": training.learning_rate, "batch_size": training.batch_size}
    row |= {"epochs": len(metas[0]["history"]), "size": size, "parameters": metas[0]["parameters"]}
    selected = [meta["history"][meta["best_epoch"] - 1] for meta in metas if "failed" not in meta]
    means = pd.DataFrame(selected if len(selected) == len(metas) else [], columns=["valid_loss", "valid_mae"]).mean()
    return row | means.to_dict() | {"n": len(metas)}


def chosen_runs(todo: Sequence[Run], table: pd.DataFrame, grid: Sequence[Trial] = TRIALS) -> list[Run]:
    """Each run with the settings that `trials` chose for its method: `table` and `grid` are of `trials`."""
    rows = table[table["chosen"]].set_index(["dataset", "method"])["trial"]
    return [grid[rows[run.data.name, run.method]].of(run) for run in todo]


def tuned(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """`chosen_runs` trained and tested, with all their seeds.

    Columns: dataset, source, method, metric ("mae", "acc5"), mean, low, high, n, against (the mean of tmt), difference,
    difference_low, difference_high, pairs (as `over_seeds`), and for MAE what `against_linear` says of the single
    models: linear, linear_mae, over_linear, over_linear_low, over_linear_high, verdict.
    """
    keys = ["dataset", "source", "method"]
    rows = runs.ensure(todo, device, jobs).melt([*keys, "seed"], ["mae", "acc5"], "metric")
    table = over_seeds(rows, [*keys, "metric"], "value", against={"method": "tmt"})
    linear = against_linear(todo)[[*keys, "linear", "linear_mae", *OVER_LINEAR]].rename(columns=OVER_LINEAR)
    return table.merge(linear.assign(metric="mae"), on=[*keys, "metric"], how="left")


def without_distractors(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """`against_linear` of runs on synthetic data, and of the same settings on the same utterances with one frame a
    modality: the salient one wherever the modality is reliable, so that nothing is lost by a mean over frames.

    Columns as there, after the first three also frames ("all", "salient"). Raises ValueError for real data.
    """
    groups = {"all": list(todo), "salient": [replace(run, data=one_frame(run.data)) for run in todo]}
    runs.ensure([run for group in groups.values() for run in group], device, jobs)
    parts = [against_linear(group).assign(frames=frames) for frames, group in groups.items()]
    table = pd.concat(parts, ignore_index=True)
    return table[["dataset", "source", "method", "frames", *table.columns[3:-1]]]


def one_frame(ref: DataRef) -> DataRef:
    """Synthetic data with one frame a modality, labels and reliability unchanged. Raises ValueError for real data."""
    if ref.source != "synthetic":
        raise ValueError(f"{ref.name} is real; wanted synthetic data, of which the salient frames are known")
    size = replace(ref.synthetic or SyntheticSize(), frames=(1, 1, 1))
    return synthetic_ref(ref.name, size, ref.normalize)
