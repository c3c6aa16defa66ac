"""The README and its pages tell the truth: their numbers are those in results/, what they point to is there."""

import json
import re
import shutil

import pandas as pd
import pytest

from benchmarks.tables import speed_table
from tmtlib import common
from tmtlib.__main__ import main
from tmtlib.study import notebooks, report

PLACES = "*.md", "results/README.md", "benchmarks/README.md", "docs/*.md"
PAGES = {str(p.relative_to(common.ROOT)): p.read_text(encoding="utf-8") for g in PLACES for p in common.ROOT.glob(g)}
README, RESULTS = PAGES["README.md"], PAGES["results/README.md"]


def test_tables_are_those_of_the_committed_results(committed):
    front, results, readme = (
        (committed / folder / "README.md").read_text(encoding="utf-8") for folder in (".", "results", "benchmarks")
    )
    assert report.front(front, committed / "results") == front, "run: tmt report --readme"
    assert report.readme(results, committed / "results") == results, "run: tmt report --readme"
    speed = json.loads((committed / "results" / "benchmarks" / "cpu.json").read_text(encoding="utf-8"))
    assert report.between(readme, "speed", speed_table(speed)) == readme, "run: tmt bench --readme"


@pytest.mark.parametrize("study", ["quick", "full"])
def test_reports_are_those_of_the_committed_tables(committed, study):
    folder = committed / "results" / study
    assert report.write(folder) == (folder / report.NAME).read_text(encoding="utf-8"), "run: tmt report --readme"


def test_report_of_profile_full_has_what_the_readme_points_to(committed):
    text = report.write(committed / "results" / "full")
    for line in (
        r"\| TMT, text and audio +\| 0.907 \[0.887, 0.927\] \| 0.89 +\| 5 +\|",
        r"\| TMT\+AMW +\| 0.832 +\| 1.090 \[1.066, 1.114\] .*\|",
        r"\| CMU-MOSI \(synthetic\) \| TMT, gated by the input, fast \| training +\| cannot tell .*text, noise",
        r"\| TMT\+AMW +\| occlusion +\| 0.885 \[0.796, 0.943\] .*\| 80% \(chance 43%\) +\| size +\| 30 +\|",
        r"\| TMT, mostly text \(.8\) +\| -0.000 \[-0.045, \+0.045\] +\| 0.63 +\| 3 +\|",
    ):
        assert re.search(line, text), line


def test_what_the_front_says_in_bold_holds(committed):
    """The words are fixed; these are the conditions under which they may stand."""
    full = {p.stem: pd.read_csv(p) for p in (committed / "results" / "full").glob("*.csv")}
    real = pd.read_csv(committed / "results" / "real" / "amw_differences.csv").query("after == 'tmt_amw'")
    gains = full["amw_differences"].query("before in ('tmt', 'tmt_uniform')")
    assert not (gains["verdict"] == "supported").any() and not (real["verdict"] == "supported").any()
    rank = full["worlds_agreement"].query("method == 'tmt_amw' and statistic == 'spearman'").set_index("measure")
    assert rank.loc["weight", "low"] < 0 < rank.loc["weight", "high"] < rank.loc["shapley_permuted", "low"]
    share = full["misled"].query("world == 'misled'").set_index("method")
    assert share.loc["tmt_amw", "share_low"] < 0 < share.loc["tmt_reliability", "share_low"]
    clean = full["reliability_clean"].query("before == 'tmt' and metric == 'mae'")
    assert (clean["high"] > 0).all(), "else reliability weighting shows a sure gain where no modality misleads"


def test_counts_of_kills_and_hostile_files_are_those_measured(committed):
    counts = json.loads((committed / "results" / "benchmarks" / "stress.json").read_text(encoding="utf-8"))
    total, files = counts["total"], counts["hostile files"]
    assert total["corrupt"] == total["part_files_left"] == 0 and set(files) == {"read", "refused"}
    said = f"killed {total['kills']} times", f"{total['bit_equal']} of {total['studies']} studies"
    said += (
        f"{sum(files.values()):,} hostile or damaged files {files['refused']:,} were refused",
        f"{files['read']} read",
    )
    text = " ".join(README.split())
    assert [words for words in said if words not in text] == []


def test_a_changed_result_would_change_the_readme(committed, tmp_path):
    results = shutil.copytree(committed / "results", tmp_path / "results")
    for name, column in (("table1", "mean"), ("amw_differences", "difference")):
        path = results / "full" / f"{name}.csv"
        table = pd.read_csv(path)
        table.assign(**{column: table[column] + 0.01}).to_csv(path, index=False)
        assert report.readme(RESULTS, results) != RESULTS
        table.to_csv(path, index=False)
    assert report.readme(RESULTS, results) == RESULTS


def against(dataset, single, ensemble, linear="linear_text"):
    """One row of `against_linear`: difference, low, high and verdict of the single models and the ensemble."""
    start = {"dataset": dataset, "source": "real", "method": "tmt", "n_seeds": 3, "linear": linear}
    start |= {"linear_mae": 0.6, "linear_low": 0.55, "linear_high": 0.65}
    for name, numbers in (("single", single), ("ensemble", ensemble)):
        keys = (f"{name}_{k}" for k in ("difference", "low", "high", "verdict"))
        start |= dict(zip(keys, numbers, strict=True)) | {f"{name}_mae": 0.6 + numbers[0]}
    return start


def test_baseline_sentences_follow_the_intervals():
    rows = [
        against("a", (-0.1, -0.15, -0.05, "beats"), (0.1, 0.05, 0.15, "does not beat")),
        against("b", (-0.1, -0.25, 0.05, "ranks nothing"), (-0.1, -0.15, -0.05, "beats")),
    ]
    first, second = report.baseline_sentences(pd.DataFrame(rows)).splitlines()
    constant = pd.DataFrame({"dataset": ["a", "b"], "method": "tmt", "verdict": ["ranks nothing", "beats"]})
    unlearned, as_before = report.baseline_sentences(pd.DataFrame(rows), constant).splitlines()
    assert unlearned == "- `a`: TMT (MAE 0.500) does not surely beat the training median: nothing is ranked."
    assert as_before == second
    assert first.startswith(
        "- `a`, against linear, text only, the linear model that validation chose (MAE 0.600 [0.550, "
    )
    assert (
        "a single TMT beats it (MAE 0.500, -0.100 [-0.150, -0.050]); the ensemble of its 3 seeds does **not** beat"
        in first
    )
    assert (
        "told apart (MAE 0.500, -0.100 [-0.250, +0.050]: the interval, 0.300 wide, holds zero, so this file" in second
    )


def test_the_linear_model_that_validation_chose_is_shown_alone(committed, tmp_path):
    results = shutil.copytree(committed / "results", tmp_path / "results")
    path = results / "real" / "against_linear.csv"
    table = pd.read_csv(path).query("dataset != 'simsv2_expert_scores'")
    row = against("simsv2_expert_scores", *[(-0.1, -0.15, -0.05, "beats")] * 2, linear="linear_vision")
    pd.concat([table, pd.DataFrame([row])], ignore_index=True).to_csv(path, index=False)
    real = report.readme(RESULTS, results).partition("<!-- begin real -->")[2].partition("<!-- end real -->")[0]
    shown = re.findall(r"\| simsv2_expert_scores *\| (linear, [a-z ]+?) *\|", real)
    assert shown == ["linear, vision only"] and "- `simsv2_expert_scores`, against linear, vision only" in real


def test_what_a_replication_did_not_confirm_is_named():
    rows = [("gain", c, 0.02, 0.01, 0.03, r) for c, r in (("a", "supported"), ("b", "cannot tell"), ("c", "supported"))]
    rows = pd.DataFrame(rows, columns=["headline", "cell", "value", "low", "high", "reading"])
    fresh = rows.assign(value=-0.01, reading="cannot tell").add_suffix("_fresh").iloc[:, 2:]
    table = pd.concat([rows, fresh], axis=1).assign(same=["no", "yes", "not drawn again"])
    text = report.replicated(table)
    assert "1 of 2 readings came out the same: 1 of 2 (gain)" in text and "The 1 that did not" in text
    assert "Not drawn again: gain (c)." in text
    assert re.search(r"\| gain +\| a +\| supported \+0.020 \[\+0.010, \+0.030\] \| cannot tell -0.010", text)
    assert "| b" not in text


def test_readme_without_marks_is_refused(committed):
    with pytest.raises(ValueError, match="no pair of lines <!-- begin real -->"):
        report.readme(RESULTS.replace("<!-- end real -->", ""), committed / "results")


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_exist(page):
    targets = re.findall(r"\]\(([^)#]+)\)", PAGES[page]) + re.findall(r'src="([^"]+)"', PAGES[page])
    local = [(common.ROOT / page).parent / target for target in targets if not target.startswith("http")]
    assert len(local) >= 20 * (page == "README.md") and [path for path in local if not path.exists()] == []


def test_every_notebook_is_listed_once():
    for path in notebooks.notebooks():
        assert README.count(f"(notebooks/{path.name})") == 1


def test_commands_exist():
    makefile = (common.ROOT / "Makefile").read_text()
    text = "\n".join(PAGES.values())
    for target in re.findall(r"\bmake ([a-z]+)(?= |$|`)", text):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for variable in re.findall(r"make study ([A-Z]+)=", text):
        assert re.search(rf"^{variable} *=", makefile, re.M), variable
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--only", "02,03", "--help"])
    assert stopped.value.code == 0
