"""Corruptions on planted data: exact about valid frames, strength and what stays as it was."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmtlib.config import MODALITIES, PlantedSize
from tmtlib.data.corrupt import add_noise, keep_only, noise_scale
from tmtlib.data.planted import generate
from tmtlib.data.schema import valid_frames

DATA = generate("sims", PlantedSize((60, 20, 200), (12, 30, 20)))
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: add_noise(DATA.test, SCALE, 0, ("video",)), "modality is 'video'; wanted one of 'text'"),
        (lambda: add_noise(DATA.test, SCALE, float("nan")), "snr_db is nan; wanted"),
        (lambda: keep_only(DATA.test, ()), "no modality is kept"),
        (lambda: keep_only(DATA.test, ("language",)), "modality is 'language'"),
    ],
)
def test_unusable_requests_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
