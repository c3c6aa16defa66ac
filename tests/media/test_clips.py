"""From a folder of clips to predictions, as a user goes; and what happens to clips that fail."""

import itertools
import pickle
import re
import tracemalloc
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("av", reason="needs the packages of [features]")

from tmtlib.__main__ import main
from tmtlib.common import MODALITIES
from tmtlib.data import mmsa, safe_pickle
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
    vectors, past = words.word_features("the film was fun".split(), HOW.text)
    np.testing.assert_array_equal(data.train.features["text"][0], vectors)
    assert past == 0


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "id,path,transcript\na,a.mp4,grün\n".encode("latin-1"),
            r"is not in UTF-8 \(found byte 0xfc\); save it as CSV",
        ),
        (
            b"id,path,transcript\na,a.mp4,well, there\n",
            "wanted CSV with commas, .* and a text that has commas in quotes",
        ),
        (b"id,path,transcript\na,a.mp4,well\nb,b.mp4,well, there\n", "is no table .*line 3"),
        (b"", "is no table"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, message):
    (tmp_path / "clips.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        clips.read_table(tmp_path / "clips.csv")
    assert "codec" not in str(error.value) and "\n" not in str(error.value)


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
    said = "(RuntimeError: no memory for this one); try it alone, or leave it out"
    assert done.failed == {"train_0": f"{table.parent}/train0.mp4 could not be described {said}"} and done.clips == 15
    monkeypatch.undo()
    clips.extract(tmp_path / "clips.csv", tmp_path / "features.pkl", HOW, progress=False)
    assert not (tmp_path / "features.pkl.failed.csv").exists()


def broken_files(folder, good):
    """Files that are no clips, and what is said of them."""
    (folder / "folder.mp4").mkdir()
    contents = {"empty.mp4": b"", "page.mp4": b"<html>gone</html>", "half.mp4": good[: len(good) // 2]}
    contents |= {"subtitles.srt": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n", "numbers.mp4": bytes(range(100))}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {
        "nowhere.mp4": "there is no file .*nowhere.mp4; wanted a clip, such as .mp4, its path relative to the table",
        "folder.mp4": "folder.mp4 is a folder; wanted a clip",
        "empty.mp4": r"empty.mp4 is empty \(0 bytes\); .*copy or download it again",
        "page.mp4": "page.mp4 cannot be decoded .*found a web page, perhaps a download that was refused; wanted a clip",
        "half.mp4": "found an .mp4 without its index, as one that was cut short; wanted a clip",
        "numbers.mp4": r"found bytes that begin with b'\\x00\\x01.*copy or download it again",
        "subtitles.srt": "has neither a sound nor a video stream; wanted a clip with one",
        "a" * 300: r"cannot be read \(File name too long\); wanted a file that you may read",
    }


def test_why_a_clip_is_left_out_is_said_plainly(table, tmp_path):
    good = (table.parent / "train0.mp4").read_bytes()
    (tmp_path / "clips").mkdir()
    (tmp_path / "beside.mp4").write_bytes(good)
    reasons = broken_files(tmp_path / "clips", good)
    rows = [{"id": name, "path": name} for name in reasons] + [{"id": "video/clip 1", "path": "../beside.mp4"}]
    pd.DataFrame(rows).to_csv(tmp_path / "clips" / "clips.csv", index=False)
    done = clips.extract(tmp_path / "clips" / "clips.csv", tmp_path / "features.pkl", HOW, progress=False)
    assert done.clips == 1 and list(done.failed) == list(reasons)
    for name, reason in done.failed.items():
        assert re.search(reasons[name], reason) and "Errno" not in reason and "\n" not in reason
    written = pd.read_csv(tmp_path / "features.pkl.failed.csv").set_index("id")["reason"]
    assert written.to_dict() == done.failed


def test_a_stream_that_is_not_there_is_an_absent_modality(table, tmp_path):
    import av

    with av.open(str(table.parent / "train0.mp4")) as clip:
        for kind in ("audio", "video"):
            (stream,) = getattr(clip.streams, kind)
            with av.open(str(tmp_path / f"{kind}.mp4"), "w") as alone:
                copied = alone.add_stream_from_template(stream)
                for packet in [p for p in clip.demux(stream) if p.dts is not None]:
                    packet.stream = copied
                    alone.mux(packet)
            clip.seek(0)
    (tmp_path / "clips.csv").write_text("id,path\na,audio.mp4\nv,video.mp4\n")
    done = clips.extract(tmp_path / "clips.csv", tmp_path / "features.pkl", HOW, progress=False)
    assert not done.failed and {"audio: absent from 1 clips", "vision: absent from 1 clips"} <= {*done.notes}


def test_words_past_the_encoder_s_limit_are_counted(table, tmp_path):
    spoken = [
        *"a film that never ends".split()
    ] * 120  # 600 words in as many pieces; the encoder takes 512, two its own
    vectors, past = words.word_features(spoken, HOW.text)
    assert past == 90 and vectors[:510].any(1).all() and not vectors[510:].any()
    lines = [f"{word},{i / 1000},{(i + 1) / 1000}" for i, word in enumerate(spoken)]
    (tmp_path / "words.csv").write_text("\n".join(["word,start,end", *lines]))
    (tmp_path / "clips.csv").write_text(f"id,path,words\nlong,{table.parent / 'train0.mp4'},words.csv\n")
    done = clips.extract(tmp_path / "clips.csv", tmp_path / "features.pkl", HOW, progress=False)
    assert any(note.startswith("text: 90 words lie past the encoder's limit and are zeros") for note in done.notes)
    config = pickle.loads((tmp_path / "features.pkl").read_bytes())["config"]
    assert config["counts"]["words_past_limit"] == 90 and config["counts"]["frames"] == 16


def test_the_card_names_the_versions_of_what_made_the_features(features, table):
    cards = pickle.loads((table.parent / "features.pkl").read_bytes())["config"]["extractors"]
    named = {"text": ("transformers", "torch"), "audio": ("librosa", "scipy", "av"), "vision": ("av",)}
    for modality, packages in named.items():
        assert all(f"{package} {version(package)}" in cards[modality] for package in packages)
    assert "OpenCV 4." in cards["vision"] and "SHA-256" in cards["text"]


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path, monkeypatch):
    """64 clips of 400 frames are 59 MB of features, of which less than half is ever in memory."""

    def described(clip, how):
        rng, widths = np.random.default_rng(int(clip["id"])), {"text": 384, "audio": 74, "vision": 149}
        made = {m: rng.standard_normal((400, width), np.float32) for m, width in widths.items()}
        return made | {"counts": np.zeros(len(clips.COUNTS), int)}

    monkeypatch.setattr(clips, "describe", described)
    splits = pd.Series(["test", "train", "valid", "train"] * 16)
    (tmp_path / "words.csv").write_text("word,start,end\nwell,0,1\n")
    for i in range(64):
        (tmp_path / f"{i}.mp4").write_text(str(i))
    rows = pd.DataFrame({"id": range(64), "path": [f"{i}.mp4" for i in range(64)], "split": splits})
    rows.assign(label=1.0, words="words.csv").to_csv(tmp_path / "clips.csv", index=False)
    out = tmp_path / "features.pkl"
    tracemalloc.start()
    clips.extract(tmp_path / "clips.csv", out, HOW, progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert out.stat().st_size > 2 * peak and {p.suffix for p in (tmp_path / "features.pkl.clips").iterdir()} == {".npz"}
    plain, safe = pickle.loads(out.read_bytes()), safe_pickle.load(out)
    for split, modality in itertools.product(("train", "valid", "test"), MODALITIES):
        x = plain[split][modality]
        wanted = [described({"id": i}, HOW)[modality] for i in plain[split]["id"]]
        assert (
            type(x) is np.ndarray
            and x.flags.writeable
            and [*plain[split]["id"]] == [*map(str, rows["id"][splits == split])]
        )
        np.testing.assert_array_equal(x, np.stack(wanted))
        np.testing.assert_array_equal(x, safe[split][modality])


def test_transcripts_are_encoded_in_blocks(features, table, tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "TEXT_BLOCK", 3)
    transcripts = [*pd.read_csv(table)["transcript"][:8]]
    text = clips._encoded([*transcripts, "  "], HOW, tmp_path)
    np.testing.assert_allclose(text["text"][:8], features[1].train.features["text"], atol=1e-5)
    assert text["text_lengths"][8] == 0 and not text["text"][8].any()


def test_an_unknown_language_is_said():
    assert words.unknown_share(["it was fun"], HOW.text) == 0
    assert words.unknown_share(["这部电影很好看"], HOW.text) > 0.5


def test_a_row_of_a_million_fields_is_refused_before_it_fills_the_memory(tmp_path):
    (tmp_path / "clips.csv").write_text("id,path,transcript\n" + "," * 1_000_000 + "\n")
    with pytest.raises(DataError, match="has a line of 1000001 fields; wanted at most 1000"):
        clips.read_table(tmp_path / "clips.csv")
