"""One utterance at a time: a trained TMT's weights, attention and prediction, beside the ground truth."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import torch
from matplotlib.figure import Figure

from tmtlib.analysis import importance
from tmtlib.common import MODALITIES
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset, Split
from tmtlib.data.transcripts import TOKEN
from tmtlib.models.base import Trace
from tmtlib.models.tmt import GROUPS, TMT
from tmtlib.study.runs import Run, load_model
from tmtlib.training.batches import sample_batch
from tmtlib.training.fit import Training


@dataclass(frozen=True)
class Explanation:
    """One test utterance as one model sees it."""

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


def explain(model: TMT, dataset: Dataset, which: int | str, training: Training) -> Explanation:
    """A test utterance, by number or id, as a TMT sees it. Raises IndexError for one that is not there."""
    i = dataset.test.ids.index(which) if which in dataset.test.ids else which
    if isinstance(i, str):
        near = ", ".join(get_close_matches(i, dataset.test.ids, cutoff=0)) or "none"
        raise IndexError(f"no test utterance {i!r} in {dataset.card.name}; the nearest ids are {near}")
    if not 0 <= i < len(dataset.test):
        raise IndexError(f"utterance {i}; wanted 0 to {len(dataset.test) - 1}")
    utterance = dataset.test.take(np.array([i]))
    values = importance.subset_values(model, utterance, "absent", dataset.train, training, "cpu")
    with torch.no_grad():
        _, trace = model.cpu().eval()(sample_batch(model, utterance), attention=True)
    truth = None if dataset.truth is None else dataset.truth.splits["test"]
    return Explanation(
        name=utterance.ids[0],
        transcript=utterance.raw_text[0],
        label=float(utterance.labels[0]),
        prediction=float(values[MODALITIES][0]),
        contribution=_by_modality(importance.prediction_shapley(values)[:, 0]),
        weights=None if trace.weights is None else _by_modality(trace.weights[0].mean(-1)),
        attention=_attention(model, trace, utterance),
        words=frame_words(utterance, 0),
        truth=None if truth is None else _by_modality(truth.importance[i]),
        reliable=None if truth is None else _by_modality(truth.reliable[i]),
    )


def explain_run(run: Run, which: int | str) -> Explanation:
    """`explain` of a finished run of a TMT. Raises FileNotFoundError for an untrained run."""
    data = load(run.data)
    return explain(load_model(run, data.shape), data, which, run.training)


def _by_modality(values: np.ndarray | torch.Tensor) -> dict[str, float]:
    return dict(zip(MODALITIES, values.tolist(), strict=True))


def frame_words(split: Split, i: int) -> tuple[str, ...]:
    """What stands at each valid text frame: words (of Chinese, characters), where the transcript has one a frame (with
    or without [CLS] and [SEP]); else the frames' numbers from 1."""
    length, words = int(split.lengths["text"][i]), TOKEN.findall(split.raw_text[i])
    if len(words) == length:
        return tuple(words)
    if len(words) + 2 == length:
        return ("[CLS]", *words, "[SEP]")
    return tuple(str(k + 1) for k in range(length))


def _attention(model: TMT, trace: Trace, utterance: Split) -> dict[str, np.ndarray]:
    """Attention of each token group (mean over its tokens and the heads) to each valid frame, last encoder layer."""
    heads = trace.attention[f"encoder.{model.config.encoder_layers - 1}"][0]  # (h, label tokens, them and frames)
    sizes = [model.sizes[g] for g in GROUPS]
    by_group = torch.stack([rows.mean(0) for rows in heads.mean(0).split(sizes)])
    lengths = {m: int(utterance.lengths[m][0]) for m in MODALITIES}
    frames = by_group[:, sum(sizes) :].split([max(1, n) for n in lengths.values()], dim=1)  # absent: one in the batch
    return {m: x[:, : lengths[m]].numpy() for m, x in zip(MODALITIES, frames, strict=True)}


def browse(run: Run, dataset: Dataset, draw: Callable[[Explanation], Figure], start: int = 0):
    """Displays the figure of a test utterance in a notebook, and returns an ipywidgets slider that goes through the
    others. The figure is a plain output: a saved notebook keeps the last one, which needs no kernel to be seen.

    draw: the figure of an `Explanation`, such as `figures.utterance`.
    """
    import ipywidgets
    from IPython.display import display

    model = load_model(run, dataset.shape)

    def drawn(i: int) -> Figure:
        return draw(explain(model, dataset, i, run.training))

    shown = display(drawn(start), display_id=True)
    slider = ipywidgets.IntSlider(start, 0, len(dataset.test) - 1, description="utterance", continuous_update=False)

    def move(change: dict) -> None:
        slider.description = "drawing ..."
        shown.update(drawn(change["new"]))
        slider.description = "utterance"

    slider.observe(move, names="value")
    return slider
