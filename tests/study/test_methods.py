"""A weighting and a model of one's own, as docs/your_own.md shows them: from a file to a row of results."""

import re

import numpy as np
import pandas as pd
import pytest

import tmtlib
from tmtlib import common
from tmtlib.__main__ import main
from tmtlib.data.schema import SyntheticSize
from tmtlib.models import amw
from tmtlib.models.tmt import TMTConfig
from tmtlib.study import runs
from tmtlib.study.methods import METHODS, method_config, methods_from


@pytest.fixture
def registries():
    before = [(registry, dict(registry)) for registry in (amw.WEIGHTINGS, METHODS)]
    yield
    for registry, was in before:
        registry.clear()
        registry.update(was)


def documented_example(mark: str) -> str:
    text = (common.ROOT / "docs" / "your_own.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if mark in block]
    return code


@pytest.mark.parametrize(
    ("name", "meant"),
    [("tmt_awm", "did you mean 'tmt_amw'? "), ("TMT_GATED_FASTER", ""), ("mutl", "did you mean 'mult'? "), ("?", "")],
)
def test_an_unknown_method_is_told_the_nearest_and_where_the_list_is(name, meant, capsys):
    said = f"method is {name!r}, which is none; {meant}`tmt methods` lists all"
    with pytest.raises(ValueError, match=re.escape(said)):
        method_config(name, TMTConfig())
    assert main(["methods"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*METHODS]


@pytest.mark.parametrize(("mark", "lines"), [("@register", 15), ("add_method", 25), ("tmtlib.fit(", 5)])
def test_the_readme_s_examples_are_short(mark, lines):
    assert len([line for line in documented_example(mark).splitlines() if line]) <= lines


def test_the_readme_s_training_runs(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = tmtlib.load_dataset("mosi", normalize=True, synthetic_size=SyntheticSize((64, 24, 24), (4, 4, 4)))
    monkeypatch.setattr("tmtlib.data.loading.load_dataset", lambda name: small)  # published sizes take minutes
    code = documented_example("tmtlib.fit(")
    exec(code.replace("epochs=3", "epochs=2").replace("TMTConfig(", "TMTConfig(width=16, heads=2, head_width=8, "))
    accuracies, weights = capsys.readouterr().out.split("] [")
    assert accuracies.count(",") == 1 and "0.33" in weights


def test_the_readme_s_weighting_is_trained_in_worker_processes(own_results, tmp_path, registries):
    path = tmp_path / "mine.py"
    path.write_text(documented_example("@register"), encoding="utf-8")
    (method,) = methods_from(path)
    assert methods_from(path) == [method], "a second look replaces the first"
    study = tmtlib.open_study("smoke")
    wanted = [run for run in study.runs(method) if run.data.name == "mosi"]
    rows = runs.ensure(wanted, "cpu", jobs=2, progress=False)
    assert len(rows) == 2 and rows["mae"].notna().all() and set(rows["method"]) == {method}
    weights = runs.read_record(wanted[0]).weights
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert np.abs(weights[-1] - weights[0]).max() > 1e-4, "it has learned"


def test_the_readme_s_model_goes_through_the_same_series(own_results, tmp_path, registries, monkeypatch):
    """From the command line, in worker processes, into Table 1 and the comparisons beyond it."""
    path = tmp_path / "mine.py"
    path.write_text(documented_example("add_method"), encoding="utf-8")
    study = tmtlib.open_study("smoke", seeds=2, datasets="mosi", own=path)
    assert study.profile.name == "smoke_2seeds_mosi_loudest" and "loudest" in study.methods
    rows = runs.ensure(study.runs("tmt", "loudest"), "cpu", jobs=2, progress=False)
    assert rows["method"].tolist() == ["tmt", "tmt", "loudest", "loudest"] and rows["mae"].notna().all()
    monkeypatch.setenv("TMT_OWN", "")  # `main` sets it for the kernels
    size = ["--profile", "smoke", "--seeds", "2", "--datasets", "mosi", "--device", "cpu"]
    assert main(["run", *size, "--only", "08,09", "--own", str(path)]) == 0
    beyond = pd.read_csv(study.results / "beyond.csv")
    assert {"tmt_amw", "tmt_uniform"} <= set(beyond.loc[beyond["after"] == "loudest", "before"])
    assert "loudest" in set(pd.read_csv(study.results / "table1.csv")["method"])


def test_files_that_are_not_there_or_register_nothing_are_refused(tmp_path, registries):
    with pytest.raises(FileNotFoundError, match="no file .*mine.py with weightings or methods of your own"):
        methods_from(tmp_path / "mine.py")
    (tmp_path / "empty.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"empty.py brings no method; decorate a weighting with @register"):
        methods_from(tmp_path / "empty.py")
