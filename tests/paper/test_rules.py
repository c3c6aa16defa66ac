"""The verdict rules belong to their version: whoever changes a rule raises `RULES_VERSION` and its date."""

import ast
import inspect

import pytest

from tmtlib.analysis import adaptation, attention, reliability, swap, trivial_baselines, truth
from tmtlib.common import digest
from tmtlib.paper import audit, facts, ledger, verdicts
from tmtlib.stats import statistics
from tmtlib.study.provenance import _plain

# By version and date, `rules_digest()`. A new version gets a line of its own; a published one is never overwritten
DIGESTS = {
    (1, "2026-11-25"): "948b4940c917336df5491c2ff35f8786a8a35dcef6bb8f8b7ca40e5f3a30d904",
    (2, "2026-11-26"): "53fa2de9badd226158142b8ab0b3eda26a50cbec85c8002a9454bacab387f8e3",
    (3, "2026-11-26"): "8423cfc20cfc92a405d2c47e1894dabb5220efcb3bcc84b681ce4181ccc3c601",
}
DATA = "CONFIDENCE ALPHA LEAST PRINTED_SHARE PRACTICAL PRACTICAL_MAE CMU CONTROLS OUR_METRICS MUTUAL_BLOCKS".split()
JUDGING = {
    adaptation: "_judged _rule",
    attention: "table",
    reliability: "follows",
    truth: "readable",
    swap: "summary",
    trivial_baselines: "against_constant",
    verdicts: "margin practical_margin interval_verdict _has_width combined_verdict unlearned withhold gain_verdicts "
    "gain_cells noise_verdicts sharpness_verdict judged gains family_gains noise_gains _compared _tested _within",
    ledger: "claims overhead findings follows_truth names_carrier held_weight_costs focus _around",
    audit: "counts utterance_gains mcnemar_bound improvement column_coincidence arithmetic_verdicts _computed "
    "_earlier_methods",
    facts: "gain_cells table1_value",
    statistics: "t_tests moderated_error adjusted_p mcnemar_p minimum_detectable_effect",
}


def sources() -> dict[str, str]:
    """The text of each judging function."""
    functions = [getattr(module, name) for module, names in JUDGING.items() for name in names.split()]
    return {f"{f.__module__}.{f.__name__}": inspect.getsource(f) for f in functions}


def rules_digest(texts: dict[str, str] | None = None) -> str:
    """SHA-256 of the rules as data and of the judging functions' syntax trees, without docstrings and comments."""
    trees = {name: _plain(ast.parse(text)) for name, text in (texts or sources()).items()}
    rules = {claim.key: (claim.rule, claim.measured) for claim in facts.CLAIMS}
    margins = {d: {m: verdicts.margin(d, m) for m in facts.METRICS} for d in facts.DATASETS}
    data = {name: getattr(verdicts, name) for name in DATA}
    data |= {name: getattr(ledger, name) for name in ("WORLDS", "SLOPE", "SLIGHT")}
    return digest({"data": data, "rules": rules, "margins": margins, "better": facts.BETTER, "trees": trees})


def test_the_rules_change_only_with_their_version():
    version, now = (facts.RULES_VERSION, facts.RULES_DATE), rules_digest()
    assert version in DIGESTS, f"new rules: write {{{version}: '{now}'}} into DIGESTS"
    assert DIGESTS[version] == now, f"the rules changed: raise RULES_VERSION and its date (now {now})"
    assert max(DIGESTS) == version and sorted(date for _, date in DIGESTS) == [date for _, date in sorted(DIGESTS)]


def test_prose_is_no_rule():
    name = "tmtlib.paper.verdicts.margin"
    text = sources()[name]
    assert rules_digest(sources() | {name: text.replace('"""', '"""Other words. ', 1) + "    # a comment\n"}) == (
        rules_digest()
    )
    assert rules_digest(sources() | {name: text.replace("min(", "max(")}) != rules_digest()


@pytest.mark.parametrize(("name", "value"), [("ALPHA", 0.1), ("CONTROLS", {"tmt_uniform": "uniform weights"})])
def test_a_threshold_is_a_rule(monkeypatch, name, value):
    before = rules_digest()
    monkeypatch.setattr(verdicts, name, value)
    assert rules_digest() != before
