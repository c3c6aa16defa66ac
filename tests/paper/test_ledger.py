"""The ledger: what reading settles and what was measured, by rules that tables with a known answer follow."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from tmtlib.paper import audit, facts, ledger
from tmtlib.stats.statistics import Interval

READING = audit.arithmetic_verdicts()
TIME = Interval(0.02, 0.01, 0.03, 15)
COST = ledger.Cost(384, 768, 1e-4, TIME)


@pytest.fixture(autouse=True)
def read_once(monkeypatch):
    monkeypatch.setattr(audit, "arithmetic_verdicts", lambda: READING)


def runs(gain: float = 0.03, datasets=facts.DATASETS, source: str = "synthetic") -> pd.DataFrame:
    """Ten runs of TMT, TMT+AMW and the controls a data set, in which TMT+AMW is better by about `gain`."""
    rng, rows = np.random.default_rng(0), []
    for dataset in datasets:
        for method in ("tmt", "tmt_amw", "tmt_uniform", "tmt_random"):
            value = 0.5 + (gain if method == "tmt_amw" else 0) + rng.normal(0, 1e-4, 10)
            frame = pd.DataFrame({"acc5": value, "f1_5class": value, "mae": 1 - value, "seed": range(10)})
            rows.append(frame.assign(dataset=dataset, method=method))
    return pd.concat(rows, ignore_index=True).assign(source=source, time="2026-11-30T10:00:00+00:00")


def worlds(slope, rank, n=30, method="tmt_amw_fast", others=0.8) -> pd.DataFrame:
    """As `worlds_agreement`: intervals of the weights' slope and rank correlation, and of another measure's."""
    cells = [(method, "weight", "slope", *slope), (method, "weight", "spearman", *rank)]
    cells += [(method, "occlusion", "spearman", others - 0.1, others + 0.1)]
    frame = pd.DataFrame(cells, columns=["method", "measure", "statistic", "low", "high"])
    return frame.assign(value=(frame["low"] + frame["high"]) / 2, source="synthetic", n=n)


def held(low: float, high: float, dataset="mosi") -> pd.DataFrame:
    """As `frozen_weights`: vision has the least Shapley share of the learned model."""
    rows = []
    for method in ("tmt_amw", "tmt_mostly_text", "tmt_mostly_audio", "tmt_mostly_vision"):
        for modality, shapley in {"text": 0.6, "audio": 0.3, "vision": 0.1}.items():
            other = -9.0 if method != "tmt_mostly_vision" else 0.0
            rows.append((method, modality, shapley, (low + high) / 2 + other, low + other, high + other))
    names = ["method", "modality", "shapley", "mae_difference", "difference_low", "difference_high"]
    return pd.DataFrame(rows, columns=names).assign(dataset=dataset, source="synthetic", n=20)


def people(low: float, high: float, dataset="sims", source="synthetic") -> pd.DataFrame:
    row = {"above": (low + high) / 2, "above_low": low, "above_high": high, "agreement": 0.4, "chance": 0.5}
    frame = pd.DataFrame([row | {"method": m} for m in ("tmt_amw", "tmt_gated")])
    frame.loc[1, ["above_low", "above_high"]] = -0.9, -0.8  # of weights by utterance: not judged
    return frame.assign(dataset=dataset, source=source, measure="weight", n=200, seeds=20)


FOLLOWS = {
    "worlds_agreement": worlds((0.3, 0.5), (0.2, 0.9)),
    "frozen_weights": held(0.03, 0.05),
    "unimodal_agreement": people(0.1, 0.2),
}


def claims(measured, rows=None, cost=COST) -> pd.DataFrame:
    rows = runs() if rows is None else rows
    areas = rows.rename(columns={"mae": "area"}).assign(modality="all")
    return ledger.claims(rows, areas, cost, measured).set_index("claim")


@pytest.mark.parametrize(
    ("table", "verdict"),
    [
        (worlds((0.3, 0.5), (0.2, 0.9)), "supported"),
        (worlds((0.001, 0.006), (0.2, 0.9)), "not supported"),  # in the right order, but hardly moved
        (worlds((0.0, 0.0), (np.nan, np.nan)), "not supported"),  # never moved
        (worlds((0.3, 0.5), (-0.1, 0.9)), "cannot tell"),
        (worlds((0.1, 0.3), (0.2, 0.9)), "cannot tell"),
        (worlds((0.001, 0.006), (0.2, 0.9), n=9), "cannot tell"),
        (worlds((0.3, 0.5), (0.2, 0.9), n=2), "cannot tell"),
        (worlds((0.001, 0.006), (0.2, 0.9), others=0.0), "cannot tell"),  # nothing follows the truth
        (worlds((0.3, 0.5), (0.2, 0.9), method="oracle"), "cannot tell"),
    ],
)
def test_weights_follow_the_truth(table, verdict):
    found, words = ledger.follows_truth(table)
    assert found == verdict and "nan" not in words


def test_one_weighting_that_does_not_follow_the_truth_refutes():
    both = pd.concat([worlds((0.3, 0.5), (0.2, 0.9)), worlds((0.0, 0.01), (-0.2, 0.2), method="tmt_amw")])
    assert ledger.follows_truth(both)[0] == "not supported"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.021, 0.03, "supported"), (-0.05, 0.019, "not supported"), (0.01, 0.03, "cannot tell")]
    + [(np.nan, np.nan, "cannot tell")],
)
def test_a_weight_held_on_the_least_important_modality(low, high, verdict):
    found, words = ledger.held_weight_costs(held(low, high))
    assert found == verdict and ".8 held on vision, the least important" in words
    assert ledger.held_weight_costs(held(0.012, 0.015, "sims"))[0] == "supported", "CH-SIMS has a shorter scale"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.001, 0.1, "supported"), (-0.2, 0.009, "not supported"), (-0.01, 0.05, "cannot tell")],
)
def test_weights_name_the_carrier(low, high, verdict):
    assert ledger.names_carrier(people(low, high))[0] == verdict


def test_claims_that_no_printed_weight_decides_are_decided_by_measuring():
    found = claims(FOLLOWS)
    assert found.loc[["emphasis", "interpretable"], "verdict"].tolist() == ["supported"] * 2
    assert found.loc["interpretable", "judged_from"] == "synthetic"
    assert "No learned weight is printed" in found.loc["emphasis", "evidence"], "what reading settles stays"
    no_people = claims({name: frame for name, frame in FOLLOWS.items() if name != "unimodal_agreement"})
    assert no_people.loc[["emphasis", "interpretable"], "verdict"].tolist() == ["supported", "cannot tell"]
    still = claims(FOLLOWS | {"worlds_agreement": worlds((0.0, 0.01), (-0.2, 0.2))})
    assert still.loc[["emphasis", "interpretable"], "verdict"].tolist() == ["not supported"] * 2
    assert (
        "2 worlds" not in still.loc["emphasis", "runs"] and "tmt_amw_fast, 30 worlds" in still.loc["emphasis", "runs"]
    )
    nothing = claims({})
    keys = ["emphasis", "interpretable", "salient_regions"]
    assert (nothing.loc[keys, "verdict"] == "cannot tell").all()
    assert (nothing.loc[keys, "judged_from"] == "reading").all()


def entropy(low: float, high: float, block: str) -> pd.DataFrame:
    cells = [(d, m) for d in ("mosi", "sims") for m in ("tmt_amw", "tmt_uniform", "tmt_random")]
    frame = pd.DataFrame(cells, columns=["dataset", "method"]).assign(low=low, high=high, difference=(low + high) / 2)
    verdict = "not supported" if low > -0.01 else "supported" if high < 0 else "cannot tell"
    return frame.assign(source="synthetic", regime="clean", block=block, n=20, verdict=verdict)


@pytest.mark.parametrize(("low", "verdict"), [(-0.05, "cannot tell"), (-0.005, "not supported")])
def test_sharper_attention_to_frames_supports_no_salience_and_its_absence_refutes_focus(low, verdict):
    found = claims({"attention_entropy": entropy(low, low + 0.01, "encoder")})
    assert found.loc["salient_regions", "verdict"] == verdict
    assert found.loc["sharper_attention", "verdict"] == "cannot tell", "of other blocks"


def test_what_reading_settles_stays_and_measuring_is_told_beside_it():
    cells = [("tmt_amw", "test", "impossible as written"), ("tmt_gated", "test", "supported")]
    cells = [*cells, ("tmt_uniform", "test", "supported"), ("tmt_gated", "training", "cannot tell")]
    adapted = pd.DataFrame(cells, columns=["method", "when", "verdict"]).assign(
        dataset="mosi", source="synthetic", n=20
    )
    scenes = adapted[:2].assign(scene=["face ambiguous", "audio silent"])
    found = claims({"adaptation_combined": adapted, "scenes": scenes})
    for key in ("input_based", "adapts_to_inputs", "dynamic_attention", "audio_anecdote"):
        assert found.loc[key, "verdict"] == "impossible as written" and found.loc[key, "judged_from"] == "reading"
    words = found.loc["dynamic_attention", "evidence"]
    assert "tmt_amw at test impossible as written (1); tmt_gated at test supported (1); tmt_gated at training" in words
    assert "uniform" not in words.partition("Measured")[2]
    assert (
        "tmt_gated" in found.loc["silent_anecdote", "evidence"] and "tmt_amw" in found.loc["audio_anecdote", "evidence"]
    )
    assert "tmt_gated" not in found.loc["audio_anecdote", "evidence"]
    assert found.loc["silent_anecdote", "numbers"] == "scenes.csv, audit_verdicts.csv"


def test_verdicts_are_withheld_where_tmt_learned_nothing():
    against = pd.DataFrame({"dataset": facts.DATASETS, "method": "tmt", "verdict": "ranks nothing"})
    tables = FOLLOWS | {"against_constant": against, "attention_entropy": entropy(-0.05, -0.04, "encoder")}
    found = claims(tables)
    hidden = found["verdict"] == "withheld"
    gains = [c.key for c in facts.CLAIMS if facts.gain_cells(c.rule)]
    assert hidden[[*gains, "noise_robust", "imbalance_noise", "emphasis", "interpretable"]].all()
    assert found.loc["overhead", "verdict"] == "supported", "counts need no runs"
    assert found.loc["gain_mosi", "evidence"].startswith(
        "Withheld: TMT does not surely beat the training median on CMU-MOSEI"
    )
    assert not hidden[[c.key for c in facts.CLAIMS if c.rule in ("arithmetic", "weights_static")]].any()
    beats = claims(tables | {"against_constant": against.assign(verdict="beats")})
    assert not (beats["verdict"] == "withheld").any() and set(beats["verdict"]) <= set(facts.VERDICTS)


@pytest.mark.parametrize(
    ("parameters", "share", "verdict"),
    [(384, 1e-4, "supported"), (0, 1e-4, "not supported"), (384, 0.0, "not supported"), (384, 0.01, "not supported")],
)
def test_overhead_is_decided_by_counts_whatever_the_time(parameters, share, verdict):
    for time in (TIME, Interval(-0.3, -0.4, -0.2, 9)):
        found, words = ledger.overhead(ledger.Cost(parameters, 768, share, time))
        assert found == verdict and "768 more floating-point operations" in words


def test_every_claim_names_what_it_was_judged_from():
    found = claims(FOLLOWS)
    assert list(found.reset_index().columns) == ledger.COLUMNS and len(found) == len(facts.CLAIMS)
    assert set(found["rules"]) == {f"v{facts.RULES_VERSION}, {facts.RULES_DATE}"}
    date.fromisoformat(facts.RULES_DATE)
    gain = found.loc["gain_mosi"]
    assert gain["runs"] == "20 runs of tmt, tmt_amw, 10 seeds" and gain["data"] == "CMU-MOSI (synthetic)"
    assert gain["numbers"] == "amw_differences.csv" and gain["trained"] == "2026-11-30"
    assert found.loc["beats_fixed", "runs"] == "120 runs of tmt, tmt_amw, tmt_uniform, tmt_random, 10 seeds"
    assert found.loc["interpretable", "data"] == "CH-SIMS (synthetic), CMU-MOSI (synthetic), synthetic worlds"
    read = found[found["judged_from"] == "reading"]
    assert (read.loc[["tmt_equal", "per_sample"], ["runs", "data", "trained"]] == "").all(axis=None)
    assert (found.drop(index=read.index)["numbers"] != "").all()
    real = claims(FOLLOWS, runs(source="real", datasets=("mosi",)))
    assert real.loc["gain_mosi", "judged_from"] == "real"
    assert real.loc["emphasis", "judged_from"] == "synthetic", "worlds are synthetic whatever the data are"
    assert "gain_sims" not in real.index
