"""New splits by video, and synthetic data with speakers: how much a model gains from knowing a test video's speaker."""

from dataclasses import replace

import numpy as np

from tmtlib.common import MODALITIES, digest
from tmtlib.data import synthetic
from tmtlib.data.check import id_style, videos_of
from tmtlib.data.schema import SPLITS, Dataset, Split, normalize, normalizer, split_name, valid_frames


def regrouped(dataset: Dataset, seed: int = 0, normalized: bool | None = None) -> Dataset:
    """All utterances in new splits, no video in two of them; sizes within a video of the official ones.

    `normalized`: whether the features are z-scores of the official training split (default: `dataset.ref`); if so, they
    become z-scores of the new one. Truth, oddities and `ref` are dropped. Raises ValueError for fewer than three videos
    and for ids that name no video.
    """
    videos, every = video_names(dataset), Split.concat([dataset[s] for s in SPLITS])
    place = _placed(videos, seed)
    new_split = np.array([place[v] for s in SPLITS for v in videos[s]])
    splits = {s: every.take(new_split == s) for s in SPLITS}
    return _changed(dataset, splits, f"videos regrouped, seed {seed}", normalized)


def with_speakers(dataset: Dataset, effect: float, seed: int = 0, normalized: bool | None = None) -> Dataset:
    """Synthetic data in which each video is a speaker, recognisable in the features, who shifts the labels.

    Per speaker and feature, a normal draw of `effect` times the feature's sd in train is added to every valid frame. An
    independent normal draw of `effect` times the labels' sd in train is added to the labels, which are then rounded to
    the grid. `normalized` as for `regrouped`. Truth is dropped.

    An effect of 0 leaves any data as they are. Raises ValueError for another effect on data that are not synthetic, a
    negative effect, and ids that name no video.
    """
    if effect < 0:
        raise ValueError(f"effect is {effect}; wanted 0 or more standard deviations")
    if effect == 0:
        return replace(dataset, truth=None)
    if dataset.card.source != "synthetic":
        raise ValueError(f"{dataset.card.name} is {dataset.card.source}; wanted synthetic data to give speakers to")
    videos = video_names(dataset)
    names = np.unique([v for s in SPLITS for v in videos[s]])
    rng = np.random.default_rng(seed)
    shift = effect * dataset.train.labels.std() * rng.standard_normal(len(names))
    signature = {}
    for m, (_, deviation) in normalizer(dataset.train).items():
        signature[m] = (effect * deviation * rng.standard_normal((len(names), len(deviation)))).astype(np.float32)
    grid = synthetic.grid(synthetic.recipe_of(*split_name(dataset.card.name)))
    splits = {}
    for s in SPLITS:
        who, split = np.searchsorted(names, videos[s]), dataset[s]
        frames = {m: valid_frames(split, m)[..., None] for m in MODALITIES}
        features = {m: x + signature[m][who][:, None] * frames[m] for m, x in split.features.items()}
        unimodal = {m: _on_grid(y + shift[who], grid) for m, y in split.unimodal_labels.items()}
        labels = _on_grid(split.labels + shift[who], grid)
        splits[s] = replace(split, features=features, labels=labels, unimodal_labels=unimodal)
    return _changed(dataset, splits, f"speakers of effect {effect:g}, seed {seed}", normalized)


def video_names(dataset: Dataset) -> dict[str, list[str]]:
    """The video of each utterance, by split. Raises ValueError for ids that name no video."""
    if id_style(dataset) is None:
        wanted = f"(as in {dataset.train.ids[0]!r}); wanted 'video$_$clip' or alike"
        raise ValueError(f"ids of {dataset.card.name} name no video {wanted}")
    return videos_of(dataset)


def _placed(videos: dict[str, list[str]], seed: int) -> dict[str, str]:
    """The new split of each video: in random order the first to test, the next to valid, the rest to train.

    Cuts are between the videos where the count of utterances is nearest to the official one; no split is empty.
    """
    names, sizes = np.unique([v for s in SPLITS for v in videos[s]], return_counts=True)
    if len(names) < len(SPLITS):
        raise ValueError(f"{len(names)} videos; wanted at least {len(SPLITS)}, one for each split")
    order = np.random.default_rng(seed).permutation(len(names))
    reached = np.cumsum(sizes[order])  # utterances up to and including each video
    test, valid = (len(videos[s]) for s in ("test", "valid"))
    first = np.clip(np.abs(reached - test).argmin() + 1, 1, len(names) - 2)
    second = np.clip(np.abs(reached - test - valid).argmin() + 1, first + 1, len(names) - 1)
    new = np.repeat(("test", "valid", "train"), (first, second - first, len(names) - second))
    return dict(zip(names[order].tolist(), new.tolist(), strict=True))


def _on_grid(labels: np.ndarray, grid: np.ndarray) -> np.ndarray:
    return grid[np.abs(labels[:, None] - grid).argmin(1)]


def _changed(dataset: Dataset, splits: dict[str, Split], how: str, normalized: bool | None) -> Dataset:
    """The data set with other splits and a new card, z-scored by its new train if it was normalised."""
    if normalized is None:
        normalized = dataset.ref is not None and dataset.ref.normalize
    if normalized:
        statistics = normalizer(splits["train"])
        splits = {s: normalize(split, statistics) for s, split in splits.items()}
    sha256 = digest((dataset.card.sha256, how, normalized))
    card = replace(dataset.card, origin=f"{dataset.card.origin}, {how}", sha256=sha256)
    return replace(dataset, card=card, ref=None, oddities=(), truth=None, **splits)
