"""Whether weights follow the reliability of an utterance's modalities, which only synthetic data have.

The paper: "in video segments where facial expressions were ambiguous but audio carried clear prosody, AMW correctly
assigned higher weights to the audio stream. Conversely, in silent or low-quality audio samples, AMW emphasized textual
semantics and visual features."
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from tmtlib.analysis.adaptation import seen, weighted
from tmtlib.common import MODALITIES, one_thread
from tmtlib.data.corrupt import corrupt, drop_frames, noise_scale
from tmtlib.data.corruption import Corruption
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset, Split
from tmtlib.paper.verdicts import LEAST, RULES, with_power
from tmtlib.stats.statistics import over_seeds
from tmtlib.study import cache, runs
from tmtlib.study.runs import Run
from tmtlib.training.fit import predict

METHOD = ["dataset", "source", "method", "regime"]
# What each scene changes, and the modalities whose weights the paper says it raises
SCENES = {"face ambiguous": ("audio",), "audio silent": ("text", "vision")}
BINS = 8  # of a reliability diagram
SNR_DB = (math.inf, 0.0, -10.0, -20.0)  # one panel each


TABLES = ("reliability_weights", "scenes")


def tables(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> dict[str, pd.DataFrame]:
    """`TABLES`: `by_reliability` and the paper's `example`; empty where no data are synthetic."""
    if not _tasks(todo):
        return dict.fromkeys(TABLES, pd.DataFrame())
    return {
        name: with_power(of(todo, device, jobs)) for name, of in zip(TABLES, (by_reliability, example), strict=True)
    }


def by_reliability(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """The weight on a modality where it is reliable against where it is not, on synthetic test utterances.

    Columns: METHOD, modality, reliable, unreliable (mean weights), difference, low, high (its 95 % t interval), auc
    (P(a reliable utterance has a greater weight than an unreliable one), ties half), auc_low, auc_high, utterances
    (unreliable ones), n (seeds), verdict (`follows`), rules (`verdicts.RULES`).
    """
    rows, keys = cache.map_runs(_compared, _tasks(todo), device, jobs, "weights by reliability"), [*METHOD, "modality"]
    table, auc = over_seeds(rows, keys, "reliable", against="unreliable"), over_seeds(rows, keys, "auc")
    names = {"mean": "reliable", "against": "unreliable", "difference_low": "low", "difference_high": "high"}
    table = table.drop(columns=["low", "high"]).rename(columns=names)
    table["auc"], table["auc_low"], table["auc_high"] = auc["mean"], auc["low"].clip(lower=0), auc["high"].clip(upper=1)
    table["utterances"] = over_seeds(rows, keys, "utterances")["mean"].astype(int)
    columns = "reliable unreliable difference low high auc auc_low auc_high utterances n verdict rules".split()
    return _judged(table, rows, keys).assign(rules=RULES)[[*keys, *columns]]


def example(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """The change of each weight in the paper's two scenes (`staged`): METHOD, scene, modality, change (mean over
    utterances, then seeds), low, high (95 % t interval), n, claimed (the paper says it rises), verdict (where claimed),
    rules (`verdicts.RULES`)."""
    rows = cache.map_runs(_changed, _tasks(todo), device, jobs, "the paper's scenes")
    keys = [*METHOD, "scene", "modality"]
    table = over_seeds(rows, keys, "change").rename(columns={"mean": "change"})
    table["claimed"] = [m in SCENES[scene] for scene, m in zip(table["scene"], table["modality"], strict=True)]
    table = _judged(table, rows, keys)
    return table.assign(verdict=np.where(table["claimed"], table["verdict"], ""), rules=RULES)


def follows(low: float, high: float, still: bool = False) -> str:
    """The verdict on a weight that should be higher, from the 95 % interval of its difference over seeds: impossible as
    written where no weight differs (`still`), not supported below `LEAST`, supported above 0, else cannot tell."""
    if still:
        return "impossible as written"
    if high < LEAST:
        return "not supported"
    return "supported" if low > 0 else "cannot tell"


def _judged(table: pd.DataFrame, rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """With `follows` as verdict of each row; the "range" in `rows` is 0 where a run's weights do not differ."""
    still = over_seeds(rows, keys, "range")["mean"] == 0
    verdicts = [follows(*cell) for cell in zip(table["low"], table["high"], still, strict=True)]
    return table.assign(verdict=verdicts)


def _tasks(todo: Sequence[Run]) -> list[tuple[Run]]:
    return [(run,) for run in weighted(todo) if load(run.data.clean).truth is not None]


@cache.per_run("by reliability")
def _compared(run: Run, device: str, data: Dataset) -> list[dict]:
    with one_thread(device):
        _, weights = seen(runs.load_model(run, data.shape), data.test, run.training, device)
    rows = []
    for m, weight, reliable in zip(MODALITIES, weights.T, data.truth.splits["test"].reliable.T, strict=True):
        yes, no = weight[reliable], weight[~reliable]
        if len(yes) and len(no):
            row = {"regime": run.data.regime, "modality": m, "range": float(np.ptp(weight)), "utterances": len(no)}
            row |= {"reliable": yes.mean(dtype=np.float64), "unreliable": no.mean(dtype=np.float64)}
            with np.errstate(invalid="ignore"):  # its p, which is not used, of weights that are all equal
                rows.append(row | {"auc": float(mannwhitneyu(yes, no).statistic) / (len(yes) * len(no))})
    return rows


@cache.per_run("example")
def _changed(run: Run, device: str, data: Dataset) -> list[dict]:
    model, rows = runs.load_model(run, data.shape), []
    clear, scenes = staged(data)
    with one_thread(device):
        before = seen(model, clear, run.training, device)[1]
        for scene, split in scenes.items():
            change = seen(model, split, run.training, device)[1] - before
            row = {"regime": run.data.regime, "scene": scene, "range": float(np.abs(change).max())}
            means = change.mean(0, dtype=np.float64).tolist()
            rows += [row | {"modality": m, "change": mean} for m, mean in zip(MODALITIES, means, strict=True)]
    return rows


def staged(data: Dataset) -> tuple[Split, dict[str, Split]]:
    """Synthetic test utterances whose modalities are all reliable, and the same in each of the `SCENES`: "face
    ambiguous" with the frames of utterances with unreliable vision, "audio silent" with all audio frames missing.
    Raises ValueError where one of these two sorts of utterances is missing."""
    reliable = data.truth.splits["test"].reliable
    clear, ambiguous = np.flatnonzero(reliable.all(1)), np.flatnonzero(~reliable[:, MODALITIES.index("vision")])
    if not len(clear) or not len(ambiguous):
        counts = f"{len(clear)} test utterances with all modalities reliable, {len(ambiguous)} with ambiguous vision"
        raise ValueError(f"{counts}; wanted at least one of each: make more test utterances")
    split, donors = data.test.take(clear), data.test.take(np.resize(ambiguous, len(clear)))
    features = split.features | {"vision": donors.features["vision"]}
    face = replace(split, features=features, lengths=split.lengths | {"vision": donors.lengths["vision"]})
    return split, {"face ambiguous": face, "audio silent": drop_frames(split, 1.0, ("audio",))}


def diagram(
    todo: Sequence[Run], device: str = "auto", jobs: int | None = None, snr_db: Sequence[float] = SNR_DB
) -> pd.DataFrame:
    """Reliability diagrams at levels of noise, of `BINS` bins of about equal numbers of test utterances by prediction:
    METHOD, seed, level (dB), bin (lowest first), prediction and label (means, label units), n (utterances)."""
    rows = cache.map_runs(_bins, [(run, tuple(snr_db)) for run in todo], device, jobs, "reliability diagrams")
    return rows.reindex(columns=[*METHOD, "seed", "level", "bin", "prediction", "label", "n"])


@cache.per_run("diagram")
def _bins(run: Run, snr_db: tuple[float, ...], device: str, data: Dataset) -> list[dict]:
    model, scale, rows = runs.load_model(run, data.shape), noise_scale(data.train), []
    with one_thread(device):
        for level in snr_db:
            split = corrupt(data.test, Corruption("noise", level=level), scale)
            bins = binned(predict(model, split, run.training, device), data.test.labels)
            rows += [{"regime": run.data.regime, "level": level} | row for row in bins]
    return rows


def binned(prediction: np.ndarray, label: np.ndarray, bins: int = BINS) -> list[dict]:
    """Mean prediction, mean label and n in bins of about equal numbers by prediction, lowest first."""
    parts = np.array_split(np.argsort(prediction, kind="stable"), min(bins, len(prediction)))
    means = [[values[i].mean(dtype=np.float64) for values in (prediction, label)] for i in parts]
    return [{"bin": k, "prediction": p, "label": y, "n": len(parts[k])} for k, (p, y) in enumerate(means)]
