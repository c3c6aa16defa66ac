"""Does AMW adapt? The weight on a modality as that modality is corrupted: the falsification test of the paper's claim
that weights "emphasize informative modalities while suppressing irrelevant or noisy ones".

    when        models trained on     test data
    test        one state of data     the modality corrupted at each level
    training    data of each level    corrupted as the training data were

If a weighting adapts, its weight on the corrupted modality falls; if that is worth anything, the error is lower than
with uniform weights under the same corruption. `falsification.verdict` says what can be said of the two.
All weights are means over utterances and features of A_m, on test data, at the best epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from tmtlib.analysis.robustness import suits
from tmtlib.common import MODALITIES, one_thread, pick_device
from tmtlib.data.corrupt import corrupt, noise_scale
from tmtlib.data.corruption import Corruption
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset, Split
from tmtlib.models.base import Model
from tmtlib.study import cache, runs
from tmtlib.study.methods import method_config
from tmtlib.study.runs import Run
from tmtlib.study.study import Study
from tmtlib.training.batches import OnDevice
from tmtlib.training.fit import Training, autocast

VARIANTS = ("tmt_amw", "tmt_amw_fast", "tmt_uniform", "tmt_gated", "tmt_gated_fast", "tmt_token")
SNR_DB = (0.0, -10.0, -20.0)  # synthetic text varies in 12 of 768 directions, so that noise above 0 dB averages out
RATES = (0.5, 1.0)  # of missing frames; at 1 the modality is silent
COLUMNS = "dataset source method regime when seed modality kind level weight mae".split()


def grid(snr_db: Sequence[float] = SNR_DB, rates: Sequence[float] = RATES) -> list[Corruption]:
    """Each modality alone, from clean: noise by signal-to-noise ratio in dB, and frames missing by rate."""
    levels = [("noise", level) for level in (math.inf, *snr_db)] if snr_db else []
    levels += [("missing_frames", rate) for rate in (0.0, *rates)] if rates else []
    return [Corruption(kind, (m,), level) for m in MODALITIES for kind, level in levels]


def weighted(todo: Sequence[Run]) -> list[Run]:
    """The runs whose model has weights."""
    return [run for run in todo if run.model.weighting != "none"]


@torch.no_grad()
def seen(
    model: Model, split: Split, training: Training, device: str = "auto"
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N M"]]:
    """A model's values for each utterance, and its weights there as means over features (a static A: all rows alike).

    Raises ValueError for a model without weights.
    """
    where = pick_device(device)
    model, data = model.to(where).eval(), OnDevice(split, where, model.config, model.family)
    order = data.by_length(torch.arange(len(data), device=where))
    values, weights = [], []
    for index in order.split(4 * training.batch_size):
        with autocast(training, where):
            prediction, trace = model(data.batch(index))
        if trace.weights is None:
            raise ValueError("the model has no weights; wanted one with a weighting, such as TMT+AMW")
        values.append(model.values(prediction.float()))
        weights.append(trace.weights.float().mean(-1).expand(len(index), -1))
    back = order.argsort()
    return torch.cat(values)[back].cpu().numpy(), torch.cat(weights)[back].cpu().numpy()


def at_test_time(
    todo: Sequence[Run],
    levels: Sequence[Corruption] | None = None,
    masks: int = 1,
    device: str = "auto",
    jobs: int | None = None,
) -> pd.DataFrame:
    """The weight on a modality, and MAE, while that modality alone is corrupted in the test data of finished runs.

    Args:
        todo: finished runs; those whose model has no weights have no rows, nor have modalities that are absent.
        levels: corruptions of one modality each (default: `grid`); drawn `masks` times, and the rows are means.

    Columns: dataset, source, method, regime (what it was trained on), when ("test"), seed, modality, kind, level (dB,
    or rate of missing frames), weight (mean of A_m), mae (label units). Raises ValueError for a corruption of several
    modalities, FileNotFoundError for a run that was not trained.
    """
    levels = tuple(grid() if levels is None else levels)
    return _looked([(run, levels, masks) for run in weighted(todo)], "test", device, jobs)


def training_runs(
    study: Study,
    methods: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    levels: Sequence[float] | None = None,
) -> list[Run]:
    """Runs of the first data set, trained clean and with noise in one modality at each level; ready for `runs.ensure`.

    By default: the `VARIANTS` that the study has, `Profile.noisy_training` and `Profile.training_snr_db` (dB).
    """
    profile, first = study.profile, study.refs[0]
    methods = [m for m in VARIANTS if m in study.methods] if methods is None else methods
    modalities = profile.noisy_training if modalities is None else modalities
    levels = profile.training_snr_db if levels is None else levels
    there = [m for m in modalities if load(first).train.lengths[m].any()]  # noise on an absent one is none
    noisy = [Corruption("noise", (m,), level) for m in there for level in levels]
    refs = [first, *(replace(first, training_corruption=how) for how in noisy)]
    configs = {m: method_config(m, profile.model) for m in methods}
    return [Run(ref, m, configs[m], profile.training, seed) for ref in refs for m in methods for seed in profile.seeds]


def at_training_time(
    todo: Sequence[Run], masks: int = 1, device: str = "auto", jobs: int | None = None
) -> pd.DataFrame:
    """The same for models trained on corrupted data, each on test data with the corruption that it was trained on.

    `todo` holds runs trained on corrupted data and, as the first level, on clean data. Columns as `at_test_time`, with
    regime "noisy" and when "training".
    """
    todo = weighted(todo)
    hurt = dict.fromkeys(run.data.training_corruption for run in todo if run.data.training_corruption)
    start = dict.fromkeys(replace(how, level=math.inf if how.kind == "noise" else 0.0) for how in hurt)
    tasks = [(run, (run.data.training_corruption,) if run.data.training_corruption else tuple(start)) for run in todo]
    return _looked([(*task, masks) for task in tasks], "training", device, jobs)


def _looked(tasks: list[tuple], when: str, device: str, jobs: int | None) -> pd.DataFrame:
    for how in {how for _, levels, _ in tasks for how in levels}:
        if len(how.modalities) != 1:
            raise ValueError(f"{how.kind} acts on {how.where}; wanted one modality, whose weight is then looked at")
    rows = cache.map_runs(_computed, tasks, device, jobs, "weights under corruption").assign(when=when)
    return rows.assign(regime="noisy")[COLUMNS] if when == "training" and len(rows) else rows.reindex(columns=COLUMNS)


@cache.per_run("adaptation")
def _computed(run: Run, levels: tuple[Corruption, ...], masks: int, device: str, data: Dataset) -> list[dict]:
    model, scale, rows, known = runs.load_model(run, data.shape), noise_scale(data.train), [], {}
    with one_thread(device):
        for how in (how for how in levels if suits(how, data.test)):
            found = []
            for mask in range(masks if how.is_random else 1):
                case = (None, 0) if how.changes_nothing else (how, mask)  # what changes nothing is looked at once
                if case not in known:
                    split = corrupt(data.test, how, scale, mask)
                    values, weights = seen(model, split, run.training, device)
                    known[case] = np.abs(values - data.test.labels).mean(), weights.mean(0, dtype=np.float64)
                found.append(known[case])
            (m,) = how.modalities
            weight = np.mean([w[MODALITIES.index(m)] for _, w in found])
            what = {"regime": run.data.regime, "modality": m, "kind": how.kind, "level": how.level}
            rows.append(what | {"weight": float(weight), "mae": float(np.mean([mae for mae, _ in found]))})
    return rows
