"""From a folder of clips to predictions, as a user goes; and what happens to clips that fail."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("av", reason="needs the packages of [features]")

from tmtlib.__main__ import main
from tmtlib.common import MODALITIES
from tmtlib.data import mmsa
from tmtlib.data.schema import DataError
from tmtlib.media import clips, example, words

HOW = clips.Extractors(clips.installed_encoder())


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return example.write_clips(tmp_path_factory.mktemp("clips"), (8, 4, 4))


@pytest.fixture(scope="module")
def features(table):
    done = clips.extract(table, table.parent / "features.pkl", HOW, progress=False)
    return done, mmsa.read(table.parent / "features.pkl")


def test_what_the_clips_show_is_in_the_features(features, table):
    done, data = features
    rows = pd.read_csv(table)
    train = rows[rows["split"] == "train"]
    assert done.clips == 16 and not done.failed and data.train.ids == tuple(train["id"])
    np.testing.assert_allclose(data.train.labels, train["label"], atol=1e-6)
    assert set(data.train.unimodal_labels) == set(MODALITIES) and data.card.alignment == "unaligned"
    assert data.train.raw_text == tuple(train["transcript"])
    assert not [o.what for o in data.oddities if "not in the file" in o.what]
    f0 = data.train.features["audio"][:, :, clips.audio.FEATURE_NAMES.index("f0_hz")]
    heard = np.array([np.median(row[row > 0]) for row in f0])
    np.testing.assert_allclose(heard, 150 * 2 ** (train["label_A"] / 2), rtol=0.02)
    assert (data.train.lengths["vision"] >= 12).all() and (data.train.lengths["text"] > 5).all()


def test_a_second_call_describes_only_what_is_new(features, table, monkeypatch):
    described = []
    real = clips.describe
    monkeypatch.setattr(clips, "describe", lambda clip, how: described.append(clip["id"]) or real(clip, how))
    more = pd.read_csv(table)
    copy = more.iloc[[0]].assign(id="again", path="../again.mp4")
    (table.parent.parent / "again.mp4").write_bytes((table.parent / more["path"][1]).read_bytes() + b"\0")
    pd.concat([more, copy]).to_csv(table.parent / "more.csv", index=False)
    done = clips.extract(table.parent / "more.csv", table.parent / "features.pkl", HOW, progress=False)
    assert described == ["again"] and done.clips == 17


def test_a_clip_that_fails_is_named_and_left_out(table, tmp_path, capsys):
    rows = pd.read_csv(table)
    rows["path"] = [str(table.parent / p) for p in rows["path"]]
    (tmp_path / "page.mp4").write_text("<html>gone</html>")
    rows.loc[0, "path"], rows.loc[1, "path"] = str(tmp_path / "page.mp4"), "nowhere.mp4"
    rows.to_csv(tmp_path / "clips.csv", index=False)
    out = tmp_path / "features.pkl"
    assert main(["features", str(tmp_path / "clips.csv"), "--out", str(out), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "14 clips in" in printed.out and "2 left out" in printed.out and "left out train_0: " in printed.err
    failed = pd.read_csv(tmp_path / "features.pkl.failed.csv")
    assert failed["id"].tolist() == ["train_0", "train_1"] and "nowhere.mp4" in failed["reason"][1]
    assert len(mmsa.read(out).train) == 6


def test_from_clips_to_predictions_in_three_commands(features, table, tmp_path):
    new = pd.read_csv(table).tail(3)[["id", "path", "transcript"]]
    new.to_csv(table.parent / "new.csv", index=False)
    known, model, out = table.parent / "features.pkl", tmp_path / "model", tmp_path / "predictions.csv"
    size = ["--profile", "smoke", "--device", "cpu"]
    assert main(["train", str(known), "--method", "tmt_amw", "--out", str(model), *size]) == 0
    assert main(["features", str(table.parent / "new.csv"), "--out", str(tmp_path / "new.pkl"), "--device", "cpu"]) == 0
    assert main(["predict", str(model), str(tmp_path / "new.pkl"), "--out", str(out), "--device", "cpu"]) == 0
    rows = pd.read_csv(out)
    assert rows["id"].tolist() == new["id"].tolist() and rows["weight_text"].between(0.2, 0.5).all()


def test_words_with_times_make_aligned_features(table, tmp_path):
    rows = pd.read_csv(table)
    rows["path"] = [str(table.parent / p) for p in rows["path"]]
    timed = "word,start,end\nthe,0.0,0.4\nfilm,0.4,0.9\nwas,0.9,1.1\nfun,1.1,1.6\n"
    (tmp_path / "words.csv").write_text(timed)
    rows.assign(words="words.csv", emotion=["joy", "anger"] * 8).to_csv(tmp_path / "clips.csv", index=False)
    assert main(["features", str(tmp_path / "clips.csv"), "--out", str(tmp_path / "features.pkl")]) == 0  # device auto
    data = mmsa.read(tmp_path / "features.pkl")
    assert data.emotions == ("anger", "joy") and data.train.emotion_labels[:, 1].tolist() == [1, 0] * 4
    assert data.card.alignment == "aligned" and {t for t, _ in data.shapes.values()} == {4}
    np.testing.assert_array_equal(
        data.train.features["text"][0], words.word_features("the film was fun".split(), HOW.text)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="path"), "wanted path too"),
        (lambda t: t.rename(columns={"transcript": "text"}), "has the columns text; known are"),
        (lambda t: t.drop(columns="label"), "has no column label; for training it needs both"),
        (lambda t: t.assign(id="a"), r"id is 'a' in line 3; wanted an id, each once \(15 of 16 rows"),
        (lambda t: t.assign(split="dev"), "split is 'dev' in line 2; wanted train, valid, test"),
        (lambda t: t.assign(label="good"), "label is 'good' in line 2; wanted a number"),
        (lambda t: t.assign(label_T="abc"), "label_T is 'abc' in line 2"),
        (lambda t: t.assign(emotion=None), "emotion is nan in line 2; wanted the name"),
        (lambda t: t.assign(label=7), "label is 7 in line 2; wanted a number in -3..3"),
        (lambda t: t.iloc[:0], "has no rows; wanted one a clip"),
        (lambda t: t.set_axis([";".join(t), *t.columns[1:]], axis=1), "it has semicolons: save it with commas"),
        (lambda t: t.assign(split="train"), "no clip in split valid and test"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_at_once(table, tmp_path, change, message):
    change(pd.read_csv(table)).to_csv(tmp_path / "clips.csv", index=False)
    with pytest.raises(DataError, match=message):
        clips.extract(tmp_path / "clips.csv", tmp_path / "features.pkl", HOW, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["clips.csv"]


def test_a_slow_picture_keeps_its_clock_and_what_is_not_there_is_absent(table, tmp_path, monkeypatch):
    """A face at five frames a second that is there in the second half alone, and no sound: three words of a second."""
    faces, gone = np.ones((5, 149), np.float32), np.zeros((5, 149), np.float32)
    half = clips.vision.Seen(np.concatenate([gone, faces]), np.arange(10) / 5, 10, 5, 0)
    (tmp_path / "words.csv").write_text("word,start,end\nno,0,1\nhalf,0.5,1.5\nyes,1,2\n")
    clip = {"path": str(table.parent / "train0.mp4"), "words": str(tmp_path / "words.csv")}
    monkeypatch.setattr(clips, "_describer", lambda *of: lambda path: half)
    monkeypatch.setattr(clips.audio, "read_sound", lambda path: np.zeros(0, np.float32))
    made = clips.describe(clip, HOW)
    assert made["vision"][:, 0].tolist() == [0, 1, 1], "a mean over the frames that have a face"
    assert made["audio"].shape == (0, 74)
    assert clips.describe({"path": clip["path"]}, HOW)["vision"].shape == (5, 149), "frames without a face are absent"
    nothing = clips.vision.Seen(gone[:0], np.zeros(0), 10, 10, 0)
    monkeypatch.setattr(clips, "_describer", lambda *of: lambda path: nothing)
    assert clips.describe(clip, HOW)["vision"].shape == (0, 149)


def test_whatever_one_clip_raises_the_others_are_described(table, tmp_path, monkeypatch):
    def describe(clip, how, real=clips.describe):
        if clip["id"] == "train_0":
            raise RuntimeError("no memory for this one")
        return real(clip, how)

    monkeypatch.setattr(clips, "describe", describe)
    rows = pd.read_csv(table)
    rows.assign(path=[str(table.parent / p) for p in rows["path"]]).to_csv(tmp_path / "clips.csv", index=False)
    done = clips.extract(tmp_path / "clips.csv", tmp_path / "features.pkl", HOW, progress=False)
    assert done.failed == {"train_0": "RuntimeError: no memory for this one"} and done.clips == 15
    monkeypatch.undo()
    clips.extract(tmp_path / "clips.csv", tmp_path / "features.pkl", HOW, progress=False)
    assert not (tmp_path / "features.pkl.failed.csv").exists()


def test_an_unknown_language_is_said():
    assert words.unknown_share(["it was fun"], HOW.text) == 0
    assert words.unknown_share(["这部电影很好看"], HOW.text) > 0.5
