"""setup_environment.py: what it decides, with made-up reports, versions and folders; nothing is installed here."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import setup_environment as setup

PROJECT = tomllib.loads(setup.PYPROJECT.read_text(encoding="utf-8"))["project"]

# Requires-Dist of torch 2.13.0: the Linux file of the package index, and of the CPU build. The platform is made
# to be this one, so that the test says the same on every system.
HERE = f'platform_system == "{os.uname().sysname if hasattr(os, "uname") else "Windows"}"'
ELSEWHERE = 'platform_system == "Nowhere"'
CUDA_LINES = [
    "filelock",
    "sympy>=1.13.3",
    f"cuda-toolkit[cublas,cudart]==13.0.3; {HERE}",
    f'cuda-bindings<14,>=13.0.3; {HERE} and python_version < "3.15"',
    f"nvidia-cudnn-cu13==9.20.0.48; {HERE}",
    f'triton==3.7.1; {HERE} and python_version < "3.15"',
    'opt-einsum>=3.3; extra == "opt-einsum"',
]
CPU_LINES = ["filelock", "sympy>=1.13.3", 'opt-einsum>=3.3; extra == "opt-einsum"']


def report(lines: list[str]) -> dict:
    return {"install": [{"metadata": {"name": "torch", "version": "2.13.0", "requires_dist": lines}}]}


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """The commands that would have been run, in order."""
    seen: list[list[str]] = []
    monkeypatch.setattr(setup, "run", lambda what, command: seen.append(command))
    return seen


# --- The requirements ----------------------------------------------------------------------------------------------


def test_constants_agree_with_pyproject():
    allowed = SpecifierSet(PROJECT["requires-python"])
    minors = [(3, minor) for minor in range(8, 20) if f"3.{minor}.1" in allowed]
    assert minors == list(setup.SUPPORTED)
    (wanted,) = [line for line in PROJECT["dependencies"] if Requirement(line).name == "torch"]
    (pinned,) = Requirement(setup.CPU_TORCH).specifier
    assert Requirement(wanted).specifier.contains(pinned.version)


def test_satisfied_environment_lacks_nothing():
    installed = {"torch": "2.13.0+cpu", "nbval": "0.11.0", "pandas": "3.2.0rc1"}
    wanted = ["torch>=2.13", "nbval==0.11.*", "pandas>=3", f"absent>=1; {ELSEWHERE}"]
    assert setup.unmet(wanted, installed.get) == []


def test_unsatisfied_environment_names_what_it_lacks():
    installed = {"torch": "2.12.1", "nbval": "0.12.0"}
    found = setup.unmet(["torch>=2.13", "nbval==0.11.*", "pandas>=3"], installed.get)
    assert found == ["torch>=2.13 (found 2.12.1)", "nbval==0.11.* (found 0.12.0)", "pandas>=3 (not installed)"]


def test_extras_are_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(setup, "EXTRAS", ["features"])
    monkeypatch.setattr(setup, "installed_version", lambda name: None if name == "librosa" else "4.12")
    assert [line for line in setup.unmet_here() if "librosa" in line] == ["librosa>=0.11 (not installed)"]
    monkeypatch.setattr(setup, "EXTRAS", ["feature"])
    assert setup.unmet_here() == ["an extra 'feature' (there are features, report, cluster, browser)"]


def test_another_python_is_asked_in_its_own_process(tmp_path):
    assert setup.ask(sys.executable, "unmet") == setup.unmet_here()
    assert "does not run" in setup.unmet_in(tmp_path / "nowhere" / "python")[0]


# --- Which Python --------------------------------------------------------------------------------------------------


def test_virtual_environment_comes_before_conda():
    both = {"VIRTUAL_ENV": "/a/venv", "CONDA_PREFIX": "/a/conda"}
    assert setup.active_python(both) == setup.python_in(Path("/a/venv").absolute())
    assert setup.active_python({"CONDA_PREFIX": "/a/conda"}) == setup.python_in(Path("/a/conda").absolute())


def test_satisfying_active_environment_is_used_and_nothing_installed(monkeypatch, commands, tmp_path):
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    monkeypatch.setattr(setup, "unmet_in", lambda python: [])
    assert setup.find_or_make() == setup.python_in(tmp_path)
    assert commands == []


def test_unsatisfying_active_environment_is_named_and_left_alone(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    monkeypatch.setattr(setup, "unmet_in", lambda python: ["torch>=2.13 (found 2.12.1)"])
    monkeypatch.setattr(setup, "make", lambda venv: venv)
    assert setup.find_or_make() == setup.VENV
    said = capsys.readouterr().err
    assert str(tmp_path) in said and "torch>=2.13 (found 2.12.1)" in said


def test_our_own_venv_is_judged_by_its_stamp_alone(monkeypatch):
    asked = []
    monkeypatch.setenv("VIRTUAL_ENV", str(setup.VENV))
    monkeypatch.setattr(setup, "unmet_in", lambda python: asked.append(python) or ["something"])
    monkeypatch.setattr(setup, "make", lambda venv: "made")
    assert setup.find_or_make() == "made"
    assert setup.python_in(setup.VENV) not in asked


@pytest.mark.skipif(os.name == "nt", reason="uses a shell script as a Python")
def test_python_that_does_not_run_is_passed_over(monkeypatch, tmp_path):
    shim = tmp_path / "python3.12"  # what pyenv leaves on the PATH
    shim.write_text("#!/bin/sh\necho 'python3.12: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    assert setup.version_of(shim) is None
    assert setup.version_of(sys.executable) == sys.version_info[:2]
    assert setup.version_of(sys.executable, needs="no_such_module") is None

    monkeypatch.setattr(setup, "version_of", lambda python, needs="": {"python3.12": (3, 12)}.get(python))
    assert setup.base_python() == "python3.12"
    monkeypatch.setattr(setup, "version_of", lambda python, needs="": (3, 10))
    with pytest.raises(setup.SetupError, match="no working Python 3.11 or 3.12"):
        setup.base_python()


# --- PyTorch -------------------------------------------------------------------------------------------------------


def test_cuda_requirements_are_seen_after_markers():
    assert setup.cuda_requirements(report(CUDA_LINES)) == ["cuda-toolkit", "cuda-bindings", "nvidia-cudnn-cu13"]
    assert setup.cuda_requirements(report([line.replace(HERE, ELSEWHERE) for line in CUDA_LINES])) == []
    assert setup.cuda_requirements(report(CPU_LINES)) == []
    assert setup.cuda_requirements({"install": []}) == []  # torch is there already


@pytest.mark.parametrize(("lines", "tool"), [(CPU_LINES, "pip"), (CUDA_LINES, "uv")])
def test_cpu_build_comes_from_pip_or_else_from_uv(monkeypatch, commands, lines, tool):
    answered = subprocess.CompletedProcess([], 0, stdout="{}")
    monkeypatch.setattr(setup.subprocess, "run", lambda *_, **__: answered)
    monkeypatch.setattr(setup, "ask", lambda python, question, text: setup.cuda_requirements(report(lines)))
    setup.install_cpu_torch(Path("python"))
    assert commands[-1][2] == tool and commands[-1][-1] == setup.CPU_TORCH
    assert ("--torch-backend=cpu" in commands[-1]) == (tool == "uv")


def test_failing_uv_leaves_the_default_build_to_pip(monkeypatch, capsys):
    def fail(what, command):
        raise setup.SetupError(what)

    monkeypatch.setattr(setup.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout="{}"))
    monkeypatch.setattr(setup, "ask", lambda python, question, text: ["nvidia-cudnn-cu13"])
    monkeypatch.setattr(setup, "run", fail)
    setup.install_cpu_torch(Path("python"))
    assert "runs on a CPU too" in capsys.readouterr().err


# --- The stamp -----------------------------------------------------------------------------------------------------


@pytest.fixture
def venv(monkeypatch, tmp_path) -> Path:
    """A .venv with a Python (this one) and without a stamp, beside a pyproject.toml of its own."""
    monkeypatch.setattr(setup, "PYPROJECT", tmp_path / "pyproject.toml")
    setup.PYPROJECT.write_text("[project]\n")
    monkeypatch.setattr(setup, "has_nvidia_gpu", lambda: True)  # no question to pip about the CPU build
    monkeypatch.setattr(setup, "ask", lambda python, question: [])
    monkeypatch.setattr(setup, "version_of", lambda python, needs="": setup.SUPPORTED[0])
    python = setup.python_in(tmp_path / ".venv")
    python.parent.mkdir(parents=True)
    python.touch()
    return tmp_path / ".venv"


def test_second_call_installs_nothing_until_pyproject_changes(venv, commands):
    setup.make(venv)
    assert any("--editable" in command for command in commands)
    commands.clear()
    assert setup.make(venv) == setup.python_in(venv)
    assert commands == []
    setup.PYPROJECT.write_text("[project]\ndependencies = []\n")
    setup.make(venv)
    assert commands != []


def test_venv_whose_python_is_gone_is_not_finished(venv, commands):
    setup.make(venv)
    setup.python_in(venv).unlink()
    assert not setup.is_finished(venv)


def test_half_made_venv_is_not_taken_for_finished(monkeypatch, venv):
    def stop_at_packages(what, command):
        if "--editable" in command:
            raise setup.SetupError("no network")

    monkeypatch.setattr(setup, "run", stop_at_packages)
    (venv / setup.STAMP).write_text("an older pyproject.toml")
    with pytest.raises(setup.SetupError, match="no network"):
        setup.make(venv)
    assert not (venv / setup.STAMP).exists() and not setup.is_finished(venv)


def test_pip_that_installed_too_little_is_not_believed(monkeypatch, venv, commands):
    monkeypatch.setattr(setup, "ask", lambda python, question: ["torch>=2.13 (not installed)"])
    with pytest.raises(setup.SetupError, match="torch>=2.13"):
        setup.make(venv)
    assert not setup.is_finished(venv)


def test_venv_of_another_python_is_not_deleted(monkeypatch, venv, commands):
    monkeypatch.setattr(setup, "version_of", lambda python, needs="": (3, 10))
    with pytest.raises(setup.SetupError, match="Python 3.10"):
        setup.make(venv)
    assert commands == []


def test_failure_is_told_and_returned(monkeypatch, capsys):
    def fail():
        raise setup.SetupError("no working Python")

    monkeypatch.setattr(setup, "find_or_make", fail)
    assert setup.main() == 1
    captured = capsys.readouterr()
    assert "no working Python" in captured.err and captured.out == ""
