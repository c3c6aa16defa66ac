"""What a study runs, and where it writes."""

import json
import subprocess
from dataclasses import asdict, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tmtlib import common
from tmtlib.data.loading import load, synthetic_ref
from tmtlib.data.mmsa import write_mmsa
from tmtlib.data.schema import SyntheticSize
from tmtlib.data.synthetic import generate
from tmtlib.models.tmt import TMTConfig
from tmtlib.study import cache, report
from tmtlib.study.methods import METHODS, family, method_config, method_titles
from tmtlib.study.profiles import PROFILES
from tmtlib.study.study import open_study


def test_profile_paper_is_the_paper_s_protocol():
    profile = PROFILES["paper"]
    model, training = profile.model, profile.training
    assert (model.width, model.encoder_layers, model.cross_layers, model.heads, model.head_width) == (128, 4, 4, 8, 16)
    assert (training.learning_rate, training.batch_size, training.epochs) == (1e-4, 64, 30)
    assert training.select_by == "accuracy" and len(profile.seeds) == 10 and not profile.synthetic


def test_runs_are_every_seed_of_every_method_on_every_data_set(smoke):
    runs = smoke.runs("tmt", "tmt_amw", "tmt_5class")
    assert len(runs) == len(set(runs)) == 3 * 2 * 2 + 2
    assert {r.data.name for r in runs if r.method == "tmt_5class"} == {"sims"}
    assert {r.seed for r in runs} == set(smoke.profile.seeds)
    assert all(r.model == method_config(r.method, smoke.profile.model) for r in runs)


def test_few_runs_are_those_of_the_first_seeds(own_results):
    study = open_study("full")
    runs = study.runs("tmt", few=True)
    assert {r.seed for r in runs} == set(range(3)) and 3 * len(study.runs("tmt")) == 20 * len(runs)
    assert {r.seed for r in study.runs("tmt_gated")} == set(range(5))


def test_of_large_synthetic_test_data_the_first_utterances_are_looked_at(monkeypatch):
    ref = synthetic_ref("mosi", SyntheticSize((16, 8, 30), (4, 4, 4)))
    monkeypatch.setattr(cache, "LOOKED_AT", 12)
    whole, some = load(ref), cache.looked_at(ref)
    assert len(some.test) == 12 and some.test.ids == whole.test.ids[:12] and len(some.train) == 16
    truth, first = (data.truth.splits["test"] for data in (whole, some))
    assert (
        np.array_equal(first.importance, truth.importance[:12]) and len(first.best_value) == len(first.reliable) == 12
    )
    monkeypatch.setattr(cache, "LOOKED_AT", 30)
    cache.looked_at.cache_clear()
    assert cache.looked_at(ref) is load(ref)


def test_methods_of_tmt_differ_in_what_they_name_alone():
    base = TMTConfig()
    own = ("weighting", "weighting_lr", "weighting_init_std", "temperature", "placement", "task", "modalities")
    for name, method in METHODS.items():
        changed = method_config(name, base)
        if isinstance(changed, TMTConfig):
            assert set(method.change) <= set(own)
            assert replace(changed, **{field: getattr(base, field) for field in own}) == base
        else:
            assert type(changed) is method.model and changed.schedule == base.schedule
    assert set(METHODS) <= set(method_titles())


def test_mmsas_models_have_the_sizes_that_mmsa_lists():
    small = TMTConfig(encoder_layers=1, schedule="cosine")  # a baseline has as many layers as TMT, these have their own
    mult, misa = (method_config(f"{name}_mmsa", small) for name in ("mult", "misa"))
    assert (mult.width, mult.layers, mult.memory_layers, mult.kernels) == (50, 4, 4, (5, 5, 5))
    assert (misa.width, misa.dropout, misa.difference, misa.similarity) == (128, 0.2, 0.1, 0.3)
    assert {c.compat for c in (mult, misa)} == {"mmsa"} and {c.schedule for c in (mult, misa)} == {"cosine"}


def test_unknown_names_are_refused(own_results):
    with pytest.raises(ValueError, match="profile is 'fast'; wanted one of 'smoke', 'quick', 'paper', 'full'"):
        open_study("fast")
    with pytest.raises(ValueError, match="method is 'tmt_awm', which is none; did you mean 'tmt_amw'"):
        open_study("smoke").runs("tmt_awm")
    with pytest.raises(ValueError, match="wanted auto, cpu or cuda"):
        open_study("smoke", device="tpu")


def test_seeds_data_sets_and_methods_of_a_profile_can_be_others(own_results):
    study = open_study("quick", seeds=5, datasets="sims, mosi")
    assert study.profile.seeds == (0, 1, 2, 3, 4) and [ref.name for ref in study.refs] == ["sims", "mosi"]
    assert study.results == own_results / "quick_5seeds_sims+mosi"
    some = open_study("quick", methods="misa,tmt_gated")
    assert some.profile.methods == (*family("main"), "misa", "tmt_gated") and not some.profile.ablations
    assert len(some.runs("misa")) == 9, "on every data set"
    every = open_study("quick", methods=("all",)).profile
    assert set(PROFILES["full"].methods) | set(PROFILES["full"].ablations) == set(every.methods)
    assert open_study("quick", seeds=0).profile == PROFILES["quick"]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"seeds": -1}, "seeds is -1; wanted at least 1"),
        ({"datasets": "mosi,simsv2"}, "data set is 'simsv2'; wanted one of 'mosi', 'mosei', 'sims'"),
        ({"methods": "tmt_awm"}, "method is 'tmt_awm', which is none; did you mean 'tmt_amw'"),
    ],
)
def test_other_sizes_that_cannot_be_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        open_study("quick", **size)


def test_results_go_where_they_are_asked_to(smoke, own_results):
    study = open_study("smoke")
    assert study.results == own_results / "smoke" and study.figures == own_results / "figures" / "smoke"
    path = study.save_text("text\n", "a.txt")
    assert path.read_bytes() == b"text\n" and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_file_changed_by_hand_is_kept_and_named(smoke, own_results, capsys):
    frame = pd.DataFrame({"mae": [0.5]})
    path = smoke.save_table(frame, "mine")
    smoke.save_table(frame * 2, "mine")
    assert capsys.readouterr().out == "", "what the study wrote itself is written over"
    for n, text in ((1, "changed by hand"), (2, "and again")):
        path.write_text(text)
        smoke.save_table(frame, "mine")
        assert f"{path} was changed" in (said := capsys.readouterr().out) and f"mine.csv.kept{n}" in said
        assert path.with_name(f"mine.csv.kept{n}").read_text() == text and path.read_text() == "mae\n0.5\n"
    smoke.figures.mkdir(parents=True, exist_ok=True)
    (smoke.figures / "mine.pdf").write_text("drawn by hand")
    smoke.show(plt.figure(), "mine")
    plt.close("all")
    assert (smoke.figures / "mine.pdf.kept1").read_text() == "drawn by hand"
    assert not (smoke.figures / "mine.png.kept1").exists()


def test_a_committed_file_is_written_over(own_results, tmp_path, monkeypatch, capsys):
    """As in a checkout, where git has what is replaced; a change of it that git has not is kept."""
    study = open_study("smoke")
    (path := study.results / "a.csv").parent.mkdir(parents=True)
    path.write_text("committed")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    study.save_text("new", "a.csv")
    assert [p.name for p in study.results.iterdir()] == ["a.csv"] and "kept" not in capsys.readouterr().out


def test_results_are_beside_the_library_by_default(monkeypatch):
    monkeypatch.delenv("TMT_RESULTS", raising=False)
    assert common.results_folder("quick") == common.ROOT / "results" / "quick"
    assert common.figures_folder("quick") == common.ROOT / "figures" / "quick"


def test_provenance_names_data_by_hash_and_no_place(smoke):
    rows = smoke.ensure("tmt")
    found = json.loads(smoke.provenance(rows))
    assert [d["sha256"] for d in found["data"]] == [ref.sha256 for ref in smoke.refs]
    assert "path" not in found["data"][0] and found["profile"]["seeds"] == [0, 1]
    assert found["profile"]["synthetic"]["sims"]["frames"] == [8, 12, 10]
    assert found["trained_device"] == ["cpu"] and found["trained_commit"] == sorted(rows["commit"].unique())


def test_synthetic_data_in_a_file_stay_synthetic(own_results, tmp_path):
    write_mmsa(generate("sims", SyntheticSize((20, 10, 10), (4, 4, 4))), tmp_path / "mine.pkl")
    study = open_study("smoke", tmp_path / "mine.pkl")
    assert study.source == "synthetic"
    rows = study.ensure("tmt")
    assert set(rows["source"]) == {"synthetic"}
    assert json.loads(study.provenance(rows))["data"][0]["source"] == "synthetic"


def test_reported_tables_are_those_of_the_same_data(own_results, monkeypatch, capsys):
    """What was run here comes before what is committed; a study of one of the data sets sees the table too."""
    monkeypatch.setattr(common, "ROOT", own_results / "root")
    study = open_study("smoke", datasets="sims")
    assert study.reported("claims").empty and "no table 'claims' of these data" in capsys.readouterr().out
    for folder, value in ((own_results / "root" / "results" / "full", 1), (own_results / "full", 2)):
        folder.mkdir(parents=True)
        (folder / "claims.csv").write_text(f"claim,n\na,{value}\n")
        assert study.reported("claims").empty or value == 2, "without provenance the data are unknown"
        cards = [asdict(data.card) for data in open_study("quick", datasets="mosi,sims").datasets()]
        (folder / "provenance.json").write_text(json.dumps({"data": cards}))
        assert study.reported("claims").to_dict("records") == [{"claim": "a", "n": value, "profile": "full"}]
        assert study.reported("other").empty and open_study("smoke").reported("claims").empty, "no mosei"
        assert len(open_study("smoke").reported("claims", of_its_data=False)) == 1


def test_a_table_of_another_notebook_is_read_only_where_this_study_saved_it(smoke, own_results, capsys):
    frame = pd.DataFrame({"dataset": ["mosi"], "source": "synthetic", "method": "tmt_amw", "n": 2})
    path = smoke.save_table(frame, "scenes")
    pd.testing.assert_frame_equal(smoke.table("scenes"), frame)
    assert capsys.readouterr().out == ""
    other = replace(smoke, profile=replace(smoke.profile, seeds=(0,)))
    assert other.table("scenes").empty and "scenes.csv was not saved by this study" in capsys.readouterr().out
    path.write_text("dataset,n\nmine,1\n")  # as a checkout may bring it
    assert smoke.table("scenes").empty
    path.unlink()
    assert smoke.table("scenes").empty


def test_the_reported_study_is_shown_as_committed(monkeypatch):
    monkeypatch.delenv("TMT_RESULTS", raising=False)
    monkeypatch.delenv("TMT_REMAKE", raising=False)
    study, before = open_study("full", device="cpu"), sorted(common.results_folder().rglob("*"))
    rows = study.ensure()
    assert len(rows) == len(study.runs(*study.methods)) and set(rows["method"]) == {*study.methods}
    table = study.kept("table1", lambda rows: pytest.fail("made anew"), rows)
    assert set(table["dataset"]) == {"mosi", "mosei", "sims"} and not study.table("claims").empty
    assert study.show(Figure(), "forest") and sorted(common.results_folder().rglob("*")) == before
    written = {path: path.stat().st_mtime_ns for path in study.results.iterdir()}
    report.conclude(study, rows)
    assert written == {path: path.stat().st_mtime_ns for path in study.results.iterdir()}
    monkeypatch.setenv("TMT_REMAKE", "figures")
    assert study.shows_reported, "tables are shown, figures drawn anew"
    monkeypatch.delenv("TMT_REMAKE")
    assert not open_study("quick", device="cpu").shows_reported and not open_study("full", seeds=2).shows_reported
    monkeypatch.setenv("TMT_REMAKE", "all")
    assert not study.shows_reported


def test_kept_tables_are_read_back_as_they_are_shown_later(smoke):
    table = pd.DataFrame({"a": [1 / 3], "run_id": ["123456789012"]})
    kept = smoke.kept("thirds", lambda n: table * n if n > 1 else table, 1)
    assert kept["a"].item() == 0.333333 and kept["run_id"].item() == "123456789012"
    assert smoke.kept("none", lambda: pd.DataFrame()).empty
    with pytest.raises(ZeroDivisionError):
        smoke.kept("wrong", lambda: 1 / 0)
    assert set(smoke.kept("claims", pytest.fail, when=False)["profile"]) == {"full"}
