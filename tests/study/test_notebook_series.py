"""The series by papermill: all of it on synthetic data and on a user's own file, and what happens when it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

from tmtlib import common
from tmtlib.__main__ import main
from tmtlib.data.corrupt import keep_only
from tmtlib.data.mmsa import write_mmsa
from tmtlib.data.schema import SyntheticSize
from tmtlib.data.synthetic import generate
from tmtlib.paper import facts
from tmtlib.study import notebooks, tables
from tmtlib.study.profiles import PROFILES
from tmtlib.study.study import open_study

FIGURES = ("figure1_fusion", "figure2_tmt", "figure3_amw", "figure4_datasets", "figure5_comparison")


def check_results(results, dataset_sources: set[tuple[str, str]], name: str = "smoke") -> None:
    table = pd.read_csv(results / name / "table1.csv")
    assert list(table.columns) == tables.TABLE1_COLUMNS
    assert set(zip(table["dataset"], table["source"], strict=True)) == dataset_sources
    claims = pd.read_csv(results / name / "claims.csv")
    assert {"claim", "quote", "place", "verdict", "evidence"} <= set(claims.columns)
    for figure in FIGURES:
        for kind in ("pdf", "png"):
            assert (results / "figures" / name / f"{figure}.{kind}").stat().st_size > 5000
    copies = sorted((results / name / "notebooks").glob("*.ipynb"))
    assert [path.name for path in copies] == [path.name for path in notebooks.notebooks()]


def test_whole_series_on_synthetic_data_twice(own_results, capsys):
    assert main(["run", "--profile", "smoke", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "## Table 1" in printed and "## Verdicts" in printed and "Figures      " in printed
    for path in notebooks.notebooks():
        assert f"{path.name:<32}ok" in printed
    check_results(own_results, {(name, "synthetic") for name in ("mosi", "mosei", "sims")})

    def kept():  # tables, of which the .txt are notes, are written again, under the lock
        return {
            p.name: p.stat().st_mtime_ns for p in (own_results / "runs").iterdir() if p.suffix not in (".txt", ".lock")
        }

    runs = kept()
    assert main(["run", "--profile", "smoke", "--device", "cpu", "--only", "02,6"]) == 0
    assert kept() == runs
    assert capsys.readouterr().out.count("  ok  ") == 2
    assert "agree" not in printed, "nothing is committed for profile smoke"
    assert main(["check", "--profile", "smoke"]) == 0, "what notebooks write, `analysis.recheck` makes again"


def test_whole_series_on_a_file_of_one_s_own(own_results, tmp_path, monkeypatch, capsys):
    """One frame a modality, no vision, a space in the name, and both places relative to the working folder."""
    monkeypatch.chdir(tmp_path)
    made = generate("mosei", SyntheticSize((70, 24, 30), (1, 1, 1)))
    without = {s: keep_only(made[s], ("text", "audio")) for s in ("train", "valid", "test")}
    write_mmsa(replace(made, **without), "my features.pkl")
    assert main(["run", "--profile", "smoke", "--data", "my features.pkl", "--results", "mine"]) == 0
    name = open_study("smoke", "my features.pkl").profile.name
    check_results(tmp_path / "mine", {("my features", "synthetic")}, name)  # the file itself says synthetic
    printed = capsys.readouterr().out
    assert "my features (synthetic)" in printed and "Runs         mine/runs/" in printed
    assert f"make lab RESULTS={tmp_path / 'mine'})" in printed, "Lab's own root is the repository"


def test_a_study_of_other_data_goes_beside_and_nothing_is_lost(own_results, tmp_path, capsys):
    """A file of the user's own is not touched, and a broken or empty one is refused before a notebook starts."""
    study, mine, provenance = open_study("smoke"), tmp_path / "mine.pkl", {"data": [{"name": "mosi", "sha256": "0"}]}
    study.save_text(json.dumps(provenance), "provenance.json")
    study.save_table(pd.DataFrame({"method": ["tmt"]}), "table1")
    (study.results / "thesis.md").write_text("months of work", encoding="utf-8")
    study.figures.mkdir(parents=True)
    (study.figures / "photo.png").write_bytes(b"photo")

    def kept() -> dict:
        return {p: p.read_bytes() for place in (study.results, study.figures) for p in place.iterdir() if p.is_file()}

    before = kept()
    for content in (b"8 bytes.", b""):
        mine.write_bytes(content)
        assert main(["run", "--profile", "smoke", "--data", str(mine)]) == 1
        captured = capsys.readouterr()
        assert f"tmt: {mine} is not a whole pickle" in captured.err and "00_paper_audit" not in captured.out
    write_mmsa(generate("mosi", SyntheticSize((40, 16, 20), (4, 4, 4))), mine)
    assert main(["run", "--profile", "smoke", "--only", "00", "--data", str(mine)]) == 0
    beside = open_study("smoke", mine).results
    assert beside.name.startswith("smoke_mine-") and (beside / "audit_verdicts.csv").is_file()
    assert main(["report", "--profile", "smoke", "--data", str(mine)]) == 1
    assert str(beside / "report.md") in capsys.readouterr().err
    assert kept() == before


def test_a_second_run_of_one_folder_names_the_first(broken_series, own_results, capsys):
    with notebooks.only_writer(study := open_study("smoke")):
        (own_results / "smoke").mkdir(exist_ok=True)
        assert main(["run", "--profile", "smoke"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"tmt: process {os.getpid()} on ") and str(study.results) in error
        assert error.count("\n") == 1 and "--results" in error
        with notebooks.only_writer(open_study("smoke", seeds=1)):
            pass  # another folder
    with notebooks.only_writer(study):
        pass  # a lock ends with its process


@pytest.fixture
def broken_series(tmp_path, monkeypatch):
    """Two notebooks, of which the first fails in its third cell."""
    size = 'seeds: int = 0\ndatasets: str = ""\nmethods: str = ""'
    parameters = new_code_cell(f'profile: str = "smoke"\ndata: str = ""\ndevice: str = "auto"\n{size}')
    parameters.metadata["tags"] = ["parameters"]
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name, source in (("00_bad", "1 / 0"), ("01_good", "print('never run')")):
        cells = [parameters, new_code_cell("x = 1"), new_code_cell(source)]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / f"{name}.ipynb")
    monkeypatch.setattr(common, "NOTEBOOKS", folder)
    return folder


def test_failing_cell_is_named_and_its_copy_kept(broken_series, own_results, capsys):
    assert main(["run", "--profile", "smoke"]) == 1
    captured = capsys.readouterr()
    assert "00_bad.ipynb" in captured.out and "FAILED" in captured.out and "01_good" not in captured.out
    assert "of 00_bad.ipynb: ZeroDivisionError: division by zero" in captured.err
    copy = own_results / "smoke" / "notebooks" / "00_bad.ipynb"
    assert str(copy) in captured.err and "1 / 0" in copy.read_text()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise OSError(28, 'No space left on device')", "; results are written to {results}: give --results"),
        ("open_study(own='{own}').runs('tmt')", " ({own}, line 2)"),
    ],
)
def test_a_cell_s_error_names_the_folder_or_the_line_of_one_s_own(
    code, said, broken_series, own_results, tmp_path, monkeypatch, capsys
):
    names = {"own": tmp_path / "my own.py", "results": own_results}
    names["own"].write_text("pass\nraise RuntimeError('mine')\n")
    path = broken_series / "00_bad.ipynb"
    path.write_text(path.read_text().replace("1 / 0", "from tmtlib import open_study; " + code.format(**names)))
    study = open_study("smoke")
    monkeypatch.setattr(notebooks, "_opened", lambda parameters: study)
    monkeypatch.setenv("TMT_OWN", str(names["own"]))
    assert main(["run", "--profile", "smoke"]) == 1
    assert said.format(**names) in capsys.readouterr().err


def test_dead_kernel_is_named(broken_series, own_results, capsys):
    path = broken_series / "00_bad.ipynb"
    path.write_text(path.read_text().replace("1 / 0", "import os; os._exit(1)"))
    assert main(["run", "--profile", "smoke"]) == 1
    assert "the kernel of 00_bad.ipynb died" in capsys.readouterr().err


def test_a_finished_series_is_compared_with_what_is_committed(broken_series, own_results, monkeypatch, capsys):
    path, committed = broken_series / "00_bad.ipynb", {"a.csv": "method,mae\ntmt,0.5\n", "b.csv": "method,mae\ntmt,1\n"}
    write = "open_study(profile).save_table(pd.DataFrame({'method': ['tmt'], 'mae': [0.5000001]}), 'a')"
    path.write_text(path.read_text().replace("1 / 0", f"import pandas as pd; from tmtlib import open_study; {write}"))
    monkeypatch.setattr(notebooks.compare, "reference_tables", lambda folder, data: committed)
    assert main(["run", "--profile", "smoke"]) == 0
    assert "1 differences from the committed tables in 1 files" in (printed := capsys.readouterr().out)
    assert "b.csv: file there -> missing" in printed
    assert main(["run", "--profile", "smoke", "--only", "00"]) == 0
    assert "All 1 rows agree with the committed tables" in capsys.readouterr().out, "a file of another notebook"


def test_other_seeds_and_data_sets_have_a_folder_of_their_own(own_results, capsys):
    size = ["--profile", "smoke", "--seeds", "1", "--datasets", "sims,mosi"]
    assert main(["run", *size, "--only", "00"]) == 0
    assert "Profile smoke_1seeds_sims+mosi, synthetic data" in capsys.readouterr().out
    assert (own_results / "smoke_1seeds_sims+mosi" / "audit_verdicts.csv").exists()
    assert not (own_results / "smoke").exists()
    (own_results / "smoke_1seeds_sims+mosi" / "report.md").write_text("the report", encoding="utf-8")
    assert main(["report", *size]) == 0 and capsys.readouterr().out == "the report\n"


def test_no_notebooks_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(common, "NOTEBOOKS", tmp_path)
    assert main(["run", "--profile", "smoke"]) == 2
    assert "no notebooks in" in capsys.readouterr().err


def test_notebook_without_a_parameter_is_refused_before_it_runs(broken_series, own_results, capsys):
    path = broken_series / "00_bad.ipynb"
    path.write_text(path.read_text().replace("device: str", "devices: str"))
    assert main(["run", "--profile", "smoke"]) == 2
    assert "00_bad.ipynb has no parameter device" in capsys.readouterr().err
    assert not (own_results / "smoke" / "notebooks" / "00_bad.ipynb").exists()


def test_plain_papermill_works_from_any_folder(own_results, tmp_path):
    notebook = common.NOTEBOOKS / "00_paper_audit.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "-p", "profile", "smoke"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.ipynb").exists() and (own_results / "smoke" / "audit_verdicts.csv").exists()


@pytest.mark.parametrize("number", ["00", "10"])
def test_an_unknown_parameter_is_refused_by_the_notebook_itself(number, own_results, tmp_path):
    """papermill only warns, and would run the defaults."""
    (path,) = notebooks.notebooks(number)
    with pytest.raises(PapermillExecutionError, match="no parameter PROFLE; it has profile, data, device"):
        notebooks.execute(path, tmp_path / "out.ipynb", {"profile": "smoke", "PROFLE": "full"})
    assert not (own_results / "smoke").exists()


def test_clean_executes_anew_and_strips(tmp_path, monkeypatch, own_results):
    """From a notebook without any output to the saved one, the texts at least (pictures differ between machines)."""
    saved = nbformat.read(common.NOTEBOOKS / "00_paper_audit.ipynb", as_version=4)
    bare = nbformat.from_dict(saved)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(bare, tmp_path / "00_paper_audit.ipynb")
    monkeypatch.setattr(common, "NOTEBOOKS", tmp_path)
    assert main(["clean", "--only", "00"]) == 0
    done = nbformat.read(tmp_path / "00_paper_audit.ipynb", as_version=4)
    assert done.metadata == saved.metadata and [c.source for c in done.cells] == [c.source for c in saved.cells]
    texts = [
        [output.get("data", output).get("text/plain") for cell in notebook.cells for output in cell.get("outputs", [])]
        for notebook in (done, saved)
    ]
    assert texts[0] == texts[1] and len(texts[0]) >= 10
    assert not own_results.exists(), "its tables go to a folder of their own, which is gone"


def test_notebook_03_runs_with_any_methods(own_results, tmp_path):
    """It draws methods that such a study leaves out."""
    parameters = {"profile": "smoke", "datasets": "mosi", "methods": "text_only", "seeds": 2}
    notebooks.execute(common.NOTEBOOKS / "03_amw_training.ipynb", tmp_path / "done.ipynb", parameters)
    assert (own_results / "smoke_2seeds_mosi_text_only" / "costs.csv").is_file()


def in_this_process(number: str, **parameters) -> dict:
    """The variables of a notebook whose code cells are executed here, where a profile can be another one."""
    (path,) = notebooks.notebooks(number)
    first, *cells = (cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    names = {"display": lambda *shown: None}
    exec(first, names)
    names |= {"profile": "smoke"} | parameters
    for cell in cells:
        exec(cell, names)
    return names


def test_what_a_profile_does_without_is_shown_from_the_reported_one(own_results, monkeypatch):
    """As profile quick is: controls on the first data set, no worlds, nothing that no claim needs."""
    methods, ablations = ("tmt", "tmt_amw"), ("tmt_uniform", "tmt_random", "tmt_amw_fast", "tmt_gated")
    changes = {"methods": methods, "ablations": ablations, "five_class": (), "noisy_training": (), "masked": ()}
    less = replace(PROFILES["smoke"], protocol=False, worlds=0, draws=0, tuned=(), **changes)
    monkeypatch.setitem(PROFILES, "smoke", less)
    which = {"device": "cpu", "datasets": "mosei,mosi"}
    made = {number: in_this_process(number, **which) for number in ("03", "06", "07", "08", "09")}
    shown = [made["07"][name] for name in ("over", "readable")]
    shown += [made["09"][name] for name in ("reached", "clean", "corrupted", "scores", "gained")]
    for table in shown:
        assert set(table["profile"]) == {"full"}
    assert set(made["08"]["rows"]["method"]) == {*methods, *ablations}
    assert 30 < len(made["08"]["made"]) < len(facts.CLAIMS)
    on_votes = {"tmt_amw", "tmt_gated", "tmt_reliability"}
    assert set(made["07"]["carries"]["method"]) == on_votes and set(made["07"]["carries"]["source"]) == {"real"}
    trained = 2 * len(methods) + len(ablations) + len(on_votes)
    assert len([*(own_results / "runs").glob("*.npz")]) == 2 * trained
    monkeypatch.setattr("tmtlib.study.study.REPORTED", "elsewhere")
    assert in_this_process("07", **which)["over"].empty and in_this_process("09", **which)["scores"].empty


def test_notebook_01_says_what_is_not_known_of_a_real_file(own_results, tmp_path, capsys):
    """One vector a modality, and ids that name no clip."""
    made = generate("mosi", SyntheticSize((24, 8, 8), (1, 1, 1)))
    named = {s: replace(made[s], ids=tuple(f"{s}{i}" for i in range(len(made[s])))) for s in ("train", "valid", "test")}
    write_mmsa(replace(made, card=replace(made.card, source="real"), **named), tmp_path / "mine.pkl")
    shown = in_this_process("01", data=str(tmp_path / "mine.pkl"))
    printed = capsys.readouterr().out
    assert "mine: ids name no clip, so each counts as a video" in printed
    assert "Real data: nothing of this is known." in printed and shown["alignment"] == ["single vectors"]


def test_a_method_or_data_set_named_twice_counts_once():
    study = open_study("smoke", datasets="mosi,mosi", methods="tmt_5class,text_only")
    todo = study.runs(*study.methods)
    assert len(todo) == len(set(todo)) and [ref.name for ref in study.refs] == ["mosi"]


def test_datasets_are_not_for_one_file(own_results, tmp_path):
    path = tmp_path / "mine.pkl"
    write_mmsa(generate("mosi", SyntheticSize((24, 8, 8), (4, 4, 4))), path)
    with pytest.raises(ValueError, match="datasets is 'mosi', but data is the one file"):
        open_study("smoke", path, datasets="mosi")
