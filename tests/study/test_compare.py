"""Two results folders compared: what differs is named with both values, and what is only rounding is not."""

import subprocess

import pytest

from tmtlib import common
from tmtlib.study import compare, provenance

TABLE = """dataset,method,mae,verdict,seconds
mosi,tmt,0.5,cannot tell,3
mosi,tmt_amw,1234.5,supported,4
mosi,constant,,,1
"""


def changed(old: str, new: str):
    assert TABLE.count(old) == 1
    return compare.compare({"a.csv": TABLE}, {"a.csv": TABLE.replace(old, new)})


def test_equal_tables_have_no_difference_in_any_order_of_rows():
    head, *rows = TABLE.splitlines()
    again = "\n".join([head, *reversed(rows)])
    assert compare.compare({"a.csv": TABLE}, {"a.csv": again}) == ([], 3)
    assert compare.summary([], 3) == "All 3 rows agree with the committed tables (numbers to 1e-05)."


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.5,", "0.500009,"), ("1234.5,", "1234.51,"), ("supported,4", "supported,400")],
    ids=["absolute", "relative", "time"],
)
def test_rounding_and_times_are_no_difference(old, new):
    assert changed(old, new) == ([], 3)


@pytest.mark.parametrize(
    ("old", "new", "row", "cell"),
    [
        ("0.5,", "0.50002,", "mosi tmt", ("mae", "0.5", "0.50002")),
        ("1234.5,", "1234.6,", "mosi tmt_amw", ("mae", "1234.5", "1234.6")),
        ("cannot tell", "supported", "mosi tmt", ("verdict", "cannot tell", "supported")),
        ("constant,,", "constant,0.1,", "mosi constant", ("mae", "", "0.1")),
        ("mosi,constant,,,1\n", "", "mosi constant", ("row", "there", "missing")),
    ],
)
def test_a_change_is_named_with_its_row_and_both_values(old, new, row, cell):
    assert changed(old, new) == ([compare.Difference("a.csv", row, *cell)], 2)


def test_files_columns_and_repeated_rows():
    assert compare.compare({"a.csv": TABLE}, {})[0] == [compare.Difference("a.csv", "", "file", "there", "missing")]
    differences, _ = compare.compare({"a.csv": "method,x\ntmt,1\n"}, {"a.csv": "method,y\ntmt,1\n"})
    assert [d.column for d in differences] == ["x", "y"]
    twice = {"a.csv": "method,x\ntmt,1\ntmt,2\n"}
    assert compare.compare(twice, twice) == ([], 2)


def test_a_summary_has_a_line_a_file():
    before = {name: "seed,x\n" + "".join(f"{i},1\n" for i in range(n)) for name, n in (("a.csv", 30), ("b.csv", 2))}
    after = {name: text.replace(",1", ",2") for name, text in before.items()}
    head, a, b = compare.summary(*compare.compare(before, after)).splitlines()
    assert head.startswith("32 differences") and "in 2 files" in head
    assert a == "     30 a.csv: 0, x 1 -> 2" and b == "      2 b.csv: 0, x 1 -> 2"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of its own with a committed profile on the data abc."""
    folder = tmp_path / "results" / "quick"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text(TABLE, encoding="utf-8")
    (folder / "provenance.json").write_text('{"data": [{"sha256": "abc"}]}', encoding="utf-8")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    (folder / "a.csv").write_text("changed since", encoding="utf-8")
    monkeypatch.setattr(common, "ROOT", tmp_path)
    provenance.commit.cache_clear()
    yield tmp_path
    provenance.commit.cache_clear()


def test_reference_is_what_is_committed_of_the_same_profile_and_data(checkout):
    assert compare.reference_tables(checkout / "elsewhere" / "quick", {"abc"}) == {"a.csv": TABLE}
    assert compare.reference_tables(checkout / "results" / "quick", {"other"}) == {}
    assert compare.reference_tables(checkout / "results" / "full", {"abc"}) == {}


def test_reference_outside_a_checkout_is_the_folder_as_it_was(checkout, monkeypatch):
    monkeypatch.setattr(compare, "commit", lambda: "unknown")
    assert compare.reference_tables(checkout / "results" / "quick", {"abc"}) == {"a.csv": "changed since"}
