"""The README's tables of the family, of robustness, adaptation and importance, as Markdown."""

from __future__ import annotations

import pandas as pd

from tmtlib.analysis.adaptation import combined
from tmtlib.analysis.many_worlds import readable
from tmtlib.figures.worlds import TITLES as MEASURES
from tmtlib.study.methods import method_title


def family_table(table1: pd.DataFrame) -> str:
    """MAE of every trained method on the first data set, with intervals and p against TMT, best first."""
    first = table1[(table1["dataset"] == table1["dataset"].iloc[0]) & (table1["metric"] == "mae")]
    trained = first[first["n"] > 1].sort_values("mean", kind="stable")
    rows = [
        {
            "method": method_title(r.method),
            "MAE": _interval(r.mean, r.low, r.high),
            "p against TMT": "" if pd.isna(r.p_adjusted) else f"{r.p_adjusted:.2g}",
            "n": r.n,
        }
        for r in trained.itertuples()
    ]
    return _markdown(rows)


def robustness_table(areas: pd.DataFrame) -> str:
    """Normalised AUILC of MAE on the first data set, corruption of all modalities, a row a method."""
    first = areas[(areas["dataset"] == areas["dataset"].iloc[0]) & (areas["metric"] == "mae")]
    first = first[first["modality"] == "all"]
    columns = {
        "P1, trained clean": ("missing_frames", "clean"),
        "P1, trained masked": ("missing_frames", "masked"),
        "noise (P7)": ("noise", "clean"),
        "block (P8)": ("missing_block", "clean"),
    }
    rows = []
    for method in dict.fromkeys(first["method"]):
        own = first[first["method"] == method].set_index(["kind", "regime"])
        row = {"method": method_title(method)}
        for title, key in columns.items():
            cell = own.loc[key] if key in own.index else None
            row[title] = "" if cell is None else _interval(cell["auilc_normalised"], cell["low"], cell["high"])
        rows.append({"method": row["method"], "clean": f"{own['clean'].iloc[0]:.3f}"} | row | {"n": own["n"].iloc[0]})
    return _markdown(rows)


def adaptation_table(judged: pd.DataFrame) -> str:
    """The verdicts on "the weight falls with noise", a row a variant and time, and the largest fall found."""
    rows = []
    for r in combined(judged).itertuples():
        where = f"{r.modality}, {r.kind.replace('_', ' ')}"
        rows.append(
            {
                "weights": method_title(r.method),
                "corrupted at": f"{r.when} time",
                "verdict": r.verdict,
                "cells": r.cells,
                "largest fall": f"{_interval(r.change, r.change_low, r.change_high, '+.4f')} ({where})",
                "MAE minus uniform's there": _interval(r.gain, r.gain_low, r.gain_high, "+.3f"),
                "n": r.n,
            }
        )
    return _markdown(rows)


def adaptation_sentences(judged: pd.DataFrame) -> str:
    """The same of real files, a list item each: how many variants and times have which verdict, the largest fall."""
    lines = []
    for dataset, some in combined(judged).groupby("dataset", sort=False):
        counts = ", ".join(f"{v} {n}" for v, n in some["verdict"].value_counts().items())
        most = some.loc[some["change"].idxmin()]
        fall = _interval(most["change"], most["change_low"], most["change_high"], "+.4f")
        lines.append(
            f"- `{dataset}` (real, n = {most['n']}), {len(some)} variants and times: {counts}. The largest fall of a "
            f"weight: {fall} ({method_title(most['method'])}, {most['modality']}, {most['when']} time)."
        )
    return "\n".join(lines)


def importance_table(over: pd.DataFrame) -> str:
    """How each measure of importance follows the ground truth over worlds, and what it may be read as."""
    numbers = over.set_index(["measure", "statistic"])
    rows = []
    for r in readable(over).sort_values("spearman", ascending=False, na_position="last").itertuples():
        rank, slope = (numbers.loc[(r.measure, s)] for s in ("spearman", "slope"))
        rows.append(
            {
                "measure": MEASURES.get(r.measure, r.measure).replace("|", r"\|"),  # no border of the table
                "rank correlation": _interval(rank["value"], rank["low"], rank["high"], ".2f"),
                "slope": _interval(slope["value"], slope["low"], slope["high"], ".3g"),
                "names the top modality": f"{r.top:.0%} (chance {r.chance:.0%})",
                "may be read as": r.readable,
                "worlds": r.n,
            }
        )
    return _markdown(rows)


def held_sentence(held: pd.DataFrame) -> str:
    """How far MAE and the text's Shapley share differ between models with learned weights and with held ones."""
    rows = held.drop_duplicates("method")
    text = held[held["modality"] == "text"].set_index("method")["shapley"]
    parts = []
    for r in rows[rows["method"] != "tmt_amw"].itertuples():
        difference = _interval(r.mae_difference, r.difference_low, r.difference_high, "+.3f")
        parts.append(f"{method_title(r.method).removeprefix('TMT, ')} {difference} ({text[r.method]:.2f})")
    return (
        "Weights held at .8 on one modality while all else was trained: MAE minus that of learned weights, and in "
        f"brackets the text's Shapley share (learned weights: {text['tmt_amw']:.2f}), n = {rows['n'].min()} seeds: "
        f"{'; '.join(parts)}."
    )


def _interval(mean: float, low: float, high: float, form: str = ".3f") -> str:
    if pd.isna(mean):
        return ""
    return f"{mean:{form}}" + ("" if pd.isna(low) else f" [{low:{form}}, {high:{form}}]")


def _markdown(rows: list[dict]) -> str:
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
