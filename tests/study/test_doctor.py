"""`tmt doctor`: what it finds, what it says is missing, and its exit code."""

import pytest

from tmtlib.__main__ import main
from tmtlib.study import doctor, estimate
from tmtlib.study.runs import record_path
from tmtlib.study.study import open_study


@pytest.fixture(autouse=True)
def fast(own_results, monkeypatch):
    monkeypatch.setattr(estimate, "pace", lambda *_: 1e-3)
    monkeypatch.setattr(doctor, "unmet", lambda extra="": [f"{extra} (not installed)"] if extra == "cluster" else [])


def lines(text: str) -> dict[str, str]:
    return {line[:12].strip(): line[12:] for line in text.splitlines() if line}


def test_all_is_there(own_results, capsys):
    run = open_study("quick", device="cpu").runs("tmt")[0]
    record_path(run).parent.mkdir(parents=True)
    record_path(run).touch()
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    found = lines(text)
    assert text.endswith("tmt run can work here.\n") and "GB of memory" in found["processor"]
    assert "torch" in found["packages"] and "python3" in found["JupyterLab"] and found["GPU"]
    assert found["[features]"] == "installed" and found["[cluster]"].endswith("make setup EXTRAS=cluster")
    assert found["results"].startswith(f"{own_results}, writable") and found["data"].startswith("synthetic")
    assert found["quick"].startswith("1 of 36 main runs are finished; training takes ")


def test_a_file_is_named_with_its_size(feature_file, capsys):
    assert main(["doctor", "--data", str(feature_file)]) == 0
    assert lines(capsys.readouterr().out)["data"] == "mine (96, 100, 100) utterances"


def test_what_is_missing_is_said_with_what_to_do(feature_file, tmp_path, monkeypatch, capsys):
    assert main(["doctor", "--data", str(tmp_path / "none.pkl"), "--results", str(feature_file)]) == 1
    text = capsys.readouterr().out
    assert "First: give --results a folder" in text and f"First: {tmp_path / 'none.pkl'} is not there" in text
    monkeypatch.setattr(doctor, "unmet", lambda extra="": ["torch>=99 (found 2)"])
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "wanted: torch>=99 (found 2)" in text and "First: make setup" in text and "quick" not in text


def test_requirements_are_those_of_pyproject(monkeypatch):
    monkeypatch.undo()
    assert doctor.unmet() == []
    assert doctor.unmet("nothing")[0].startswith("an extra 'nothing'")
    monkeypatch.setattr(doctor.common, "ROOT", doctor.common.ROOT / "tmtlib")
    assert doctor.unmet() == ["a checkout of the study"]
