"""How long trainings will take here: short trainings of TMT are timed on this machine, and the committed times of
profile full say how many times as long as TMT each other method takes."""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from statistics import median

import pandas as pd

from tmtlib import common
from tmtlib.common import MODALITIES, pick_device
from tmtlib.data import synthetic
from tmtlib.data.catalog import known_sha256
from tmtlib.data.loading import load
from tmtlib.data.recipes import RECIPES
from tmtlib.data.schema import SPLITS, DataRef, SyntheticSize
from tmtlib.models.tmt import TMTConfig
from tmtlib.study.profiles import PROFILES, REPORTED
from tmtlib.study.records import Run, record_path
from tmtlib.training.fit import Training, fit


def seconds(runs: Iterable[Run], device: str, jobs: int) -> float:
    """Seconds that the runs without a record take to train, `jobs` at a time, as if none stopped early: the `work` of
    each x TMT's `pace` here at its frames x `times_tmt` of its method (unknown: 1). TMT's size is that of the first
    TMT among the runs, else profile quick's. Data of another size are so scaled by utterances x epochs, and by frames
    as measured."""
    todo = [run for run in dict.fromkeys(runs) if not record_path(run).exists()]
    tmt = next((run.model for run in todo if isinstance(run.model, TMTConfig)), PROFILES["quick"].model)
    tmt = replace(tmt, weighting="none", modalities=MODALITIES, task="regression", bert=None)
    each = []
    for run in todo:
        utterances, frames = work(run)
        one = pace(tmt, run.training.batch_size, frames, pick_device(device).type)
        each.append(utterances * one * times_tmt().get(run.method, 1.0))
    return max([sum(each) / jobs, *each])


def said(seconds: float) -> str:
    """A time in words: "less than a minute", "about 12 minutes", "about 3 hours", "about 2 days"."""
    if seconds < 60:
        return "less than a minute"
    units = {"minute": 60, "hour": 3600, "day": 86400}
    unit = max((name for name in units if seconds >= 1.5 * units[name]), key=units.get, default="minute")
    return f"about {(n := round(seconds / units[unit]))} {unit}{'s' * (n > 1)}"


def work(run: Run) -> tuple[float, tuple[int, ...]]:
    """Training utterances x epochs + test utterances / 2, and frames of text, audio and vision."""
    (train, _, test), frames = size(run.data)
    return train * run.training.epochs_for(train) + test / 2, frames


def size(ref: DataRef) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Utterances of train, valid and test, and frames of text, audio and vision. Only a file that is not a published
    one is read for them. Raises as `load`."""
    given = ref.synthetic or SyntheticSize()
    if known := RECIPES[ref.name] if ref.source == "synthetic" else known_sha256(ref.sha256):
        return given.utterances or known.utterances, given.frames or tuple(frames for frames, _ in known.shapes)
    data = load(ref.clean)
    return tuple(len(data[split]) for split in SPLITS), tuple(data.shapes[m][0] for m in MODALITIES)


@lru_cache
def pace(tmt: TMTConfig, batch_size: int, frames: tuple[int, ...], device: str) -> float:
    """Seconds that an utterance and epoch of training TMT take here, measured for 0.3 s after a training to warm up."""
    sizes, times = SyntheticSize((2 * batch_size, max(2, batch_size // 2), 2), frames), []
    data, training = synthetic.generate("mosi", sizes), Training(batch_size=batch_size, epochs=1)
    while sum(times[1:]) < 0.3:
        times.append(fit(tmt, training, data.train, data.valid, data.shape, device=device)[0].seconds)
    return median(times[1:]) / len(data.train)


@lru_cache
def times_tmt() -> dict[str, float]:
    """How many times as long as TMT a method trains, by its name: the median over the committed runs of profile full.
    Empty where they are not there."""
    path = common.ROOT / "results" / REPORTED / "runs.csv"
    rows = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["dataset", "method", "seconds"])
    tmt = rows[rows["method"] == "tmt"].groupby("dataset")["seconds"].median()
    return (rows["seconds"] / rows["dataset"].map(tmt)).groupby(rows["method"]).median().to_dict()
