"""A saved model on new utterances: predictions with intervals, weights and Shapley values, and how far the features are
from those it was trained on."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from tmtlib import common
from tmtlib.analysis import importance
from tmtlib.common import MODALITIES, one_thread, pick_device, write_atomic
from tmtlib.data import mmsa
from tmtlib.data.check import videos_named
from tmtlib.data.schema import Split, frame_moments
from tmtlib.stats.statistics import Interval, bootstrap_scores
from tmtlib.study.saved import SavedModel
from tmtlib.training.batches import passes
from tmtlib.training.fit import autocast

# Drift: means this many sds of training off, or sds this many times larger. In the test splits of eleven real files no
# mean of a feature is 0.6 off, and over eight of their utterances none 2
FAR_MEAN, FAR_SD = 2.0, 3.0


@dataclass(frozen=True)
class Predictions:
    """Predictions of a file's utterances, and what to know about them."""

    table: pd.DataFrame  # one row an utterance, see `predict_split`
    drift: pd.DataFrame  # one row a modality, see `drift`
    notes: tuple[str, ...]  # sentences
    scores: dict[str, Interval]  # of a labelled file: mae, and coverage, the share of labels within the intervals
    intervals_over: str = "utterances"  # what the intervals of `scores` are drawn from

    def write(self, path: Path) -> None:
        """The table as CSV, six digits, atomically."""
        text = self.table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomic(path.expanduser(), lambda file: file.write(text.encode()))

    def summary(self, level: float) -> str:
        """Notes, and for a labelled file how good the predictions are."""
        lines = [f"- {note}" for note in self.notes]
        if self.scores:
            mae, within = self.scores["mae"], self.scores["coverage"]
            said = f"MAE {mae.mean:.3f} [{mae.low:.3f}, {mae.high:.3f}]"
            said += f", {within.mean:.1%} [{within.low:.1%}, {within.high:.1%}] within the {level:.0%} intervals"
            lines.append(
                f"- labels: {said} (n = {mae.n}, every utterance of the file; brackets: 95 % intervals over "
                f"{self.intervals_over})"
            )
        return "\n".join(lines)


def predict_file(
    saved: SavedModel,
    path: str | Path,
    level: float = 0.9,
    shapley: bool = True,
    device: str = "auto",
    clip_labels: bool | None = None,
) -> Predictions:
    """Predictions of every utterance of a feature file; labels and splits are not needed.

    `clip_labels`: labels beyond the model's range become its ends; default: TMT_CLIP_LABELS, else none is compared.
    Raises DataError for features of another width than in training, errors as `mmsa.read_utterances`.
    """
    low, high = saved.label_range
    clip = common.clip_labels() if clip_labels is None else clip_labels
    raw, labelled, oddities = mmsa.read_utterances(path, (low, high) if clip else None)
    split, cut = saved.prepared(raw)
    table, far = predict_split(saved, split, level, shapley, device), drift(saved, raw)
    notes = [f"{m}: {n} utterances are longer than in training and were cut" for m, n in cut.items()]
    notes += [
        f"{row.modality}: {row.far} of {row.features} features are far from training's, most {row.worst}"
        for row in far.itertuples()
        if row.far
    ]
    for m in MODALITIES:
        lacking = int((split.lengths[m] == 0).sum())
        if m in saved.untrained and lacking < len(split):
            notes.append(f"{m} was in no training utterance, so what it adds here is not learned")
        elif m not in saved.untrained and lacking:
            notes.append(
                f"{m} is absent from {lacking} of {len(split)} utterances; the model sees no frames of it there"
            )
    odd = Counter()
    for o in oddities:
        odd[o.what, o.handling] += o.count
    notes += [f"{what} ({count}): {handling}" for (what, handling), count in odd.items()]
    scores, videos = {}, videos_named(split.ids)
    if labelled and not ((low - 1e-4 <= raw.labels) & (raw.labels <= high + 1e-4)).all():
        found = f"labels are not all within {low:g}..{high:g}, the model's range"
        notes.append(f"{found}, so they are not compared: clip them (--clip-labels)")
    elif labelled and "low" in table:
        within = (table["low"] <= raw.labels) & (raw.labels <= table["high"])
        table.insert(1, "label", raw.labels)
        judged = np.stack([(table["prediction"] - raw.labels).abs(), within], axis=1)
        scores = bootstrap_scores(
            lambda index: dict(zip(("mae", "coverage"), judged[index].mean(0), strict=True)), len(judged), groups=videos
        )
    return Predictions(table, far, tuple(notes), scores, "videos" if videos else "utterances")


def predict_split(
    saved: SavedModel, split: Split, level: float = 0.9, shapley: bool = True, device: str = "auto"
) -> pd.DataFrame:
    """One row an utterance of a `SavedModel.prepared` split.

    id; prediction (label units, clipped to the label range; for emotions the most probable one's name); low, high
    (interval that holds the label with probability `level`, within the label range; not for emotions); p_<class>
    (5-class heads and emotions); weight_<modality> (mean of A over features; models with weights); shapley_<modality>
    (what it adds to the prediction before clipping, or to the named emotion's probability) and share_<modality> (its
    size as a share); absent (modalities).
    """
    values, weights, probabilities = _outputs(saved, split, device)
    columns: dict[str, object] = {"id": split.ids}
    task, best = saved.card["task"], None
    if task == "emotions":
        best = values.argmax(1)
        columns["prediction"] = np.array(saved.shape.emotions)[best]
    else:
        half, (low, high) = saved.half_width(level), saved.label_range
        values = np.clip(values, low, high)
        columns |= {"prediction": values}
        columns |= {"low": np.clip(values - half, low, high), "high": np.clip(values + half, low, high)}
    columns |= probabilities
    if weights is not None:
        columns |= {f"weight_{m}": w for m, w in zip(MODALITIES, weights.T, strict=True)}
    if shapley:
        by_subset = importance.subset_values(saved.model, split, "absent", split, saved.training, device)
        if best is not None:
            by_subset = {s: v[np.arange(len(v)), best] for s, v in by_subset.items()}
        added = importance.prediction_shapley(by_subset)
        columns |= {f"shapley_{m}": v for m, v in zip(MODALITIES, added, strict=True)}
        columns |= {f"share_{m}": v for m, v in zip(MODALITIES, importance.shares(added), strict=True)}
    lacking = np.stack([split.lengths[m] == 0 for m in MODALITIES], axis=1)
    columns["absent"] = [" ".join(m for m, gone in zip(MODALITIES, row, strict=True) if gone) for row in lacking]
    return pd.DataFrame(columns)


@torch.no_grad()
def _outputs(
    saved: SavedModel, split: Split, device: str
) -> tuple[Float[np.ndarray, "N ..."], Float[np.ndarray, "N M"] | None, dict[str, np.ndarray]]:
    """Values, weights (mean of A over features) and named probabilities."""
    model, training, parts = saved.model, saved.training, []
    with one_thread(device):
        for index, batch in passes(model, split, 4 * training.batch_size, device):
            with autocast(training, pick_device(device)):
                outputs, trace = model(batch)
            outputs, a = outputs.float(), trace.weights
            a = None if a is None else a.float().mean(-1).expand(len(index), -1).cpu()
            parts.append((index, model.values(outputs).cpu(), outputs.cpu(), a))
    order = torch.cat([part[0] for part in parts]).argsort()
    values, outputs = (torch.cat([part[i] for part in parts])[order].numpy() for i in (1, 2))
    weights = None if parts[0][3] is None else torch.cat([part[3] for part in parts])[order].numpy()
    task, named = saved.card["task"], {}
    if task == "classification":
        p = torch.from_numpy(outputs).softmax(1).numpy()
        named = {f"p_{centre:g}": x for centre, x in zip(model.class_centres.tolist(), p.T, strict=True)}
    elif task == "emotions":
        named = {f"p_{name}": x for name, x in zip(saved.shape.emotions, values.T, strict=True)}
    return values, weights, named


def drift(saved: SavedModel, raw: Split) -> pd.DataFrame:
    """How raw features differ from training's, one row a modality that is present in both: features, far (how many have
    a mean over frames more than FAR_MEAN training sds off, or an sd FAR_SD times larger), worst (the farthest by name
    or number, its mean and sd against training's)."""
    rows = []
    for m in MODALITIES:
        if m in saved.untrained or not raw.lengths[m].any():
            continue
        (mean, sd), (own_mean, own_sd) = saved.scaler[m], frame_moments(raw, m)
        off = (own_mean - mean) / sd
        distance = np.maximum(np.abs(off) / FAR_MEAN, own_sd / sd / FAR_SD)
        i = int(distance.argmax())
        worst = f"{saved.feature_name(m, i)}: mean {off[i]:+.1f} sd, sd {own_sd[i] / sd[i]:.1f} times"
        rows.append((m, len(off), int((distance > 1).sum()), worst))
    return pd.DataFrame(rows, columns=["modality", "features", "far", "worst"])
