"""What several test files share: a results folder of their own, and one small study trained once."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The smoke study with TMT and TMT+AMW trained on planted data, in a results folder of its own."""
    from tmtlib.study import open_study

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMT_RESULTS", str(tmp_path_factory.mktemp("results")))
        patch.delenv("TMT_DATA", raising=False)
        study = open_study("smoke", device="cpu")
        study.ensure("tmt", "tmt_amw")
        yield study


@pytest.fixture
def own_results(tmp_path, monkeypatch):
    """An empty results folder for one test."""
    monkeypatch.setenv("TMT_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("TMT_DATA", raising=False)
    return tmp_path / "results"
