"""The report of a feature file: every part is there, and every number of its tables is right."""

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tmtlib.common import MODALITIES
from tmtlib.data import catalog, check, mmsa, synthetic
from tmtlib.data.corrupt import keep_only
from tmtlib.data.regroup import regrouped
from tmtlib.data.schema import SPLITS, Card, DataError, Dataset, Split, SyntheticSize

SIZE = SyntheticSize((60, 20, 40), (5, 9, 7))
LABELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "labels"


def tiny(ids: dict[str, list[str]], labels: dict[str, list[float]] | None = None, family: str = "mosi") -> Dataset:
    """A data set of given ids, and labels, with one frame of nothing."""

    def split(s: str) -> Split:
        n = len(ids[s])
        return Split(
            features={m: np.zeros((n, 1, 1), np.float32) for m in MODALITIES},
            lengths={m: np.zeros(n, np.int64) for m in MODALITIES},
            labels=np.zeros(n, np.float32) if labels is None else np.array(labels[s], np.float32),
            ids=tuple(ids[s]),
            raw_text=("",) * n,
        )

    return Dataset(Card("mine", family, "aligned", "real", "mine.pkl", "0" * 64), *(split(s) for s in SPLITS))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return synthetic.generate("sims", SIZE)


@pytest.fixture
def odd_file(dataset, tmp_path) -> Path:
    """A synthetic file with oddities put in."""
    path = tmp_path / "odd.pkl"
    mmsa.write_mmsa(dataset, path)
    content = pickle.loads(path.read_bytes())
    content["train"]["audio"][3, 0, :2] = -np.inf
    content["valid"]["vision_lengths"][:4] = 99
    content["test"]["id"] = np.array(["synthetic_0000$_$0", *content["test"]["id"][1:]])
    path.write_bytes(pickle.dumps(content))
    return path


def test_report_has_every_part(odd_file, dataset):
    text = check.report(odd_file)
    assert text.startswith(str(odd_file))
    sha256 = catalog.file_sha256(odd_file)
    for part in (
        r"metric family +sims\n",
        r"label range +-1 to 1\n",
        r"alignment +unaligned\n",
        r"source +synthetic\n",
        r"origin +odd\.pkl\n",
        rf"SHA-256 +{sha256}\n",
        r"published file +not a published file\n",
        r"split +utterances +videos +negative +zero +positive +text +audio +vision",
        r"train +60 +3 .*\(5, 768\) +\(9, 33\) +\(7, 709\) +unimodal labels\n",
        r"test +40 +2 .*\(5, 768\) +\(9, 33\) +\(7, 709\) +unimodal labels\n",
        r"modality +split +T +D +min +25 % +median +75 % +max +absent +full\n",
        r"label +train +valid +test +share +histogram\n",
        r"train +-inf values in audio +2 +set to 0\n",
        r"valid +vision length beyond T=7 +4 +clamped to 7\n",
        r"all +id in more than one split +1 +kept: test scores on them leak\n",
        r"ids are video\$_\$clip",
        r"split +earlier +ids shared +videos +videos shared +utterances in shared videos +share\n",
        r"test +train +1 +2 +2 +40 +100\.0%\n",
    ):
        assert re.search(part, text), part
    for m in MODALITIES:
        for s in SPLITS:
            assert re.search(rf"\n{m} +{s} +{dataset.shapes[m][0]} +{dataset.shapes[m][1]} ", text)
    assert max(map(len, text.splitlines())) <= 110


def test_report_fits_a_terminal_however_much_is_odd(tmp_path):
    path = tmp_path / "MOSI" / "Processed" / "unaligned_50.pkl"
    path.parent.mkdir(parents=True)
    mmsa.write_mmsa(replace_source(synthetic.generate("mosi", SIZE), "real"), path)
    text = check.report(path)
    body = text.removeprefix(str(path))
    assert max(map(len, body.splitlines())) <= 110
    assert re.search(r"published file +differs from the published file MOSI/Processed/unaligned_50\.pkl\n", text)
    assert re.search(rf"published SHA-256 +{catalog.files_of('mosi')[1].sha256}\n", text)
    assert "text is (T, D) = (5, 768), the published" in text, "and wraps"


def replace_source(dataset: Dataset, source: str) -> Dataset:
    return replace(dataset, card=replace(dataset.card, source=source))


def test_report_of_a_clean_data_set_says_that_nothing_is_odd(dataset, tmp_path):
    mmsa.write_mmsa(dataset, tmp_path / "clean.pkl")
    assert "\nOddities: none\n" in check.report(tmp_path / "clean.pkl")
    assert check.describe(dataset).startswith("CH-SIMS (synthetic), from synthetic generator")


def test_report_refuses_what_cannot_be_used(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pkl is not there"):
        check.report(tmp_path / "nowhere.pkl")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        check.report(tmp_path)
    (tmp_path / "page.pkl").write_text("<html>Sign in</html>")
    with pytest.raises(DataError, match="a web page"):
        check.report(tmp_path / "page.pkl")


@pytest.mark.parametrize(
    ("change", "said", "lacking"),
    [
        (lambda c: {k: v for k, v in c["test"].items() if k != "regression_labels"}, "40 .* without", "has the keys"),
        (lambda c: c["test"], "40 utterances, with", "wanted 'train', 'valid' and 'test'"),
        (lambda c: {"test": c["test"]}, "40 utterances, with", "has the keys 'test'"),
        (lambda c: [c[s].pop("regression_labels") for s in SPLITS] and c, "120 .* without", "train: no labels among"),
    ],
    ids=["neither", "no splits", "one split", "no labels"],
)
def test_report_of_utterances_that_only_a_saved_model_can_use(dataset, tmp_path, change, said, lacking):
    path = tmp_path / "new.pkl"
    mmsa.write_mmsa(dataset, path)
    path.write_bytes(pickle.dumps(change(pickle.loads(path.read_bytes()))))
    text = " ".join(check.report(path).split())
    assert re.search(rf"{said} labels: for tmt predict No training, as .*{lacking}", text)
    assert re.search(r"audio all 9 33 ", text) and "Oddities: " in text
    assert max(map(len, check.report(path).removeprefix(str(path)).splitlines())) <= 110


def test_report_of_no_utterances_says_what_a_feature_file_is(tmp_path):
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"weights": np.zeros(3)}))
    with pytest.raises(DataError, match="has the keys 'weights'; wanted 'train', 'valid' and 'test'"):
        check.report(tmp_path / "other.pkl")


def test_report_hashes_the_file_once(odd_file, monkeypatch):
    hashed, real = [], catalog.hashlib.file_digest
    monkeypatch.setattr(catalog.hashlib, "file_digest", lambda file, name: hashed.append(1) or real(file, name))
    check.report(odd_file)
    assert len(hashed) == 1


def test_verification():
    known = catalog.files_of("sims")[0]
    card = Card("sims", "sims", "unaligned", "real", "unaligned_39.pkl", known.sha256)
    assert check.verification(card) == "verified: the published SIMS/Processed/unaligned_39.pkl"
    assert check.verification(replace(card, origin="renamed.pkl")).startswith("verified"), "by bytes, not by name"
    changed = replace(card, sha256="0" * 64)
    assert check.verification(changed) == "differs from the published file SIMS/Processed/unaligned_39.pkl"
    assert check.verification(replace(changed, origin="mine.pkl")) == "not a published file"
    assert "published SHA-256" not in set(check.card_table(card)["fact"])
    assert check.card_table(changed).set_index("fact")["value"]["published SHA-256"] == known.sha256


def test_splits_table(dataset):
    table = check.splits_table(dataset).set_index("split")
    assert table.index.tolist() == list(SPLITS)
    for s in SPLITS:
        labels = dataset[s].labels
        row = table.loc[s]
        assert row["utterances"] == len(labels) and row["videos"] == max(1, len(labels) // 20)
        signs = [(labels < 0).sum(), (labels == 0).sum(), (labels > 0).sum()]
        assert row[["negative", "zero", "positive"]].tolist() == signs
        assert (row["text"], row["audio"], row["vision"]) == ("(5, 768)", "(9, 33)", "(7, 709)")
        assert row["also"] == "unimodal labels"


def test_lengths_table():
    data = synthetic.generate("mosi", SyntheticSize((5, 4, 3), (8, 8, 8)))
    lengths = dict(data.train.lengths) | {"audio": np.array([0, 0, 3, 4, 8])}
    table = check.lengths_table(replace(data, train=replace(data.train, lengths=lengths)))
    assert len(table) == 9
    row = table.set_index(["modality", "split"]).loc[("audio", "train")]
    assert row[["min", "25 %", "median", "75 %", "max"]].tolist() == [0, 0, 3, 4, 8]
    assert row[["T", "D", "absent", "full"]].tolist() == [8, 5, 2, 1]


@pytest.mark.parametrize(
    ("family", "values", "expected"),
    [
        ("mosi", [-3, -2.6, -0.4, 0, 0.4, 1.6, 3], {-3: 2, -2: 0, -1: 0, 0: 3, 1: 0, 2: 1, 3: 1}),
        ("sims", [-1, -0.8, 0, 0.2, 0.2, 1], {-1: 1, -0.8: 1, 0: 1, 0.2: 2, 0.4: 0, 1: 1}),
    ],
)
def test_labels_table(family, values, expected):
    ids = {"train": ["a"] * len(values), "valid": ["b"], "test": ["c", "d"]}
    table = check.labels_table(tiny(ids, {"train": values, "valid": [1], "test": [-1, -1]}, family)).set_index("label")
    assert len(table) == {"mosi": 7, "sims": 11}[family]
    assert {label: table["train"][label] for label in expected} == expected
    assert table[["train", "valid", "test"]].sum().tolist() == [len(values), 1, 2]
    assert table["valid"][1] == 1 and table["test"][-1] == 2
    assert table["share"].sum() == pytest.approx(1)
    total = table[["train", "valid", "test"]].sum(axis=1)
    assert len(table["histogram"][total.idxmax()]) == 40
    assert (table["histogram"].str.len() == (40 * total / total.max()).round()).all()


def test_a_value_beyond_a_million_standard_deviations_is_loud(dataset, tmp_path):
    """Named by `tmt data check` and `tmt run`; a file without one, or with zeros beyond a length, has no such line."""
    features = {m: x.copy() for m, x in dataset.test.features.items()}
    features["audio"][3, 0, :2] = 1e9, -1e9
    mmsa.write_mmsa(replace(dataset, test=replace(dataset.test, features=features)), tmp_path / "far.pkl")
    with pytest.warns(UserWarning, match=r"audio beyond 1e\+06 standard deviations of train \(2\); kept"):
        assert mmsa.read(tmp_path / "far.pkl").oddities[-1].split == "test"
    assert "WARNING: audio beyond 1e+06 standard deviations" in check.report(tmp_path / "far.pkl")


def test_oddities_table(odd_file, dataset):
    table = check.oddities_table(mmsa.read(odd_file))
    assert table.columns.tolist() == ["split", "what", "count", "handling"]
    assert table["what"].tolist() == [
        "-inf values in audio",
        "vision length beyond T=7",
        "id in more than one split",
    ]
    assert check.oddities_table(dataset).empty


@pytest.mark.parametrize(
    ("form", "style"),
    [("{}$_${}", "video$_$clip"), ("{}[{}]", "video[clip]"), ("{}[{},4.5]", "video[clip]"), ("{}_{}", "video_clip")],
)
def test_leakage_table(form, style):
    ids = {
        "train": [form.format("a_1", 1), form.format("a_1", 2), form.format("b", 1)],
        "valid": [form.format("a_1", 3), form.format("c", 1), form.format("c", 2)],
        "test": [form.format("a_1", 1), form.format("a_1", 9), form.format("b", 5), form.format("d", 1)],
    }
    dataset = tiny(ids)
    assert check.id_style(dataset) == style
    table = check.leakage_table(dataset).set_index(["split", "earlier"])
    expected = {
        ("valid", "train"): [0, 2, 1, 1, 1 / 3],
        ("test", "train"): [1, 3, 2, 3, 3 / 4],
        ("test", "valid"): [0, 3, 1, 2, 2 / 4],
    }
    assert {key: table.loc[key].tolist() for key in table.index} == expected
    assert check.splits_table(dataset)["videos"].tolist() == [2, 2, 3]


def test_ids_that_are_videos_are_not_cut():
    """A name such as abc_1 may be a whole video's, so the style has to fit every id."""
    dataset = tiny({"train": ["abc_1", "-dxfTGcXJoc"], "valid": ["abc_2"], "test": ["abc_3", "x[1]"]})
    assert check.id_style(dataset) is None
    assert check.leakage_table(dataset)["videos shared"].tolist() == ["cannot tell"] * 3
    assert "none can tell which are shared" in check.describe(dataset)


@pytest.mark.parametrize("form", ["{split}_{i}", "utterance_{i}", "{split}[{i}]", "{split}$_${i}"])
def test_ids_that_are_row_numbers_name_no_video(form):
    dataset = tiny({s: [form.format(split=s, i=i) for i in range(4)] for s in SPLITS})
    assert check.id_style(dataset) is None
    assert check.leakage_table(dataset)["videos shared"].tolist() == ["cannot tell"] * 3
    with pytest.raises(ValueError, match="name no video"):
        regrouped(dataset)


@pytest.mark.parametrize("modality", ["text", "vision"])
def test_a_modality_that_train_lacks_is_loud(dataset, tmp_path, modality):
    absent = {"features": dict(dataset.train.features), "lengths": dict(dataset.train.lengths)}
    absent["features"][modality] = 0 * absent["features"][modality]
    absent["lengths"][modality] = 0 * absent["lengths"][modality]
    path = tmp_path / "untrained.pkl"
    mmsa.write_mmsa(replace(dataset, train=replace(dataset.train, **absent)), path)
    with pytest.warns(UserWarning, match=f"{modality} in valid and test but in no training utterance .*; kept, but"):
        read = mmsa.read(path)
    first = check.oddities_table(read).iloc[0]
    assert first["what"] == f"{modality} in valid and test but in no training utterance"
    assert first["count"] == sum((dataset[s].lengths[modality] > 0).sum() for s in ("valid", "test"))
    assert check.describe(read).split("\n\n")[1].startswith(f"WARNING: {modality} in valid and test")


def test_a_modality_that_every_split_lacks_is_not(dataset, tmp_path):
    path = tmp_path / "text_only.pkl"
    mmsa.write_mmsa(replace(dataset, **{s: keep_only(dataset[s], ("text",)) for s in SPLITS}), path)
    assert "WARNING" not in check.describe(mmsa.read(path))


def test_ids_made_up_by_the_reader_name_no_video(dataset, tmp_path):
    path = tmp_path / "no_ids.pkl"
    mmsa.write_mmsa(dataset, path)
    content = pickle.loads(path.read_bytes())
    for s in SPLITS:
        del content[s]["id"]
    path.write_bytes(pickle.dumps(content))
    assert check.id_style(mmsa.read(path)) is None


@pytest.mark.parametrize(
    ("name", "videos", "shared", "share"),
    [("mosi", 31, 0, 0), ("mosei", None, 0, 0), ("sims", 59, 59, 1), ("simsv2", 145, 128, 0.814)],
)
def test_leakage_of_the_published_splits(name, videos, shared, share):
    path = LABELS / f"{name}.csv"
    if not path.is_file():
        pytest.skip(f"no real labels at {path}")
    table = pd.read_csv(path)
    dataset = tiny({s: table.loc[table["split"] == s, "id"].tolist() for s in SPLITS})
    row = check.leakage_table(dataset).set_index(["split", "earlier"]).loc[("test", "train")]
    assert (row["ids shared"], row["videos shared"]) == (0, shared)
    assert videos in (None, row["videos"])
    assert row["share"] == pytest.approx(share, abs=5e-4)


@pytest.mark.parametrize(("frames", "said"), [(1, "single vectors"), (2, "aligned")])
def test_single_vectors_are_not_called_aligned(frames, said):
    """The card keeps its own word, which result rows state."""
    made = synthetic.generate("sims", SyntheticSize((8, 4, 4), (frames,) * 3))
    assert check.alignment(made) == said and made.card.alignment == "aligned"
    assert re.search(rf"alignment +{said}\n", check.describe(made))


@pytest.mark.parametrize(
    ("ids", "videos"),
    [
        (["a$_$1", "a$_$2", "b$_$1"], ["a", "a", "b"]),
        (["a_1", "b_1"], ["a", "b"]),
        (["train_0", "train_1", "valid_0", "test_0"], None),
        (["test[0]", "test[1]"], None),
        (["utterance_1", "utterance_2"], None),
        (["a_1", "b"], None),
    ],
)
def test_videos_of_ids_alone(ids, videos):
    assert check.videos_named(ids) == videos
