"""The table of choices is made from the configs."""

from dataclasses import replace

import pytest

from tmtlib.study import choices as module
from tmtlib.study.choices import CHOICES, choices
from tmtlib.study.profiles import PROFILES


def test_each_choice_stands_beside_what_the_paper_says():
    table = choices().set_index("choice")
    assert [*table.columns] == ["paper says", "released TMT", "profile paper", "profile quick"]
    assert table.index.is_unique and (table != "").all(axis=None) and len(table) == len(CHOICES)
    assert table.loc["layers"].tolist()[:3] == [
        "4",
        "2 in the encoder + 4 x 2 mutual",
        "4 in the encoder + 4 x 2 mutual",
    ]
    assert table.loc["head width"].tolist() == ["not stated", "64", "16", "16"]
    assert table.loc["width"].tolist() == ["128", "256", "128", "64"]
    assert table.loc["dropout on raw features", "released TMT"] == "0.5"
    assert table.loc["early stopping"].tolist()[1:] == ["none", "after 8 epochs without gain", "none"]
    assert table.loc["schedule"].tolist() == ["not stated", "warmup, cosine", "constant", "cosine"]


@pytest.mark.parametrize(
    ("part", "field", "value", "row"),
    [
        ("model", "dropout", 0.35, "dropout"),
        ("model", "position_std", 0.5, "positions"),
        ("model", "masked", False, "padded frames"),
        ("model", "similarity", 0.7, "weights of the losses"),
        ("training", "patience", 3, "early stopping"),
        ("training", "least_steps", 77, "epochs"),
        (None, "normalize", False, "normalisation"),
    ],
)
def test_another_config_is_another_table(monkeypatch, part, field, value, row):
    before, quick = choices("quick").set_index("choice")["profile quick"], PROFILES["quick"]
    changed = {part: replace(getattr(quick, part), **{field: value})} if part else {field: value}
    monkeypatch.setitem(module.PROFILES, "quick", replace(quick, **changed))
    after = choices("quick").set_index("choice")["profile quick"]
    assert after.index[after != before].tolist() == [row]
