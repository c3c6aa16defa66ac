"""The command line as a user meets it: exit codes, messages, and that both names are one program."""

import errno
import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from tmtlib import common
from tmtlib.__main__ import main


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
        ("--methods", "tmt_awm", "method is 'tmt_awm', which is none; did you mean 'tmt_amw'? `tmt methods` lists all"),
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

    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}

    def run(target: str, *variables: str) -> list[str]:
        asked = ["make", "-f", str(common.ROOT / "Makefile"), target, *variables]
        asked.append(f"PYTHON={stub}")
        return subprocess.run(
            asked, cwd=tmp_path, env=alone, capture_output=True, text=True, check=True
        ).stdout.splitlines()

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
    assert "mine" in printed and "mosi" in printed


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
    for place in (tmp_path / "there", folder):  # the folder of results, or of one study; also of another profile
        assert main(["report", "--results", str(place)]) == 0
        assert "# Report, profile smoke" in capsys.readouterr().out
    (tmp_path / "there" / "full").mkdir()
    (tmp_path / "there" / "full" / "report.md").write_text("# Report, profile full")
    assert main(["report", "--results", str(tmp_path / "there")]) == 1
    assert f"there are: tmt report --results {tmp_path / 'there' / 'full'}, tmt report" in capsys.readouterr().err


def test_the_explorer_is_written_from_a_table_and_says_what_it_needs(
    committed, own_results, tmp_path, monkeypatch, capsys
):
    command, page = ["report", "--profile", "full", "--explorer", str(tmp_path / "page.html")], tmp_path / "page.html"
    monkeypatch.setenv("TMT_RESULTS", str(committed / "results"))
    monkeypatch.setitem(sys.modules, "altair", None)
    monkeypatch.delitem(sys.modules, "tmtlib.figures.explorer", raising=False)
    assert main(command) == 1 and '--explorer needs: pip install -e ".[report]"' in capsys.readouterr().err
    monkeypatch.undo()
    for name in ("altair", "vl_convert"):
        pytest.importorskip(name, reason="needs the packages of [report]")
    monkeypatch.setenv("TMT_RESULTS", str(own_results))
    assert main(command) == 1 and f"no table {own_results / 'full' / 'explorer.csv'}" in capsys.readouterr().err
    monkeypatch.setenv("TMT_RESULTS", str(committed / "results"))
    assert main(command) == 0 and "MB, made from" in capsys.readouterr().out and page.stat().st_size > 1e6


COMMANDS = {
    "run": ["run", "--only", "00"],
    "train": ["train", "a.pkl", "--out", "model"],
    "predict": ["predict", "model", "a.pkl", "--out", "a.csv"],
    "features": ["features", "clips.csv", "--out", "a.pkl"],
    "check": ["data", "check", "a.pkl"],
    "join": ["data", "join", *"wtavl", "--splits", "s.csv", "--out", "a.pkl"],
    "report": ["report"],
    "compare": ["compare", "a", "b"],
    "clean": ["clean"],
    "bench": ["bench", "--json", "a.json"],
}
FULL_DISK = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FULL_DISK, 1, "No space left on device"),
        (KeyError("x"), 1, "KeyError: 'x' (this is not foreseen: --debug shows where)"),
        (MemoryError("line\nline"), 1, "MemoryError: line line"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
    ids=["full", "fault", "memory", "interrupt"],
)
def test_every_command_fails_in_one_line(command, error, code, said, own_results, monkeypatch, capsys):
    def fail(options):
        raise error

    monkeypatch.setattr(f"tmtlib.__main__._{command}", fail)
    assert main(COMMANDS[command]) == code
    message = capsys.readouterr().err
    assert said in message and len(message.strip().splitlines()) == 1
    if error is FULL_DISK and "--out" in COMMANDS[command]:
        assert os.path.abspath(COMMANDS[command][-1]) in message and "give --out" in message
    if error is FULL_DISK and command in ("run", "report"):
        assert str(own_results) in message and "give --results another folder" in message
    assert main([*COMMANDS[command], "--debug"]) == code
    assert ("Traceback" in capsys.readouterr().err) == (code == 1)


@pytest.mark.parametrize(
    ("number", "below"),
    [(errno.EROFS, "smoke/a.csv"), (errno.EACCES, "runs"), (errno.ENAMETOOLONG, "x" * 300), (errno.ENOTDIR, "smoke")],
)
def test_no_room_for_results_names_their_folder_and_the_option(number, below, own_results, monkeypatch, capsys):
    def fail(options):
        raise OSError(number, os.strerror(number), str(own_results / below))

    monkeypatch.setattr("tmtlib.__main__._run", fail)
    assert main(["run"]) == 1
    error = capsys.readouterr().err
    assert error == (
        f"tmt: cannot write to {own_results / below}: {os.strerror(number)}; give --results another folder\n"
    )


@pytest.mark.skipif(os.name == "nt", reason="limits of a shell")
def test_a_disk_that_fills_up_is_one_line(feature_file, tmp_path):
    """The limit on a file's size stands in for the disk's end."""
    command = f'ulimit -f 1; exec "{sys.executable}" -m tmtlib train "{feature_file}" --profile smoke --out model'
    environment = os.environ | {"PYTHONPATH": str(common.ROOT)}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "Traceback" not in done.stderr and not [*tmp_path.iterdir()]
    assert f"cannot write to {tmp_path / 'model'}" in done.stderr and done.stderr.endswith("give --out another place\n")


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("x = 1\ndef broken(:\n", 2, "SyntaxError: invalid syntax"),
        ("\n\nclass Mine(Missing): pass\n", 3, "NameError: name 'Missing' is not defined"),
        ("from tmtlib.models.amw import Nothing\n", 1, "ImportError: cannot import name 'Nothing'"),
        ("def f():\n    raise ValueError('mine')\nf()\n", 2, "ValueError: mine"),
    ],
    ids=["syntax", "name", "import", "value"],
)
@pytest.mark.parametrize("command", ["run", "train", "predict"])
def test_an_error_in_one_s_own_file_names_its_line(
    command, content, line, said, feature_file, own_results, tmp_path, monkeypatch, capsys
):
    own = tmp_path / "my own.py"
    own.write_text(content)
    monkeypatch.setenv("TMT_OWN", "")  # `main` sets it for the kernels
    assert main([*COMMANDS[command], "--own", str(own)]) == 1
    first, message = capsys.readouterr().err.splitlines()
    assert first == f"tmt: running {own} with your rights: it can do all that you can"
    assert message.startswith(f"tmt: {own}, line {line}: {said}")


def test_no_command_writes_over_what_it_reads(feature_file, tmp_path, capsys):
    before = feature_file.read_bytes()
    assert (
        main(["predict", str(tmp_path), str(feature_file), "--out", f"{feature_file.parent}/./{feature_file.name}"])
        == 1
    )
    assert "which is read; name another file" in capsys.readouterr().err and feature_file.read_bytes() == before


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999", "a"])
def test_a_seed_that_is_none_is_refused_at_once(seed, capsys):
    with pytest.raises(SystemExit):
        main(["train", "features.pkl", "--method", "tmt", "--out", "model", f"--seed={seed}"])
    assert f"'{seed}' is no seed; wanted 0, 1, 2" in capsys.readouterr().err


def test_a_reader_that_stops_is_no_error(own_results):
    command = f'"{sys.executable}" -m tmtlib data check --help | true; "{sys.executable}" -m tmtlib compare a b | true'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=common.ROOT)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
