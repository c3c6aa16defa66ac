"""From a name or path to data: folders, TMT_DATA, what a missing file's message says, changed files, normalisation."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tmtlib
from tmtlib.common import MODALITIES, digest
from tmtlib.data import catalog, loading, mmsa, schema, synthetic
from tmtlib.data.corruption import REGIMES
from tmtlib.data.loading import load, load_dataset, resolve, resolve_all, stated
from tmtlib.data.schema import SPLITS, DataError, DataRef, SyntheticSize

SMALL = SyntheticSize((12, 6, 8), (5, 6, 7))
MOSI_FILES = ("MOSI/Processed/aligned_50.pkl", "MOSI/Processed/unaligned_50.pkl")


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    monkeypatch.delenv("TMT_DATA", raising=False)
    load.cache_clear()
    stated.cache_clear()


def write(path: Path, name: str = "mosi", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mmsa.write_mmsa(synthetic.generate(name, SMALL, seed), path)
    return path


def test_a_name_without_a_folder_is_synthetic():
    dataset = load_dataset("sims", synthetic_size=SMALL)
    assert dataset.ref.normalize
    assert (dataset.card.name, dataset.card.source, len(dataset.train)) == ("sims", "synthetic", 12)
    assert dataset.truth is not None
    assert dataset.ref.sha256 == dataset.card.sha256 == synthetic.settings_sha256("sims", SMALL)
    assert dataset.ref.path is None and dataset.ref.source == "synthetic"
    assert tmtlib.load_dataset is load_dataset


@pytest.mark.parametrize("how", ["argument", "environment", "text"])
def test_a_name_is_found_in_a_folder(tmp_path, monkeypatch, how):
    path = write(tmp_path / MOSI_FILES[0])
    if how == "environment":
        monkeypatch.setenv("TMT_DATA", str(tmp_path))
    dataset = load_dataset("mosi", data={"argument": tmp_path, "environment": None, "text": str(tmp_path)}[how])
    assert (dataset.ref.path, dataset.ref.name, dataset.card.name) == (str(path.resolve()), "mosi", "mosi")
    assert dataset.ref.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == dataset.card.sha256
    assert dataset.ref.source == "real"


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("MOSI/Processed/aligned_50.pkl", "."),
        ("MOSI/aligned_50.pkl", "."),
        ("MOSI/Processed/aligned_50.pkl", "MOSI"),
        ("MOSI/Processed/aligned_50.pkl", "MOSI/Processed"),
        ("MOSI/aligned_50.pkl", "MOSI"),
        ("MOSI/Processed/unaligned_50.pkl", "."),
    ],
)
def test_places_a_standard_file_may_lie(tmp_path, file, folder):
    path = write(tmp_path / file)
    assert resolve("mosi", data=tmp_path / folder).path == str(path.resolve())
    with pytest.raises(FileNotFoundError, match="no feature file of 'mosei' found"):
        resolve("mosei", data=tmp_path / folder)


def test_a_bare_file_name_counts_only_where_one_data_set_has_it(tmp_path):
    write(tmp_path / "unaligned_39.pkl", "sims")
    write(tmp_path / "aligned_50.pkl")
    assert resolve("sims", data=tmp_path).path.endswith("unaligned_39.pkl")
    with pytest.raises(FileNotFoundError, match="no feature file of 'mosi' found"):
        resolve("mosi", data=tmp_path)


def test_the_aligned_file_comes_first(tmp_path):
    for file in MOSI_FILES[::-1]:
        write(tmp_path / file)
    assert resolve("mosi", data=tmp_path).path.endswith("/aligned_50.pkl")


@pytest.mark.parametrize("name", catalog.NAMES)
def test_missing_file_says_where_was_looked_what_is_wanted_and_where_it_is(tmp_path, name):
    with pytest.raises(FileNotFoundError) as missing:
        load_dataset(name, data=tmp_path)
    message = str(missing.value)
    for file in catalog.files_of(name):
        assert str(tmp_path / file.path) in message, "the path looked at"
        assert f"{file.path}  SHA-256 {file.sha256}" in message
    for source in catalog.SOURCES:
        assert source in message
    assert "synthetic data need no files" in message
    others = [f.sha256 for f in catalog.STANDARD_FILES if f.name != name]
    assert not [sha256 for sha256 in others if sha256 in message]


def test_catalog_has_the_published_hashes():
    start = {f.path: f.sha256[:8] for f in catalog.STANDARD_FILES}
    assert start == {
        "MOSI/Processed/unaligned_50.pkl": "78e0f8b5",
        "MOSI/Processed/aligned_50.pkl": "d3994fd2",
        "MOSEI/Processed/unaligned_50.pkl": "ad8b23d5",
        "MOSEI/Processed/aligned_50.pkl": "45eccfb7",
        "SIMS/Processed/unaligned_39.pkl": "c9e20c13",
    }
    assert all(len(f.sha256) == 64 for f in catalog.STANDARD_FILES)
    for file in catalog.STANDARD_FILES:
        assert catalog.known_sha256(file.sha256) is file
        recipe = synthetic.RECIPES[file.name]
        assert recipe.utterances == file.utterances and recipe.family == file.family
    assert catalog.known_sha256("0" * 64) is None


def test_names_without_a_file_are_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no standard file is known for 'iemocap' \(known: mosi, mosei, sims\)"
    ):
        load_dataset("iemocap", data=tmp_path)
    with pytest.raises(ValueError, match="no data set 'iemocap'"):
        load_dataset("iemocap")
    with pytest.raises(FileNotFoundError, match="no folder to look for 'mosi' in"):
        load_dataset("mosi", data=write(tmp_path / "mine.pkl"))


def test_a_path_is_a_data_set_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TMT_DATA", str(tmp_path / "elsewhere"))
    path = write(tmp_path / "my features.pkl", "sims")
    for given in (path, str(path)):
        dataset = load_dataset(given)
        assert (dataset.card.name, dataset.family, dataset.card.source) == ("my features", "sims", "synthetic")
        assert dataset.ref.path == str(path.resolve())
    monkeypatch.chdir(tmp_path)
    assert load_dataset("my features.pkl").ref == dataset.ref


@pytest.mark.parametrize(
    ("value", "is_path"),
    [("mosi", False), ("iemocap", False), ("mosi.pkl", True), ("a.pickle", True), ("./mosi", True), ("C:\\x", True)]
    + [(Path("mosi"), True)],
)
def test_what_is_a_path(value, is_path):
    assert loading.looks_like_path(value) is is_path


def test_a_path_to_nothing_or_to_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pkl is not there; wanted a feature file"):
        load_dataset(tmp_path / "nothing.pkl")
    with pytest.raises(FileNotFoundError, match="is a folder; wanted a feature file"):
        load_dataset(tmp_path)


def test_family_of_a_file_can_be_given(tmp_path):
    path = write(tmp_path / "MOSI" / "aligned_50.pkl", "sims")
    assert load_dataset(path, family="mosi").family == "mosi"
    assert load_dataset("mosi", data=tmp_path, family="mosi").family == "mosi"
    with pytest.raises(DataError, match="family 'sims' wants -1..1"):
        load_dataset(write(tmp_path / "wide.pkl", "mosi"), family="sims")
    with pytest.raises(DataError, match="metric family is 'moods'; wanted one of 'mosi', 'sims'"):
        load_dataset(path, family="moods")
    with pytest.raises(ValueError, match="family='sims' is for files; the data set 'mosi' has its own"):
        load_dataset("mosi", synthetic_size=SMALL, family="sims")


@pytest.mark.parametrize("same_size", [False, True])
def test_a_changed_file_is_refused(tmp_path, same_size):
    path = write(tmp_path / "mine.pkl")
    ref = resolve(path)
    old = path.stat()
    if same_size:
        content = bytearray(path.read_bytes())
        at = content.find(b"synthetic utterance")
        content[at : at + 9] = b"SYNTHETIC"
        path.write_bytes(content)
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns + 1_000_000))
        assert path.stat().st_size == old.st_size
    else:
        write(path, seed=1)
    with pytest.raises(DataError, match=rf"mine\.pkl has changed: its SHA-256 is .*, but {ref.sha256} was asked for"):
        load(ref)
    assert load(resolve(path)).card.sha256 != ref.sha256
    path.unlink()
    load.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"mine\.pkl is not there"):
        load(ref)


def test_a_moved_file_is_the_same_data(tmp_path):
    path = write(tmp_path / "mine.pkl")
    ref = resolve(path)
    (tmp_path / "moved").mkdir()
    moved = resolve(path.rename(tmp_path / "moved" / "mine.pkl"))
    assert digest(moved) == digest(ref) and moved.path != ref.path
    with pytest.raises(FileNotFoundError, match="place was not recorded"):
        load(replace(ref, path=None))


def test_a_file_is_hashed_once(tmp_path, monkeypatch):
    path, hashed = write(tmp_path / "mine.pkl"), []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: hashed.append(name) or real(file, name))
    load_dataset(path)
    load_dataset(path, normalize=False)
    mmsa.read(path)
    assert hashed == ["sha256"]


def test_a_data_set_is_read_once():
    ref = resolve("mosi", synthetic_size=SMALL, normalize=False)
    assert load(ref) is load(ref)
    assert load(ref) is not load(replace(ref, normalize=True))


def test_what_data_say_of_themselves_is_known_without_loading_synthetic_and_published_ones(monkeypatch):
    monkeypatch.setattr(loading, "load", lambda ref: pytest.fail(f"{ref.name} was loaded"))
    refs = [resolve(name) for name in ("mosi", "mosei", "sims")]
    assert [stated(ref) for ref in refs] == [("synthetic", False), ("synthetic", True), ("synthetic", False)]
    published = DataRef("mosei", "real", catalog.files_of("mosei")[0].sha256, "aligned_50.pkl")
    assert stated(published) == ("real", False)


def test_what_a_file_says_of_itself_is_read_once(tmp_path, monkeypatch):
    read, reads = mmsa.read, []
    monkeypatch.setattr(mmsa, "read", lambda path, **options: reads.append(path) or read(path, **options))
    refs = [resolve(write(tmp_path / f"{name}.pkl", name)) for name in ("mosi", "mosei")]
    assert [stated(ref) for ref in refs] == [("synthetic", False), ("synthetic", True)]
    assert load(refs[0]).card.source == "synthetic" and len(reads) == 2
    load.cache_clear()
    assert stated(refs[0]) == ("synthetic", False) and len(reads) == 2, "without the data in memory"


def test_resolve_all_is_synthetic_only_where_there_is_no_folder(tmp_path):
    options = {"normalize": True, "sizes": {"mosi": SMALL}}
    refs, missing = resolve_all(("mosi", "sims"), data=None, **options)
    assert [(r.name, r.source, r.synthetic) for r in refs] == [
        ("mosi", "synthetic", SMALL),
        ("sims", "synthetic", None),
    ]
    assert missing == []
    with pytest.raises(FileNotFoundError, match="(?s)'mosi' found.*'sims' found"):
        resolve_all(("mosi", "sims"), data=tmp_path, **options)
    write(tmp_path / MOSI_FILES[0])
    refs, missing = resolve_all(("mosi", "sims"), data=tmp_path, **options)
    assert [(r.name, r.source) for r in refs] == [("mosi", "real")]
    assert len(missing) == 1 and "no feature file of 'sims' found" in missing[0]
    refs, missing = resolve_all(("mosi", "sims"), data=tmp_path / MOSI_FILES[0], **options)
    assert [r.name for r in refs] == ["mosi"] and missing == []
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        resolve_all(("mosi",), data=tmp_path / "nowhere", **options)


def test_resolve_all_uses_the_environment(tmp_path, monkeypatch):
    path = write(tmp_path / "own.pkl", "sims")
    monkeypatch.setenv("TMT_DATA", str(path))
    refs, _ = resolve_all(("mosi", "sims"), data=None, normalize=False, sizes={})
    assert [(r.name, r.path, r.normalize) for r in refs] == [("own", str(path.resolve()), False)]


def valid(split: schema.Split, modality: str) -> np.ndarray:
    return split.features[modality][schema.valid_frames(split, modality)]


@pytest.mark.parametrize("from_file", [False, True])
def test_normalised_features_are_z_scores_of_the_training_frames(tmp_path, from_file):
    where = write(tmp_path / "mine.pkl") if from_file else "mosi"
    raw = load_dataset(where, synthetic_size=SMALL, normalize=False)
    scaled = load_dataset(where, synthetic_size=SMALL)
    assert scaled.ref.normalize and not raw.ref.normalize
    for m in MODALITIES:
        frames = valid(raw.train, m).astype(np.float64)
        mean, std = frames.mean(0), frames.std(0)
        np.testing.assert_allclose(valid(scaled.train, m).mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(valid(scaled.train, m).std(0), 1, atol=1e-5)
        for s in SPLITS:
            np.testing.assert_allclose(valid(scaled[s], m), (valid(raw[s], m) - mean) / std, atol=1e-4)
            padding = ~schema.valid_frames(scaled[s], m)
            assert padding.any() and not scaled[s].features[m][padding].any(), "padding stays zero"
            assert scaled[s].features[m].dtype == np.float32
        assert np.abs(valid(scaled.test, m).mean(0)).max() > 0.01, "test is not centred on itself"


def test_statistics_are_of_valid_training_frames_only():
    data = synthetic.generate("sims", SMALL)
    expected = schema.normalizer(data.train)
    garbage = {
        m: np.where(schema.valid_frames(data.train, m)[..., None], x, 99) for m, x in data.train.features.items()
    }
    found = schema.normalizer(replace(data.train, features={m: x.astype(np.float32) for m, x in garbage.items()}))
    for m in MODALITIES:
        np.testing.assert_array_equal(found[m], expected[m])


def test_constant_features_and_absent_modalities_stay_zero():
    data = synthetic.generate("mosi", SMALL)
    features, lengths = dict(data.train.features), dict(data.train.lengths)
    features["text"] = np.where(schema.valid_frames(data.train, "text")[..., None], np.float32(7), np.float32(0))
    features["audio"], lengths["audio"] = np.zeros((12, 1, 1), np.float32), np.zeros(12, np.int64)
    train = replace(data.train, features=features, lengths=lengths)
    scaled = schema.normalize(train, schema.normalizer(train))
    assert not scaled.features["text"].any() and not scaled.features["audio"].any()


def test_loading_leaves_the_raw_data_as_they_are():
    raw = load_dataset("mosi", synthetic_size=SMALL, normalize=False)
    before = raw.train.features["text"].copy()
    load_dataset("mosi", synthetic_size=SMALL)
    np.testing.assert_array_equal(raw.train.features["text"], before)


def test_masks_of_train_and_valid_are_their_own_and_none_of_test(monkeypatch):
    """Test masks have seeds from 0 upwards; the scale of noise is of clean train."""
    ref = replace(resolve("mosi", synthetic_size=SMALL), training_corruption=REGIMES["masked"])
    seeds, scales = [], []
    monkeypatch.setattr(loading, "corrupt", lambda *a: (seeds.append(a[3]), scales.append(a[2]), a[0])[2])
    load(ref)
    assert len({*range(1000), *seeds}) == 1002
    wanted = loading.noise_scale(load(ref.clean).train)
    assert all(np.array_equal(scale[m], wanted[m]) for scale in scales for m in MODALITIES)
