"""Sentences follow the tables that they are made from."""

import pandas as pd
import pytest

from tmtlib import common
from tmtlib.study import findings

FOLDER = common.ROOT / "results" / "full"


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    return {name: pd.read_csv(FOLDER / f"{name}.csv") for name in findings.TABLES}


def test_a_sentence_for_each_table_at_hand(tables):
    text = findings.sentences(tables)
    assert [line.partition(". ")[0] for line in text.splitlines()] == [str(i) for i in range(1, len(tables) + 1)]
    assert "nan" not in text
    without = findings.sentences({k: v for k, v in tables.items() if k not in ("swap", "selection_bonus")})
    assert len(without.splitlines()) == len(tables) - 2
    assert "Picking the epoch by test" in text and "Picking the epoch by test" not in without
    assert "as printed in the paper: +0.005." in text, "of CMU-MOSI, which the bonus is of"
    elsewhere = tables["selection_bonus"].assign(dataset="mine", source="real")
    assert "none for these data" in findings.sentences({"selection_bonus": elsewhere})
    assert len(findings.sentences(tables | {"swap": tables["swap"][:0]}).splitlines()) == len(tables) - 1


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("amw_differences", "difference"),
        ("weights_reach", "a_low"),
        ("swap", "difference"),
        ("worlds_agreement", "value"),
        ("misled", "share"),
        ("reliability_clean", "difference"),
        ("reliability_corrupted", "mean"),
        ("crema_importance", "mean"),
        ("selection_bonus", "bonus"),
        ("distractors", "single_mae"),
    ],
)
def test_a_sentence_states_the_numbers_of_its_table(tables, name, column):
    before = findings.sentences(tables).splitlines()
    moved = tables[name].assign(**{column: tables[name][column] + 0.1234})
    after = findings.sentences(tables | {name: moved}).splitlines()
    changed = [i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    assert changed == [list(findings.TABLES).index(name)]


def test_verdicts_are_counted_and_none_is_said_only_of_gains():
    gains = pd.DataFrame({"verdict": ["cannot tell", "not supported", "cannot tell"]})
    assert findings.tally(gains) == "0 show a gain, 1 surely none of half the printed size, 2 cannot tell"
    assert findings.counts(gains) == {"not supported": 1, "cannot tell": 2}


def test_other_data_have_a_sentence_of_their_own_before_the_claims(tables):
    folder = common.ROOT / "results" / "real"
    elsewhere = {name: pd.read_csv(folder / f"{name}.csv") for name in findings.ELSEWHERE}
    gains = elsewhere["amw_differences"] = elsewhere["amw_differences"].assign(verdict="withheld")
    lines = findings.sentences(tables, elsewhere).splitlines()
    n = ((gains["before"] == "tmt") & (gains["after"] == "tmt_amw")).sum()
    own = lines[-1 - len(findings.ELSEWHERE) : -1]
    assert f"of {n} comparisons with TMT" in own[0] and f"TMT+AMW 0 show a gain, {n} are withheld" in own[0]
    assert "claims" in lines[-1] and len(lines) == len(tables) + len(findings.ELSEWHERE)


@pytest.mark.parametrize(
    ("name", "column"),
    [("weights", "weight"), ("crema_corrupted", "mean"), ("transcripts", "mean"), ("emotions", "mean")],
)
def test_a_sentence_of_real_files_states_the_numbers_of_its_table(name, column):
    table = pd.read_csv(common.ROOT / "results" / "real" / f"{name}.csv")
    words = findings.ELSEWHERE[name]
    assert words(table) != words(table.assign(**{column: table[column] + 0.1234})) and "nan" not in words(table)


def test_the_leading_modality_is_counted_where_tmt_learned_something():
    table = pd.read_csv(common.ROOT / "results" / "real" / "importance.csv")
    before, none = (
        findings.ELSEWHERE["importance"](t) for t in (table, table.assign(learned=table["dataset"] == "crema"))
    )
    assert f"of the {findings.shared(table)['dataset'].nunique()} files" in before
    assert "text on 0, audio on 0, vision on 1 of the 1 files" in none and "on 1 of 1 (always naming text: 0)" in none


def test_tables_without_a_rule_stand_beside_the_evidence(tables):
    claims = pd.DataFrame({"claim": ["emphasis", "overhead"], "evidence": ["Seen.", "Counted."]})
    found = findings.beside(claims, tables | {"crema_importance": pd.DataFrame()})["evidence"]
    assert found[0].startswith("Seen. Beside the rules, in profile full (misled.csv): In synthetic worlds")
    assert "CREMA" not in found[0] and found[1] == "Counted." and claims["evidence"][0] == "Seen."
