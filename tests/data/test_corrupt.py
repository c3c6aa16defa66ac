"""Corruptions on synthetic data: exact about valid frames, strength and what stays as it was."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tmtlib.common import MODALITIES
from tmtlib.data.corrupt import (
    add_noise,
    corrupt,
    drop_block,
    drop_frames,
    keep_only,
    noise_scale,
    shift,
    swap_utterances,
)
from tmtlib.data.corruption import IN_TRANSCRIPTS, PROTOCOLS, Corruption, in_time, missing_modalities, noise
from tmtlib.data.schema import SyntheticSize, valid_frames
from tmtlib.data.synthetic import generate

DATA = generate("sims", SyntheticSize((60, 20, 200), (12, 30, 20)))
SCALE = noise_scale(DATA.train)
BEFORE = {m: x.copy() for m, x in DATA.test.features.items()}


@pytest.fixture(autouse=True)
def clean_input_is_untouched():
    yield
    for m in MODALITIES:
        assert np.array_equal(DATA.test.features[m], BEFORE[m])


@settings(max_examples=15, deadline=None)
@given(snr_db=st.floats(-10, 30), modality=st.sampled_from(MODALITIES), seed=st.integers(0, 99))
def test_noise_has_the_ratio_asked_for(snr_db, modality, seed):
    noisy = add_noise(DATA.test, SCALE, snr_db, (modality,), seed)
    valid = valid_frames(DATA.test, modality)
    noise = (noisy.features[modality] - DATA.test.features[modality])[valid].astype(np.float64)
    varies = SCALE[modality] > 0
    achieved = -10 * np.log10(np.mean((noise[:, varies] / SCALE[modality][varies]) ** 2))
    assert achieved == pytest.approx(snr_db, abs=0.2)
    assert not noisy.features[modality][~valid].any(), "padding stays padding"


def test_other_modalities_are_the_same_arrays():
    noisy = add_noise(DATA.test, SCALE, 0, ("audio",))
    assert noisy.features["text"] is DATA.test.features["text"]
    assert noisy.lengths is DATA.test.lengths


def test_infinite_ratio_changes_nothing():
    assert add_noise(DATA.test, SCALE, np.inf) is DATA.test


def test_same_seed_same_noise_at_any_strength():
    a, b, c = (add_noise(DATA.test, SCALE, snr, seed=seed) for snr, seed in ((0, 1), (20, 1), (0, 2)))
    strong, weak = (x.features["text"] - DATA.test.features["text"] for x in (a, b))
    np.testing.assert_allclose(strong, 10 * weak, atol=2e-5)
    assert not np.allclose(a.features["text"], c.features["text"])


def test_noise_differs_between_frames_features_and_modalities():
    noisy = add_noise(DATA.test, {m: np.ones_like(SCALE[m]) for m in MODALITIES}, 0)
    noise = (noisy.features["text"] - DATA.test.features["text"])[valid_frames(DATA.test, "text")]
    assert np.abs(np.corrcoef(noise[:, :20].T) - np.eye(20)).max() < 0.2
    assert np.abs(np.corrcoef(noise[:20]) - np.eye(20)).max() < 0.2


def test_scale_is_of_train_and_of_valid_frames():
    valid = valid_frames(DATA.train, "vision")
    np.testing.assert_allclose(SCALE["vision"], DATA.train.features["vision"][valid].std(0), rtol=1e-4)
    padded = DATA.train.features["vision"].reshape(-1, SCALE["vision"].size).std(0)
    assert not np.allclose(SCALE["vision"], padded, rtol=0.05)


def test_missing_modality_is_zero_with_length_zero():
    left = keep_only(DATA.test, ("text",))
    for m in ("audio", "vision"):
        assert not left.features[m].any() and not left.lengths[m].any()
        assert left.features[m].shape == DATA.test.features[m].shape
    assert np.array_equal(left.features["text"], DATA.test.features["text"])
    assert np.array_equal(left.labels, DATA.test.labels) and left.ids == DATA.test.ids


def test_corruptions_compose():
    both = keep_only(add_noise(DATA.test, SCALE, 5), ("vision",))
    alone = add_noise(keep_only(DATA.test, ("vision",)), SCALE, 5)
    assert np.array_equal(both.features["vision"], alone.features["vision"])
    assert not alone.features["text"].any(), "an absent modality has no frame to put noise on"


# --- P1: random feature missing --------------------------------------------------------------------------------------


def missing(split, modality):
    """(N, T) valid frames that were not all zero and now are."""
    return DATA.test.features[modality].any(2) & ~split.features[modality].any(2)


@settings(max_examples=15, deadline=None)
@given(rate=st.floats(0, 1), modality=st.sampled_from(MODALITIES), seed=st.integers(0, 99))
def test_frames_are_missing_at_the_rate_asked_for(rate, modality, seed):
    dropped = drop_frames(DATA.test, rate, (modality,), seed)
    valid = valid_frames(DATA.test, modality)
    n = int(valid.sum())
    assert missing(dropped, modality)[valid].mean() == pytest.approx(rate, abs=5 * (0.25 / n) ** 0.5 + 1e-9)
    kept = ~missing(dropped, modality)
    assert np.array_equal(dropped.features[modality][kept], DATA.test.features[modality][kept])
    assert not dropped.features[modality][~valid].any() and dropped.lengths == DATA.test.lengths


def test_missing_frames_grow_with_the_rate_and_differ_between_modalities_and_seeds():
    low, high = (missing(drop_frames(DATA.test, r, seed=3), "audio") for r in (0.3, 0.6))
    assert (high | ~low).all() and high.sum() > low.sum()
    other = missing(drop_frames(DATA.test, 0.3, seed=4), "audio")
    assert (low != other).any()
    text = missing(drop_frames(DATA.test, 0.3, seed=3), "text")
    assert (text[:, :12] != low[:, :12]).any()


def test_severity_zero_is_the_identity_and_one_takes_all():
    for drop in (drop_frames, drop_block):
        for m in MODALITIES:
            assert drop(DATA.test, 0.0).features[m] is DATA.test.features[m]
            assert not drop(DATA.test, 1.0).features[m].any()
    assert np.array_equal(shift(DATA.test, 0, "text").features["text"], DATA.test.features["text"])


# --- P8: blocks and shifts -------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(share=st.floats(0, 1), modality=st.sampled_from(MODALITIES), seed=st.integers(0, 99))
def test_a_block_is_contiguous_and_as_long_as_asked_for(share, modality, seed):
    gone = missing(drop_block(DATA.test, share, (modality,), seed), modality)
    assert np.array_equal(gone.sum(1), np.rint(share * DATA.test.lengths[modality]))
    starts = (np.diff(gone.astype(int), axis=1, prepend=0) == 1).sum(1)
    assert (starts <= 1).all()


def test_blocks_reach_both_ends():
    firsts, lasts = [], []
    for seed in range(30):
        gone = missing(drop_block(DATA.test, 0.4, ("audio",), seed), "audio")
        some = gone.any(1)
        firsts.append(gone.argmax(1)[some])
        lasts.append((gone.shape[1] - gone[:, ::-1].argmax(1))[some])
    length = DATA.test.lengths["audio"][DATA.test.lengths["audio"] > 1]
    assert min(map(min, firsts)) == 0 and max(map(max, lasts)) == length.max()


@settings(max_examples=15, deadline=None)
@given(frames=st.integers(-40, 40), modality=st.sampled_from(MODALITIES))
@example(frames=2, modality="audio")
@example(frames=-2, modality="audio")
def test_a_shift_moves_valid_frames_and_nothing_else(frames, modality):
    moved = shift(DATA.test, frames, modality)
    x, length = DATA.test.features[modality], DATA.test.lengths[modality]
    for i in (0, 7, 100):
        wanted = np.zeros_like(x[i])
        for t in range(length[i]):
            if 0 <= t - frames < length[i]:
                wanted[t] = x[i, t - frames]
        assert np.array_equal(moved.features[modality][i], wanted)
    assert moved.lengths == DATA.test.lengths
    others = [m for m in MODALITIES if m != modality]
    assert all(moved.features[m] is DATA.test.features[m] for m in others)


# --- P9: wrong modality ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [("text",), ("audio", "vision"), MODALITIES])
def test_every_utterance_gets_another_ones_modality(modalities):
    swapped = swap_utterances(DATA.test, modalities, seed=2)
    for m in MODALITIES:
        same = [np.array_equal(a, b) for a, b in zip(swapped.features[m], DATA.test.features[m], strict=True)]
        assert not any(same) if m in modalities else all(same)
        assert sorted(swapped.lengths[m]) == sorted(DATA.test.lengths[m])
        assert not swapped.features[m][~valid_frames(swapped, m)].any(), "padding stays padding"
    assert np.array_equal(swapped.labels, DATA.test.labels)
    assert sorted(x.sum() for x in swapped.features["text"]) == sorted(x.sum() for x in DATA.test.features["text"])


def test_what_the_text_was_made_from_is_swapped_with_it():
    ids = np.arange(len(DATA.test) * 3 * 12).reshape(-1, 3, 12)
    words = tuple(f"utterance {i}" for i in range(len(DATA.test)))
    split = replace(DATA.test, text_bert=ids, raw_text=words)
    swapped = swap_utterances(split, ("text",), seed=2)
    source = [int(text.split()[1]) for text in swapped.raw_text]
    assert np.array_equal(swapped.text_bert, ids[source]) and sorted(source) == list(range(len(ids)))
    assert np.array_equal(swapped.features["text"], split.features["text"][source])
    kept = swap_utterances(split, ("audio",), seed=2)
    assert kept.text_bert is ids and kept.raw_text == words


def test_modalities_that_are_swapped_together_stay_together():
    swapped = swap_utterances(DATA.test, ("audio", "vision"), seed=2)
    for i in range(5):
        audio = swapped.features["audio"][i]
        (source,) = [j for j, x in enumerate(DATA.test.features["audio"]) if np.array_equal(x, audio)]
        assert np.array_equal(swapped.features["vision"][i], DATA.test.features["vision"][source])


def test_same_seed_same_corruption():
    for hurt in (
        lambda seed: drop_frames(DATA.test, 0.5, seed=seed),
        lambda seed: drop_block(DATA.test, 0.5, seed=seed),
        lambda seed: swap_utterances(DATA.test, MODALITIES, seed=seed),
    ):
        a, b, c = (hurt(seed).features["vision"] for seed in (1, 1, 2))
        assert np.array_equal(a, b) and not np.array_equal(a, c)


# --- By name ---------------------------------------------------------------------------------------------------------

KINDS = [
    Corruption("missing_frames", level=0.4),
    Corruption("missing_frames", ("audio",)),
    Corruption("missing_modalities", ("text", "vision")),
    Corruption("noise", ("vision",), 3.0),
    Corruption("missing_block", level=0.5),
    Corruption("shift", ("audio",), 3.0),
    Corruption("swapped", ("text",)),
]


def test_a_named_corruption_is_the_function_of_its_kind():
    by_hand = [
        drop_frames(DATA.test, 0.4, seed=5),
        None,
        keep_only(DATA.test, ("text", "vision")),
        add_noise(DATA.test, SCALE, 3.0, ("vision",), 5),
        drop_block(DATA.test, 0.5, seed=5),
        shift(DATA.test, 3, "audio"),
        swap_utterances(DATA.test, ("text",), 5),
    ]
    assert {how.kind for how in KINDS} == set(PROTOCOLS) - set(IN_TRANSCRIPTS)
    for how, wanted in zip(KINDS, by_hand, strict=True):
        found = corrupt(DATA.test, how, SCALE, 5)
        for m in MODALITIES if wanted is not None else ():
            assert np.array_equal(found.features[m], wanted.features[m])
            assert np.array_equal(found.lengths[m], wanted.lengths[m])


@settings(max_examples=20, deadline=None)
@given(how=st.sampled_from(KINDS), seed=st.integers(0, 99))
def test_every_kind_keeps_padding_labels_and_the_other_modalities(how, seed):
    found = corrupt(DATA.test, how, SCALE, seed)
    assert np.array_equal(found.labels, DATA.test.labels) and found.ids == DATA.test.ids
    for m in MODALITIES:
        assert not found.features[m][~valid_frames(found, m)].any()
        untouched = m not in how.modalities if how.kind != "missing_modalities" else m in how.modalities
        assert not untouched or np.array_equal(found.features[m], DATA.test.features[m])
    again, other = (corrupt(DATA.test, how, SCALE, s) for s in (seed, seed + 1))
    pairs = [(found.features[m], again.features[m], other.features[m]) for m in MODALITIES]
    assert all(np.array_equal(a, b) for a, b, _ in pairs)
    assert any(not np.array_equal(a, c) for a, _, c in pairs) == how.is_random


@pytest.mark.parametrize("kind", ["missing_frames", "missing_block", "shift", "noise"])
def test_severity_zero_by_name_is_the_split_itself(kind):
    how = Corruption(kind, ("text",), np.inf if kind == "noise" else 0.0)
    assert how.changes_nothing and corrupt(DATA.test, how, SCALE) is DATA.test


def test_each_utterance_has_a_rate_of_its_own_where_none_is_given():
    splits = [corrupt(DATA.test, Corruption("missing_frames"), SCALE, seed) for seed in (3, 4)]
    share, other = (missing(split, "audio").sum(1) / DATA.test.lengths["audio"] for split in splits)
    assert abs(np.corrcoef(share, other)[0, 1]) < 0.3, "other rates with another seed"
    assert 0.4 < share.mean() < 0.6 and 0.2 < share.std() < 0.45, "uniform: mean 1/2, sd about .29"


def test_what_takes_no_or_every_frame_is_not_random():
    for kind in ("missing_frames", "missing_block"):
        assert [Corruption(kind, level=level).is_random for level in (0.0, 0.5, 1.0)] == [False, True, False]


def test_grids_begin_with_clean_data_and_name_every_subset():
    assert [how.level for how in noise((5.0,))] == [np.inf, 5.0] * 4
    late = [how for how in in_time((0.5,), (3,)) if how.kind == "shift"]
    assert [(how.modalities, how.level) for how in late] == [((m,), n) for m in MODALITIES for n in (0.0, 3.0)]
    assert len({how.modalities for how in missing_modalities()}) == 7


def test_named_corruptions_compose():
    both = corrupt(corrupt(DATA.test, KINDS[0], SCALE, 1), KINDS[4], SCALE, 1)
    gone = missing(both, "vision")
    alone = [missing(corrupt(DATA.test, how, SCALE, 1), "vision") for how in (KINDS[0], KINDS[4])]
    assert np.array_equal(gone, alone[0] | alone[1])


def test_tokens_of_missing_text_become_unknown_but_for_the_marks():
    n, t = DATA.test.features["text"].shape[:2]
    length = np.clip(DATA.test.lengths["text"], 3, t)
    mask = (np.arange(t) < length[:, None]).astype(np.int64)
    ids = np.where(mask, 7 + np.arange(t), 0)
    split = replace(DATA.test, text_bert=np.stack([ids, mask, np.zeros_like(ids)], 1))
    found = drop_frames(split, 1.0, ("text",)).text_bert
    inner = (np.arange(t) > 0) & (np.arange(t) < length[:, None] - 1)
    assert (found[:, 0][inner] == 100).all() and np.array_equal(found[:, 0][~inner], ids[~inner])
    assert np.array_equal(found[:, 1:], split.text_bert[:, 1:]) and (split.text_bert[:, 0] != 100).all()
    some = drop_frames(split, 0.5, ("text",))
    both = inner & valid_frames(DATA.test, "text")
    lost = missing(some, "text")
    assert np.array_equal((some.text_bert[:, 0] == 100)[both], lost[both]), "tokens and frames are lost together"
    assert drop_frames(split, 0.5, ("audio",)).text_bert is split.text_bert


@pytest.mark.parametrize("bad", [{"kind": "fog"}, {"kind": "noise", "modalities": ("video",)}])
def test_unknown_names_are_refused(bad):
    with pytest.raises(ValueError, match="wanted one of"):
        Corruption(**bad)


@pytest.mark.parametrize("kind", IN_TRANSCRIPTS)
def test_corruptions_of_transcripts_want_an_encoder(kind):
    with pytest.raises(ValueError, match=f"{kind} changes transcripts.*analysis[.]transcripts[.]sweep"):
        corrupt(DATA.test, Corruption(kind, ("text",), 0.5), SCALE)


def test_a_kind_with_levels_wants_one():
    with pytest.raises(ValueError, match="no level for shift; wanted a number"):
        corrupt(DATA.test, Corruption("shift", ("text",)), SCALE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: add_noise(DATA.test, SCALE, 0, ("video",)), "modality is 'video'; wanted one of 'text'"),
        (lambda: add_noise(DATA.test, SCALE, float("nan")), "snr_db is nan; wanted"),
        (lambda: keep_only(DATA.test, ()), "no modality is kept"),
        (lambda: keep_only(DATA.test, ("language",)), "modality is 'language'"),
        (lambda: drop_frames(DATA.test, 1.2), "rate is 1.2; wanted 0 to 1"),
        (lambda: drop_block(DATA.test, -0.1), "share is -0.1; wanted 0 to 1"),
        (lambda: swap_utterances(DATA.test.take([0]), ("text",)), "1 utterances; wanted at least two"),
    ],
)
def test_unusable_requests_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
