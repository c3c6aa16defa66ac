"""Entropy of attention maps by block, with and without weights.

The paper: "AMW leads to sharper and more focused attention distributions across modalities, facilitating better
alignment and interaction between modality-specific and modality-shared tokens in the subsequent mutual transformer
layers". `verdicts.sharpness_verdict` judges that transformer's two halves.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tmtlib.common import MODALITIES, one_thread
from tmtlib.data.schema import Dataset
from tmtlib.models.tmt import TMT, TMTConfig
from tmtlib.paper.verdicts import LEAST, RULES, interval_verdict, with_power
from tmtlib.stats.statistics import over_seeds
from tmtlib.study import cache, runs
from tmtlib.study.runs import Run
from tmtlib.training.batches import passes

BLOCKS = ("encoder", "specific_from_shared", "shared_from_specific")
SIZE = 32  # utterances at a time, for memory
CELL = ["dataset", "source", "regime", "block"]
COLUMNS = "dataset source method regime block entropy difference low high n verdict rules".split()


def compared(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """`table` beside TMT, with the power of each comparison (`verdicts.with_power`)."""
    return with_power(table(todo, device=device, jobs=jobs))


def table(todo: Sequence[Run], before: str = "tmt", device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """Mean normalised entropy of attention of TMT's runs on test utterances, and its paired difference to `before`.

    `COLUMNS`: block (one of `BLOCKS`; in "specific_from_shared" specific tokens query shared ones), entropy (mean over
    layers, heads, queries, utterances and seeds), difference (to `before` with the same seeds, none for itself;
    negative is sharper), low, high (its 95 % t interval), verdict on "sharper" (not by `LEAST`: not supported),
    rules (`verdicts.RULES`).
    """
    tasks = [(run,) for run in todo if isinstance(run.model, TMTConfig)]
    rows = cache.map_runs(_computed, tasks, device, jobs, "attention entropy")
    means = over_seeds(rows, [*CELL, "method"], "entropy", against={"method": before}).drop(columns=["low", "high"])
    means = means.rename(columns={"mean": "entropy", "difference_low": "low", "difference_high": "high"})
    compared = (means["method"] != before) & (means["pairs"] > 0)
    means["n"] = means["pairs"].where(compared, means["n"])
    interval = means[["difference", "low", "high"]].where(compared)
    judged = [interval_verdict(low, high, -1, least=LEAST) for _, low, high in interval.to_numpy()]
    means = means.assign(**interval, verdict=np.where(compared, judged, ""))
    in_cells = means.groupby(CELL, sort=False).ngroup().argsort(kind="stable")  # block by block, not method by method
    return means.assign(rules=RULES).iloc[in_cells][COLUMNS].reset_index(drop=True)


@cache.per_run("attention entropy")
def _computed(run: Run, device: str, data: Dataset) -> list[dict]:
    with one_thread(device):
        entropy_of = entropies(runs.load_model(run, data.shape), data, device)
    return [{"regime": run.data.regime, "block": block, "entropy": value} for block, value in entropy_of.items()]


@torch.no_grad()
def entropies(model: TMT, data: Dataset, device: str = "auto") -> dict[str, float]:
    """Mean normalised entropy by block on the test split."""
    sums = {block: np.zeros(2) for block in BLOCKS}  # entropy, number of rows
    for _, batch in passes(model, data.test, SIZE, device):
        maps = model(batch, attention=True)[1].attention
        valid = torch.cat([batch.valid(m) for m in MODALITIES], dim=1)
        tokens = valid.new_ones(len(valid), maps["encoder.0"].shape[-1] - valid.shape[1])
        valid = torch.cat([tokens, valid], dim=1)  # of the encoder: the tokens, then frames
        for name, map_ in maps.items():
            block, (_, _, queries, keys) = name.split(".")[0], map_.shape
            there = valid if block == "encoder" else valid.new_ones(len(valid), max(queries, keys))
            entropy = normalised_entropy(map_.float(), there[:, :keys]).mean(1)[there[:, :queries]]
            sums[block] += entropy.double().sum().item(), entropy.numel()  # padded queries are left out
    return {block: float(total / count) for block, (total, count) in sums.items()}


def normalised_entropy(map_: Float[Tensor, "B h Q K"], keys: Bool[Tensor, "B K"]) -> Float[Tensor, "B h Q"]:
    """H / log K of each row over its K valid keys, scaled to sum to 1: 1 if even, 0 on one key or where K is 1."""
    p = map_ * keys[:, None, None]
    p = p / p.sum(-1, keepdim=True)
    entropy = -torch.xlogy(p, p).sum(-1)
    return entropy / keys.sum(-1).clamp_min(2).log()[:, None, None]
