"""What several test files share: a results folder of their own, and one small study trained once."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONG = (
    "test_notebook_series",
    "test_lab",
    "test_readme_commands",
    "test_numbers",
    "test_results",
)  # files that run notebooks or train for minutes


def pytest_collection_modifyitems(items):
    """Long files first: begun last, they would be waited for by an idle worker."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def committed(tmp_path_factory):
    """README, results and figures as they are committed: a study run here rewrites those in the working folder."""
    command = ["git", "archive", "HEAD", "README.md", "benchmarks/README.md", "results", "figures"]
    try:
        archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ROOT  # no git checkout
    folder = tmp_path_factory.mktemp("committed")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The smoke study with TMT and TMT+AMW trained on synthetic data, in a results folder of its own."""
    from tmtlib.study.study import open_study

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMT_RESULTS", str(tmp_path_factory.mktemp("results")))
        patch.delenv("TMT_DATA", raising=False)
        patch.delenv("TMT_OWN", raising=False)
        patch.delenv("TMT_CLUSTER", raising=False)
        study = open_study("smoke", device="cpu")
        study.ensure("tmt", "tmt_amw")
        yield study


@pytest.fixture(scope="session")
def feature_file(tmp_path_factory):
    """A small file of synthetic data with sentiment and emotions."""
    from tmtlib.data.mmsa import write_mmsa
    from tmtlib.data.schema import SyntheticSize
    from tmtlib.data.synthetic import generate

    path = tmp_path_factory.mktemp("features") / "mine.pkl"
    write_mmsa(generate("mosei", SyntheticSize((96, 100, 100), (6, 6, 6))), path)
    return path


@pytest.fixture
def own_results(tmp_path, monkeypatch):
    """An empty results folder for one test."""
    monkeypatch.setenv("TMT_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("TMT_DATA", raising=False)
    monkeypatch.delenv("TMT_OWN", raising=False)
    monkeypatch.delenv("TMT_CLUSTER", raising=False)
    return tmp_path / "results"
