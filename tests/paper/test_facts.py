"""The paper as data: Table 1 by cell, claims that can be judged, and the verdict rules at their edges."""

import dataclasses
import math
from decimal import Decimal
from pathlib import Path

import pytest

from tmtlib.paper import audit, facts, verdicts

COMPARISON = "Performance Comparison with Baseline TMT"  # a section of the paper
# Table 1 typed a second time, by row: data set, method, Acc-5, F1, MAE.
TABLE = """
sims  tmt     .4726 .5156 .4726
sims  tmt_amw .4770 .5173 .4770
mosi  tmt     .4300 .4890 .5200
mosi  tmt_amw .4350 .4920 .5170
mosei tmt     .5300 .5600 .4600
mosei tmt_amw .5370 .5650 .4550
"""
TEXT = Path(__file__).resolve().parents[3] / "shared" / "paper" / "amw_tmt_paper.txt"
RULES = ("arithmetic", "measured", "noise", "learned_noise", "weights_static", "sharpness", "parameters")


def test_table1_holds_each_printed_number_once():
    wanted = {}
    for dataset, method, *values in (line.split() for line in TABLE.strip().splitlines()):
        wanted |= {(dataset, method, m): float(v) for m, v in zip(("acc5", "f1", "mae"), values, strict=True)}
    found = {(c.dataset, c.method, c.metric): c.value for c in facts.TABLE1}
    assert found == wanted and len(facts.TABLE1) == 18


def test_printed_digits_are_the_value_and_keep_their_number():
    for cell in facts.TABLE1 + facts.REPRINTED:
        assert float(cell.printed) == cell.value
    digits = {(c.dataset, c.place): -Decimal(c.printed).as_tuple().exponent for c in facts.REPRINTED}
    assert digits["mosi", facts.ANALYSIS] == 3 and digits["mosi", COMPARISON] == 4
    assert next(c.printed for c in facts.TABLE1 if c.value == 0.43) == "0.43"


def test_reprinted_accuracies_agree_with_table1():
    for cell in facts.REPRINTED:
        assert cell.value == facts.table1_value(cell.dataset, cell.method, cell.metric)
    assert len(facts.REPRINTED) == 12


def test_table1_value_is_none_for_what_the_table_lacks():
    assert facts.table1_value("mosi", "tmt_amw", "mae") == 0.517
    assert facts.table1_value("mosi", "tmt", "corr") is None
    assert facts.table1_value("simsv2", "tmt", "acc5") is None


def test_split_sizes_add_up_to_the_published_data_sets():
    # 2,199 segments (Zadeh et al. 2016), 2,281 (Yu et al. 2020), 22,856 of CMU-MOSEI in the MMSA files
    totals = {name: sum(sizes) for name, sizes in facts.SPLIT_SIZES.items()}
    assert totals == {"mosi": 2199, "sims": 2281, "mosei": 22856}
    assert facts.TEST_SIZES == {"mosi": 686, "mosei": 4659, "sims": 457}


def test_records_are_frozen():
    for record in (facts.TABLE1[0], facts.CLAIMS[0], facts.SETTINGS[0]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.place = "elsewhere"


def test_settings_are_either_quoted_or_open():
    for setting in facts.SETTINGS:
        assert (setting.value is None) == (setting.quote == ""), setting.name
    stated = {s.name: s.value for s in facts.SETTINGS}
    assert (stated["width"], stated["layers"], stated["heads"], stated["batch size"]) == (
        "128",
        "4",
        "8",
        "64",
    )
    assert stated["seeds and number of runs"] is None and len(stated) == len(facts.SETTINGS)


def test_every_claim_can_be_judged():
    assert len(facts.CLAIMS) >= 20
    assert len({c.key for c in facts.CLAIMS}) == len({c.quote for c in facts.CLAIMS}) == len(facts.CLAIMS)
    for claim in facts.CLAIMS:
        assert claim.rule in RULES or facts.gain_cells(claim.rule), claim.key
        assert claim.kind in ("result", "mechanism", "explanation", "cost")
        assert claim.supports and claim.contradicts and claim.supports != claim.contradicts
        assert claim.quote and claim.place
    assert {c.rule for c in facts.CLAIMS} >= {*RULES, "amw_gain:all:all", "learned_gain:all:all"}


def test_each_place_with_claims_has_some():
    places = {c.place for c in facts.CLAIMS}
    assert places >= {"Abstract", COMPARISON, facts.ANALYSIS, "Discussion of Experimental Findings", "Conclusion"}


def test_gain_claims_name_cells_of_table1():
    for claim in facts.CLAIMS:
        for dataset, metric in facts.gain_cells(claim.rule):
            assert facts.table1_value(dataset, "tmt", metric) is not None


def test_gain_cells_expands_all():
    assert facts.gain_cells("amw_gain:mosi:mae") == (("mosi", "mae"),)
    assert set(facts.gain_cells("amw_gain:mosei:all")) == {("mosei", m) for m in ("acc5", "f1", "mae")}
    assert len(set(facts.gain_cells("amw_gain:all:all"))) == 9
    assert facts.gain_cells("learned_gain:sims:acc5,f1") == (("sims", "acc5"), ("sims", "f1"))
    assert len(facts.gain_cells("learned_gain:mosi,mosei:all")) == 6
    assert facts.gain_cells("noise") == facts.gain_cells("arithmetic") == ()


@pytest.mark.parametrize(
    ("low", "high", "better", "verdict"),
    [
        (0.001, 0.02, 1, "supported"),
        (-0.02, -0.001, 1, "not supported"),
        (-0.01, 0.02, 1, "cannot tell"),
        (0.0, 0.02, 1, "cannot tell"),  # zero itself is in the interval
        (-0.02, -0.001, -1, "supported"),  # an error that falls
        (0.001, 0.02, -1, "not supported"),
        (-0.01, 0.02, -1, "cannot tell"),
        (math.nan, 0.02, 1, "cannot tell"),
        (0.01, math.nan, 1, "cannot tell"),
        (0.01, math.nan, -1, "cannot tell"),
    ],
)
def test_interval_verdict(low, high, better, verdict):
    assert verdicts.interval_verdict(low, high, better) == verdict


def test_combined_verdict_needs_every_cell_and_one_decided_cell_defeats_it():
    yes, no, small, open_ = "supported", "not supported", "no practical difference", "cannot tell"
    assert verdicts.combined_verdict([yes, yes]) == verdicts.combined_verdict(iter([yes, yes])) == yes
    assert verdicts.combined_verdict([yes, open_]) == verdicts.combined_verdict([]) == open_
    assert verdicts.combined_verdict([yes, open_, small]) == small
    assert verdicts.combined_verdict([yes, small, open_, no]) == no
    hidden = "withheld"
    assert verdicts.combined_verdict([yes, hidden, open_]) == hidden
    assert verdicts.combined_verdict([hidden, small]) == small and verdicts.combined_verdict([no, hidden]) == no
    assert {yes, no, small, open_} < set(facts.VERDICTS)


@pytest.mark.skipif(not TEXT.exists(), reason="the paper's text cannot be shipped and is not at hand")
def test_quotes_are_exact():
    text = " ".join(TEXT.read_text(encoding="utf-8").split())
    quotes = [c.quote for c in facts.CLAIMS] + [s.quote for s in facts.SETTINGS] + list(audit.text_checks()["quote"])
    assert [q for q in quotes if " ".join(q.split()) not in text] == []


@pytest.mark.skipif(not TEXT.exists(), reason="the paper's text cannot be shipped and is not at hand")
def test_each_claim_stands_in_its_place():
    lines = TEXT.read_text(encoding="utf-8").splitlines()
    places = {c.place.casefold(): c.place for c in facts.CLAIMS}
    place, sections = "", {}
    for line in lines:
        heading = "abstract" if line.startswith("Abstract.") else line.strip().casefold()
        place = places.get(heading, "" if line.isupper() else place)
        sections[place] = f"{sections.get(place, '')} {' '.join(line.split())}"
    assert [c.key for c in facts.CLAIMS if c.quote not in " ".join(sections[c.place].split())] == []


@pytest.mark.parametrize("better", [1, -1])
def test_interval_without_width_is_no_evidence(better):
    assert verdicts.interval_verdict(1 / 52, 1 / 52, better) == "cannot tell"
    assert verdicts.interval_verdict(1 / 52, 1 / 51, 1) == "supported"


# --- What counts as evidence ----------------------------------------------------------------------------------------


def test_thresholds_are_those_written_down_before_the_runs():
    assert (verdicts.CONFIDENCE, verdicts.ALPHA, verdicts.PRINTED_SHARE) == (0.95, 0.05, 0.5)
    assert set(verdicts.CONTROLS) == {"tmt_uniform", "tmt_random"}


def test_margin_is_half_of_what_is_printed():
    assert verdicts.margin("mosi", "acc5") == pytest.approx(0.0025) and verdicts.margin(
        "mosei", "mae"
    ) == pytest.approx(0.0025)
    assert verdicts.margin("sims", "mae") == pytest.approx(0.0022), "printed as rising: the size of the change"
    assert verdicts.margin("mine", "f1") == pytest.approx(0.00085), "the smallest of the three"


def test_practical_margin_depends_on_the_scale_of_the_labels():
    assert {verdicts.practical_margin(d, m) for d in (*facts.DATASETS, "mine") for m in ("acc5", "f1")} == {0.01}
    for dataset in ("mosi", "mosei", "mosi_glove_covarep"):
        assert verdicts.practical_margin(dataset, "mae") == 0.02
    for dataset in ("sims", "simsv2_expert_scores", "mine"):
        assert verdicts.practical_margin(dataset, "mae") == 0.01


@pytest.mark.parametrize(
    ("low", "high", "p_adjusted", "p_below", "verdict"),
    [
        (0.01, 0.02, 0.049, 1, "supported"),
        (0.01, 0.02, 0.05, 1, "cannot tell"),  # the interval alone is not enough
        (0.01, 0.02, math.nan, math.nan, "cannot tell"),
        (-0.02, -0.01, 0.001, 0.001, "not supported"),
        (-0.02, -0.01, 0.2, 0.2, "cannot tell"),
        (-0.02, 0.0019, 0.9, 0.049, "not supported"),  # below the margin of .002, and by more than chance
        (-0.02, 0.0019, 0.9, 0.05, "cannot tell"),
        (-0.02, 0.002, 0.9, 0.049, "cannot tell"),  # touches it
        (-0.001, 0.0019, 0.9, 0.001, "not supported"),  # both margins: no gain of the claimed size says more
        (-0.001, 0.0019, 0.9, 0.06, "no practical difference"),
        (0.0005, 0.0019, 0.001, 0.001, "not supported"),  # better, but by less than the claim
        (-0.0099, 0.0099, 0.9, 0.9, "no practical difference"),  # within the margin of .01
        (-0.01, 0.0099, 0.9, 0.9, "cannot tell"),  # touches it
        (0.0005, 0.003, 0.001, 0.9, "supported"),  # better, perhaps by as much as the paper says, small as that is
        (0.0021, 0.003, 0.05, 1, "no practical difference"),
        (0.0, 0.0, math.nan, math.nan, "cannot tell"),
    ],
)
@pytest.mark.parametrize("better", [1, -1])
def test_interval_verdict_with_margins_and_adjusted_p(low, high, p_adjusted, p_below, verdict, better):
    ends = sorted((better * low, better * high))
    found = verdicts.interval_verdict(*ends, better, p_adjusted, least=0.002, practical=0.01, p_below=p_below)
    assert found == verdict
