"""Real files read as they are, where they are at hand: in TMT_REAL_DATA, or in ../shared/data beside the checkout."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tmtlib.analysis.transcripts import agreement
from tmtlib.common import MODALITIES
from tmtlib.data import check, mmsa
from tmtlib.data.loading import load_dataset, resolve
from tmtlib.data.schema import SPLITS, Dataset, valid_frames

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
FOLDER = Path(os.environ.get("TMT_REAL_DATA") or BESIDE)

# Sizes, (T, D) of text, audio, vision, family, alignment and the MAE of the training median on test.
FILES = {
    "mosi_dev229_aligned": ((118, 59, 52), ((50, 300), (50, 74), (50, 47)), "mosi", "aligned", 1.396),
    "mosei_video893": ((631, 86, 176), ((1, 768), (1, 39), (1, 35)), "mosi", "aligned", 0.568),
    "mosi_glove_covarep": ((1281, 229, 685), ((40, 300), (1, 73), (1, 1)), "mosi", "unaligned", 1.455),
    "simsv2_expert_scores": ((2722, 647, 1034), ((1, 1), (1, 1), (1, 1)), "sims", "aligned", 0.539),
}
GUESSED = ("all", "metric family not in the file", 1)


def file(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"no real data: {path} is not there (set TMT_REAL_DATA to a folder that has it)")
    return path


@pytest.fixture(scope="module")
def read():
    """Reads a file by its stem, once."""
    found: dict[str, Dataset] = {}

    def once(name: str) -> Dataset:
        if name not in found:
            found[name] = mmsa.read(file(f"{name}.pkl"))
        return found[name]

    return once


@pytest.mark.parametrize("name", FILES)
def test_sizes_shapes_family_and_alignment(read, name):
    utterances, shapes, family, alignment, _ = FILES[name]
    dataset = read(name)
    assert tuple(len(dataset[s]) for s in SPLITS) == utterances
    assert all(tuple(dataset[s].shapes[m] for m in MODALITIES) == shapes for s in SPLITS)
    card = dataset.card
    assert (card.name, card.family, card.alignment, card.source) == (name, family, alignment, "real")
    assert check.verification(card) == "not a published file"


@pytest.mark.parametrize("name", FILES)
def test_content_is_sane(read, name):
    dataset = read(name)
    low, high = dataset.card.label_range
    for s in SPLITS:
        split = dataset[s]
        assert low <= split.labels.min() < 0 < split.labels.max() <= high
        assert len(set(split.ids)) == len(split)
        assert all(split.raw_text) and all(isinstance(t, str) for t in split.raw_text)
        for m in MODALITIES:
            x = split.features[m]
            assert x.dtype == np.float32 and np.isfinite(x).all()
            assert not x[~valid_frames(split, m)].any()
    assert check.leakage_table(dataset)["ids shared"].tolist() == [0, 0, 0]
    median = np.abs(dataset.test.labels - np.median(dataset.train.labels)).mean()
    assert median == pytest.approx(FILES[name][-1], abs=6e-4)


def test_oddities_are_those_known(read):
    def found(name):
        return {(o.split, o.what, o.count) for o in read(name).oddities}

    assert found("mosi_dev229_aligned") == {GUESSED} == found("mosei_video893")
    sizes = dict(zip(SPLITS, FILES["mosi_glove_covarep"][0], strict=True))
    absent = {(s, "vision absent from every utterance", n) for s, n in sizes.items()}
    assert found("mosi_glove_covarep") == {GUESSED} | absent | {(s, "text is float16", n) for s, n in sizes.items()}
    zeros = {"train": 10, "valid": 2, "test": 4}
    assert found("simsv2_expert_scores") == {GUESSED} | {
        (s, "vision all zero within its length", n) for s, n in zeros.items()
    }


def test_vision_is_absent_from_mosi_with_glove_and_covarep(read):
    dataset = read("mosi_glove_covarep")
    for s in SPLITS:
        assert not dataset[s].lengths["vision"].any() and not dataset[s].features["vision"].any()
        assert dataset[s].lengths["text"].min() >= 1 and dataset[s].lengths["text"].max() <= 40
        assert set(dataset[s].lengths["audio"]) == {1}
    table = check.lengths_table(dataset).set_index(["modality", "split"])
    assert table.loc[("vision", "test"), "absent"] == 685
    signs = check.splits_table(dataset).set_index("split").loc["test", ["negative", "zero", "positive"]]
    assert signs.tolist() == [378, 30, 277]
    scaled = load_dataset(file("mosi_glove_covarep.pkl"))
    assert not scaled.test.features["vision"].any(), "normalisation leaves an absent modality at zero"


def test_one_length_for_all_modalities_of_aligned_mosi(read):
    for s in SPLITS:
        split = read("mosi_dev229_aligned")[s]
        assert len({tuple(length) for length in split.lengths.values()}) == 1
        words = [len(text.split()) for text in split.raw_text]
        assert np.corrcoef(words, split.lengths["text"])[0, 1] > 0.9


def test_unimodal_labels_of_simsv2(read):
    dataset = read("simsv2_expert_scores")
    for s in SPLITS:
        split = dataset[s]
        assert set(split.unimodal_labels) == set(MODALITIES)
        for labels in split.unimodal_labels.values():
            assert labels.dtype == np.float32 and -1 <= labels.min() < labels.max() <= 1
            assert np.corrcoef(labels, split.labels)[0, 1] > 0.5
    assert not any(split.unimodal_labels for split in (read("mosei_video893").train, read("mosi_dev229_aligned").train))


@pytest.mark.parametrize(("name", "labels"), [("simsv2_expert_scores", "simsv2"), ("mosi_glove_covarep", "mosi")])
def test_labels_and_splits_are_the_official_ones(read, name, labels):
    official = pd.read_csv(file(f"labels/{labels}.csv")).set_index("id")
    dataset = read(name)
    for s in SPLITS:
        rows = official.loc[list(dataset[s].ids)]
        assert set(rows["split"]) == {s}
        np.testing.assert_allclose(dataset[s].labels, rows["label"], atol=1e-3)
    for m, column in {"text": "label_T", "audio": "label_A", "vision": "label_V"}.items():
        if column in official:
            rows = official.loc[list(dataset.test.ids)]
            np.testing.assert_allclose(dataset.test.unimodal_labels[m], rows[column], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "emotions", "commonest"),
    [
        ("meld_dev1108", "anger disgust fear joy neutral sadness surprise", {"neutral": 265, "surprise": 96}),
        ("emodb_audio", "anger boredom disgust fear happiness neutral sadness", {"anger": 72, "neutral": 47}),
    ],
)
def test_named_emotions_have_a_column_each(read, name, emotions, commonest):
    dataset = read(name)
    assert dataset.emotions == tuple(emotions.split())
    counts = dict(zip(dataset.emotions, dataset.train.emotion_labels.sum(0), strict=True))
    assert {k: counts[k] for k in commonest} == commonest and sum(counts.values()) == len(dataset.train)


def test_leakage_of_simsv2(read):
    row = check.leakage_table(read("simsv2_expert_scores")).set_index(["split", "earlier"]).loc[("test", "train")]
    assert (row["videos"], row["videos shared"], row["utterances in shared videos"]) == (145, 128, 842)


@pytest.mark.parametrize("name", FILES)
def test_report_reads_in_a_terminal(name):
    path = file(f"{name}.pkl")
    text = check.report(path).removeprefix(str(path))
    assert max(map(len, text.splitlines())) <= 110
    assert "Leakage" in text and "not a published file" in text


@pytest.mark.parametrize("name", ["mosi_glove_covarep", "mosi_dev229_aligned"])
def test_word_vectors_make_the_file_s_own_text_anew(name):
    assert agreement(resolve(file(f"{name}.pkl")), file("glove_mosi_vocab.npz")) == 1
