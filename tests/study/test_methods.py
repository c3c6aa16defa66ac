"""A weighting of one's own, as the README shows it: from a file to a row of results."""

import re

import numpy as np
import pytest

import tmtlib
from tmtlib import common
from tmtlib.models import amw
from tmtlib.study import runs
from tmtlib.study.methods import METHODS, method_titles, methods_from


@pytest.fixture
def registries(monkeypatch):
    monkeypatch.setattr(amw, "WEIGHTINGS", amw.WEIGHTINGS)
    before = [dict(d) for d in (amw.WEIGHTINGS, METHODS, method_titles())]
    yield
    for registry, was in zip((amw.WEIGHTINGS, METHODS, method_titles()), before, strict=True):
        registry.clear()
        registry.update(was)


def readme_example() -> str:
    text = (common.ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "@register" in block]
    return code


def test_the_readme_shows_it_in_at_most_fifteen_lines():
    assert len(readme_example().splitlines()) <= 15


def test_the_readme_s_weighting_is_trained_in_worker_processes(own_results, tmp_path, registries):
    path = tmp_path / "mine.py"
    path.write_text(readme_example(), encoding="utf-8")
    (method,) = methods_from(path)
    assert methods_from(path) == [method], "a second look replaces the first"
    study = tmtlib.open_study("smoke")
    wanted = [run for run in study.runs(method) if run.data.name == "mosi"]
    rows = runs.ensure(wanted, "cpu", jobs=2, progress=False)
    assert len(rows) == 2 and rows["mae"].notna().all() and set(rows["method"]) == {method}
    weights = runs.read_record(wanted[0]).weights
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert np.abs(weights[-1] - weights[0]).max() > 1e-4, "it has learned"


def test_files_that_are_not_there_or_register_nothing_are_refused(tmp_path, registries):
    with pytest.raises(FileNotFoundError, match="no file .*mine.py with weightings of your own"):
        methods_from(tmp_path / "mine.py")
    (tmp_path / "empty.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"empty.py registers no weighting; decorate a module in it with @register"):
        methods_from(tmp_path / "empty.py")
