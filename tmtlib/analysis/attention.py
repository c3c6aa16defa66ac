"""Is attention sharper with AMW? The entropy of attention maps, block by block, with and without weights.

The paper: "AMW leads to sharper and more focused attention distributions across modalities, facilitating better
alignment and interaction between modality-specific and modality-shared tokens in the subsequent mutual transformer
layers". So the mutual transformer's two halves are judged (`verdicts.sharpness_verdict`), and the encoder before them
is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tmtlib.analysis.falsification import LEAST
from tmtlib.common import MODALITIES, one_thread, pick_device
from tmtlib.data.schema import Dataset
from tmtlib.models.tmt import TMT, TMTConfig
from tmtlib.paper import verdicts
from tmtlib.stats.statistics import paired_interval, t_interval
from tmtlib.study import cache, runs
from tmtlib.study.runs import Run
from tmtlib.training.batches import OnDevice

BLOCKS = ("encoder", "specific_from_shared", "shared_from_specific")
SIZE = 32  # utterances at a time: their maps are all held at once
COLUMNS = "dataset source method regime block entropy difference low high n verdict".split()


def table(todo: Sequence[Run], before: str = "tmt", device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """Mean normalised entropy of attention on test utterances, and its paired difference to the method `before`.

    A map's row is a distribution over K keys that are there (padding is none); its normalised entropy is H / log K, 1
    where attention is even and 0 where it goes to one key. Means are over layers, heads, queries and utterances.

    Columns: dataset, source, method, regime, block ("encoder", "specific_from_shared": specific tokens query shared
    ones, "shared_from_specific"), entropy (mean over seeds), difference (minus `before`, the same seeds; negative is
    sharper), low, high (95 % t interval), n and verdict on "sharper" (within +- `LEAST`: not supported). The rows of
    `before` itself have no difference. Runs of other models than TMT have no rows.
    """
    tasks = [(run,) for run in todo if isinstance(run.model, TMTConfig)]
    rows, found = cache.map_runs(_computed, tasks, device, jobs, "attention entropy"), []
    for key, cell in rows.groupby(["dataset", "source", "regime", "block"], sort=False) if len(rows) else ():
        wide = cell.pivot(index="seed", columns="method", values="entropy")
        for method in cell["method"].unique():
            entropy = t_interval(wide[method].dropna())
            pair = wide[[method, before]].dropna() if before in wide and method != before else wide.iloc[:0]
            row = dict(zip(("dataset", "source", "regime", "block"), key, strict=True)) | {"method": method}
            row |= {"entropy": entropy.mean, "n": len(pair) or entropy.n, "verdict": ""}
            if len(pair):
                mean, low, high, _ = paired_interval(pair[method], pair[before])
                row |= {"difference": mean, "low": low, "high": high}
                row["verdict"] = verdicts.interval_verdict(low, high, better=-1, equivalence=LEAST)
            found.append(row)
    return pd.DataFrame(found, columns=COLUMNS)


@cache.per_run("attention entropy")
def _computed(run: Run, device: str, data: Dataset) -> list[dict]:
    with one_thread(device):
        found = entropies(runs.load_model(run, data.shape), data, device)
    return [{"regime": run.data.regime, "block": block, "entropy": value} for block, value in found.items()]


@torch.no_grad()
def entropies(model: TMT, data: Dataset, device: str = "auto") -> dict[str, float]:
    """Mean normalised entropy by block on the test split."""
    where = pick_device(device)
    model, split = model.to(where).eval(), OnDevice(data.test, where, model.config, model.family)
    sums = {block: np.zeros(2) for block in BLOCKS}  # of the entropy, and of how many rows
    for index in split.by_length(torch.arange(len(split), device=where)).split(SIZE):
        batch = split.batch(index)
        _, trace = model(batch, attention=True)
        tokens = trace.attention["encoder.0"].shape[-1] - sum(batch.features[m].shape[1] for m in MODALITIES)
        there = torch.ones(len(index), tokens, dtype=torch.bool, device=where)
        there = torch.cat([there, *(batch.valid(m) for m in MODALITIES)], dim=1)
        for name, map_ in trace.attention.items():
            block = name.split(".")[0]
            keys = there if block == "encoder" else torch.ones_like(map_[:, 0, 0], dtype=torch.bool)
            rows = there[:, : map_.shape[2]] if block == "encoder" else torch.ones_like(map_[:, 0, :, 0], dtype=bool)
            entropy = normalised_entropy(map_.float(), keys).mean(1)[rows]  # padded queries are none either
            sums[block] += entropy.double().sum().item(), entropy.numel()
    return {block: float(total / count) for block, (total, count) in sums.items()}


def normalised_entropy(map_: Float[Tensor, "B h Q K"], keys: Bool[Tensor, "B K"]) -> Float[Tensor, "B h Q"]:
    """H / log K of each row over the K keys that are there, made to sum to one over them; 0 where there is but one."""
    p = map_ * keys[:, None, None]
    p = p / p.sum(-1, keepdim=True)
    entropy = -torch.xlogy(p, p).sum(-1)
    return entropy / keys.sum(-1).clamp_min(2).log()[:, None, None]
