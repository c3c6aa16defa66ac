"""Sound of a clip, and 74 acoustic features of it every 10 ms: COVAREP's 74 in kind, none of them COVAREP's values.

COVAREP (Degottex et al. 2014, ICASSP) is MATLAB code. Its columns, and what stands here for them:

    1, 2   F0, VUV               `f0_hz`, `voiced`
    3-6    NAQ, QOQ, H1H2, PSP   `h1_h2_db`; the others need the flow through the glottis, which is not estimated
    7, 8   MDQ, peakSlope        breathy or tense: `hnr_db`, `cepstral_peak_prominence_db`, `spectral_tilt_db`
    9, 10  Rd and its error      no model of the glottal pulse is fitted; `voiced_probability` says how sure it is
    11     creak                 `jitter`, `shimmer_db`
    12-36  25 cepstra (MCEP)     `mfcc_0` to `mfcc_24`
    37-61  phase, mean           not measured; instead `mfcc_0_delta` to `mfcc_24_delta`, how the spectrum moves
    62-74  phase, deviation      not measured; instead formants with their bandwidths, and the shape of the spectrum

Loudness and the movement of pitch are added. A model trained on COVAREP's columns is not to be given these.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import librosa
import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import binary_erosion, convolve1d
from scipy.signal import detrend, lfilter
from scipy.signal.windows import hann

from tmtlib.media.files import check_file, undecodable

RATE = 16_000  # Hz
HOP = 160  # samples: 10 ms
SHORT, LONG = 400, 1024  # samples: 25 ms for a speech sound; 64 ms, almost four of the longest periods, for the voice
F0_RANGE = (60, 500)  # Hz
FORMANT_RANGE, FORMANT_BANDWIDTH = (150, 5500), 500  # Hz; a wider pole is no formant
SILENCE = 1e-10  # power of -100 dB of full scale, below what 16 bits hold
FADED, FAINT = -40, -80  # dB of the loudest frame and of full scale: coders leave tones below, which are no voice
PERIODIC = 0.45  # least autocorrelation at the period of a voiced frame (Boersma 1993)

VOICE = (
    *("f0_hz", "voiced", "voiced_probability", "f0_delta_semitones", "jitter", "shimmer_db", "hnr_db", "h1_h2_db"),
    *("cepstral_peak_prominence_db", "energy_db", "energy_db_delta"),
)
MFCC = tuple(f"mfcc_{i}" for i in range(25))
FORMANTS = (*(f"formant{i}_hz" for i in (1, 2, 3)), *(f"formant{i}_bandwidth_hz" for i in (1, 2, 3)))
SHAPE = (
    *("spectral_tilt_db", "spectral_centroid_hz", "spectral_bandwidth_hz", "spectral_rolloff_hz"),
    *("spectral_flatness", "spectral_flux", "zero_crossing_rate"),
)
FEATURE_NAMES: tuple[str, ...] = (*VOICE, *MFCC, *(f"{name}_delta" for name in MFCC), *FORMANTS, *SHAPE)


def read_sound(path: Path | str) -> Float32[np.ndarray, " n"]:
    """The first sound stream of a file in mono, 16 kHz, -1 to 1; empty where the file has none.

    Damaged packets are left out. Raises as `check_file`, and DataError for a clip that cannot be decoded.
    """
    check_file(path)
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            blocks = list(_decoded(container)) if container.streams.audio else [np.zeros(0, np.float32)]
    except (av.FFmpegError, ValueError) as error:
        raise undecodable(path, getattr(error, "strerror", None) or error) from error
    if not blocks:
        raise undecodable(path, "a sound stream without a whole packet")
    return np.clip(np.nan_to_num(np.concatenate(blocks)), -1, 1)


def acoustic_features(sound: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, "T 74"]:
    """FEATURE_NAMES of frames centred on every 10 ms of a 16 kHz sound: T = 1 + n // 160, or 0 of no sound.

    What only a voice has (pitch, jitter, shimmer, hnr, h1_h2, formants) is 0 where there is none. Levels are dB of full
    scale, the tilt is dB an octave, deltas are changes a frame. Every number is finite.
    """
    if not len(sound):
        return np.zeros((0, len(FEATURE_NAMES)), np.float32)
    sound = sound - sound.mean()  # a constant is periodic, and no sound
    energy = _db(librosa.feature.rms(y=sound, frame_length=SHORT, hop_length=HOP)[0] ** 2)
    voice = _voice(sound, energy)
    spectrum = _spectrum(sound, SHORT)
    mel = _db(librosa.feature.melspectrogram(S=spectrum**2, sr=RATE, n_mels=40, norm=1))
    cepstra = librosa.feature.mfcc(S=mel, n_mfcc=len(MFCC))
    formants = _formants(sound, voiced=voice[VOICE.index("voiced")] > 0)
    rows = (voice, cepstra, _delta(cepstra), formants, _shape(sound, spectrum, mel))
    return np.concatenate(rows, dtype=np.float32).T


def _decoded(container: av.container.InputContainer) -> Iterator[Float32[np.ndarray, " n"]]:
    """The mean of the channels (ffmpeg's own mixing of floats adds up to more than full scale), block by block."""
    resampler = av.AudioResampler(format="fltp", rate=RATE)
    for packet in container.demux(audio=0):
        with suppress(av.error.InvalidDataError):
            for frame in packet.decode():
                yield from (block.to_ndarray().mean(0) for block in resampler.resample(frame))
    yield from (block.to_ndarray().mean(0) for block in resampler.resample(None))


def _db(power: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return 10 * np.log10(power + SILENCE)


def _delta(rows: Float[np.ndarray, "... T"]) -> Float[np.ndarray, "... T"]:
    """Slope over 9 frames; `nearest` also takes clips of fewer."""
    return librosa.feature.delta(rows, mode="nearest")


def _frames(sound: Float[np.ndarray, " n"], length: int) -> Float[np.ndarray, "T length"]:
    """Windows of `length` samples around every 10 ms, zeros beyond the ends."""
    return np.lib.stride_tricks.sliding_window_view(np.pad(sound, length // 2), length)[::HOP]


def _spectrum(sound: Float32[np.ndarray, " n"], length: int) -> Float32[np.ndarray, "K T"]:
    """Magnitudes, 1 on average for white noise of power 1; the window is filled up to the next power of two."""
    window = hann(length, sym=False).astype(np.float32)
    window /= np.linalg.norm(window)
    return np.abs(np.fft.rfft(_frames(sound, length) * window, 1 << length.bit_length())).T


def _voice(sound: Float32[np.ndarray, " n"], energy: Float[np.ndarray, " T"]) -> Float[np.ndarray, "11 T"]:
    """The rows VOICE."""
    f0, voiced, probability = _pitch(sound)
    power = _spectrum(sound, LONG) ** 2
    f0, periodicity = _refined(f0, power)
    voiced &= (periodicity > PERIODIC) & (energy > max(energy.max() + FADED, FAINT))
    movement = convolve1d(12 * np.log2(f0), [0.5, 0, -0.5]) * binary_erosion(voiced)  # voiced on both sides
    h1_h2 = _harmonic(power, f0) - _harmonic(power, 2 * f0)
    hnr = 10 * np.log10(periodicity / (1 - periodicity))
    of_voice = np.vstack([movement, _jitter_and_shimmer(sound, f0), hnr, h1_h2]) * voiced
    return np.vstack([f0 * voiced, voiced, probability, of_voice, _cepstral_peak(power), energy, _delta(energy)])


def _pitch(sound: Float32[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pitch in Hz, in steps of half a semitone (the cost is their number squared), voiced or not, and how probably."""
    (low, high), beta = F0_RANGE, (2, 8)  # mean threshold .2 (Mauch and Dixon 2014); .1 in such steps loses real voices
    return librosa.pyin(
        sound, fmin=low, fmax=high, sr=RATE, frame_length=LONG, hop_length=HOP, fill_na=None,
        resolution=0.5, beta_parameters=beta,
    )  # fmt: skip


def _refined(f0: Float[np.ndarray, " T"], power: Float32[np.ndarray, "K T"]) -> Float[np.ndarray, "2 T"]:
    """Pitch in Hz of the autocorrelation's peak near each f0, and its height, 0 to 1; the window's is divided out."""
    window = np.fft.irfft(np.abs(np.fft.rfft(hann(LONG, sym=False), 2 * LONG)) ** 2)
    correlation = np.fft.irfft(power, axis=0)
    lag = np.round(RATE / f0).astype(int) + np.arange(-5, 6)[:, None]
    near = np.take_along_axis(correlation, lag, 0) / (correlation[0] + SILENCE) / (window[lag] / window[0])
    place, height = _summit(near)
    return np.array([RATE / (lag[0] + place), np.clip(height, 1e-3, 1 - 1e-4)])


def _jitter_and_shimmer(sound: Float32[np.ndarray, " n"], f0: Float[np.ndarray, " T"]) -> Float[np.ndarray, "2 T"]:
    """From the peaks of three periods around each frame: how two periods differ, as a share, and two peaks, in dB."""
    period = RATE / f0
    middle, height = _peak(sound, HOP * np.arange(len(f0)), period / 2)
    before, _ = _peak(sound, middle - period, period / 4)
    after, next_height = _peak(sound, middle + period, period / 4)
    return np.abs([(after - 2 * middle + before) / period, _db(next_height**2) - _db(height**2)])


def _peak(sound: np.ndarray, centre: np.ndarray, reach: Float[np.ndarray, " T"]) -> Float[np.ndarray, "2 T"]:
    """Place, in samples, and height of the greatest value within `reach` of each centre."""
    start = np.round(centre).astype(int) - RATE // F0_RANGE[0] // 2
    offset = np.arange(RATE // F0_RANGE[0])[:, None]
    inside = np.abs(start + offset - centre) <= reach
    place, height = _summit(np.where(inside, np.pad(sound, LONG)[start + offset + LONG], sound.min()))
    return np.array([start + place, height])


def _summit(rows: Float[np.ndarray, "W T"]) -> Float[np.ndarray, "2 T"]:
    """Place in 0 to W - 1 and height of each column's greatest value, by a parabola through it and its neighbours."""
    top = rows[1:-1].argmax(0) + 1
    left, peak, right = (np.take_along_axis(rows, (top + i)[None], 0)[0] for i in (-1, 0, 1))
    curve = np.minimum(left - 2 * peak + right, -SILENCE)
    shift = np.clip((left - right) / (2 * curve), -0.5, 0.5)
    return np.array([top + shift, peak - curve * shift**2 / 2])


def _harmonic(power: Float32[np.ndarray, "K T"], frequency: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """Level in dB of the partial at each frame's frequency."""
    bins = np.round(frequency * 2 * LONG / RATE).astype(int) + np.arange(-1, 2)[:, None]
    return _db(np.take_along_axis(power, bins, 0).max(0))


def _cepstral_peak(power: Float32[np.ndarray, "K T"]) -> Float[np.ndarray, " T"]:
    """How far the cepstrum, in dB, stands above its own trend at its peak (Hillenbrand et al. 1994)."""
    low, high = F0_RANGE
    cepstrum = np.fft.irfft(_db(power), axis=0)[RATE // high : RATE // low + 1]
    return detrend(_db(cepstrum**2), axis=0).max(0)


def _formants(sound: Float32[np.ndarray, " n"], voiced: Bool[np.ndarray, " T"]) -> Float[np.ndarray, "6 T"]:
    """The rows FORMANTS: poles of linear prediction, the lowest three narrow ones; 0 where there are fewer."""
    formants = np.zeros((len(FORMANTS), len(voiced)))
    frames = _frames(lfilter([1, -0.97], 1, sound), SHORT)[voiced] * hann(SHORT, sym=False)
    if len(frames):
        order = 2 + RATE // 1000
        companion = np.tile(np.eye(order, k=-1), (len(frames), 1, 1))
        companion[:, 0] = -librosa.lpc(frames, order=order)[:, 1:]
        poles = np.linalg.eigvals(companion)
        hz = np.angle(poles) * RATE / (2 * np.pi)
        width = -np.log(np.abs(poles) + SILENCE) * RATE / np.pi
        missing = (hz < FORMANT_RANGE[0]) | (hz > FORMANT_RANGE[1]) | (width > FORMANT_BANDWIDTH)
        lowest = np.where(missing, np.inf, hz).argsort(1)[:, :3]
        rows = [np.take_along_axis(np.where(missing, 0, values), lowest, 1) for values in (hz, width)]
        formants[:, voiced] = np.hstack(rows).T
    return formants


def _shape(
    sound: Float32[np.ndarray, " n"], spectrum: Float32[np.ndarray, "K T"], mel: Float[np.ndarray, "40 T"]
) -> Float[np.ndarray, "7 T"]:
    """The rows SHAPE. The flux is half the sum of absolute changes, 0 to 1, of the spectrum as shares."""
    octaves = np.log2(librosa.mel_frequencies(len(mel) + 2, fmax=RATE / 2)[1:-1])
    octaves -= octaves.mean()
    shares = spectrum / (spectrum.sum(0) + SILENCE)
    flux = np.abs(np.diff(shares, axis=1, prepend=shares[:, :1])).sum(0) / 2
    return np.vstack(
        [
            octaves @ mel / (octaves @ octaves),
            librosa.feature.spectral_centroid(S=spectrum, sr=RATE),
            librosa.feature.spectral_bandwidth(S=spectrum, sr=RATE),
            librosa.feature.spectral_rolloff(S=spectrum, sr=RATE),
            librosa.feature.spectral_flatness(S=spectrum),
            flux,
            librosa.feature.zero_crossing_rate(sound, frame_length=SHORT, hop_length=HOP),
        ]
    )
