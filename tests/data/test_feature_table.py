"""Tables of features: read where each column's meaning is certain, and what was assumed is said."""

import numpy as np
import pandas as pd
import pytest

from tmtlib.__main__ import main
from tmtlib.common import MODALITIES
from tmtlib.data import check, mmsa
from tmtlib.data.schema import SPLITS, DataError

SIZES = dict(zip(SPLITS, (12, 6, 5), strict=True))


def table() -> pd.DataFrame:
    """As people export them: a column a feature, MMSA's `mode`, CH-SIMS's unimodal labels, an empty cell."""
    n, rng = sum(SIZES.values()), np.random.default_rng(0)
    columns = {"id": [f"{i:04}" for i in range(n)], "mode": np.repeat([*SIZES], [*SIZES.values()])}
    columns |= {"text": ["well, said", *["good"] * (n - 1)], "label": np.linspace(-1, 1, n), "label_A": np.zeros(n)}
    columns |= {f"{p}_{i}": rng.normal(size=n).round(3) for p in ("text", "acoustic", "visual") for i in "abc"}
    return pd.DataFrame(columns)


@pytest.fixture
def written(tmp_path):
    def write(rows: pd.DataFrame, name: str = "features.csv", **how):
        rows.to_csv(tmp_path / name, **({"index": False} | how))
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("features.csv", {}),
        ("features.tsv", {"sep": "\t"}),
        ("features.csv", {"sep": ";"}),
        ("features.csv", {"encoding": "utf-8-sig", "lineterminator": "\r\n", "index": True}),
        ("features.csv.gz", {}),
    ],
)
def test_a_table_of_utterances_is_read_and_what_was_assumed_is_said(written, name, how):
    rows = table()
    with pytest.warns(UserWarning, match=r"each row taken as an utterance \(23\); read text_a to text_c \(3\) as text"):
        dataset = mmsa.read(written(rows, name, **how))
    assert {s: len(dataset[s]) for s in SPLITS} == SIZES and dataset.family == "sims"
    train = rows[rows["mode"] == "train"]
    assert dataset.train.ids == tuple(train["id"]) and dataset.train.raw_text[0] == "well, said"
    np.testing.assert_array_equal(dataset.train.labels, train["label"].astype(np.float32))
    np.testing.assert_array_equal(dataset.train.unimodal_labels["audio"], 0)
    for m, prefix in zip(MODALITIES, ("text", "acoustic", "visual"), strict=True):
        found = train.filter(regex=f"^{prefix}_").to_numpy(np.float32)[:, None]
        np.testing.assert_array_equal(dataset.train.features[m], found)


def test_empty_cells_are_zeros_and_a_row_without_any_lacks_the_modality(written):
    rows = table()
    rows.loc[3, ["visual_a", "visual_b", "visual_c"]] = np.nan
    with pytest.warns(UserWarning, match="a table"):
        dataset = mmsa.read(written(rows))
    assert dataset.train.lengths["vision"].tolist() == [1, 1, 1, 0, *[1] * 8]
    assert ("NaN values in vision", 3) in [(o.what, o.count) for o in dataset.oddities]


def test_a_table_without_splits_is_for_predictions(written):
    path = written(table().drop(columns=["mode", "label", "label_A"]))
    split, labelled, oddities = mmsa.read_utterances(path)
    assert len(split) == 23 and not labelled and oddities[0].what == "a table, each row taken as an utterance"
    assert "23 utterances, without labels" in check.report(path)


def renamed(**names):
    return lambda rows: rows.rename(columns=names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows.assign(path="a.mp4")[["id", "path", "text"]],
            "is a table of clips: tmt features FILE --out",
        ),
        (lambda rows: rows.assign(speaker=1), "no certain meaning, speaker; wanted id, split, label"),
        (renamed(text_a="text_length"), "no certain meaning, text_length;"),
        (lambda rows: rows.assign(transcript=""), "no certain meaning, raw_text;"),
        (lambda rows: rows[["id", "mode", "label"]], "no features; wanted"),
        (
            lambda rows: rows.assign(text_b=["0,5", *rows["text_b"][1:]]),
            "text_b is '0,5' in 1 of 23 rows; wanted numbers",
        ),
        (lambda rows: rows.assign(text_b=True), "text_b is 'True' in 23 of 23 rows"),
        (lambda rows: rows.assign(mode=["fold1", *rows["mode"][1:]]), "split is 'fold1' in 1 rows; wanted train"),
        (lambda rows: rows.assign(mode=None), "split is '' in 23 rows"),
        (lambda rows: pd.concat([rows, rows]), "id '0000' has several rows; wanted one an utterance"),
        (lambda rows: rows.assign(label=[None, *rows["label"][1:]]), r"1 of 12 labels are NaN or infinite \(0000\)"),
    ],
)
def test_columns_and_rows_of_no_certain_meaning_are_refused_with_the_mend(written, change, message):
    with pytest.raises(DataError, match=rf"^\S*features\.csv.* {message}") as refused:
        mmsa.read(written(change(table())))
    assert len(str(refused.value).splitlines()) == 1


def test_splits_of_several_spellings_are_one(written):
    rows = table()
    rows.loc[:4, "mode"] = "Train "
    with pytest.warns(UserWarning, match="a table"):
        dataset = mmsa.read(written(rows.replace({"mode": {"valid": "dev"}})))
    assert {s: len(dataset[s]) for s in SPLITS} == SIZES


@pytest.mark.parametrize(
    "content",
    [b"id,text_a\n0,1,2\n1,2,3\n", b'id,text_a\n0,"1\n', "id,text,text_a\n0,好,1\n".encode("gbk")],
    ids=["cells without a name", "open quote", "another encoding"],
)
def test_a_broken_table_is_refused_in_a_line(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"^\S*t\.csv is no whole table \(.*\); save it as CSV in UTF-8$"):
        mmsa.read(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "command", [["data", "check"], ["train", "--out", "model"], ["run", "--profile", "smoke", "--data"]]
)
def test_a_table_of_clips_is_sent_to_tmt_features(written, own_results, capsys, command):
    path = written(pd.DataFrame({"id": ["a"], "path": ["a.mp4"], "transcript": ["well"]}), "clips.csv")
    assert main([*command, str(path)]) == 1
    error = capsys.readouterr().err
    assert "this is a table of clips: tmt features FILE --out features.pkl first" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id," + ",".join(f"text_{i}" for i in range(30_000)) + "\n1\n", "has 30001 columns; wanted at most 5000"),
        ("id,text_0\n1" + "," * 30_000 + "\n", "has 30001 columns; wanted at most 5000"),
        ("id," + ",".join(f"text_{i}" for i in range(4_000)) + "\n" + "1\n" * 60_000, "too much for its size"),
    ],
)
def test_a_small_table_that_would_fill_the_memory_is_refused(tmp_path, text, message):
    (tmp_path / "wide.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        mmsa.read(tmp_path / "wide.csv")
