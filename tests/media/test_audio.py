"""Sound is read from any file, and features read what a synthetic voice was made of."""

import os
import wave
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter, resample_poly

pytest.importorskip("librosa")
pytest.importorskip("av")

from tmtlib.data.schema import DataError
from tmtlib.media.audio import FEATURE_NAMES, RATE, acoustic_features, read_sound

CLIPS = Path(os.environ.get("TMT_REAL_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data") / "clips"
FORMANTS = {"a": (700, 1220, 2600), "i": (300, 2300, 3000), "u": (320, 800, 2250), "e": (500, 1850, 2500)}
HIGHER = (3500, 4500, 5500, 6500)  # Hz, of every vowel


def vowel(f0: float, formants: tuple = FORMANTS["a"], jitter: float = 0, shimmer: float = 0) -> np.ndarray:
    """Two seconds of pulses that fall by 6 dB an octave, through resonators; jitter and shimmer are relative sds."""
    rng, fine = np.random.default_rng(0), 8  # pulses stand at eighths of a sample
    periods = fine * RATE / f0 * (1 + jitter * rng.normal(size=int(2 * f0)))
    places = np.cumsum(periods).astype(int)
    pulses = np.zeros(2 * RATE * fine)
    pulses[places[places < len(pulses)]] = 1 + shimmer * rng.normal(size=(places < len(pulses)).sum())
    sound = lfilter([1], [1, -0.97], resample_poly(pulses, 1, fine))
    for hz in (*formants, *HIGHER):
        radius = np.exp(-np.pi * (60 + hz / 30) / RATE)
        sound = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * hz / RATE), radius**2], sound)
    return (sound / np.abs(sound).max() / 2).astype(np.float32)


def sine(hz: float = 200, level_db: float = 0) -> np.ndarray:
    return (10 ** (level_db / 20) * np.sin(2 * np.pi * hz * np.arange(RATE) / RATE)).astype(np.float32)


def noise(n: int = RATE) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).normal(size=n)).astype(np.float32)


def column(sound: np.ndarray, name: str, voiced_only: bool = True) -> np.ndarray:
    features = acoustic_features(sound)
    chosen = features[:, FEATURE_NAMES.index("voiced")] > 0 if voiced_only else slice(None)
    return features[chosen, FEATURE_NAMES.index(name)]


def test_names_are_74_and_differ():
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 74
    assert acoustic_features(sine()).shape == (101, 74) and acoustic_features(sine()).dtype == np.float32


@pytest.mark.parametrize("f0", [75, 110, 160, 220, 400])
def test_pitch_of_a_vowel(f0):
    pitch = column(vowel(f0), "f0_hz")
    assert len(pitch) > 190 and np.median(pitch) == pytest.approx(f0, rel=0.01)


@pytest.mark.parametrize(
    "sound", [np.zeros(RATE, np.float32), np.full(RATE, 0.3, np.float32), noise(), noise(5 * RATE)]
)
def test_no_pitch_in_silence_and_noise(sound):
    assert not len(column(sound, "f0_hz")) and not column(sound, "f0_hz", voiced_only=False).any()


@pytest.mark.parametrize("name", FORMANTS)
@pytest.mark.parametrize("f0", [110, 160, 220])
def test_formants_are_where_they_were_put(name, f0):
    sound = vowel(f0, FORMANTS[name])
    for i, hz in enumerate(FORMANTS[name], 1):
        assert np.median(column(sound, f"formant{i}_hz")) == pytest.approx(hz, rel=0.1)


def test_level_is_in_decibels_of_full_scale():
    loud, soft = (np.median(column(sine(level_db=level), "energy_db", False)) for level in (0, -20))
    assert loud - soft == pytest.approx(20, abs=0.1) and loud == pytest.approx(-3, abs=0.1)


@pytest.mark.parametrize("sd", [0.01, 0.02])
def test_jitter_is_the_difference_of_two_periods(sd):
    """The difference of two numbers of sd s is less than .954 s in half of the cases."""
    steady, trembling = (np.median(column(vowel(130, jitter=x), "jitter")) for x in (0, sd))
    assert steady < 0.002 and trembling == pytest.approx(0.954 * sd, rel=0.3)


@pytest.mark.parametrize("sd", [0.05, 0.1, 0.2])
def test_shimmer_is_the_difference_of_two_peaks(sd):
    steady, trembling = (np.median(column(vowel(130, shimmer=x), "shimmer_db")) for x in (0, sd))
    assert steady < 0.1 and trembling == pytest.approx(20 / np.log(10) * 0.954 * sd, rel=0.3)


def test_harmonics_to_noise_ratio_falls_with_noise():
    voice = vowel(120)
    hiss = noise(len(voice)) / 0.1 * np.sqrt(np.mean(voice**2))
    for ratio in (15, 10, 5):
        hnr = np.median(column(voice + hiss * np.float32(10 ** (-ratio / 20)), "hnr_db"))
        assert hnr == pytest.approx(ratio, abs=1.5)


def test_frequencies_of_the_spectrum():
    assert np.median(column(sine(1000), "spectral_centroid_hz", False)) == pytest.approx(1000, rel=0.05)
    assert np.median(column(noise(), "spectral_centroid_hz", False)) == pytest.approx(4000, rel=0.05)
    assert abs(np.mean(column(noise(), "spectral_tilt_db", False))) < 0.5
    assert np.median(column(vowel(120), "spectral_tilt_db")) < -5


ODD = {
    "zeros": np.zeros_like,
    "constant": np.ones_like,
    "noise": np.copy,
    "clipped": np.sign,
    "faint": lambda sound: sound * np.float32(1e-30),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [0, 1, 2, 159, 160, 161, 800])
@pytest.mark.parametrize("kind", ODD)
def test_features_are_finite(n, kind):
    features = acoustic_features(ODD[kind](noise(n)))
    assert features.shape == (1 + n // 160 if n else 0, 74) and np.isfinite(features).all()


def write_wav(path: Path, rate: int, channels: int) -> Path:
    """One second of a sine at half of full scale, the same in every channel, by the standard library."""
    samples = (16384 * np.sin(2 * np.pi * 200 * np.arange(rate) / rate)).astype("<i2").repeat(channels)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels), file.setsampwidth(2), file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (8_000, 1), (16_000, 1), (48_000, 6)])
def test_wav_of_any_rate_is_read_at_16_khz(tmp_path, rate, channels):
    sound = read_sound(write_wav(tmp_path / "a.wav", rate, channels))
    assert sound.dtype == np.float32 and len(sound) == pytest.approx(RATE, abs=32)
    assert np.abs(sound[1000:-1000]).max() == pytest.approx(0.5, abs=0.01), "channels are averaged, not added"


def test_files_without_a_readable_sound(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("a text, and no clip\n" * 50)
    with pytest.raises(DataError, match=r"text\.mp4 cannot be decoded \(.*\); found .*; wanted a clip") as error:
        read_sound(text)
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_sound(tmp_path / "none.wav")


def test_a_video_without_sound_has_an_empty_one(tmp_path):
    import av

    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    assert read_sound(tmp_path / "mute.mp4").shape == (0,)


@pytest.fixture(params=["grid_bbaf2n.mpg", "grid_brbk7n.mpg", "ravdess_01-01-01-01-01-01-01.mp4"])
def clip(request) -> Path:
    path = CLIPS / request.param
    if not path.is_file():
        pytest.skip(f"no clip: {path} is not there (set TMT_REAL_DATA to a folder that has clips/)")
    return path


def test_features_of_a_clip(clip):
    import av

    with av.open(str(clip)) as container:
        seconds = container.duration / av.time_base
    features = acoustic_features(read_sound(clip))
    voiced = features[:, FEATURE_NAMES.index("voiced")]
    assert abs(len(features) - 100 * seconds) <= 2 and 0.2 <= voiced.mean() <= 0.8
    if clip.stem.startswith("ravdess"):  # the speaker is a man
        assert 80 <= np.median(features[voiced > 0, FEATURE_NAMES.index("f0_hz")]) <= 180


def test_damage_costs_only_what_is_damaged(clip, tmp_path):
    whole, data = read_sound(clip), bytearray(clip.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    damaged = tmp_path / clip.name
    damaged.write_bytes(data)
    sound = read_sound(damaged)
    assert 0.3 * len(whole) < len(sound) <= len(whole)
    np.testing.assert_allclose(sound[: len(whole) // 4], whole[: len(whole) // 4], atol=1e-6)
