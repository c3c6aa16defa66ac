"""The yardstick computes what ours computes, and `tmt bench` writes what it says."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from model_helpers import SMALL, synthetic

from benchmarks import cluster, coverage, paper_size, real_files, replicate, scaling
from benchmarks import report as bench
from benchmarks.eager_tmt import EagerTMT, Utterances, copy_parameters, loader, train_epoch
from tmtlib import common
from tmtlib.__main__ import main
from tmtlib.analysis import truth
from tmtlib.data import crema, mmsa
from tmtlib.data.schema import SPLITS
from tmtlib.models import build_model
from tmtlib.study import runs
from tmtlib.study.profiles import PROFILES
from tmtlib.training.batches import OnDevice
from tmtlib.training.fit import Training, loss_on

CPU = torch.device("cpu")
STEADY = replace(SMALL, dropout=0.0, embedding_dropout=0.0, orthogonality=1.0, similarity=1.0)


def test_the_yardstick_is_the_same_model():
    """Same predictions, loss and gradients, whether computed by it or by us with all our savings."""
    data = synthetic("mosi", (40, 8, 8), (30, 30, 30))
    torch.manual_seed(0)
    ours = build_model(STEADY, data)
    eager = EagerTMT(STEADY, data.shape)
    copy_parameters(eager, ours)
    on_device = OnDevice(data.train, CPU, STEADY, "mosi")
    order = on_device.by_length(torch.arange(40))
    batch = on_device.batch(order)
    assert len(batch.groups) > 1
    collated = torch.utils.data.default_collate([Utterances(data.train)[i] for i in order])
    torch.testing.assert_close(eager(collated)[0], ours(batch)[0], rtol=1e-4, atol=1e-5)
    training = Training(precision="float32")
    losses = eager.loss(collated), loss_on(ours, batch, on_device.target(order), training=training)
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    for loss in losses:
        loss.backward()
    theirs = dict(eager.named_parameters())
    for name in (
        "project.text.weight",
        "tokens",
        "positions.audio",
        "head.0.weight",
        "encoder.0.feed_forward.1.weight",
    ):
        torch.testing.assert_close(theirs[name].grad, ours.get_parameter(name).grad, rtol=1e-3, atol=1e-6)
    query = ours.encoder[0].attention.query.weight.grad
    torch.testing.assert_close(
        theirs["encoder.0.attention.in_proj_weight"].grad[: len(query)], query, rtol=1e-3, atol=1e-6
    )


def test_the_yardstick_learns():
    data = synthetic("mosi", (200, 8, 8), (8, 8, 8))
    torch.manual_seed(0)
    eager = EagerTMT(SMALL, data.shape)
    optimiser, batches = torch.optim.Adam(eager.parameters(), 3e-3), loader(data.train, 50)
    losses = [train_epoch(eager, batches, optimiser, CPU) for _ in range(12)]
    assert np.mean(losses[-3:]) < 0.9 * losses[0]


def test_heads_that_do_not_fill_the_width_are_refused():
    with pytest.raises(ValueError, match="2 heads of 4 in a width of 16; wanted them to fill it"):
        EagerTMT(replace(SMALL, head_width=4), synthetic().shape)


def test_exponents_are_those_of_power_laws():
    frame = scaling.over_frames((8, 16, 32), "cpu", batch_size=2, rounds=1)
    assert list(frame["T"]) == [8, 16, 32] and (frame[["seconds", "mb"]] > 0).all().all()
    assert scaling.exponent(frame["T"], 3.0 * frame["T"] ** 1.5) == pytest.approx(1.5)
    assert frame["mb"].is_monotonic_increasing


def test_memory_kept_for_the_backward_pass_is_linear_in_frames():
    """No T x T tensor is kept: twice the frames, at most twice the memory."""
    frame = scaling.over_frames((100, 200, 400), "cpu", batch_size=2, rounds=1)
    growth = frame["mb"].diff().dropna()
    assert growth.iloc[1] == pytest.approx(2 * growth.iloc[0], rel=0.02), "100 more frames, then 200 more"


def test_bench_writes_what_outside_checks_rely_on(tmp_path, monkeypatch, capsys):
    tiny = {"rounds": 1, "utterances": 32, "frames": (4, 8), "throughput": (4,), "n": (64, 128)}
    monkeypatch.setattr(bench, "QUICK", bench.QUICK | tiny)
    path = tmp_path / "bench.json"
    assert main(["bench", "--quick", "--json", str(path), "--device", "cpu"]) == 0
    found = json.loads(path.read_text())
    assert found == json.loads(capsys.readouterr().out)
    assert found["train_speedup_vs_eager"] == found["training"][0]["speedup"] > 0
    assert found["training"][0]["case"] == "MOSI 3x50" and 0 < found["share_of_peak"] < 1
    assert set(found["scaling_exponents"]) == {f"{what}_{axis}" for what in ("seconds", "mb") for axis in "TN"}
    assert found["machine"]["device"] == "cpu" and found["machine"]["cores"] >= 1 and found["machine"]["name"]
    assert found["startup"]["tmt --help"] < found["startup"]["import torch"], "the command line imports nothing heavy"


def test_a_replication_has_fresh_seeds_and_worlds_and_stands_beside_what_is_reported(own_results, monkeypatch):
    monkeypatch.setattr(replicate, "REPORTED", "smoke")
    study = replicate.fresh_study(2, "cpu")
    assert study.profile.seeds == (1000, 1001) and not set(study.profile.seeds) & set(PROFILES["full"].seeds)
    study = replace(study, refs=study.refs[:1])
    fresh = replicate.measured(study, worlds=2)
    trained = [runs.read_record(run).meta["run"] for run in truth.runs_in_worlds(study, "tmt_amw_fast", worlds=(1000,))]
    assert trained[0]["data"]["synthetic"]["world"] == 1000
    wanted = {"TMT+AMW minus another": 9, "learned minus equal weights": 3, "weights reach": 2}
    wanted |= {"picking epochs on test": 3}
    assert "gain_mosi" in set(fresh["cell"])
    assert fresh["headline"].value_counts()[list(wanted)].to_dict() == wanted
    assert not fresh.duplicated(["headline", "cell"]).any() and fresh["value"].notna().any()
    other = fresh.assign(reading="supported", value=9.0)
    both = replicate.beside(other, fresh)
    assert len(both) == len(fresh) and (both["value"] == 9).all() and both["value_fresh"].equals(fresh["value"])
    assert set(both["same"]) == {"no"} and set(replicate.beside(fresh, fresh)["same"]) == {"yes"}
    assert set(replicate.beside(other, fresh.iloc[1:])["same"]) == {"no", "not drawn again"}


def test_a_replication_wants_an_interval():
    with pytest.raises(ValueError, match="1 seeds; wanted at least 2"):
        replicate.fresh_study(1)


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--seeds", "1"], "at least 2"), (["--worlds", "0"], "at least 2")]
)
def test_a_replication_of_too_few_is_refused_in_a_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        replicate.main(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_the_papers_size_keeps_what_is_finished_and_says_what_was_not_run(own_results, capsys):
    wrong = {"no run of TMT of profile smoke is finished; give --seeds 1": ["--seeds", "0"]}
    wrong |= {"data set is 'mozi'; wanted one of 'mosi'": ["--datasets", "mozi"]}
    for message, arguments in wrong.items():
        with pytest.raises(SystemExit):
            paper_size.main(["--profile", "smoke", *arguments])
        assert message in capsys.readouterr().err
    paper_size.main(["--profile", "smoke", "--seeds", "2", "--datasets", "mosi", "--device", "cpu"])
    folder = own_results / "smoke"
    rows = pd.read_csv(folder / "runs.csv")
    methods = set(PROFILES["smoke"].methods)
    assert set(rows["method"]) == methods and set(rows["dataset"]) == {"mosi"} and set(rows["seed"]) == {0, 1}
    found = json.loads((folder / "provenance.json").read_text())
    assert {(row["dataset"], row["method"]) for row in found["not_run"]} >= {("mosei", "tmt"), ("sims", "tmt_amw")}
    assert [card["name"] for card in found["data"]] == ["mosi"]
    paper_size.main(["--profile", "smoke", "--seeds", "0"])
    assert pd.read_csv(folder / "runs.csv")["time"].equals(rows["time"]), "nothing was trained again"
    table = pd.read_csv(folder / "amw_differences.csv")
    assert set(table["before"]) == {"tmt", "tmt_uniform", "tmt_random"} and (table["n"] == 2).all()


def test_real_files_have_tables_of_what_is_finished(own_results, tmp_path, monkeypatch, capsys):
    """On a small file whose utterances are named one of three emotions, beside a few of CREMA-D's votes."""
    data = synthetic("mosi", (48, 24, 24), (6, 6, 6))
    felt = {
        s: replace(data[s], emotion_labels=np.eye(3, dtype=np.float32)[[0, 1, 2] * 8 * (2 if s == "train" else 1)])
        for s in SPLITS
    }
    card = replace(data.card, emotions=("anger", "joy", "neutral"), source="real")
    mmsa.write_mmsa(replace(data, card=card, **felt), tmp_path / "small.pkl")
    votes = crema.read()
    few = replace(votes, **{s: votes[s].take(range(24)) for s in SPLITS})
    monkeypatch.setattr(crema, "read", lambda: few)
    monkeypatch.setattr(real_files, "METHODS", ("tmt", "tmt_amw", "tmt_uniform", "tmt_reliability"))
    start = [str(tmp_path / "small.pkl"), "--profile", "smoke", "--device", "cpu", "--jobs", "1"]
    with pytest.raises(SystemExit):
        real_files.main([*start, "--seeds", "0"])
    assert "no run of TMT of profile real is finished" in capsys.readouterr().err
    real_files.main([*start, "--seeds", "2"])
    assert not common.figures_folder("real").exists(), "nothing was learned, so there is nothing to show"
    monkeypatch.setattr(paper_size.verdicts, "unlearned", lambda against: frozenset())
    real_files.main([*start, "--seeds", "0"])
    tables = {path.stem: pd.read_csv(path) for path in (own_results / "real").glob("*.csv")}
    assert (tables["runs"].groupby(["dataset", "method"])["seed"].nunique() == 2).all()
    assert set(tables["importance"]["dataset"]) == {"crema", "small"} == set(tables["against_linear"]["dataset"])
    held = tables["coverage"].groupby(["dataset", "level"])["mean"].mean().unstack("level")
    assert (
        held.index.tolist() == ["crema", "small"]
        and held.notna().all(None)
        and (held.diff(axis=1).iloc[:, 1:] >= 0).all(None)
    )
    assert set(tables["importance"]["measure"]) == {"weight", "shapley_absent"}
    shares = tables["importance"].groupby(["dataset", "method", "measure"])["mean"].sum()
    np.testing.assert_allclose(shares, 1, atol=1e-4)
    by_data = tables["emotions"].groupby("dataset")["emotion"].unique().map(set)
    assert by_data["small"] == {"mean", "anger", "joy", "neutral"} and "happiness" in by_data["crema"]
    assert {"always", "tmt_reliability_emotions"} <= set(tables["emotions"]["method"])
    assert {"tmt_reliability_emotions", "tmt_amw_emotions"} <= set(tables["emotions_differences"]["after"])
    assert {"noise", "swapped"} <= set(tables["crema_corrupted"]["kind"])
    assert set(tables["crema_corrupted"]["method"]) == set(real_files.GATES)
    provenance = json.loads((own_results / "real" / "provenance.json").read_text())
    assert [card["name"] for card in provenance["data"]] == ["crema", "small"]
    assert (common.figures_folder("real") / "importance.png").is_file()
    assert {"constant", "linear_text"} <= set(tables["table1"]["method"]) and "learned" in tables["importance"]
    mmsa.write_mmsa(replace(data, card=replace(card, source="synthetic"), **felt), tmp_path / "other.pkl")
    for arguments, message in (
        ([str(tmp_path / "other.pkl"), *start[1:]], "holds tables of 1 other files; name another folder: --results"),
        ([*start, "--encoder", str(tmp_path / "none")], "none; wanted an .npz"),
        ([*start, "--seeds", "-1"], "invalid choice"),
    ):
        with pytest.raises(SystemExit):
            real_files.main(["--seeds", "0", *arguments])
        assert message in capsys.readouterr().err
    study = real_files.real_study(start[:1], 10, "smoke", "cpu")
    cut = next(r for r in study.runs("tmt_amw_emotions") if r.seed == 1)
    runs.record_path(cut).unlink()
    real_files.main([*start, "--seeds", "0"])
    left = pd.read_csv(own_results / "real" / "emotions_runs.csv")
    assert len(left) == len(tables["emotions_runs"]) - 4, "a seed that not every method has is left out"
    with pytest.raises(SystemExit):
        real_files.main([start[0], *start, "--seeds", "0"])
    assert "small: more than one file of this name" in capsys.readouterr().err


def test_coverage_of_synthetic_data_is_a_table(own_results, tmp_path):
    coverage.main(["--profile", "smoke", "--worlds", "2", "--csv", str(tmp_path / "table.csv")])
    table = pd.read_csv(tmp_path / "table.csv")
    assert set(table["source"]) == {"synthetic"} and set(table["level"]) == {0.8, 0.9, 0.95} and len(table) == 24
    assert table.groupby("dataset")["n"].first().to_dict() == {"mosi": 2, "mosei": 2, "sims": 2, "mosi-worlds": 2}
    assert table["mean"].between(0.5, 1).all()


def test_clips_are_timed_by_modality_and_processes(tmp_path):
    pytest.importorskip("av", reason="needs the packages of [features]")
    from benchmarks import clips

    clips.main(["--clips", "8", "--json", str(tmp_path / "clips.json")])
    made = json.loads((tmp_path / "clips.json").read_text())
    assert set(made["by_modality"]) == {"text", "audio", "vision"} and set(made["by_jobs"]) == {"1", "2"}
    assert min([*made["by_modality"].values(), *made["by_jobs"].values(), *made["peak_mb"].values()]) > 0


@pytest.mark.parametrize(
    ("runs", "workers", "wall"), [(10, 1, 10 + 1 + 50), (10, 4, 10 + 4 + 15), (10, 99, 10 + 99 + 10)]
)
def test_wall_time_is_start_data_and_rounds_or_handling(runs, workers, wall):
    assert cluster.Costs(start=10, run=5, handling=1, bandwidth=2, data=2).wall(runs, workers) == wall


def test_runs_on_a_cluster_are_timed_and_planned():
    pytest.importorskip("distributed", reason="needs the packages of [cluster]")
    (row,) = cluster.compared(2, (1,))
    assert row["measured"] > 0 and min(row["costs"].values()) > 0
    assert (cluster.plan(cluster.Costs(**row["costs"]))["hours"] > 0).all()
