"""Labels of emotions: from files, and as the generator makes them."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from test_readers import content, good_split

from tmtlib.common import EMOTIONS
from tmtlib.data import check, mmsa
from tmtlib.data.schema import SPLITS, DataError, Dataset, SyntheticSize, normalize, normalizer
from tmtlib.data.synthetic import VERSION, generate


@pytest.fixture(scope="module")
def many() -> Dataset:
    """Enough utterances for their rates, with little to store."""
    return generate("mosei", SyntheticSize((20_000, 20, 20), (1, 1, 1)))


# --- Labels from files -----------------------------------------------------------------------------------------------


def written(tmp_path, change, splits=SPLITS):
    """A small MMSA file; `change(n)` gives `emotion_labels` of a split of n utterances."""
    raw = content()
    for s in splits:
        raw[s]["emotion_labels"] = change(len(raw[s]["id"]))
    (tmp_path / "features.pkl").write_bytes(pickle.dumps(raw, protocol=4))
    return tmp_path / "features.pkl"


def strengths(n: int) -> np.ndarray:
    return (np.arange(6 * n).reshape(n, 6) % 10) / 3


@pytest.mark.parametrize(
    "change", [strengths, lambda n: strengths(n)[:, None], lambda n: strengths(n).tolist()], ids=["6", "1x6", "list"]
)
def test_readers_take_six_strengths_an_utterance(tmp_path, change):
    path = written(tmp_path, change)
    dataset = mmsa.read(path)
    for s in SPLITS:
        found = dataset[s].emotion_labels
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, strengths(len(dataset[s])).astype(np.float32))
    assert "emotion labels" in check.report(path)
    assert not [o for o in dataset.oddities if "emotion" in o.what]


def broken(value):
    def change(n):
        labels = strengths(n)
        labels[1, 2] = value
        return labels

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: np.zeros((n, 5)), r"\(4, 5\); wanted \(4, 6\) or \(4, 1, 6\), the columns happy, sad, anger"),
        (lambda n: np.zeros((n, 7)), r"\(4, 7\); wanted .*; leave out the first column, the sentiment"),
        (lambda n: np.zeros((n + 1, 6)), r"emotion_labels is \(5, 6\); wanted \(4, 6\)"),
        (lambda n: np.zeros(6 * n), r"emotion_labels is \(24,\)"),
        (lambda n: [["much"] * 6] * n, "emotion_labels holds text; wanted numbers"),
        (broken(np.nan), r"emotion_labels of 1 of 4 rows are not within 0\.\.3 \(the first in row 1"),
        (broken(-1.0), r"not within 0\.\.3"),
        (broken(3.5), r"not within 0\.\.3"),
    ],
)
def test_readers_refuse_other_emotion_labels(tmp_path, change, message):
    with pytest.raises(DataError, match=rf"features\.pkl.*{message}"):
        mmsa.read(written(tmp_path, change))


def test_emotion_labels_are_in_every_split_or_in_none(tmp_path):
    with pytest.raises(DataError, match=r"features\.pkl: no emotion labels in valid, test; wanted them in every split"):
        mmsa.read(written(tmp_path, strengths, splits=["train"]))


def test_a_split_checks_keeps_and_gives_its_emotion_labels(tmp_path):
    labels = np.arange(12, dtype=np.float32).reshape(2, 6) / 4
    split = good_split(emotion_labels=labels)
    for positions in ((0, 1), [0, 1], range(2), np.arange(2), np.array([True, True])):
        assert split.take(positions).emotion_labels.tolist() == labels.tolist()
    assert split.take(np.array([1])).emotion_labels.tolist() == labels[1:].tolist()
    assert normalize(split, normalizer(split)).emotion_labels is labels
    assert split.labels_for("emotions") is labels and split.labels_for("regression") is split.labels
    for wrong in (labels.astype(float), labels[:, 0], labels[:1]):
        with pytest.raises(DataError, match=r"emotion_labels are .*; wanted float32 \(2, K\)"):
            good_split(emotion_labels=wrong)


def test_one_name_an_utterance_makes_a_column_each(tmp_path):
    raw, names = content(), ("joy", "anger", "neutral", "joy", "neutral")
    for s in SPLITS:
        raw[s]["emotion"] = np.array(names[: len(raw[s]["id"])])
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps(raw, protocol=4))
    dataset = mmsa.read(path)
    assert dataset.emotions == dataset.shape.emotions == ("anger", "joy", "neutral")
    assert dataset.train.emotion_labels[:2].tolist() == [[0, 1, 0], [1, 0, 0]]
    mmsa.write_mmsa(dataset, tmp_path / "again.pkl")
    again = mmsa.read(tmp_path / "again.pkl")
    assert again.emotions == dataset.emotions
    np.testing.assert_array_equal(again.test.emotion_labels, dataset.test.emotion_labels)
    with pytest.raises(
        DataError, match="emotion_labels of train have 3 columns; wanted one for each of Card.emotions: anger, joy"
    ):
        replace(dataset, card=replace(dataset.card, emotions=("anger", "joy")))
    raw["test"]["emotion"] = raw["test"]["emotion"][:-1]
    path.write_bytes(pickle.dumps(raw, protocol=4))
    with pytest.raises(DataError, match=r"split test: emotion holds \d names; wanted one for each of \d utterances"):
        mmsa.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["test"].pop("emotion"), "emotion is in train, valid alone; wanted it in every split"),
        (lambda raw: raw["valid"].update(emotion=[""] * 5), "split valid: emotion holds ''; wanted the name"),
        (lambda raw: raw["valid"].update(emotion=[["joy"]] * 5), r"emotion holds \['joy'\]; wanted the name"),
        (lambda raw: raw["valid"].update(emotion=np.array([["joy"]] * 5)), r"emotion holds array\("),
        (lambda raw: raw["valid"].update(emotion=3), "emotion holds 3; wanted the name"),
        (lambda raw: raw["valid"].update(emotion="joy"), "emotion holds 'joy'|emotion is a str"),
    ],
)
def test_readers_refuse_what_is_no_name(tmp_path, change, message):
    raw = content()
    for s in SPLITS:
        raw[s]["emotion"] = ["joy"] * len(raw[s]["id"])
    change(raw)
    (tmp_path / "features.pkl").write_bytes(pickle.dumps(raw, protocol=4))
    with pytest.raises(DataError, match=message):
        mmsa.read(tmp_path / "features.pkl")


def test_names_count_where_no_split_has_strengths_and_untaught_ones_are_noted(tmp_path):
    raw = content()
    for s in SPLITS:
        raw[s]["emotion"] = ["joy" if s == "train" else "fear"] * len(raw[s]["id"])
    (tmp_path / "named.pkl").write_bytes(pickle.dumps(raw, protocol=4))
    assert "emotion 'fear' in no training utterance" in [o.what for o in mmsa.read(tmp_path / "named.pkl").oddities]
    for s in ("train", "valid"):
        raw[s]["emotion_labels"] = strengths(len(raw[s]["id"]))
    (tmp_path / "mixed.pkl").write_bytes(pickle.dumps(raw, protocol=4))
    with pytest.raises(DataError, match="no emotion labels in test; wanted them in every split"):
        mmsa.read(tmp_path / "mixed.pkl")


def test_emotion_labels_survive_writing(tmp_path):
    dataset = generate("mosei", SyntheticSize((12, 5, 6), (6, 6, 6)))
    mmsa.write_mmsa(dataset, tmp_path / "out.pkl")
    found = mmsa.read(tmp_path / "out.pkl", name="mosei")
    for s in SPLITS:
        np.testing.assert_array_equal(found[s].emotion_labels, dataset[s].emotion_labels)
    assert found.oddities == ()


# --- Synthetic labels ------------------------------------------------------------------------------------------------


def test_synthetic_emotions_have_plausible_rates_and_strengths(many):
    labels = many.train.emotion_labels
    rates = (labels > 0).mean(0)
    assert (rates > 0.05).all() and (rates < 0.6).all()
    assert set(np.unique(labels)) == {np.float32(k / 3) for k in range(10)}
    assert (labels > 0).sum(1).max() > 2 and (labels == 0).all(1).any(), "several at once, or none"


def test_synthetic_emotions_follow_the_sentiment_and_their_own_modalities(many):
    latent = many.train.labels
    correlation = [np.corrcoef(latent, many.train.emotion_labels[:, i])[0, 1] for i in range(6)]
    assert correlation[0] > 0.2 and max(correlation[1], correlation[4]) < -0.2
    # One reliable frame shows (2, u_0, u_m, p or q): least squares on it tells which modality an emotion leans on
    target = (many.train.emotion_labels > 0).astype(float)
    explained = {}
    for m in ("text", "audio", "vision"):
        x = many.train.features[m][:, 0]
        x = np.column_stack([x @ np.linalg.svd(x[:500], full_matrices=False)[2][:12].T, np.ones(len(x))])
        left = target - x @ np.linalg.lstsq(x, target, rcond=None)[0]
        explained[m] = 1 - left.var(0) / target.var(0)
    leans = {name: max(explained, key=lambda m: explained[m][i]) for i, name in enumerate(EMOTIONS)}
    assert [leans[name] for name in ("happy", "anger", "disgust")] == ["vision", "audio", "text"]


def test_synthetic_emotions_are_the_same_bytes_for_a_seed_and_belong_to_mosei_alone():
    size = SyntheticSize((30, 10, 20), (6, 6, 6))
    first, again, other = (generate("mosei", size, seed) for seed in (0, 0, 1))
    for s in SPLITS:
        np.testing.assert_array_equal(first[s].emotion_labels, again[s].emotion_labels)
        assert (first[s].emotion_labels != other[s].emotion_labels).any()
    assert all(generate(name, size).train.emotion_labels is None for name in ("mosi", "sims"))


def test_synthetic_emotions_are_those_of_this_version():
    """Loadings and rates are no part of `settings_sha256`: other labels need a new VERSION, and then new sums here."""
    labels = generate("mosei", SyntheticSize((200, 10, 20), (1, 1, 1))).train.emotion_labels
    assert (VERSION, np.rint(3 * labels.sum(0)).astype(int).tolist()) == (2, [415, 175, 165, 49, 130, 45])
