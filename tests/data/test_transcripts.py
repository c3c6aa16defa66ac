"""Words dropped and substituted: by themselves, through an encoder, and as a sweep over trained models."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmtlib.analysis import robustness
from tmtlib.analysis import transcripts as words_missing
from tmtlib.data import corruption, mmsa, schema, synthetic
from tmtlib.data.loading import load, resolve
from tmtlib.data.schema import SPLITS, DataError, SyntheticSize
from tmtlib.data.text import open_encoder
from tmtlib.data.transcripts import NEGATIONS, drop_words, substitute_words, vocabulary, words
from tmtlib.models.bert import BertTextConfig
from tmtlib.study import runs
from tmtlib.study.study import open_study

SAID = "the a film was good bad really not didnt didn't very story 我 喜 欢 不 ，".split()
TEXTS = st.lists(st.lists(st.sampled_from(SAID), max_size=12).map(" ".join), min_size=1, max_size=8)
COUNTS = Counter({"the": 50, "film": 20, "good": 10, "story": 5, "not": 99})
RATES, SEEDS = st.floats(0, 1), st.integers(0, 99)
MANY = tuple(" ".join(f"w{i}x{j}" for j in range(20)) for i in range(100))  # 2000 different words


def test_words_are_between_spaces_and_chinese_is_split_by_characters():
    assert words("  It wasn't GOOD, really - (no) 10/10! ") == ["it", "wasn't", "good", "really", "no", "10/10"]
    assert words("我对David已经，不喜欢。") == ["我", "对", "david", "已", "经", "不", "喜", "欢"]
    assert words("") == words(" ... ") == []
    assert vocabulary(["a film", "A good film."]) == {"a": 2, "film": 2, "good": 1}


def test_negations_are_kept_in_every_spelling_and_words_like_them_are_not():
    assert {"not", "don't", "don’t", "dont", "isnt", "wont", "cant", "不", "没"} <= NEGATIONS
    assert not NEGATIONS & {"want", "went", "do", "is", "can", "good", "ant"}


# --- Dropping --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, rate=RATES, higher=RATES, seed=SEEDS)
def test_dropping_keeps_order_negations_and_a_word_and_is_nested(texts, rate, higher, seed):
    before = list(texts)
    low, high = (drop_words(texts, r, seed) for r in sorted((rate, higher)))
    for text, some, fewer in zip(texts, low, high, strict=True):
        assert is_subsequence(words(some), words(text)) and is_subsequence(words(fewer), words(some))
        assert bool(words(fewer)) == bool(words(text)), "at least one word stays"
        assert negations(fewer) == negations(text)
    assert texts == before and drop_words(texts, 0, seed) == tuple(texts)
    assert low == drop_words(texts, min(rate, higher), seed), "the same for every model"


def is_subsequence(short, long):
    rest = iter(long)
    return all(word in rest for word in short)


def negations(text):
    return [word for word in words(text) if word in NEGATIONS]


@settings(max_examples=20, deadline=None)
@given(rate=RATES, seed=SEEDS)
def test_words_are_chosen_at_the_rate_asked_for_and_the_same_for_both_kinds(rate, seed):
    dropped, replaced = drop_words(MANY, rate, seed), substitute_words(MANY, rate, COUNTS, seed)
    left = [[w for w in words(text) if w not in COUNTS] for text in replaced]
    lost = 1 - sum(map(len, left)) / 2000
    assert lost == pytest.approx(rate, abs=5 * (0.25 / 2000) ** 0.5)
    for text, rest in zip(dropped, left, strict=True):
        assert words(text) == rest or (not rest and len(words(text)) == 1)


def test_all_is_lost_at_one_but_a_word_and_what_is_kept():
    assert drop_words(["they did not like it", "don't", ""], 1.0) == ("not", "don't", "")
    (left,) = drop_words(["a b c d"], 1.0, seed=4)
    assert left in "a b c d".split() and {drop_words(["a b c d"], 1.0, seed=s)[0] for s in range(30)} == set("abcd")
    assert drop_words(["oh , no"], 1.0, keep=()) in {("oh ,",), (", no",)}, "punctuation is no word that stays"
    assert "good" in drop_words(["a good film"], 1.0, keep={"good"})[0]


def test_another_seed_drops_other_words():
    assert drop_words(MANY, 0.5, 1) != drop_words(MANY, 0.5, 2)


# --- Substituting ----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, rate=RATES, higher=RATES, seed=SEEDS)
def test_substitution_keeps_places_and_negations_and_is_nested(texts, rate, higher, seed):
    low, high = (substitute_words(texts, r, COUNTS, seed) for r in sorted((rate, higher)))
    for text, some, more in zip(texts, low, high, strict=True):
        assert len(words(text)) == len(words(some)) == len(words(more))
        for own, few, many in zip(words(text), words(some), words(more), strict=True):
            assert few == own or (few == many and few in COUNTS and few != "not"), "what is replaced once stays so"
            assert own not in NEGATIONS or own == few == many
    assert substitute_words(texts, 0, COUNTS, seed) == tuple(texts)


def test_a_word_is_drawn_by_frequency_and_never_itself():
    found = Counter(words(substitute_words(["film " * 8000 + "new " * 8000], 1.0, COUNTS)[0])[:8000])
    total = 50 + 10 + 5
    assert set(found) == {"the", "good", "story"}
    for word in found:
        assert found[word] / 8000 == pytest.approx(COUNTS[word] / total, abs=0.025)
    for word in ("the", "good", "story"):
        assert word not in words(substitute_words([f"{word} " * 300], 1.0, COUNTS)[0])
    unknown = Counter(words(substitute_words(["new " * 8000], 1.0, COUNTS)[0]))
    assert unknown["the"] / 8000 == pytest.approx(50 / 85, abs=0.025) and set(unknown) == set(COUNTS) - {"not"}


def test_unusable_requests_are_refused():
    for call in (lambda: drop_words(["a"], 1.5), lambda: substitute_words(["a"], -0.1, COUNTS)):
        with pytest.raises(ValueError, match=r"rate is .*; wanted 0 to 1"):
            call()
    with pytest.raises(ValueError, match="the vocabulary has 1 words"):
        substitute_words(["a"], 0.5, {"film": 3, "not": 9})


# --- Encoders --------------------------------------------------------------------------------------------------------

WORDS = [f"w{i}" for i in range(40)] + ["not"]
VECTORS = np.random.default_rng(0).normal(2, 3, (len(WORDS), 8)).astype(np.float32)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "words.npz"
    np.savez(path, words=np.array(WORDS), vectors=VECTORS)
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A BERT as wide as the word vectors, that knows some of the words."""
    import torch
    from transformers import BertConfig, BertModel

    path, known = tmp_path_factory.mktemp("bert"), ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(known), max_position_embeddings=24, **sizes)).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(known), encoding="utf-8")
    return path


def test_word_vectors_give_a_frame_to_each_known_word(npz):
    features, lengths = open_encoder(npz)(["W3, unseen not!", "", "w1 w2 w3 w4"], 3)
    assert features.shape == (3, 3, 8) and features.dtype == np.float32 and lengths.dtype == np.int64
    assert lengths.tolist() == [2, 0, 3]
    assert np.array_equal(features[0], [VECTORS[3], VECTORS[40], np.zeros(8)])
    assert np.array_equal(features[2], VECTORS[1:4]) and not features[1].any()


def test_bert_gives_a_frame_to_each_token(bert):
    features, lengths = open_encoder(bert)(["w3 w4", "w1"], 6)
    assert features.shape == (2, 6, 8) and lengths.tolist() == [4, 3]
    assert not features[1, 3:].any() and features[0, :4].any(1).all()


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere.*'words' \(V,\)"):
        open_encoder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no config\.json in the folder .*save_pretrained"):
        open_encoder(tmp_path)
    bad = tmp_path / "bad.npz"
    bad.write_text("the 0.1 0.2", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be read as word vectors"):
        open_encoder(bad)
    np.savez(bad, vectors=VECTORS)
    with pytest.raises(ValueError, match="cannot be read as word vectors .*words"):
        open_encoder(bad)
    for said, vectors in ((WORDS[1:], VECTORS), (WORDS, VECTORS[:, 0]), (WORDS, VECTORS * np.nan)):
        np.savez(bad, words=np.array(said), vectors=vectors)
        with pytest.raises(ValueError, match=r"vectors finite and as many"):
            open_encoder(bad)
    np.save(tmp_path / "array.npy", VECTORS)
    with pytest.raises(ValueError, match="cannot be read as word vectors"):
        open_encoder(tmp_path / "array.npy")


# --- Trained models --------------------------------------------------------------------------------------------------


def with_text(dataset, encoder, raw_text=None):
    """The data set as a real one, with the text that an encoder makes of transcripts of random words."""
    rng, parts = np.random.default_rng(1), {}
    for s in SPLITS:
        split = dataset[s]
        said = raw_text or tuple(" ".join(rng.choice([*WORDS, "unseen"], rng.integers(2, 9))) for _ in split.ids)
        features, lengths = encoder(said, 10)
        text = {"features": {**split.features, "text": features}, "lengths": {**split.lengths, "text": lengths}}
        parts[s] = replace(split, raw_text=said, **text)
    return replace(dataset, card=replace(dataset.card, source="real"), truth=None, ref=None, **parts)


@pytest.fixture(scope="module")
def pickle_of(tmp_path_factory):
    """Writes a data set whose text an encoder made, and gives its path."""

    def write(encoder):
        path = tmp_path_factory.mktemp("data") / "own.pkl"
        made = synthetic.generate("mosi", SyntheticSize((60, 20, 30), (10, 8, 8)))
        mmsa.write_mmsa(with_text(made, open_encoder(encoder)), path)
        return path

    return write


@pytest.fixture(scope="module")
def study(pickle_of, npz, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMT_RESULTS", str(tmp_path_factory.mktemp("results")))
        patch.delenv("TMT_DATA", raising=False)
        study = open_study("smoke", pickle_of(npz), device="cpu")
        study.ensure("tmt", "tmt_amw")
        yield study


@pytest.fixture(scope="module")
def swept(study, npz):
    return words_missing.sweep(study.runs("tmt", "tmt_amw"), npz, (0.0, 0.5, 1.0), 2, "cpu", 1)


def test_level_zero_is_the_test_result(swept, study):
    clean = swept[swept["level"] == 0].groupby(["method", "seed"])["mae"].agg(["min", "max"])
    rows = study.ensure("tmt", "tmt_amw").set_index(["method", "seed"])["mae"]
    assert len(rows) == 4 and np.abs(clean.sub(rows, axis=0)).max(axis=None) < 1e-5


def test_rows_are_those_of_words_dropped_by_hand(swept, study, npz):
    run = study.runs("tmt_amw")[1]
    data = load(run.data)
    raw = load(replace(run.data, normalize=False))
    mean, sd = schema.normalizer(raw.train)["text"]
    found = swept.set_index(["kind", "level", "mask", "method", "seed"])
    for kind, said in {
        "words_dropped": drop_words(data.test.raw_text, 0.5, 1),
        "words_substituted": substitute_words(data.test.raw_text, 0.5, vocabulary(data.train.raw_text), 1),
    }.items():
        features, lengths = open_encoder(npz)(said, 10)
        valid = np.arange(10) < lengths[:, None]
        text = np.where(valid[..., None], (features - mean) / sd, 0).astype(np.float32)
        split = replace(
            data.test,
            features={**data.test.features, "text": text},
            lengths={**data.test.lengths, "text": lengths},
        )
        predicted = runs.predict(runs.load_model(run), split, run.training, "cpu")
        row = found.loc[(kind, 0.5, 1, "tmt_amw", run.seed)]
        assert row["mae"] == pytest.approx(np.abs(predicted - data.test.labels).mean(), abs=1e-5)


def test_rows_go_with_those_of_the_other_protocols(swept, study):
    other = robustness.sweep(study.runs("tmt", "tmt_amw"), corruption.missing_modalities(), 2, "cpu", 1)
    assert list(swept.columns) == list(other.columns)
    assert set(swept["protocol"]) == {"P6"} and set(swept["modality"]) == {"text"} and set(swept["regime"]) == {"clean"}
    assert len(swept) == 4 * 2 * (1 + 2 * 2) and not swept.duplicated(["method", "seed", "kind", "level", "mask"]).any()
    rows = pd.concat([other, swept])
    table, areas = robustness.summary(rows), robustness.auilc(rows, ("mae",))
    assert {"words_dropped", "words_substituted"} <= set(table["kind"]) & set(areas["kind"])
    assert len(robustness.worst_case(rows)) == 2


def test_second_sweep_computes_nothing_and_another_encoder_does(swept, study, npz, tmp_path, monkeypatch):
    def computed(*_):
        raise InterruptedError

    monkeypatch.setattr(words_missing.runs, "load_model", computed)
    some = study.runs("tmt", "tmt_amw")
    assert words_missing.sweep(some, npz, (0.0, 0.5, 1.0), 2, "cpu", 1).equals(swept)
    np.savez(tmp_path / "other.npz", words=np.array(WORDS), vectors=-VECTORS)
    with pytest.raises(InterruptedError):
        words_missing.sweep(some, tmp_path / "other.npz", (0.0, 0.5, 1.0), 2, "cpu", 1)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_encoder_that_made_the_text_agrees_with_it_and_no_other(pickle_of, npz, bert, tmp_path, normalize):
    for own, other in ((npz, bert), (bert, npz)):
        ref = resolve(pickle_of(own), normalize=normalize)
        assert words_missing.agreement(ref, own) == 1 and words_missing.agreement(ref, other) == 0
    vectors = VECTORS.copy()
    vectors[WORDS.index("w5")] += 9
    np.savez(tmp_path / "off.npz", words=np.array(WORDS), vectors=vectors)
    ref = resolve(pickle_of(npz), normalize=normalize)
    has = np.mean(["w5" in text.split() for text in load(ref).test.raw_text])
    assert 0 < has < 1 and words_missing.agreement(ref, tmp_path / "off.npz") == pytest.approx(1 - has)


def test_a_bert_encodes_a_sweep(study, bert):
    rows = words_missing.sweep(study.runs("tmt")[:1], bert, (0.5,), 1, "cpu", 1)
    assert len(rows) == 2 and rows["mae"].notna().all()


def test_text_that_cannot_be_made_anew_is_refused(study, npz, tmp_path):
    (run, *_) = study.runs("tmt")
    np.savez(tmp_path / "wide.npz", words=np.array(WORDS), vectors=np.ones((len(WORDS), 9)))
    with pytest.raises(DataError, match="makes 9 features a word, but the text of own has 8"):
        words_missing.sweep([run], tmp_path / "wide.npz", (0.5,), device="cpu")
    with pytest.raises(DataError, match="synthetic transcripts hold no words"):
        words_missing.agreement(resolve("mosi", synthetic_size=SyntheticSize((40, 20, 20), (8, 8, 8))), npz)
    data, encode = load(run.data), open_encoder(npz)
    silent = replace(data, test=replace(data.test, raw_text=(" ",) * 3 + data.test.raw_text[3:]))
    with pytest.raises(DataError, match="3 of 30 test transcripts are empty"):
        words_missing.check_text(silent, encode)
    features = {m: x[:, :1] for m, x in data.test.features.items()}
    short = replace(data.test, features=features, lengths={m: np.minimum(n, 1) for m, n in data.test.lengths.items()})
    with pytest.raises(DataError, match="text has 1 frames an utterance; wanted a frame a word"):
        words_missing.check_text(replace(data, test=short), encode)
    own_bert = replace(run, method="bert_text", model=BertTextConfig(bert="folder"))
    with pytest.raises(ValueError, match="bert_text has a BERT of its own"):
        words_missing.sweep([own_bert], npz, (0.5,), device="cpu")
