"""CREMA-D's votes as a data set: what people perceived in a clip from its voice, from its face and from both.

7,442 clips of 91 actors saying one of twelve neutral sentences (Cao, Cooper, Keutmann, Gur, Nenkova and Verma 2014,
IEEE Transactions on Affective Computing 5:377). `crema_votes.csv.xz` counts, for each clip, the raters who chose anger
(A), disgust (D), fear (F), happiness (H), neutral (N) or sadness (S) having the voice only, the face only, or both; and
the mean intensity they gave, in percent. It is a table made from CREMA-D's and under its licence, the Open Database
License 1.0, see `crema_votes.LICENSE.txt`.

  text     which of the twelve sentences, one-hot (1, 12): it says nothing about the emotion
  audio    shares of the votes and mean intensities of those who had the voice alone (1, 12)
  vision   the same of those who had the face alone (1, 12)
  label    share of happiness minus shares of anger, disgust, fear and sadness of those who had both, -1 to 1; with
           unimodal labels of audio and vision, the same of their raters
  emotion  present: named most often by those who had both (more than one where they tie)

So what is known is which modality carries the label: never the text, mostly the face, at times the voice. Splits are by
actor.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tmtlib.data.catalog import file_sha256
from tmtlib.data.schema import SPLITS, Card, Dataset, Split

NAME = "crema"
PATH = Path(__file__).with_name("crema_votes.csv.xz")
VOTES = "ADFHNS"
EMOTIONS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")  # in the order of `VOTES`
SENTENCES = {
    "DFA": "Don't forget a jacket.",
    "IEO": "It's eleven o'clock.",
    "IOM": "I'm on my way to the meeting.",
    "ITH": "I think I have a doctor's appointment.",
    "ITS": "I think I've seen this before.",
    "IWL": "I would like a new alarm clock.",
    "IWW": "I wonder what this is about.",
    "MTI": "Maybe tomorrow it will be cold.",
    "TAI": "The airplane is almost full.",
    "TIE": "That is exactly what happened.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}


def read() -> Dataset:
    """The data set, features as they are in the table."""
    table = pd.read_csv(PATH)
    splits = {name: _split(table[table["split"] == name]) for name in SPLITS}
    origin = "CREMA-D (Cao et al. 2014), votes of raters; Open Database License 1.0"
    return Dataset(Card(NAME, "sims", "aligned", "real", origin, file_sha256(PATH), EMOTIONS), **splits)


def _split(rows: pd.DataFrame) -> Split:
    share = {kind: _shares(rows, kind) for kind in ("voice", "face", "both")}
    sentence = rows["clip"].str.split("_").str[1]
    features = {"text": np.equal.outer(sentence.to_numpy(), np.array(list(SENTENCES)))}
    for modality, kind in (("audio", "voice"), ("vision", "face")):
        intensity = rows[[f"{kind}_level_{v}" for v in VOTES]].to_numpy() / 100
        features[modality] = np.hstack([share[kind], intensity])
    features = {m: x[:, None].astype(np.float32) for m, x in features.items()}
    lengths = {m: np.ones(len(rows), np.int64) for m in features}
    unimodal = {"audio": _label(share["voice"]), "vision": _label(share["face"])}
    said, both = tuple(sentence.map(SENTENCES)), share["both"]
    most = (both == both.max(1, keepdims=True)).astype(np.float32)
    return Split(features, lengths, _label(both), tuple(rows["clip"]), said, unimodal, emotion_labels=most)


def _shares(rows: pd.DataFrame, kind: str) -> np.ndarray:
    votes = rows[[f"{kind}_{v}" for v in VOTES]].to_numpy(np.float64)
    return votes / votes.sum(1, keepdims=True)


def _label(share: np.ndarray) -> np.ndarray:
    """Happiness minus the four negative emotions."""
    sign = np.array([{"H": 1, "N": 0}.get(v, -1) for v in VOTES])
    return (share @ sign).astype(np.float32)
