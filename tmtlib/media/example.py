"""Made-up clips to try `tmt features` on, and their table: a face that moves, a voice of vowels, a sentence.

The face is NASA's portrait of Eileen Collins (public domain, from scikit-image). Nothing here is data of an emotion:
the label is the sum of three numbers, shown by the words, the voice (its pitch) and the face (how it moves).
"""

from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
from jaxtyping import Float32, UInt8
from scipy.signal import lfilter
from skimage.data import astronaut

RATE, FPS, SECONDS = 16_000, 10, 1.6
WORDS = {
    -1: ("terrible", "boring", "sad", "awful"),
    0: ("long", "short", "usual", "new"),
    1: ("great", "fun", "lovely", "superb"),
}
VOWELS = {
    "a": (730, 1090, 2440),
    "i": (270, 2290, 3010),
    "u": (300, 870, 2240),
}  # formants in Hz (Peterson, Barney 1952)


def write_clips(folder: str | Path, splits: tuple[int, int, int] = (48, 16, 16), seed: int = 0) -> Path:
    """Writes clips (.mp4, 160 x 160, 1.6 s) and `clips.csv` into a folder; returns the table's path.

    Labels are in -3..3, their parts in `label_T`, `label_A`, `label_V`. The same seed gives the same clips.
    """
    folder, rng = Path(folder), np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    face = cv2.resize(astronaut()[20:220, 130:330], (110, 110))
    rows = []
    for split, n in zip(("train", "valid", "test"), splits, strict=True):
        for i in range(n):
            said, pitch, motion = rng.integers(-1, 2), *rng.uniform(-1, 1, 2)
            name = f"{split}{i}.mp4"
            _write(folder / name, _pictures(face, motion, rng), _voice(pitch, rng))
            parts = {"label_T": float(said), "label_A": pitch, "label_V": motion}
            transcript = f"the film was {rng.choice(WORDS[said])} and {rng.choice(WORDS[said])}"
            rows.append({"id": f"{split}_{i}", "split": split, "path": name, "transcript": transcript})
            rows[-1] |= {k: round(v, 3) for k, v in {"label": sum(parts.values()), **parts}.items()}
    pd.DataFrame(rows).to_csv(folder / "clips.csv", index=False)
    return folder / "clips.csv"


def _pictures(
    face: UInt8[np.ndarray, "h w 3"], motion: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "T H W 3"]:
    """A face that nods (motion 1), is still (0) or turns from side to side (-1), over a noisy ground."""
    frames = rng.integers(60, 90, (round(FPS * SECONDS), 160, 160, 3)).astype(np.uint8)
    for t, frame in enumerate(frames):
        swing = 20 * abs(motion) * np.sin(2 * np.pi * 1.5 * t / FPS)
        x, y = (25, 25 + swing) if motion > 0 else (25 + swing, 25)
        frame[round(y) : round(y) + 110, round(x) : round(x) + 110] = face
    return frames


def _voice(pitch: float, rng: np.random.Generator) -> Float32[np.ndarray, " n"]:
    """Three vowels, pulses through resonators, at 150 Hz and up to half an octave above or below."""
    f0 = 150 * 2 ** (pitch / 2)
    parts = []
    for vowel in rng.permutation([*VOWELS]):
        n = round(RATE * SECONDS / 3)
        pulses = np.diff(np.floor(np.arange(n + 1) * f0 / RATE))
        for formant in VOWELS[vowel]:
            r, angle = np.exp(-np.pi * 80 / RATE), 2 * np.pi * formant / RATE
            pulses = lfilter([1], [1, -2 * r * np.cos(angle), r * r], pulses)
        parts.append(np.hanning(n) * pulses / np.abs(pulses).max())
    return (0.3 * np.concatenate(parts)).astype(np.float32)


def _write(path: Path, pictures: UInt8[np.ndarray, "T H W 3"], sound: Float32[np.ndarray, " n"]) -> None:
    with av.open(str(path), "w") as file:
        video, voice = file.add_stream("mpeg4", rate=FPS), file.add_stream("aac", rate=RATE)
        video.height, video.width, video.pix_fmt, video.bit_rate = *pictures.shape[1:3], "yuv420p", 800_000
        voice.layout = "mono"
        for picture in pictures:
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        file.mux(voice.encode(frame))
        for stream in (video, voice):
            file.mux(stream.encode(None))
