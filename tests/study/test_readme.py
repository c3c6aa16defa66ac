"""The README tells the truth: its numbers are those in results/, and what it points to is there."""

import re

import pandas as pd
import pytest

from tmtlib import common
from tmtlib.__main__ import main
from tmtlib.study import notebooks
from tmtlib.study import readme as page

README = (common.ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_committed_results(committed):
    readme = (committed / "README.md").read_text(encoding="utf-8")
    assert page.readme(readme, page.shown(committed / "results")) == readme, "run: tmt report --readme"


def test_a_changed_result_would_change_the_readme(committed):
    found = page.shown(committed / "results")
    assert found.claims.loc[0, "verdict"] in README
    table = found.synthetic
    table.loc[(table["method"] == "tmt") & (table["metric"] == "mae"), "mean"] += 0.01
    assert page.readme(README, found) != README


def test_floor_sentences_follow_the_numbers():
    row = {"dataset": "a", "source": "real", "metric": "mae", "sd": 0.01, "n": 3}
    table = pd.DataFrame([row | {"method": m, "mean": v} for m, v in [("tmt", 0.5), ("linear_text", 0.6)]])
    assert "`a`: TMT beats the best linear model (linear, text only): MAE 0.500" in page.floor_sentence(table)
    table.loc[0, "mean"] = 0.75
    assert "TMT does **not** beat" in page.floor_sentence(table) and "0.150 more" in page.floor_sentence(table)


def test_readme_without_marks_is_refused(committed):
    found = page.shown(committed / "results")
    with pytest.raises(ValueError, match="no pair of lines <!-- begin real -->"):
        page.readme(README.replace("<!-- end real -->", ""), found)


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    local = [t for t in targets if not t.startswith("http")]
    assert len(local) >= 10
    assert [t for t in local if not (common.ROOT / t).exists()] == []


def test_every_notebook_is_listed_once():
    for path in notebooks.notebooks():
        assert README.count(f"(notebooks/{path.name})") == 1


def test_commands_exist():
    makefile = (common.ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for variable in re.findall(r"make study ([A-Z]+)=", README):
        assert re.search(rf"^{variable} *=", makefile, re.M), variable
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--only", "02,03", "--help"])
    assert stopped.value.code == 0
