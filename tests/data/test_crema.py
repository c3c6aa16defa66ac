"""CREMA-D's votes: the one real data set that comes with the library."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from tmtlib import load_dataset
from tmtlib.common import MODALITIES
from tmtlib.data import crema
from tmtlib.data.loading import resolve, resolve_all
from tmtlib.data.schema import SPLITS


@pytest.fixture(scope="module")
def data():
    return load_dataset("crema", normalize=False)


def test_it_is_small_and_has_its_licence_beside_it():
    assert crema.PATH.stat().st_size < 500_000
    licence = crema.PATH.with_name("crema_votes.LICENSE.txt").read_text(encoding="utf-8")
    for words in (
        "Open Database License",
        "Cao",
        "What was changed",
        "### 4.0 Conditions of Use",
        "10.4 Choice of law",
    ):
        assert words in licence


def test_every_clip_is_there_once_and_no_actor_in_two_splits(data):
    ids = [data[s].ids for s in SPLITS]
    assert [len(x) for x in ids] == [4982, 984, 1476] and len(set().union(*ids)) == 7442
    actors = [{clip.split("_")[0] for clip in some} for some in ids]
    assert sum(map(len, actors)) == len(set().union(*actors)) == 91
    assert set(data.train.raw_text) == set(crema.SENTENCES.values())


def positive(row, kind):
    """Share of happiness minus that of the four negative emotions."""
    votes = {v: row[f"{kind}_{v}"] for v in crema.VOTES}
    return (votes["H"] - votes["A"] - votes["D"] - votes["F"] - votes["S"]) / sum(votes.values())


def test_features_and_labels_are_those_of_the_votes(data):
    table = pd.read_csv(crema.PATH)
    row = table[table["clip"] == data.test.ids[5]].iloc[0]
    for m, kind in (("audio", "voice"), ("vision", "face")):
        votes = np.array([row[f"{kind}_{v}"] for v in crema.VOTES])
        np.testing.assert_allclose(data.test.features[m][5, 0, :6], votes / votes.sum(), rtol=1e-6)
        assert data.test.unimodal_labels[m][5] == pytest.approx(positive(row, kind), abs=1e-6)
    assert data.test.labels[5] == pytest.approx(positive(row, "both"), abs=1e-6)
    both = {name: row[f"both_{v}"] for name, v in zip(data.emotions, crema.VOTES, strict=True)}
    assert data.emotions[3] == "happiness" and both["anger"] == row["both_A"]
    assert dict(zip(both, data.test.emotion_labels[5], strict=True)) == {
        k: v == max(both.values()) for k, v in both.items()
    }
    assert (data.train.features["text"].sum((1, 2)) == 1).all()
    assert (np.abs(data.train.labels) <= 1).all() and data.card.source == "real"


def test_the_face_carries_most_the_voice_some_and_the_sentence_nothing(data):
    def r(*modalities):
        x, y = ([np.hstack([s.features[m][:, 0] for m in modalities]), s.labels] for s in (data.train, data.test))
        return np.corrcoef(Ridge().fit(*x).predict(y[0]), y[1])[0, 1]

    text, audio, vision = (r(m) for m in MODALITIES)
    assert text < 0.15 and 0.5 < audio < 0.75 and vision > 0.9 and r(*MODALITIES) > vision


def test_it_is_found_by_its_name_whatever_folder_there_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TMT_DATA", str(tmp_path))
    assert resolve("crema").source == "real"
    refs, missing = resolve_all(("mosi",), data="crema", normalize=True, sizes={})
    assert [ref.name for ref in refs] == ["crema"] and not missing
    with pytest.raises(ValueError, match="family='mosi' is for files"):
        load_dataset("crema", family="mosi")
