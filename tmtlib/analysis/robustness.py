"""Trained models on corrupted test data, by the protocols of `tmtlib.data.corruption`.

Corruptions act on the test split alone, after training, and are the same for every model and training seed: a
corruption that is drawn is drawn `masks` times, from seeds of its own. Scores are kept beside the run's record, so that
a second look costs nothing.

`sweep` has a row a run, corruption and mask; `tmtlib.analysis.degradation` says what these come to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from tmtlib.analysis import trivial_baselines
from tmtlib.analysis.degradation import WHAT
from tmtlib.common import MODALITIES, one_thread, pick_device
from tmtlib.data import corruption
from tmtlib.data.corrupt import corrupt, noise_scale
from tmtlib.data.corruption import Corruption
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset, Split
from tmtlib.models.base import Model
from tmtlib.stats.metrics import scores_of
from tmtlib.study import cache, runs
from tmtlib.study.profiles import Profile
from tmtlib.study.runs import Run
from tmtlib.study.study import Study
from tmtlib.training.fit import predict

BYTES = 2**27  # about so much corrupted data goes through a model at once
EVERYWHERE = ("tmt", "tmt_amw", "tmt_uniform", "tmt_random", "tmt_gated")
ON_THE_FIRST = ("tmt_token", "text_only", "late_fusion", "mult", "misa")


def grid(profile: Profile, everything: bool = True) -> list[Corruption]:
    """The corruptions of a profile: P1, P3 and P7, and with `everything` P8 and P9 too."""
    found = [
        *corruption.missing_frames(profile.missing_rates),
        *corruption.missing_modalities(),
        *corruption.noise(profile.snr_db),
    ]
    if everything:
        found += [*corruption.in_time(profile.blocks, profile.shifts), *corruption.swapped()]
    return found


def suits(how: Corruption, split: Split) -> bool:
    """Whether a corruption means on these data what it says.

    Not where it acts on an absent modality alone (all lengths 0), keeps one that is absent, takes a block out of single
    frames, or makes a modality later than its longest utterance lasts.
    """
    longest = {m: int(split.lengths[m].max(initial=0)) for m in MODALITIES}
    present = [m for m in how.modalities if longest[m]]
    if how.kind == "missing_modalities":
        return set(how.modalities) == set(MODALITIES) or len(present) == len(how.modalities)
    if how.kind == "missing_block":
        return any(longest[m] > 1 for m in present)
    if how.kind == "shift":
        return all(longest[m] > max(1, how.level) for m in how.modalities)
    return bool(present)


def sweep(
    todo: Sequence[Run], grid: Sequence[Corruption], masks: int = 1, device: str = "auto", jobs: int | None = None
) -> pd.DataFrame:
    """Test metrics of finished runs under each corruption: a row a run, corruption and mask.

    Columns: dataset, source, method, regime ("clean" or "masked": what it was trained on), seed, protocol, kind,
    modality (see `corruption`; "all", or names such as "text+audio"), level (NaN where a kind has none), mask, n_test,
    and the metrics. Corruptions that do not suit the data (`suits`) have no rows, nor has noise in the text, or a late
    one, where a model reads token ids. Raises FileNotFoundError for a run that was not trained.
    """
    # Where there are more cores than models, a model's corruptions are shared out among them
    cores = (jobs or runs.cpu_count()) if pick_device(device).type == "cpu" else 1
    size = -(-len(grid) // max(1, cores // max(1, len(todo))))
    tasks = [(run, tuple(grid[i : i + size]), masks) for run in todo for i in range(0, len(grid), size)]
    rows = cache.map_runs(_computed, tasks, device, jobs, "corrupted test data")
    if rows.empty:
        return rows
    rows["level"] = rows["level"].astype(float)
    return rows


def swept(study: Study) -> pd.DataFrame:
    """`sweep` of a study, which trains what is missing, and the constant predictor.

    All methods of `EVERYWHERE` go under P1, P3 and P7 on all data sets; on the first one those of `ON_THE_FIRST` and
    what the profile trains with frames missing do too, and P8 and P9 are added.
    """
    profile, first = study.profile, study.refs[0]
    methods = [m for m in (*EVERYWHERE, *ON_THE_FIRST) if m in study.methods]
    study.ensure(*methods)
    masked = study.runs(*profile.masked, regime="masked")
    runs.ensure(masked, study.device, profile.jobs)
    todo = study.runs(*methods)
    here = [run for run in todo if run.data == first] + masked
    rest = [run for run in todo if run.data != first and run.method in EVERYWHERE]
    options = profile.masks, study.device, profile.jobs
    parts = [sweep(here, grid(profile), *options), sweep(rest, grid(profile, everything=False), *options)]
    rows = pd.concat([p for p in parts if len(p)], ignore_index=True)
    return pd.concat([rows, constant_rows(rows, todo)], ignore_index=True)


def constant_rows(rows: pd.DataFrame, todo: Sequence[Run]) -> pd.DataFrame:
    """What the constant of `floors` scores under each corruption of `rows`: always the same, as it sees no features."""
    found = []
    for ref in dict.fromkeys(run.data.clean for run in todo):
        data = load(ref)
        known = trivial_baselines.rows(data).set_index("method").loc[["constant"]].reset_index()
        here = rows[(rows["dataset"] == data.card.name) & (rows["regime"] == "clean")]
        cases = here[[*WHAT, "mask"]].drop_duplicates().assign(regime="clean", seed=0, n_test=len(data.test))
        found.append(cases.merge(known, how="cross"))
    return pd.concat(found, ignore_index=True).reindex(columns=rows.columns)


@cache.per_run("robustness")
def _computed(run: Run, grid: tuple[Corruption, ...], masks: int, device: str, data: Dataset) -> list[dict]:
    blind = run.model.reads_token_ids
    grid = tuple(
        how
        for how in grid
        if suits(how, data.test) and not (blind and how.kind in ("noise", "shift") and "text" in how.modalities)
    )
    model, task = runs.load_model(run, data.shape), run.model.task
    found = {}
    with one_thread(device):
        for case, values in _predictions(model, data, cases(grid, masks, distinct=True), run, device):
            found[case] = scores_of(task, values, data.test.labels_for(task), data.family)
    return as_rows(run, grid, masks, found, len(data.test))


def cases(grid: Sequence[Corruption], masks: int, distinct: bool = False) -> list[tuple[Corruption | None, int]]:
    """Each corruption with each mask, if it is drawn at all; `distinct`: what changes nothing once, as (None, 0)."""
    found = [(how, mask) for how in grid for mask in range(masks if how.is_random else 1)]
    if not distinct:
        return found
    return list(dict.fromkeys((None, 0) if how.changes_nothing else (how, mask) for how, mask in found))


def as_rows(run: Run, grid: Sequence[Corruption], masks: int, found: dict[tuple, dict], n: int) -> list[dict]:
    """The rows of a sweep, but for what `cache.map_runs` puts before them, from the scores of the distinct cases."""
    rows = []
    for how, mask in cases(grid, masks):
        what = {"protocol": how.protocol, "kind": how.kind, "modality": how.where, "level": how.level, "mask": mask}
        known = found[(None, 0) if how.changes_nothing else (how, mask)]
        rows.append({"regime": run.data.regime} | what | {"n_test": n} | known)
    return rows


def _predictions(
    model: Model, data: Dataset, cases: list[tuple[Corruption | None, int]], run: Run, device: str
) -> Iterator[tuple[tuple, np.ndarray]]:
    """Each case with its predictions; several corrupted splits go through the model as one."""
    scale, n = noise_scale(data.train), len(data.test)
    size = max(1, BYTES // sum(x.nbytes for x in data.test.features.values()))
    for start in range(0, len(cases), size):
        some = cases[start : start + size]
        splits = [_corrupted(data.test, how, scale, mask) for how, mask in some]
        values = predict(model, Split.concat(splits) if len(splits) > 1 else splits[0], run.training, device)
        yield from zip(some, values.reshape(len(some), n, *values.shape[1:]), strict=True)


def _corrupted(split: Split, how: Corruption | None, scale: dict, mask: int) -> Split:
    return split if how is None else corrupt(split, how, scale, mask)
