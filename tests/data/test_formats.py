"""Feature files as people have them: read where the meaning is certain, else refused by name, never silently."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable
from hashlib import sha256

import joblib
import numpy as np
import pytest
import torch

from tmtlib.__main__ import main
from tmtlib.common import EMOTIONS, MODALITIES, digest
from tmtlib.data import check, formats, loading, mmsa
from tmtlib.data.loading import load_dataset, resolve, resolve_all
from tmtlib.data.safe_pickle import RefusedPickle
from tmtlib.data.schema import SPLITS, DataError, Dataset
from tmtlib.data.transcripts import vocabulary
from tmtlib.study import methods, notebooks

FRAMES, WIDTH = {"text": 6, "audio": 9, "vision": 7}, {"text": 5, "audio": 4, "vision": 3}


def split(name: str, n: int) -> dict:
    rng = np.random.default_rng(n)
    part = {
        "id": [f"{name}vid{i // 2}$_${i % 2}" for i in range(n)],
        "raw_text": [f"word{i} and more" for i in range(n)],
    }
    part["regression_labels"] = np.linspace(-3, 3, n).astype(np.float32)
    for m in MODALITIES:
        length = rng.integers(2, FRAMES[m] + 1, n)
        x = rng.uniform(0.5, 1.5, (n, FRAMES[m], WIDTH[m])).astype(np.float32)
        part[m] = x * (np.arange(FRAMES[m]) < length[:, None])[..., None]
        part[f"{m}_lengths"] = length
    return part


def content() -> dict:
    return {s: split(s, n) for s, n in zip(SPLITS, (24, 9, 8), strict=True)}


def changed(change: Callable[[dict], object]) -> dict:
    """The content with a change to each split."""
    whole = content()
    for part in whole.values():
        change(part)
    return whole


def put(**values) -> Callable[[dict], None]:
    return lambda part: part.update({key: value(part) for key, value in values.items()})


def renamed(old: str, new: object) -> Callable[[dict], None]:
    return lambda part: part.update({new: part.pop(old)})


@pytest.fixture
def file(tmp_path):
    """Writes bytes, or content as a pickle, under a name."""

    def written(what: object, name: str = "features.pkl"):
        path = tmp_path / name
        path.write_bytes(what if isinstance(what, bytes) else pickle.dumps(what, 4))
        return path

    return written


def read(path, **options) -> tuple[Dataset, list[str]]:
    """The data set and what was said at once."""
    with warnings.catch_warnings(record=True, action="always") as said:
        return mmsa.read(path, **options), [str(warning.message) for warning in said]


def assert_same(found: Dataset, wanted: dict, of: tuple[str, ...] = MODALITIES):
    for s in SPLITS:
        for m in of:
            np.testing.assert_array_equal(found[s].features[m], wanted[s][m][:, : found[s].shapes[m][0]])
            np.testing.assert_array_equal(found[s].lengths[m], wanted[s][f"{m}_lengths"])
        assert found[s].ids == tuple(wanted[s]["id"]) and found[s].raw_text == tuple(wanted[s]["raw_text"])
        np.testing.assert_array_equal(found[s].labels, wanted[s]["regression_labels"])


def joblib_bytes(what: object, **options) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(what, buffer, **options)
    return buffer.getvalue()


def npz(arrays: dict) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def flat(whole: dict, form: str = "{split}_{key}") -> dict:
    return {form.format(split=s, key=key): value for s, part in whole.items() for key, value in part.items()}


def objects(whole: dict) -> dict:
    for part in whole.values():
        part["raw_text"] = np.array(part["raw_text"], object)
        part["audio"] = np.asfortranarray(part["audio"])
    return whole


WRITTEN = {
    "gzip": lambda whole: gzip.compress(pickle.dumps(whole, 4)),
    "zlib": lambda whole: zlib.compress(pickle.dumps(whole, 4)),
    "bz2": lambda whole: bz2.compress(pickle.dumps(whole, 4)),
    "xz": lambda whole: lzma.compress(pickle.dumps(whole, 4)),
    "joblib": lambda whole: joblib_bytes(objects(whole)),
    "joblib, protocol 2": lambda whole: joblib_bytes(objects(whole), protocol=2),
    "joblib, zlib": lambda whole: joblib_bytes(objects(whole), compress=3),
    "joblib, gzip": lambda whole: joblib_bytes(objects(whole), compress=("gzip", 3)),
    "npz of dicts": lambda whole: npz(whole),
    "npz, flat": lambda whole: npz(flat(objects(whole))),
    "npz, folders": lambda whole: npz(flat(whole, "{split}/{key}")),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_other_containers_are_read(file, kind):
    dataset, said = read(file(WRITTEN[kind](content())))
    assert_same(dataset, content())
    assert not said


OTHER_KEYS = {
    "dev": ({"train": "train", "dev": "valid", "test": "test"}, "key 'dev'"),
    "val": ({"Train": "train", "val": "valid", "TEST": "test"}, "key 'Train'"),
    "validation": ({"training": "train", "validation": "valid", "testing": "test"}, "key 'validation'"),
    "bytes": ({b"train": "train", b"valid": "valid", b"test": "test"}, None),
}


@pytest.mark.parametrize("kind", OTHER_KEYS)
def test_other_names_of_splits_are_read_and_noted(file, kind):
    names, noted = OTHER_KEYS[kind]
    dataset, _ = read(file({key: content()[s] for key, s in names.items()}))
    assert_same(dataset, content())
    assert noted is None or noted in {o.what for o in dataset.oddities}


def test_two_keys_for_one_split_are_refused(file):
    whole = content()
    with pytest.raises(DataError, match="keys 'dev' and 'val' may both be 'valid'; keep one"):
        mmsa.read(file({"train": whole["train"], "dev": whole["valid"], "val": whole["valid"], "test": whole["test"]}))


@pytest.mark.parametrize("form", ["{split}_{key}", "{split}/{key}", "{key}_{split}", "{split}.{key}"])
def test_flat_keys_are_read_and_noted(file, form):
    dataset, _ = read(file(flat(content(), form)))
    assert_same(dataset, content())
    assert "keys name the split, as 'train_text'" in {o.what for o in dataset.oddities}


@pytest.mark.parametrize(
    ("modality", "key"), [("vision", "visual"), ("vision", "video"), ("audio", "acoustic"), ("text", "language")]
)
@pytest.mark.parametrize("case", [str, str.upper, str.encode], ids=["as it is", "capitals", "bytes"])
def test_other_names_of_modalities_are_read_and_said(file, modality, key, case):
    def change(part):
        part[case(key)] = part.pop(modality)
        part[case(f"{key}_lengths")] = part.pop(f"{modality}_lengths")

    dataset, said = read(file(changed(change)))
    assert_same(dataset, content())
    assert any(f"read as '{modality}'" in line for line in said)


def test_names_of_videos_are_no_features(file):
    dataset, _ = read(file(changed(put(video=lambda part: ["a"] * len(part["id"])))))
    assert_same(dataset, content())


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("audio", "audio_features", "key 'audio_features' (3); not read: did you mean 'audio'?"),
        ("vision", "vison", "key 'vison' (3); not read: did you mean 'vision'?"),
        ("audio", "COVAREP", "key 'COVAREP' (3); not read: did you mean 'audio'?"),
        ("raw_text", "transcripts", "key 'transcripts' (3); not read: did you mean 'raw_text'?"),
        ("audio", "unlike", "audio not in the file (41); taken as one frame"),
    ],
)
def test_keys_that_are_not_read_are_said_with_what_may_be_meant(file, old, new, line):
    _, said = read(file(changed(renamed(old, new))))
    assert any(line in s for s in said)


def test_other_keys_that_are_not_read_are_oddities(file):
    dataset, said = read(file(changed(put(speaker=lambda part: part["id"])) | {"version": 2}))
    assert {"key 'speaker'", "key 'version'"} <= {o.what for o in dataset.oddities} and not said


@pytest.mark.parametrize("as_array", [False, True])
def test_a_dict_for_each_utterance(file, as_array):
    whole = {s: [{k: v[i] for k, v in part.items()} for i in range(len(part["id"]))] for s, part in content().items()}
    dataset, _ = read(file({s: np.array(rows, object) if as_array else rows for s, rows in whole.items()}))
    assert_same(dataset, content())


@pytest.mark.parametrize("numbers", [False, True], ids=["MAG-BERT", "MISA"])
def test_tuples_for_each_utterance(file, numbers):
    def row(part, i):
        words = part["raw_text"][i].split()
        frames = [part[m][i][: part[f"{m}_lengths"][i]] for m in ("vision", "audio")]
        inputs = (np.arange(3), *frames, words) if numbers else (words, *frames)
        return inputs, part["regression_labels"][i].reshape(1, 1), part["id"][i]

    whole = {s: [row(part, i) for i in range(len(part["id"]))] for s, part in content().items()}
    dataset, said = read(file({"train": whole["train"], "dev": whole["valid"], "test": whole["test"]}))
    assert_same(dataset, content(), ("audio", "vision"))
    assert any("text not in the file" in line for line in said)


@pytest.mark.parametrize("kind", ["objects", "list", "absent"])
def test_features_of_several_lengths_are_padded(file, kind):
    whole, expected = content(), content()
    for s, part in whole.items():
        for m in MODALITIES:
            rows = [x[:length] for x, length in zip(part[m], part.pop(f"{m}_lengths"), strict=True)]
            longest = expected[s][f"{m}_lengths"].max()
            if kind == "absent":
                rows[1], expected[s][m][1], expected[s][f"{m}_lengths"][1] = None, 0, 0
                longest = max(map(len, filter(lambda row: row is not None, rows)))
            expected[s][m] = expected[s][m][:, :longest]
            part[m] = rows
            if kind == "objects":
                part[m] = np.empty(len(rows), object)
                part[m][:] = rows
    dataset, _ = read(file(whole))
    assert_same(dataset, expected)
    assert "audio is of several lengths" in {o.what for o in dataset.oddities}


def tokens(part: dict) -> np.ndarray:
    mask = np.arange(12) < np.arange(4, 4 + len(part["id"]))[:, None] % 9 + 3
    return np.stack([mask * 2050, mask, 0 * mask], 1).astype(np.float32)


@pytest.mark.parametrize("change", [put(text=tokens), put(text=lambda part: tokens(part)[:, 0])], ids=["3 rows", "ids"])
def test_token_ids_as_text_are_refused(file, change):
    with pytest.raises(DataError, match="text .* up to 2050, which look like token ids: name it text_bert"):
        mmsa.read(file(changed(lambda part: (part.pop("text_lengths"), change(part)))))


def test_token_ids_without_text_features_are_kept_and_said(file):
    whole = changed(lambda part: part.update(text_bert=tokens(part), text=None))
    dataset, said = read(file(whole))
    assert dataset.train.text_bert.shape == (24, 3, 12) and dataset.train.shapes["text"] == (12, 1)
    np.testing.assert_array_equal(dataset.train.lengths["text"], tokens(whole["train"])[:, 1].sum(1))
    assert any("text_bert but no text features (41); kept for models that fine-tune a BERT" in line for line in said)


def test_transcripts_as_text_are_no_features(file):
    dataset, said = read(file(changed(lambda part: part.update(text=part.pop("raw_text")))))
    assert dataset.train.raw_text == tuple(content()["train"]["raw_text"]) and not dataset.train.lengths["text"].any()
    assert any("text holds transcripts" in line for line in said)


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, "nan", "None"], ids=repr)
def test_missing_transcripts_are_empty_and_counted(file, missing):
    whole = content()
    whole["train"]["raw_text"][1:3] = [missing, ""]
    dataset, _ = read(file(whole))
    assert dataset.train.raw_text[:3] == ("word0 and more", "", "")
    assert not {"nan", "none"} & set(vocabulary(dataset.train.raw_text))
    assert [o.count for o in dataset.oddities if o.what.startswith("transcripts missing")] == [1]


def test_a_dict_for_each_utterance_with_token_ids_alone(file):
    whole = changed(lambda part: (part.update(text_bert=tokens(part)), part.pop("text"), part.pop("text_lengths")))
    rows = {s: [{k: v[i] for k, v in part.items()} for i in range(len(part["id"]))] for s, part in whole.items()}
    assert read(file(rows))[0].test.text_bert.shape == (8, 3, 12)


def test_ids_of_several_parts_are_read(file):
    whole = changed(put(id=lambda part: [(name, "1", "2")[: 2 + i % 2] for i, name in enumerate(part["id"])]))
    assert read(file(whole))[0].train.ids[:2] == ("trainvid0$_$0[1]", "trainvid0$_$1[1,2]")


@pytest.mark.parametrize("missing", [None, float("nan")], ids=repr)
def test_missing_ids_are_counted(file, missing):
    whole = content()
    whole["test"]["id"][3] = missing
    found = {(o.split, o.what, o.count) for o in read(file(whole))[0].oddities}
    assert ("test", "ids missing (None or NaN)", 1) in found


@pytest.mark.parametrize("shape", [(7,), (1, 7)])
def test_seven_labels_are_sentiment_and_emotions(file, shape):
    felt = np.random.default_rng(0).uniform(0, 3, (24, 6)).astype(np.float32)

    def change(part):
        labels = np.column_stack([part.pop("regression_labels"), felt[: len(part["id"])]])
        part["labels"] = labels.reshape(-1, *shape)

    dataset, said = read(file(changed(change)))
    assert_same(dataset, content())
    np.testing.assert_array_equal(dataset.train.emotion_labels, felt)
    assert dataset.emotions == EMOTIONS and any("labels has seven columns" in line for line in said)


CLASSES = {
    "0/1": ([0, 1], "labels are 0, 1 alone"),
    "0 to 2": ([0, 1, 2], "labels are 0, 1, 2 alone"),
    "constant": ([0.0], "labels are 0 alone"),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_labels_that_look_like_classes_are_said(file, kind):
    values, line = CLASSES[kind]
    change = put(regression_labels=lambda part: np.resize(np.float32(values), len(part["id"])))
    assert any(line in said for said in read(file(changed(change)))[1])


def test_the_number_of_values_of_labels_is_told(file):
    path = file(changed(put(regression_labels=lambda part: np.resize(np.float32([-1, 0, 1]), len(part["id"])))))
    text = check.report(path)
    assert "(values: 3)" in text and "labels take 3 values alone: -1, 0, 1" in text


@pytest.mark.parametrize("high", [5, 4])
def test_labels_beyond_the_range_are_refused_with_count_and_ids_or_clipped(file, high):
    whole = content()
    whole["train"]["regression_labels"][:2] = 11 / 3, high
    path = file(whole)
    with pytest.raises(DataError, match=r"which 2 of 24 leave \(trainvid0\$_\$0, trainvid0\$_\$1\).*clip_labels=True"):
        mmsa.read(path)
    dataset, said = read(path, clip_labels=True)
    assert dataset.train.labels[:2].tolist() == [3, 3] and any("labels beyond -3..3 (2); clipped" in s for s in said)
    assert load_dataset(path, clip_labels=True).ref.clip_labels


def test_classes_from_0_to_4_are_refused(file):
    change = put(regression_labels=lambda part: np.resize(np.float32(range(5)), len(part["id"])))
    with pytest.raises(DataError, match=r"which 4 of 24 leave .*rescale them \(classes too\)"):
        mmsa.read(file(changed(change)))


def test_clipped_labels_are_another_run_and_others_keep_their_id(file, monkeypatch):
    path = file(content())
    plain, clipped = resolve(path, clip_labels=False), resolve(path, clip_labels=True)
    assert digest(plain) != digest(clipped)
    before = {"type": "DataRef", "name": "features", "source": "real", "sha256": plain.sha256, "synthetic": None}
    before |= {"normalize": True, "training_corruption": None}
    text = json.dumps(before, sort_keys=True)
    assert digest(plain) == sha256(text.encode()).hexdigest(), "the id that runs had before labels could be clipped"
    monkeypatch.setenv("TMT_CLIP_LABELS", "1")
    assert resolve(path) == clipped and resolve_all(("mosi",), data=path, normalize=True, sizes={})[0] == [clipped]


@pytest.mark.parametrize("stated", [True, False])
def test_axes_that_look_swapped_are_said(file, stated):
    def change(part):
        part["audio"] = np.pad(part["audio"], ((0, 0), (0, 30), (0, 0))).transpose(0, 2, 1)
        stated or part.pop("audio_lengths")

    _, said = read(file(changed(change)))
    assert any("audio is (T, D) = (4, 39), but its data fit (D, T)" in line for line in said)
    assert not read(file(content()))[1], "and of others it is not"


def test_a_split_of_one_utterance_is_said(file):
    whole = content() | {"test": split("test", 1)}
    assert any("test is a single utterance" in line for line in read(file(whole))[1])


@pytest.mark.parametrize(
    ("form", "shared"),
    [("dia{}_utt{}", 8), ("vid{}/{}", 8), ("vid{}\\{}", 8), ("Ses01F_impro{:02}_M{:03}", 8), ("{}{}x", "cannot tell")],
)
def test_leakage_by_the_ids_of_other_data_sets(file, form, shared):
    whole = content()
    for k, part in enumerate(whole.values()):
        part["id"] = [form.format(i // 2 % 4, i + 100 * k) for i in range(len(part["id"]))]
    dataset, _ = read(file(whole))
    row = check.leakage_table(dataset).set_index(["split", "earlier"]).loc[("test", "train")]
    assert row["utterances in shared videos"] == shared
    assert max(map(len, check.describe(dataset).splitlines())) <= 110


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"content")
    return buffer.getvalue()


def saved_by_torch() -> bytes:
    buffer = io.BytesIO()
    torch.save({"train": torch.zeros(2)}, buffer)
    return buffer.getvalue()


FOREIGN = {
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(40), r"is HDF5 .*h5py"),
    "torch": (saved_by_torch(), r"is a PyTorch file; .*torch\.load"),
    "zip": (zipped("features.pkl"), "is a zip archive; .*unpack it"),
    "npy": (b"\x93NUMPY\x01\x00" + bytes(40), "is a single array"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "is a pointer of Git LFS"),
    "labels": (
        b"video_id,clip_id,text,label\nab,1,hello there,0.5\n",
        "a table with columns of no certain meaning, video",
    ),
    "csv like a pickle": (
        b"clip_id,label\r\nab_1,0.5\r\ncd_1,1\r\nde_1,1\r\n",
        "no certain meaning, clip_id; wanted id",
    ),
    "JSON": (b'{"train": [1]}', r"JSON\?"),
    "line ends": (pickle.dumps(content(), 0).replace(b"\n", b"\r\n"), "line ends .* were changed.*fetched as binary"),
    "line ends, protocol 4": (pickle.dumps(content(), 4).replace(b"\n", b"\r\n"), "line ends .* were changed"),
    "cut gzip": (gzip.compress(pickle.dumps(content(), 4))[:900], "is compressed and broken"),
    "bomb": (gzip.compress(bytes(40_000_000)), "is compressed, and more than .* bytes when decompressed"),
    "zlib bomb": (zlib.compress(bytes(40_000_000)), "is compressed, and more than .* bytes when decompressed"),
    "npz bomb": (npz({"train": np.zeros(40_000_000, np.int8)}), r"is an \.npz of more than .* bytes when decompressed"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_refused_by_name_with_what_to_do(file, kind):
    what, message = FOREIGN[kind]
    with pytest.raises(DataError, match=rf"(?s)features\.pkl.*{message}") as refused:
        mmsa.read(file(what))
    assert "suspicious" not in str(refused.value) and not isinstance(refused.value, RefusedPickle)


class Calls:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return os.system, self.arguments


@pytest.mark.parametrize(
    "written",
    [
        lambda what: joblib_bytes({"x": what, "y": np.zeros(2)}),
        lambda what: joblib_bytes({"x": np.array([what, None], object)}),
        lambda what: npz({"x": np.array([what, None], object)}),
        lambda what: gzip.compress(pickle.dumps({"x": what})),
        lambda what: joblib_bytes({"x": type(joblib.numpy_pickle.NumpyArrayWrapper)}),
    ],
    ids=["joblib", "objects of joblib", "npz", "gzip", "a class"],
)
def test_nothing_in_another_container_is_run(file, tmp_path, written):
    with pytest.raises(RefusedPickle, match="nothing was run"):
        formats.load(file(written(Calls(f"touch {tmp_path / 'mark'}"))))
    assert not (tmp_path / "mark").exists()


def test_the_class_of_joblib_s_arrays_is_no_content(file):
    with pytest.raises(RefusedPickle, match="a function"):
        formats.load(file({"x": joblib.numpy_pickle.NumpyArrayWrapper}))


@pytest.mark.parametrize("shape", [(3,), (10**12,), (-2, -3)])
def test_an_array_of_joblib_with_another_shape_is_broken(file, shape):
    wrapper = joblib.numpy_pickle.NumpyArrayWrapper(np.ndarray, shape, "C", np.dtype("f8"))
    with pytest.raises(DataError, match="not a whole pickle|has the shape|would take more"):
        formats.load(file(pickle.dumps({"x": wrapper}, 4)))


def test_a_file_in_the_working_folder_is_found_by_its_name(file, tmp_path, monkeypatch):
    for name in ("features.p", "features.npz", "f.pkl.gz"):
        file(WRITTEN["gzip"](content()), name)
    monkeypatch.chdir(tmp_path)
    assert load_dataset("features.p").card.name == load_dataset("features.npz").card.name == "features"
    assert load_dataset("f.pkl.gz").card.name == "f"
    with pytest.raises(FileNotFoundError, match=r"none\.p is not there"):
        load_dataset("none.p")


def test_a_folder_with_one_feature_file(file, tmp_path):
    path, options = file(content(), "my.pkl"), {"normalize": True, "sizes": {}}
    with pytest.warns(UserWarning, match=r"its one feature file, my\.pkl, is taken"):
        refs, missing = resolve_all(("mosi", "sims"), data=tmp_path, **options)
    assert [ref.path for ref in refs] == [str(path.resolve())] and not missing
    file(content(), "your.npz")
    with pytest.raises(FileNotFoundError, match=r"There are my\.pkl, your\.npz: give one of them"):
        resolve_all(("mosi", "sims"), data=tmp_path, **options)


def test_the_command_line_clips_and_says_at_once(file, own_results, monkeypatch, capsys):
    monkeypatch.setenv("TMT_CLIP_LABELS", "")
    monkeypatch.setattr(notebooks, "execute", lambda *arguments: None)
    whole = changed(renamed("vision", "visual"))
    whole["train"]["regression_labels"][0] = 5
    path = str(file(whole))
    assert main(["data", "check", path]) == 1 and "which 1 of 24 leave" in capsys.readouterr().err
    assert main(["run", "--profile", "smoke", "--only", "01", "--data", path]) == 1
    assert "which 1 of 24 leave" in capsys.readouterr().err
    assert main(["data", "check", path, "--clip-labels"]) == 0
    assert "WARNING: labels beyond -3..3 (1); clipped" in capsys.readouterr().out
    assert main(["run", "--profile", "smoke", "--only", "01", "--data", path, "--clip-labels"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert f"tmt: {path}: key 'visual' (3); read as 'vision'" in lines
    assert f"tmt: {path}: labels beyond -3..3 (1); clipped, as asked" in lines
    loading.load.cache_clear()


def test_a_weighting_file_with_a_byte_order_mark_is_run(tmp_path, monkeypatch):
    lines = "from tmtlib.study.methods import Method, add_method", "add_method(Method('marked', 'marked', 'own'))", ""
    (tmp_path / "mine.py").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    assert methods.methods_from(tmp_path / "mine.py") == ["marked"]
