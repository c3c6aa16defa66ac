"""One utterance at a time: what a trained model weighs, attends to and says of it, beside what is true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from matplotlib.figure import Figure

from tmtlib.analysis import importance
from tmtlib.common import MODALITIES
from tmtlib.data.schema import Dataset, Split
from tmtlib.models.base import Model
from tmtlib.models.tmt import GROUPS
from tmtlib.study.runs import Run, load_model
from tmtlib.training.batches import sample_batch


@dataclass(frozen=True)
class Look:
    """One test utterance seen by one model; everything a figure of it needs."""

    name: str  # the utterance's id
    transcript: str
    label: float
    prediction: float  # label units, like all values below
    contribution: dict[str, float]  # Shapley value of each modality, by absence; they sum to prediction minus nothing's
    weights: dict[str, float] | None  # mean of A over features, where the model has weights
    attention: dict[str, np.ndarray]  # (token groups, frames) by modality: last encoder layer, mean over heads
    words: tuple[str, ...]  # what stands at each text frame
    truth: dict[str, float] | None  # each modality's synthetic part of the best prediction
    reliable: dict[str, bool] | None  # whether it shows anything, in synthetic data


def look(model: Model, dataset: Dataset, i: int, training) -> Look:
    """Test utterance i of a data set as a TMT sees it. Raises IndexError for one that is not there."""
    if not 0 <= i < len(dataset.test):
        raise IndexError(f"utterance {i}; wanted 0 to {len(dataset.test) - 1}")
    one = dataset.test.take(np.array([i]))
    values = importance.subset_values(model, one, "absent", dataset.train, training, "cpu")
    with torch.no_grad():
        _, trace = model.cpu().eval()(sample_batch(model, one), attention=True)
    weights = None
    if trace.weights is not None:
        weights = dict(zip(MODALITIES, trace.weights[0].mean(-1).tolist(), strict=True))
    known = dataset.truth.splits["test"] if dataset.truth is not None else None
    return Look(
        name=one.ids[0],
        transcript=one.raw_text[0],
        label=float(one.labels[0]),
        prediction=float(values[MODALITIES][0]),
        contribution={m: float(x[0]) for m, x in importance.per_utterance(values).items()},
        weights=weights,
        attention=_attention(model, trace, one),
        words=words(one, 0),
        truth=None if known is None else dict(zip(MODALITIES, known.importance[i].tolist(), strict=True)),
        reliable=None if known is None else dict(zip(MODALITIES, known.reliable[i].tolist(), strict=True)),
    )


def words(split: Split, i: int) -> tuple[str, ...]:
    """What stands at each valid text frame: words, where the transcript has one a frame (with or without [CLS] and
    [SEP]); else the frames' numbers from 1."""
    length, spoken = int(split.lengths["text"][i]), split.raw_text[i].split()
    if len(spoken) == length:
        return tuple(spoken)
    if len(spoken) + 2 == length:
        return ("[CLS]", *spoken, "[SEP]")
    return tuple(str(k + 1) for k in range(length))


def _attention(model: Model, trace, one: Split) -> dict[str, np.ndarray]:
    """Attention of each token group (mean over its tokens and the heads) to each valid frame, last encoder layer."""
    last = max((name for name in trace.attention if name.startswith("encoder.")), key=lambda n: int(n.split(".")[1]))
    map_ = trace.attention[last][0].mean(0)  # (label tokens, label tokens and frames)
    sizes = [model.sizes[g] for g in GROUPS]
    by_group = torch.stack([rows.mean(0) for rows in map_.split(sizes)])
    found, start = {}, sum(sizes)
    for m in MODALITIES:
        length = int(one.lengths[m][0])
        found[m] = by_group[:, start : start + length].numpy()
        start += max(1, length)  # an absent modality keeps one frame in the batch
    return found


def browse(run: Run, dataset: Dataset, draw: Callable[[Look], Figure], start: int = 0):
    """An ipywidgets box: a slider over the test utterances, and the figure (`figures.utterance`) of the one it is at.

    In a notebook without a running kernel (static HTML) only what was last drawn is there to see.
    """
    import ipywidgets

    model = load_model(run, dataset.shape)

    def picture_of(i: int) -> bytes:
        file = BytesIO()
        draw(look(model, dataset, i, run.training)).savefig(file, format="png", dpi=110)
        return file.getvalue()

    slider = ipywidgets.IntSlider(start, 0, len(dataset.test) - 1, description="utterance", continuous_update=False)
    picture = ipywidgets.Image(value=picture_of(start), format="png")

    def show(change: dict) -> None:
        picture.value = picture_of(change["new"])

    slider.observe(show, names="value")
    return ipywidgets.VBox([slider, picture])
