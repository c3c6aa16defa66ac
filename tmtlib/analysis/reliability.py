"""Do weights follow what an utterance's modalities are worth? Synthetic data say which of them are reliable there.

The paper has weights that differ by utterance: "in video segments where facial expressions were ambiguous but audio
carried clear prosody, AMW correctly assigned higher weights to the audio stream. Conversely, in silent or low-quality
audio samples, AMW emphasized textual semantics and visual features." `by_reliability` compares weights between
utterances, `example` rebuilds the paper's two scenes. Real data have no known reliability, and no rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from tmtlib.analysis.adaptation import seen, weighted
from tmtlib.analysis.falsification import LEAST, bounded
from tmtlib.common import MODALITIES, one_thread
from tmtlib.data.corrupt import corrupt, drop_frames, noise_scale
from tmtlib.data.corruption import Corruption
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset, Split
from tmtlib.stats.statistics import Interval, t_interval
from tmtlib.study import cache, runs
from tmtlib.study.runs import Run
from tmtlib.training.fit import predict

METHOD = ["dataset", "source", "method", "regime"]
# What each scene changes, and the modalities whose weights the paper says it raises
SCENES = {"face ambiguous": ("audio",), "audio silent": ("text", "vision")}
BINS = 8  # of a reliability diagram
SNR_DB = (math.inf, 0.0, -10.0, -20.0)  # its panels
CODE = ("reliability.py", "adaptation.py", "cache.py")


def by_reliability(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """The weight on a modality where it is reliable against where it is not, on synthetic test utterances.

    A row a method and modality, over seeds with 95 % t intervals: reliable, unreliable (mean weights), difference (the
    one minus the other; low, high), auc (the chance that a reliable utterance has a greater weight on the modality than
    an unreliable one, ties half; auc_low, auc_high), utterances (unreliable ones), n (seeds) and verdict on the claim
    that weights follow reliability, by `follows`. Utterances of synthetic test data, by runs with weights.
    """
    rows = cache.map_runs(_compared, [(run,) for run in _synthetic(todo)], device, jobs, "weights by reliability")
    columns = "reliable unreliable difference low high auc auc_low auc_high utterances n verdict".split()
    found = []
    for key, some in rows.groupby([*METHOD, "modality"], sort=False) if len(rows) else ():
        difference, auc = t_interval(some["reliable"] - some["unreliable"]), bounded(t_interval(some["auc"]), 0, 1)
        still = bool((some["range"] == 0).all())
        means = some["reliable"].mean(), some["unreliable"].mean()
        judged = some["utterances"].iloc[0], difference.n, follows(difference, still)
        found.append((*key, *means, *difference[:3], *auc[:3], *judged))
    return pd.DataFrame(found, columns=[*METHOD, "modality", *columns])


def example(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """The paper's two scenes, from synthetic test utterances all of whose modalities are reliable: the change of each
    weight when the face becomes ambiguous (its frames are those of utterances whose vision shows nothing but
    distractors), or the audio silent (all frames missing).

    A row a method, scene and modality: change (mean over utterances, then seeds), low, high (95 % t interval), n,
    claimed (whether the paper says that this weight rises) and, where it does, a verdict by `follows`.
    """
    rows = cache.map_runs(_changed, [(run,) for run in _synthetic(todo)], device, jobs, "the paper's example")
    found = []
    for key, some in rows.groupby([*METHOD, "scene", "modality"], sort=False) if len(rows) else ():
        change, claimed = t_interval(some["change"]), key[-1] in SCENES[key[-2]]
        still = bool((some["range"] == 0).all())
        found.append((*key, *change, claimed, follows(change, still) if claimed else ""))
    columns = ["scene", "modality", "change", "low", "high", "n", "claimed", "verdict"]
    return pd.DataFrame(found, columns=[*METHOD, *columns])


def follows(difference: Interval, still: bool = False) -> str:
    """The verdict on a weight that should be higher by the interval of its difference over seeds.

    "impossible as written" where no weight differs at all (`still`); "not supported" where the interval lies below
    `LEAST`: a smaller difference counts as none; "supported" where it lies above 0; else, or for one seed, "cannot
    tell".
    """
    if still:
        return "impossible as written"
    if difference.high < LEAST:
        return "not supported"
    return "supported" if difference.low > 0 else "cannot tell"


def _synthetic(todo: Sequence[Run]) -> list[Run]:
    return [run for run in weighted(todo) if load(run.data.clean).truth is not None]


@cache.per_run("by reliability")
def _compared(run: Run, device: str, data: Dataset) -> list[dict]:
    with one_thread(device):
        _, weights = seen(runs.load_model(run, data.shape), data.test, run.training, device)
    reliable, rows = data.truth.splits["test"].reliable, []
    for i, m in enumerate(MODALITIES):
        yes, no = weights[reliable[:, i], i], weights[~reliable[:, i], i]
        if len(yes) and len(no):
            auc = mannwhitneyu(yes, no).statistic / (len(yes) * len(no))
            means = {"reliable": _mean(yes), "unreliable": _mean(no), "auc": float(auc)}
            what = {"modality": m, "range": float(np.ptp(weights[:, i])), "utterances": len(no)}
            rows.append({"regime": run.data.regime} | what | means)
    return rows


@cache.per_run("example")
def _changed(run: Run, device: str, data: Dataset) -> list[dict]:
    model, rows = runs.load_model(run, data.shape), []
    clear, scenes = staged(data)
    with one_thread(device):
        before = seen(model, clear, run.training, device)[1]
        for scene, split in scenes.items():
            change = seen(model, split, run.training, device)[1] - before
            for i, m in enumerate(MODALITIES):
                what = {"regime": run.data.regime, "scene": scene, "modality": m}
                rows.append(what | {"change": _mean(change[:, i]), "range": float(np.abs(change).max())})
    return rows


def staged(data: Dataset) -> tuple[Split, dict[str, Split]]:
    """Synthetic test utterances whose modalities are all reliable, as they are and as each of the `SCENES` has them.

    Raises ValueError where there is no such utterance, or none with ambiguous vision to take frames from.
    """
    reliable = data.truth.splits["test"].reliable
    clear, ambiguous = np.flatnonzero(reliable.all(1)), np.flatnonzero(~reliable[:, MODALITIES.index("vision")])
    if not len(clear) or not len(ambiguous):
        found = f"{len(clear)} test utterances with all modalities reliable, {len(ambiguous)} with ambiguous vision"
        raise ValueError(f"{found}; wanted at least one of each: plant more test utterances")
    split, donors = data.test.take(clear), data.test.take(np.resize(ambiguous, len(clear)))
    face = {
        name: dict(getattr(split, name)) | {"vision": getattr(donors, name)["vision"]}
        for name in ("features", "lengths")
    }
    return split, {"face ambiguous": replace(split, **face), "audio silent": drop_frames(split, 1.0, ("audio",))}


def diagram(
    todo: Sequence[Run], snr_db: Sequence[float] = SNR_DB, device: str = "auto", jobs: int | None = None
) -> pd.DataFrame:
    """Reliability diagrams by noise: how far predictions can be taken at their word, with noise in all modalities.

    Test utterances of a run and level are cut into `BINS` bins of about equal numbers by their prediction. A row a run,
    level and bin: dataset, source, method, regime, seed, level (dB), bin (lowest predictions first), prediction and
    label (means, label units), n (utterances). For a model that can be taken at its word the two means are equal.
    """
    rows = cache.map_runs(_bins, [(run, tuple(snr_db)) for run in todo], device, jobs, "reliability diagrams")
    return rows.reindex(columns=[*METHOD, "seed", "level", "bin", "prediction", "label", "n"])


def binned(prediction: np.ndarray, label: np.ndarray, bins: int = BINS) -> list[dict]:
    """Mean prediction, mean label and n in bins of about equal numbers by prediction, lowest first."""
    parts = np.array_split(np.argsort(prediction, kind="stable"), min(bins, len(prediction)))
    means = ({"prediction": _mean(prediction[i]), "label": _mean(label[i]), "n": len(i)} for i in parts)
    return [{"bin": k} | row for k, row in enumerate(means)]


@cache.per_run("diagram")
def _bins(run: Run, snr_db: tuple[float, ...], device: str, data: Dataset) -> list[dict]:
    model, scale, rows = runs.load_model(run, data.shape), noise_scale(data.train), []
    with one_thread(device):
        for level in snr_db:
            split = corrupt(data.test, Corruption("noise", level=level), scale)
            found = binned(predict(model, split, run.training, device), data.test.labels)
            rows += [{"regime": run.data.regime, "level": level} | row for row in found]
    return rows


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64))
