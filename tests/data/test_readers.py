"""Every layout of the field's pickles, written here small, with each oddity that is documented or was met."""

import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tmtlib.common import MODALITIES
from tmtlib.data import catalog, mmsa, synthetic
from tmtlib.data.schema import SPLITS, Card, DataError, Dataset, Oddity, Split, SyntheticSize

N = {"train": 4, "valid": 3, "test": 2}
FRAMES = {"text": 6, "audio": 9, "vision": 7}
WIDTH = {"text": 4, "audio": 3, "vision": 2}
LENGTHS = {"text": (6, 3, 1, 4), "audio": (9, 2, 5, 7), "vision": (1, 7, 3, 2)}  # of the first utterances of a split
LABELS = (-3.0, 0.0, 1.6, 0.4)
GUESSED = Oddity(
    "all",
    "metric family not in the file",
    1,
    "guessed 'mosi': labels go beyond -1..1; load_dataset(..., family=) overrides it",
)


def frames(rng, n: int, length, t: int, d: int) -> np.ndarray:
    """Features that are nowhere zero within the lengths and zero beyond."""
    x = rng.uniform(0.5, 1.5, (n, t, d)).astype(np.float32)
    return x * (np.arange(t) < np.asarray(length)[:n, None])[..., None]


def bert(length) -> np.ndarray:
    """Token ids, mask and segments, as float, as MMSA's files have them."""
    mask = np.arange(FRAMES["text"]) < np.asarray(length)[:, None]
    return np.stack([mask * 101, mask, mask * 0], 1).astype(np.float32)


def mmsa_split(split: str) -> dict:
    """MMSA unaligned: lengths stated for audio and vision, and for text by the mask of `text_bert`."""
    n, rng = N[split], np.random.default_rng(SPLITS.index(split))
    raw = {m: frames(rng, n, LENGTHS[m], FRAMES[m], WIDTH[m]) for m in MODALITIES}
    return raw | {
        "id": np.array([f"{split}$_${i}" for i in range(n)]),
        "raw_text": np.array([f"words {i}" for i in range(n)], dtype=object),
        "text_bert": bert(LENGTHS["text"][:n]).astype(np.int64),
        "audio_lengths": list(LENGTHS["audio"][:n]),
        "vision_lengths": np.array(LENGTHS["vision"][:n]),
        "regression_labels": np.array(LABELS[:n], np.float32),
        "annotations": np.array(["Negative", "Neutral", "Positive", "Positive"][:n]),
        "classification_labels": np.zeros(n),
    }


def aligned_split(split: str) -> dict:
    """MMSA aligned: one T and one length for all modalities, none stated."""
    raw = mmsa_split(split)
    rng = np.random.default_rng(9)
    for m in MODALITIES:
        raw[m] = frames(rng, N[split], LENGTHS["text"], FRAMES["text"], WIDTH[m])
        raw.pop(f"{m}_lengths", None)
    return raw


def mult_split(split: str) -> dict:
    """MulT: labels (N, 1, 1), ids (video, start, end), no transcripts, padded at the front."""
    raw = aligned_split(split)
    made = {m: raw[m] for m in MODALITIES}
    for i, length in enumerate(LENGTHS["text"][: N[split]]):
        for m in MODALITIES:
            made[m][i] = np.roll(made[m][i], FRAMES["text"] - length, axis=0)
    ids = [(f"{split}_video", str(i), f"{i + 0.5}") for i in range(N[split])]
    return made | {"labels": raw["regression_labels"].reshape(-1, 1, 1), "id": ids}


def content(of: Callable[[str], dict] = mmsa_split) -> dict:
    return {s: of(s) for s in SPLITS}


@pytest.fixture
def read(tmp_path):
    """Writes content as a pickle under a name and reads it."""

    def written_and_read(what: object, name: str = "features.pkl", **options) -> Dataset:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(what, protocol=4))
        return mmsa.read(path, **options)

    return written_and_read


def oddities(dataset: Dataset, split: str = "train") -> set[tuple]:
    """(what, count, handling) of a split, beyond what every file of these tests has."""
    common = {"text lengths not in the file", "text_bert mask has no 0"}
    return {(o.what, o.count, o.handling) for o in dataset.oddities if o.split == split and o.what not in common}


def assert_features_are(found: Split, raw: dict):
    for m in MODALITIES:
        assert found.features[m].dtype == np.float32
        np.testing.assert_array_equal(found.features[m], raw[m])


def test_mmsa_unaligned(read):
    raw = content()
    dataset = read(raw)
    for s in SPLITS:
        split, n = dataset[s], N[s]
        assert_features_are(split, raw[s])
        assert {m: split.lengths[m].tolist() for m in MODALITIES} == {m: list(LENGTHS[m][:n]) for m in MODALITIES}
        assert split.labels.tolist() == np.float32(LABELS[:n]).tolist() and split.labels.dtype == np.float32
        assert split.ids == tuple(f"{s}$_${i}" for i in range(n))
        assert split.raw_text == tuple(f"words {i}" for i in range(n))
        assert split.text_bert.tolist() == bert(LENGTHS["text"][:n]).tolist() and split.text_bert.dtype == np.int64
        assert split.unimodal_labels == {}
    card = dataset.card
    assert (card.name, card.family, card.alignment, card.source) == ("features", "mosi", "unaligned", "real")
    assert (card.label_range, card.origin, len(card.sha256)) == ((-3, 3), "features.pkl", 64)
    assert dataset.shapes == {m: (FRAMES[m], WIDTH[m]) for m in MODALITIES}
    by_mask = "found from the mask of text_bert"
    by_sum = "length is the mask's sum (the field's argmin(mask) would give 0)"
    masks = {Oddity(s, "text lengths not in the file", N[s], by_mask) for s in SPLITS}
    assert set(dataset.oddities) == {GUESSED} | masks | {
        Oddity(s, "text_bert mask has no 0", 1, by_sum) for s in SPLITS
    }


def test_mmsa_aligned(read):
    raw = content(aligned_split)
    dataset = read(raw)
    assert dataset.card.alignment == "aligned"
    for s in SPLITS:
        assert_features_are(dataset[s], raw[s])
        assert all(dataset[s].lengths[m].tolist() == list(LENGTHS["text"][: N[s]]) for m in MODALITIES)
    derived = "found from the trailing all-zero frames"
    assert oddities(dataset) == {(f"{m} lengths not in the file", 4, derived) for m in ("audio", "vision")}


def test_stated_lengths_that_differ_are_unaligned(read):
    raw = content(aligned_split)
    for s in SPLITS:
        raw[s]["audio_lengths"] = [1] * N[s]
    assert read(raw).card.alignment == "unaligned"


def test_mmsa_fet(read):
    raw = content()
    for part in raw.values():
        part |= {m: part[m].astype(np.float64) for m in MODALITIES}
        part["text_lengths"] = part["text_bert"][:, 1].sum(1)
        part |= {f"regression_labels_{x}": part["regression_labels"] / 3 for x in "TAV"}
    dataset = read(raw | {"config": {"audio": {"tool": "librosa"}, "video": {"fps": 30}}})
    assert_features_are(dataset.train, raw["train"])
    assert set(dataset.train.unimodal_labels) == set(MODALITIES)
    assert oddities(dataset) == {(f"{m} is float64", 4, "made float32") for m in MODALITIES}


def test_mult(read):
    dataset = read(content(mult_split))
    assert dataset.card.alignment == "aligned"
    end_padded = aligned_split("train")
    assert_features_are(dataset.train, end_padded)
    assert dataset.train.lengths["audio"].tolist() == list(LENGTHS["text"])
    assert dataset.train.labels.tolist() == np.float32(LABELS).tolist()
    assert dataset.train.ids[1] == "train_video[1,1.5]"
    assert dataset.train.raw_text == ("",) * 4 and dataset.train.text_bert is None
    expected = {(f"{m} padded at the front", 3, "data moved to the start") for m in MODALITIES}
    derived = "found from the trailing all-zero frames"
    assert oddities(dataset) == expected | {(f"{m} lengths not in the file", 4, derived) for m in ("audio", "vision")}
    assert Oddity("train", "text lengths not in the file", 4, derived) in dataset.oddities


@pytest.mark.parametrize("without_vision", [False, True])
def test_front_padding_moves_all_modalities_by_one_number_of_frames(read, without_vision):
    """The first word has no sound, so audio begins a frame later; a modality that is not there changes nothing."""
    raw = content(mult_split)
    for part in raw.values():
        part["audio"][1, :4] = 0  # of length 3, words at frames 3, 4, 5
        if without_vision:
            del part["vision"]
    dataset = read(raw)
    first_words, sounds = dataset.train.features["text"][1], dataset.train.features["audio"][1]
    assert first_words[:3].all() and not first_words[3:].any()
    assert not sounds[0].any() and sounds[1:3].all()
    assert dataset.train.lengths["audio"][1] == 3
    assert dataset.card.alignment == "aligned"


def set_values(key, index, value):
    def change(part):
        part[key] = np.array(part[key])
        part[key][index] = value

    return change


def set_key(key, value):
    return lambda part: part.__setitem__(key, value(part) if callable(value) else value)


def without(*keys):
    return lambda part: [part.pop(k) for k in keys]


TRAILING = "found from the trailing all-zero frames"
AS_IS, TRUSTED, LEFT_OUT = "kept as it is", "set to 0: the length is trusted", "this key left out for the whole split"
ODDITIES = {
    "-inf": (set_values("audio", np.s_[0, :2, 1], -np.inf), {("-inf values in audio", 2, "set to 0")}),
    "+inf and NaN": (
        lambda p: (set_values("vision", np.s_[1, 0], np.nan)(p), set_values("vision", np.s_[1, 1, 0], np.inf)(p)),
        {("NaN values in vision", 2, "set to 0"), ("+inf values in vision", 1, "set to 0")},
    ),
    "too large for float32": (
        set_key("audio", lambda p: np.where(p["audio"] > 0, 1e300, 0.0)),
        {("audio is float64", 4, "made float32"), ("+inf values in audio", 3 * 23, "set to 0")}
        | {("audio all zero within its length", 4, AS_IS)},
    ),
    "float text_bert": (
        set_key("text_bert", lambda p: p["text_bert"].astype(np.float32)),
        {("text_bert is float32", 4, "made int64")},
    ),
    "text_bert of another length": (
        set_key("text_bert", lambda p: p["text_bert"][:, :, :5]),
        {("text_bert is int64 (4, 3, 5)", 4, "left out: wanted finite numbers (4, 3, 6), as the text has 6 frames")},
    ),
    "text_bert with NaN": (
        lambda p: p.update(text_bert=np.where(p["text_bert"] == 0, np.nan, 1)),
        {("text_bert is float64 (4, 3, 6)", 4, "left out: wanted finite numbers (4, 3, 6), as the text has 6 frames")},
    ),
    "length 0 with data": (
        set_values("audio_lengths", np.s_[1:3], 0),
        {("audio length 0 but frames hold data", 2, TRAILING)},
    ),
    "length 0 without data": (
        lambda p: (set_values("vision_lengths", 2, 0)(p), set_values("vision", 2, 0)(p)),
        {("vision absent (length 0)", 1, "kept, with length 0")},
    ),
    "length beyond T": (
        set_values("vision_lengths", 1, 500),
        {("vision length beyond T=7", 1, "clamped to 7")},
    ),
    "length below 0": (
        set_values("vision_lengths", 1, -1),
        {("vision length below 0", 1, "clamped to 0"), ("vision length 0 but frames hold data", 1, TRAILING)},
    ),
    "length short by one": (
        set_values("audio_lengths", 3, 6),
        {("audio data beyond the length", 1, TRUSTED)},
    ),
    "no lengths": (
        without("audio_lengths", "vision_lengths"),
        {("audio lengths not in the file", 4, TRAILING), ("vision lengths not in the file", 4, TRAILING)},
    ),
    "zeros within the length": (
        set_values("audio", 2, 0),
        {("audio all zero within its length", 1, AS_IS)},
    ),
    "absent by zeros": (
        lambda p: p.update(vision=np.zeros((4, 1, 2), np.float32), vision_lengths=[0] * 4),
        {("vision absent from every utterance", 4, "kept, with length 0")},
    ),
    "half precision": (
        set_key("text", lambda p: p["text"].astype(np.float16)),
        {("text is float16", 4, "made float32")},
    ),
    "features as lists": (set_key("text", lambda p: p["text"].tolist()), {("text is list", 4, "made float32")}),
    "features as objects": (
        set_key("text", lambda p: p["text"].astype(object)),
        {("text is object", 4, "made float32")},
    ),
    "labels as a list": (
        set_key("regression_labels", lambda p: p["regression_labels"].tolist()),
        {("regression_labels is a list", 4, "made an array")},
    ),
    "unimodal labels": (set_key("regression_labels_T", lambda p: p["regression_labels"].astype(float)), set()),
    "unimodal labels with NaN": (
        set_key("regression_labels_A", np.array([0, np.nan, 1, np.nan])),
        {("regression_labels_A without a finite value", 2, LEFT_OUT)},
    ),
    "no ids": (without("id"), {("ids not in the file", 4, "numbered train[0], train[1], ...")}),
    "repeated id": (set_values("id", 1, "train$_$0"), {("id repeated within the split", 1, "kept")}),
    "no transcripts": (without("raw_text"), {("raw_text not in the file", 4, "transcripts left empty")}),
    "transcripts as bytes": (set_key("raw_text", [b"a", b"b", b"\xe4\xb8\x8d", b"d"]), set()),
    "nothing": (lambda p: None, set()),
}


@pytest.mark.parametrize("name", ODDITIES)
def test_each_oddity_is_counted_and_handled(read, name):
    change, expected = ODDITIES[name]
    raw = content()
    change(raw["train"])
    dataset = read(raw)
    assert oddities(dataset) == expected
    assert not oddities(dataset, "valid"), "and nothing is told of the other splits"
    for m in MODALITIES:
        x, length = dataset.train.features[m], dataset.train.lengths[m]
        assert np.isfinite(x).all()
        assert not x[np.arange(x.shape[1]) >= length[:, None]].any(), "zero beyond the length"


def test_what_is_repaired_has_the_documented_value(read):
    raw = content()
    ODDITIES["-inf"][0](raw["train"])
    set_values("audio_lengths", [1, 2, 3], [0, 99, 6])(raw["train"])
    train = read(raw).train
    assert train.features["audio"][0, :2, 1].tolist() == [0, 0] and train.features["audio"][0, :2, 0].all()
    assert train.lengths["audio"].tolist() == [9, 2, 9, 6]
    assert not train.features["audio"][3, 6].any(), "the frame beyond the length is gone"


def test_full_mask_gives_the_full_length(read):
    """The field's argmin(mask) gives 0 where the mask has no 0."""
    dataset = read(content())
    assert dataset.train.lengths["text"][0] == FRAMES["text"]
    assert dataset.train.text_bert[0, 1].all()


def test_modality_absent_everywhere_is_kept_with_length_0(read):
    raw = content()
    for part in raw.values():
        del part["vision"], part["vision_lengths"]
    dataset = read(raw)
    for s in SPLITS:
        assert dataset[s].features["vision"].shape == (N[s], 1, 1) and not dataset[s].lengths["vision"].any()
    assert oddities(dataset) == {
        ("vision not in the file", 4, "taken as one frame of one 0, length 0"),
        ("vision absent from every utterance", 4, "kept, with length 0"),
    }


def test_one_vector_an_utterance_is_one_frame(read):
    raw = content()
    for part in raw.values():
        part["audio"] = part["audio"][:, 0]
        part["audio_lengths"] = np.ones((len(part["audio"]), 1))
    dataset = read(raw)
    assert dataset.train.shapes["audio"] == (1, 3)
    assert oddities(dataset) == {("audio has no time axis", 4, "taken as one frame, (N, 1, D)")}


def test_swapped_frames_are_reported_against_the_published_file_and_the_config(read):
    raw = content()
    for part in raw.values():
        n = len(part["id"])
        part |= {"audio": np.ones((n, 500, 5), np.float32), "vision": np.ones((n, 375, 20), np.float32)}
        part |= {"audio_lengths": [500] * n, "vision_lengths": [375] * n}
    raw["config"] = {"seq_lens": [6, 375, 500], "feature_dims": [4, 5, 20]}
    dataset = read(raw, "MOSI/Processed/unaligned_50.pkl")
    assert (dataset.card.name, dataset.card.family) == ("mosi", "mosi")
    sha256, published = dataset.card.sha256, catalog.files_of("mosi")[1].sha256
    kept = "kept as in the arrays"
    assert oddities(dataset, "all") == {
        (
            "metric family not in the file",
            1,
            "guessed 'mosi': the name is 'mosi'; load_dataset(..., family=) overrides it",
        ),
        (
            f"SHA-256 is {sha256[:12]}..., that of the published file is {published[:12]}...",
            1,
            "read all the same: results are this file's, not the published one's",
        ),
        ("text is (T, D) = (6, 4), the published file has (50, 768)", 1, kept),
        ("audio is (T, D) = (500, 5), the published file has (375, 5)", 1, kept),
        ("vision is (T, D) = (375, 20), the published file has (500, 20)", 1, kept),
        ("audio is (T, D) = (500, 5), its config has (375, 5)", 1, kept),
        ("vision is (T, D) = (375, 20), its config has (500, 20)", 1, kept),
    }


def test_id_in_two_splits_is_reported(read):
    raw = content()
    raw["test"]["id"] = raw["train"]["id"][:2]
    assert ("id in more than one split", 2, "kept: test scores on them leak") in oddities(read(raw), "all")


def test_family_is_guessed_from_the_labels_or_given(read):
    raw = content()
    for part in raw.values():
        part["regression_labels"] = part["regression_labels"] / 3
    dataset = read(raw)
    assert (dataset.family, dataset.card.label_range) == ("sims", (-1, 1))
    assert "guessed 'sims': labels lie all within -1..1" in dataset.oddities[-1].handling
    given = read(raw, family="mosi", name="mine")
    assert (given.family, given.card.name) == ("mosi", "mine")
    assert not [o for o in given.oddities if "family" in o.what]


@pytest.mark.parametrize(
    ("path", "name", "family"),
    [("SIMS/Processed/unaligned_39.pkl", "sims", "sims"), ("MOSEI/aligned_50.pkl", "mosei", "mosi")]
    + [("SIMSv2/any.pkl", "simsv2", "sims"), ("Processed/mine.pkl", "mine", "sims")],
)
def test_name_and_family_come_from_the_folder(read, path, name, family):
    raw = content()
    for part in raw.values():
        part["regression_labels"] = part["regression_labels"] / 3
    dataset = read(raw, path)
    assert (dataset.card.name, dataset.family) == (name, family)


def test_known_bytes_give_name_family_and_alignment(read, monkeypatch):
    published = replace(catalog.files_of("sims")[0], shapes=tuple((FRAMES[m], WIDTH[m]) for m in MODALITIES))
    monkeypatch.setattr(catalog, "known_sha256", lambda sha256: published)
    monkeypatch.setattr(catalog, "files_of", lambda name: ())
    raw = content()
    for part in raw.values():
        part["regression_labels"] = part["regression_labels"] / 3
    dataset = read(raw)
    assert (dataset.card.name, dataset.family, dataset.card.alignment) == ("sims", "sims", "unaligned")
    assert not oddities(dataset, "all")


def in_train(change):
    return lambda raw: change(raw["train"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.pop("valid"), r"has the keys 'train', 'test'; wanted 'train', 'valid' and 'test'"),
        (lambda raw: raw.update(test=[1]), r"wanted 'train', 'valid' and 'test', each a dict of arrays"),
        (in_train(without("regression_labels")), r"split train: no labels among the keys text, audio"),
        (in_train(without("text", "text_bert", "audio", "vision")), "no features among the keys id, raw_text"),
        (in_train(set_values("regression_labels", 1, np.nan)), r"1 of 4 labels are NaN or infinite \(train\$_\$1\)"),
        (in_train(set_key("regression_labels", np.zeros((4, 6)))), r"regression_labels is \(4, 6\); wanted one"),
        (in_train(set_key("regression_labels", 1.0)), r"regression_labels is \(\); wanted one"),
        (in_train(set_key("regression_labels", ["1", "2", "3", "x"])), "regression_labels holds text; wanted numbers"),
        (in_train(set_key("regression_labels", np.array(["1", 2, 3, 0], object))), "regression_labels holds text"),
        (in_train(set_key("regression_labels", [1, 2, None, 3])), r"1 of 4 labels are NaN or infinite \(train\$_\$2\)"),
        (
            in_train(set_values("regression_labels", 0, -3.5)),
            r"labels of train span -3\.50\.\.1\.60; family 'mosi' wants",
        ),
        (in_train(set_key("id", ["a", "b"])), "2 ids but 4 labels"),
        (in_train(set_key("id", 7)), "id is a int; wanted a list or array"),
        (in_train(set_key("raw_text", "abcd")), "raw_text is a str; wanted a list or array"),
        (in_train(set_key("raw_text", ["a"])), "4 labels but 4 ids and 1 transcripts"),
        (in_train(set_key("audio", np.zeros((3, 9, 3)))), r"audio is \(3, 9, 3\); wanted \(4, T, D\)"),
        (in_train(set_key("audio", np.zeros((4, 9, 3, 1)))), r"audio is \(4, 9, 3, 1\); wanted \(4, T, D\)"),
        (in_train(set_key("audio", [[[1.0]], [[1.0, 2.0]], [[1.0]], [[1.0]]])), "rows of one size"),
        (in_train(set_key("audio", np.full((4, 9, 3), "x"))), "audio holds text; wanted numbers"),
        (in_train(set_key("audio", np.ones((4, 9, 3), complex))), "audio holds complex128"),
        (in_train(set_key("text_bert", [[1], [1, 2], [1], [1]])), "text_bert is no array of numbers"),
        (in_train(set_key("audio_lengths", [1, 2])), "audio_lengths holds 2 values; wanted one for each of 4"),
        (in_train(set_key("audio_lengths", [1, 2, 2.5, 3])), r"audio_lengths holds \[2\.5\] or infinity"),
        (in_train(set_key("audio_lengths", [1, 2, np.inf, 3])), "audio_lengths holds .* or infinity"),
        (in_train(set_key("audio_lengths", ["a", "b", "c", "d"])), "audio_lengths is no list of numbers"),
        (lambda raw: raw["test"].update(audio=np.ones((2, 9, 8))), "audio is 8 wide in test but 3 in train"),
        (lambda raw: raw.update(test={k: v[:0] for k, v in raw["test"].items()}), "split test of features is empty"),
        (lambda raw: raw.update(config={"tmtlib": {"family": "moods"}}), "metric family is 'moods'"),
        (lambda raw: raw.update(config={"tmtlib": {"source": "dreamt"}}), "source is 'dreamt'; wanted one of 'real'"),
    ],
)
def test_unusable_files_are_refused_with_the_path_and_what_is_wanted(read, change, message):
    raw = content()
    change(raw)
    with pytest.raises(DataError, match=rf"features\.pkl.*{message}"):
        read(raw)


def test_a_pickle_of_something_else_is_refused(read):
    with pytest.raises(DataError, match="holds a list; wanted 'train', 'valid' and 'test'"):
        read([1, 2])
    assert read(content() | {"config": "none"}).family == "mosi", "a config of another kind says nothing"
    assert read(content() | {"config": {"tmtlib": 1}}).family == "mosi"


def test_a_folder_or_nothing_is_not_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder; wanted a feature file"):
        mmsa.read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pkl is not there; wanted a feature file"):
        mmsa.read(tmp_path / "nothing.pkl")


def assert_same_split(found: Split, wanted: Split):
    for m in MODALITIES:
        np.testing.assert_array_equal(found.features[m], wanted.features[m])
        np.testing.assert_array_equal(found.lengths[m], wanted.lengths[m])
    np.testing.assert_array_equal(found.labels, wanted.labels)
    assert (found.ids, found.raw_text) == (wanted.ids, wanted.raw_text)
    assert set(found.unimodal_labels) == set(wanted.unimodal_labels)
    for m, labels in wanted.unimodal_labels.items():
        np.testing.assert_array_equal(found.unimodal_labels[m], labels)
    assert (found.text_bert is None) == (wanted.text_bert is None)
    if wanted.text_bert is not None:
        np.testing.assert_array_equal(found.text_bert, wanted.text_bert)


@pytest.mark.parametrize("name", synthetic.RECIPES)
def test_what_is_written_is_read_back_without_oddities(tmp_path, name):
    dataset = synthetic.generate(name, SyntheticSize((12, 5, 6), (5, 7, 6) if name == "sims" else (6, 6, 6)))
    mmsa.write_mmsa(dataset, tmp_path / "out.pkl")
    found = mmsa.read(tmp_path / "out.pkl", name=name)
    assert found.oddities == ()
    for s in SPLITS:
        assert_same_split(found[s], dataset[s])
    same = ("name", "family", "alignment", "source")
    assert [getattr(found.card, k) for k in same] == [getattr(dataset.card, k) for k in same]
    with open(tmp_path / "out.pkl", "rb") as file:
        annotations = pickle.load(file)["train"]["annotations"]
    assert [("Negative", "Neutral", "Positive")[int(s) + 1] for s in np.sign(dataset.train.labels)] == list(annotations)


def test_files_of_earlier_versions_say_planted_and_are_synthetic(tmp_path):
    mmsa.write_mmsa(synthetic.generate("mosi", SyntheticSize((12, 5, 6), (6, 6, 6))), tmp_path / "out.pkl")
    written = pickle.loads((tmp_path / "out.pkl").read_bytes())
    for source, wanted in (("planted", "synthetic"), ("real", "real")):
        written["config"]["tmtlib"]["source"] = source
        (tmp_path / "out.pkl").write_bytes(pickle.dumps(written))
        assert mmsa.read(tmp_path / "out.pkl").card.source == wanted


def test_token_ids_and_absent_modalities_survive_writing(read, tmp_path):
    raw = content()
    for part in raw.values():
        part["audio"][:] = 0
        part["audio_lengths"] = [0] * len(part["id"])
    dataset = read(raw)
    mmsa.write_mmsa(dataset, tmp_path / "out.pkl")
    found = mmsa.read(tmp_path / "out.pkl")
    for s in SPLITS:
        assert_same_split(found[s], dataset[s])
    assert {o.what for o in found.oddities} == {"audio absent from every utterance", "text_bert mask has no 0"}


def test_writing_is_whole_or_not_at_all(read, tmp_path, monkeypatch):
    dataset = read(content())
    path = tmp_path / "out.pkl"
    path.write_text("old")

    def fails(content, file, protocol):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pickle, "dump", fails)
    with pytest.raises(OSError, match="disk full"):
        mmsa.write_mmsa(dataset, path)
    assert path.read_text() == "old"
    assert not list(tmp_path.glob("*.part"))


def good_split(**changes) -> Split:
    arrays = {
        "features": {m: np.ones((2, 3, 4), np.float32) for m in MODALITIES},
        "lengths": {m: np.array([3, 0]) for m in MODALITIES},
        "labels": np.zeros(2, np.float32),
        "ids": ("a", "b"),
        "raw_text": ("", ""),
    }
    return Split(**(arrays | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": {"text": np.ones((2, 3, 4), np.float32)}}, "needs features and lengths for"),
        ({"features": dict.fromkeys(MODALITIES, np.ones((2, 3, 4)))}, r"text features are float64 \(2, 3, 4\)"),
        ({"features": dict.fromkeys(MODALITIES, np.ones((2, 3), np.float32))}, r"wanted float32 \(2, T, D\)"),
        ({"features": dict.fromkeys(MODALITIES, np.full((2, 3, 4), np.nan, np.float32))}, "features hold NaN"),
        (
            {"lengths": dict.fromkeys(MODALITIES, np.array([3.0, 0.0]))},
            r"text lengths are float64 \(2,\); wanted int64",
        ),
        ({"lengths": dict.fromkeys(MODALITIES, np.array([4, 0]))}, r"text lengths span 0\.\.4; wanted 0\.\.3"),
        ({"lengths": dict.fromkeys(MODALITIES, np.array([-1, 0]))}, r"text lengths span -1\.\.0"),
        ({"labels": np.zeros(2)}, r"labels are float64 \(2,\); wanted float32 \(2,\)"),
        ({"labels": np.array([0, np.inf], np.float32)}, "labels hold NaN or infinity"),
        ({"ids": ("a",)}, "2 labels but 1 ids and 2 transcripts"),
        ({"unimodal_labels": {"text": np.zeros(3, np.float32)}}, "unimodal labels of text"),
        ({"text_bert": np.zeros((2, 3, 9), np.int64)}, r"text_bert is \(2, 3, 9\); wanted \(2, 3, 3\)"),
    ],
)
def test_a_split_checks_itself(changes, message):
    good_split()
    with pytest.raises(DataError, match=message):
        good_split(**changes)


def test_large_finite_features_are_not_taken_for_infinite():
    good_split(features=dict.fromkeys(MODALITIES, np.full((2, 3, 4), 3e38, np.float32)))


def test_take_keeps_everything_of_the_utterances_taken(read):
    raw = content()
    raw["train"]["regression_labels_T"] = np.arange(4.0) / 3
    train = read(raw).train
    taken = train.take(np.array([2, 0]))
    assert taken.ids == ("train$_$2", "train$_$0") and taken.raw_text == ("words 2", "words 0")
    assert taken.labels.tolist() == [train.labels[2], train.labels[0]]
    assert taken.lengths["audio"].tolist() == [5, 9]
    assert taken.unimodal_labels["text"].tolist() == np.float32([2 / 3, 0]).tolist()
    np.testing.assert_array_equal(taken.text_bert, train.text_bert[[2, 0]])
    np.testing.assert_array_equal(taken.features["vision"], train.features["vision"][[2, 0]])


def test_a_data_set_has_its_name_and_source_in_its_title():
    def card(**changes):
        return replace(Card("sims", "sims", "aligned", "real", "file.pkl", ""), **changes)

    assert card().title == "CH-SIMS"
    assert card(source="synthetic").title == "CH-SIMS (synthetic)"
    assert card(name="mine").title == "mine"
    split = good_split()
    with pytest.raises(KeyError, match="no split 'dev'"):
        Dataset(card(), split, split, split)["dev"]
