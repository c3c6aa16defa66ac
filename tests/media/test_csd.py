"""Computational sequences as the CMU-MultimodalSDK writes them, and files that only look like them."""

from pathlib import Path

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")

from tmtlib.__main__ import main  # noqa: E402
from tmtlib.data import mmsa  # noqa: E402
from tmtlib.data.schema import DataError  # noqa: E402
from tmtlib.media.alignment import interval_average  # noqa: E402
from tmtlib.media.csd import read_csd  # noqa: E402
from tmtlib.media.csd_join import aligned  # noqa: E402

FILES = ("words", "text", "audio", "vision", "labels")
WORDS = {"a": ["so", "sp", "good", "bad"], "b": ["fine"], "c": ["no", "way"], "d": ["yes"]}  # one a second
LABELS = {"a": [[0, 3, 2.0], [3, 4, -1.0]], "b": [[0, 1, 0.5]], "c": [[0, 2, -3.0]], "d": [[0, 1, 1.0]]}


def write(path: Path, sequences: dict[str, tuple]) -> Path:
    with h5py.File(path, "w") as file:
        for name, (intervals, features) in sequences.items():
            entry = file.create_group(f"{path.stem}/data/{name}")
            entry["intervals"] = np.array(intervals, float).reshape(-1, 2)
            entry["features"] = features
        file[f"{path.stem}/metadata/version"] = "1.0"
    return path


def seconds(n: float, step: float = 1) -> np.ndarray:
    starts = np.arange(0, n, step)
    return np.stack([starts, starts + step], 1)


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """Four videos; the audio has two frames a second, the vision one frame in the first second alone."""
    words = {v: (seconds(len(w)), np.array(w, "S8")[:, None]) for v, w in WORDS.items()}
    text = {v: (seconds(len(w)), [[float(len(word)), 1] for word in w]) for v, w in WORDS.items()}
    audio = {v: (seconds(len(w), 0.5), np.arange(2.0 * len(w))[:, None]) for v, w in WORDS.items()}
    labels = {v: (np.array(rows)[:, :2], np.array(rows)[:, 2:]) for v, rows in LABELS.items()}
    every = (words, text, audio, {v: ([[0, 1]], [[7.0, 8, 9]]) for v in WORDS}, labels)
    made = {name: write(tmp_path / f"{name}.csd", found) for name, found in zip(FILES, every, strict=True)}
    splits = tmp_path / "splits.csv"
    splits.write_text("id,split\na[0],train\na[1],train\nb,valid\nc,test\nd,test\n")
    return made | {"splits": splits}


def test_two_words_averaged_by_hand():
    """A frame counts where it overlaps a word, not where it only touches it; the third word has none."""
    frames = np.array([[1, 10], [3, 30], [5, 50], [90, 90]], np.float32)
    words, times = np.array([[0, 1], [1, 2.5], [8, 9]]), np.array([[0, 0.5], [0.5, 1.5], [1.5, 3], [5, 8]])
    np.testing.assert_array_equal(interval_average(words, times, frames), [[2, 20], [4, 40], [0, 0]])


def test_what_is_written_is_read(files):
    intervals, words = read_csd(files["words"])["a"]
    assert words[:, 0].tolist() == WORDS["a"] and intervals.tolist() == seconds(4).tolist()
    intervals, audio = read_csd(files["audio"])["b"]
    assert audio.dtype == np.float32 and intervals.dtype == np.float64 and audio.tolist() == [[0], [1]]


def test_join_by_command_is_one_frame_a_word(files, tmp_path, capsys):
    out = tmp_path / "features.pkl"
    arguments = [*(str(files[name]) for name in FILES), "--splits", str(files["splits"]), "--out", str(out)]
    assert main(["data", "join", *arguments]) == 0 and "Oddities: none" in capsys.readouterr().out
    data = mmsa.read(out)
    assert data.card.alignment == "aligned" and (data.family, data.card.source) == ("mosi", "real")
    train = data.train
    assert train.ids == ("a[0]", "a[1]") and train.raw_text == ("so good", "bad"), "the pause is no word"
    assert train.labels.tolist() == [2, -1] and {tuple(n) for n in train.lengths.values()} == {(2, 1)}
    assert train.features["text"][..., 0].tolist() == [[2, 4], [3, 0]]
    assert train.features["audio"][..., 0].tolist() == [[0.5, 4.5], [6.5, 0]]
    assert train.features["vision"][0].tolist() == [[7, 8, 9], [0, 0, 0]]
    assert data.test.ids == ("c[0]", "d[0]")


def test_what_is_missing_odd_or_long_is_counted(files):
    write(files["vision"], {v: ([[0, 1]], [[1.0, -np.inf, np.nan]]) for v in "abc"})
    data = aligned(**files, frames=1)
    assert {(o.what, o.count, o.handling) for o in data.oddities} == {
        ("segments of more than 1 words", 2, "cut: a[0], c[0]"),
        ("segments that vision.csd lacks", 1, "left out: d[0]"),
        ("values of vision.csd that are not finite", 6, "set to 0"),
    }
    assert data.test.ids == ("c[0]",) and data.train.features["vision"][0].tolist() == [[1, 0, 0]]
    write(files["vision"], {"a": ([[0, 1]], [[1.0]])})
    with pytest.raises(DataError, match=r"no segment is left for valid, test \(3 segments that vision.csd lacks\)"):
        aligned(**files)


def test_segments_emotions_and_word_vectors(files, tmp_path):
    """Entries may be segments, labels CMU-MOSEI's seven, and the text vectors of words."""
    vectors = tmp_path / "vectors.npz"
    np.savez(vectors, words=["Good", "no"], vectors=np.array([[1.0, 2], [3, 4]]))
    labels = {f"{v}[0]": (np.array(rows)[:1, :2], [[rows[0][2], 0, 0, 3, 0, 0, 1]]) for v, rows in LABELS.items()}
    data = aligned(**files | {"text": vectors, "labels": write(tmp_path / "seven.csd", labels)})
    assert data.train.features["text"].tolist() == [[[0, 0], [1, 2]]]
    assert data.emotions[2] == "anger" and data.test.emotion_labels.tolist() == [[0, 0, 3, 0, 0, 1]] * 2


def linked(entry: h5py.Group, path: Path) -> None:
    entry["features"] = h5py.ExternalLink(str(path), "/audio/data/a/features")


def soft(entry: h5py.Group, path: Path) -> None:
    entry["features"] = h5py.SoftLink("/elsewhere")


def raw(entry: h5py.Group, path: Path) -> None:
    entry.create_dataset("features", (1, 1), "f4", external=[(str(path), 0, h5py.h5f.UNLIMITED)])


def virtual(entry: h5py.Group, path: Path) -> None:
    layout = h5py.VirtualLayout((1, 1), "f4")
    layout[0] = h5py.VirtualSource(str(path), "/audio/data/a/features", (1, 1))[0]
    entry.create_virtual_dataset("features", layout)


def huge(entry: h5py.Group, path: Path) -> None:
    entry.create_dataset("features", (2**40, 1), "f4", chunks=(1, 1))


def objects(entry: h5py.Group, path: Path) -> None:
    entry.create_dataset("features", (1, 1), h5py.ref_dtype)


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (linked, "features is of type ExternalLink; wanted a Dataset in the file itself"),
        (soft, "features is of type SoftLink"),
        (raw, "features is stored in another file"),
        (virtual, "features is stored in another file"),
        (huge, "would take more than .* bytes of memory"),
        (objects, "wanted .* numbers or texts"),
        (lambda entry, path: None, "features is missing; wanted a Dataset"),
        (lambda entry, path: entry.create_dataset("features", (2, 1), "f4"), "wanted start and end of 2 rows"),
    ],
)
def test_what_is_not_in_the_file_itself_is_refused(put, message, files, tmp_path):
    path = tmp_path / "odd.csd"
    with h5py.File(path, "w") as file:
        entry = file.create_group("odd/data/a")
        entry["intervals"] = [[0.0, 1.0]]
        put(entry, files["audio"])
    with pytest.raises(DataError, match=message):
        read_csd(path)


def test_a_linked_group_and_two_roots_are_refused(files, tmp_path):
    path = tmp_path / "odd.csd"
    with h5py.File(path, "w") as file:
        file["odd"] = h5py.ExternalLink(str(files["audio"]), "/audio")
    with pytest.raises(DataError, match="/odd is of type ExternalLink; wanted a Group"):
        read_csd(path)
    with h5py.File(path, "a") as file:
        file.create_group("second")
    with pytest.raises(DataError, match="holds 2 groups; wanted one"):
        read_csd(path)


def test_another_format_is_named_and_one_line(files, tmp_path, capsys):
    page = tmp_path / "page.csd"
    page.write_text("<html>")
    for path, message in (
        (page, "is no HDF5 file; wanted a computational sequence"),
        (tmp_path / "none.csd", "none.csd"),
    ):
        arguments = [str(path), *(str(files[name]) for name in FILES[1:]), "--splits", str(files["splits"])]
        assert main(["data", "join", *arguments, "--out", str(tmp_path / "out.pkl")]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and not (tmp_path / "out.pkl").exists()
