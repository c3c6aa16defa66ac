"""The command line as a user meets it: exit codes, messages, and that both names are one program."""

import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from tmtlib import common
from tmtlib.__main__ import main
from tmtlib.data.mmsa import write_mmsa
from tmtlib.data.schema import SyntheticSize
from tmtlib.data.synthetic import generate


@pytest.fixture(scope="module")
def feature_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "mine.pkl"
    write_mmsa(generate("sims", SyntheticSize((40, 20, 20), (6, 9, 7))), path)
    return path


def wrong_use(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return stopped.value.code


@pytest.mark.parametrize(
    "arguments",
    [[], ["rum"], ["run", "--profile", "fast"], ["run", "--device", "tpu"], ["data"], ["data", "check"], ["run", "x"]]
    + [["run", "--seeds", n] for n in ("0", "-1", "two")]
    + [["report", "--profile", "ten"], ["compare", "results"]],
    ids=" ".join,
)
def test_wrong_use_exits_with_2(arguments, capsys):
    assert wrong_use(arguments) == 2
    assert "usage: tmt" in capsys.readouterr().err


def test_unknown_notebook_exits_with_2(capsys):
    assert main(["run", "--only", "02,99"]) == 2
    assert "no notebook 99; there are 00, 01, 02, 03, 04, 05, 06" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--datasets", "mosi,simsv2", "data set is 'simsv2'; wanted one of 'mosi', 'mosei', 'sims'"),
        ("--methods", "tmt_awm", "method is 'tmt_awm'; wanted one of 'tmt'"),
    ],
)
def test_unknown_data_set_or_method_is_a_message_and_1(option, value, message, own_results, capsys):
    assert main(["run", "--profile", "smoke", option, value]) == 1
    assert capsys.readouterr().err.startswith(f"tmt: {message}")
    assert not own_results.exists()


@pytest.fixture
def make(tmp_path):
    """Runs a target of the Makefile with a Python that only prints its arguments; returns them."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    stub = tmp_path / 'py\'th$on `x`; "y"'
    stub.write_text('#!/bin/sh\nfor a in "$@"; do printf "%s\\n" "$a"; done\n')
    stub.chmod(0o755)

    def run(target: str, *variables: str) -> list[str]:
        asked = ["make", "-f", str(common.ROOT / "Makefile"), target, *variables]
        asked.append(f"PYTHON={stub}")
        return subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()

    return run


@pytest.mark.parametrize("option", ["profile", "seeds", "datasets", "methods", "own", "data", "device", "results"])
@pytest.mark.parametrize(
    "value",
    ["`touch ran`", "$(touch ran)", "$(shell touch ran)", "; touch ran", '"; touch ran; "', "'a b' $HOME $$ #c", "-x"],
)
def test_make_hands_every_option_on_as_text(make, tmp_path, option, value):
    arguments = make("study", f"{option.upper()}={value}")
    assert arguments[:3] == ["-m", "tmtlib", "run"] and f"--{option}={value}" in arguments
    assert len(arguments) == (4 if option == "profile" else 5) and not (tmp_path / "ran").exists()


def test_lab_takes_arguments_a_results_folder_and_root(make, tmp_path):
    lab = make("lab", "ARGS=--port 9999 --no-browser `touch ran`")
    assert {"9999", "--no-browser", "`touch", "--LabApp.default_url=/lab/tree/notebooks"} <= {*lab}
    assert ("--allow-root" in lab) == (os.getuid() == 0), "Lab wants to be told only by root"
    (folder := tmp_path / "my $results").mkdir()
    assert f"--ServerApp.root_dir={folder}" in make("lab", f"RESULTS={folder}")
    assert not (tmp_path / "ran").exists()


def test_compare_prints_and_says_by_its_exit_code(tmp_path, capsys):
    for name, mae in (("a", 0.5), ("b", 0.5000001), ("c", 0.6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.csv").write_text(f"method,mae\ntmt,{mae}\n", encoding="utf-8")
    a, b, c, none = (str(tmp_path / name) for name in "abcd")
    assert main(["compare", a, b]) == 0 and capsys.readouterr().out.startswith("All 1 rows agree")
    assert main(["compare", a, c]) == 1 and "table.csv: tmt, mae 0.5 -> 0.6" in capsys.readouterr().out
    assert main(["compare", a, none]) == 1 and "no tables (*.csv) in" in capsys.readouterr().err


def test_module_and_command_are_one_program():
    script = tomllib.loads((common.ROOT / "pyproject.toml").read_text())["project"]["scripts"]["tmt"]
    assert script == "tmtlib.__main__:main"
    done = subprocess.run([sys.executable, "-m", "tmtlib", "--help"], capture_output=True, text=True, cwd=common.ROOT)
    assert done.returncode == 0
    for command in ("run", "train", "predict", "data", "report", "compare", "clean"):
        assert f"\n    {command} " in done.stdout


def test_help_imports_nothing_heavy():
    code = "import sys, tmtlib.__main__ as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'pandas', 'matplotlib', 'papermill', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=common.ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_data_check_accepts_and_prints(feature_file, capsys):
    assert main(["data", "check", str(feature_file)]) == 0
    printed = capsys.readouterr().out
    assert "mine" in printed and "sims" in printed


def test_data_check_refuses_with_1_and_goes_on(feature_file, tmp_path, capsys):
    page = tmp_path / "page.pkl"
    page.write_text("<html>quota exceeded</html>")
    assert main(["data", "check", str(page), str(tmp_path / "none.pkl"), str(feature_file)]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("tmt: refused: ") == 2 and "web page" in captured.err
    assert "mine" in captured.out, "the good file after the bad ones is still checked"


def test_missing_data_is_a_message_and_1(tmp_path, own_results, capsys):
    assert main(["run", "--profile", "smoke", "--data", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("tmt: no feature file of 'mosi' found. Looked at:")
    assert str(tmp_path / "MOSI" / "Processed" / "aligned_50.pkl") in message and "SHA-256 d3994fd2" in message
    assert "drive.google.com" in message
    assert main(["run", "--profile", "smoke", "--data", str(tmp_path / "no.pkl")]) == 1
    assert "no.pkl is not there; wanted a feature file" in capsys.readouterr().err


def test_report_before_a_study_says_what_to_run(own_results, capsys):
    assert main(["report", "--profile", "smoke"]) == 1
    assert "run the study first: tmt run --profile smoke" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TMT_RESULTS", str(tmp_path))  # restored after `--results`
    (tmp_path / "file").write_text("no folder")
    assert main(["run", "--profile", "smoke", "--only", "00", "--results", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"tmt: cannot write to {tmp_path / 'file'}") and "give --results" in error


def test_the_report_of_another_results_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TMT_RESULTS", str(tmp_path / "elsewhere"))
    folder = tmp_path / "there" / "smoke"
    folder.mkdir(parents=True)
    (folder / "report.md").write_text("# Report, profile smoke")
    assert main(["report", "--profile", "smoke"]) == 1 and "give --results" in capsys.readouterr().err
    assert main(["report", "--profile", "smoke", "--results", str(tmp_path / "there")]) == 0
    assert "# Report, profile smoke" in capsys.readouterr().out
