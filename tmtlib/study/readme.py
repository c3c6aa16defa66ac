"""The README's numbers: every table and finding between its marks, from the committed results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.figure import throughput
from benchmarks.tables import speed_table
from tmtlib import common
from tmtlib.data.schema import dataset_title
from tmtlib.paper.facts import DATASETS, VERDICTS, table1_value
from tmtlib.study import tables
from tmtlib.study.methods import method_title
from tmtlib.study.readme_tables import (
    adaptation_sentences,
    adaptation_table,
    family_table,
    held_sentence,
    importance_table,
    robustness_table,
)
from tmtlib.study.study import save_figure

README_METHODS = (
    *("tmt", "tmt_amw", "tmt_amw_fast", "tmt_uniform", "tmt_random", "tmt_gated", "tmt_5class", "tmt_amw_5class"),
    *("text_only", "late_fusion", "mult", "misa"),
)


@dataclass(frozen=True)
class Shown:
    """What the README shows of a results folder."""

    synthetic: pd.DataFrame  # Table 1 of the synthetic study
    claims: pd.DataFrame
    real: pd.DataFrame  # Table 1 of the studies of real files, one below the other
    speed: dict  # the benchmarks
    differences: pd.DataFrame  # TMT+AMW minus TMT and minus its controls, synthetic and real
    bonus: pd.DataFrame  # what selecting on test would have added
    reach: pd.DataFrame  # how far W moved
    family: pd.DataFrame  # Table 1 of profile full: every weighting and every subset of the modalities
    auilc: pd.DataFrame  # areas under degradation curves, profile full
    adaptation: pd.DataFrame  # whether weights fall with noise, profile full
    real_adaptation: pd.DataFrame  # the same of the real files on which it was run
    worlds: pd.DataFrame  # measures of importance against synthetic worlds, profile full
    held: pd.DataFrame  # models whose weights were held at .8 on one modality, profile full


def update() -> None:
    """Rewrites README.md from the committed results, and draws its picture of the benchmarks."""
    path = common.ROOT / "README.md"
    found = shown(common.ROOT / "results")
    path.write_text(readme(path.read_text(encoding="utf-8"), found), encoding="utf-8", newline="\n")
    speed = found.speed
    cores = f"{speed['machine']['cores']} CPU cores" if speed["machine"]["device"] == "cpu" else "one GPU"
    figure = throughput(pd.DataFrame(speed["throughput"]), cores)
    save_figure(figure, common.ROOT / "figures" / "benchmarks", "throughput")


def shown(folder: Path) -> Shown:
    """The committed results: `quick` and `full` on synthetic data, and `<file>/quick` or `<file>/ten` on real files."""
    quick, full = folder / "quick", folder / "full"
    real = sorted([*folder.glob("*/quick"), *folder.glob("*/ten")])
    differences = [pd.read_csv(path / "amw_differences.csv") for path in (quick, *real)]
    return Shown(
        synthetic=pd.read_csv(quick / "table1.csv"),
        claims=pd.read_csv(quick / "claims.csv"),
        real=pd.concat([pd.read_csv(path / "table1.csv") for path in real], ignore_index=True),
        speed=json.loads((folder / "benchmarks" / "cpu.json").read_text(encoding="utf-8")),
        differences=pd.concat(differences, ignore_index=True),
        bonus=pd.read_csv(quick / "selection_bonus.csv"),
        reach=pd.read_csv(quick / "weights_reach.csv"),
        family=pd.read_csv(full / "table1.csv"),
        auilc=pd.read_csv(full / "auilc.csv"),
        adaptation=pd.read_csv(full / "adaptation_verdicts.csv"),
        real_adaptation=pd.concat(
            [pd.read_csv(p) for folder in real if (p := folder / "adaptation_verdicts.csv").exists()], ignore_index=True
        ),
        worlds=pd.read_csv(full / "worlds_agreement.csv"),
        held=pd.read_csv(full / "frozen_weights.csv"),
    )


def readme(text: str, found: Shown) -> str:
    """The README with its tables made anew."""
    text = _between(text, "findings", findings(found))
    text = _between(text, "synthetic", _table(found.synthetic))
    text = _between(text, "claims", verdict_table(found.claims))
    text = _between(text, "real", f"{_table(found.real)}\n\n{floor_sentence(found.real)}")
    text = _between(text, "family", family_table(found.family))
    text = _between(text, "robustness", robustness_table(found.auilc))
    text = _between(
        text, "adaptation", f"{adaptation_table(found.adaptation)}\n\n{adaptation_sentences(found.real_adaptation)}"
    )
    text = _between(text, "importance", f"{importance_table(found.worlds)}\n\n{held_sentence(found.held)}")
    return _between(text, "speed", speed_table(found.speed))


def findings(found: Shown) -> str:
    """What was found, in five sentences with their numbers."""
    synthetic = found.differences[found.differences["source"] == "synthetic"]
    others = found.differences[(found.differences["source"] == "real") & (found.differences["before"] == "tmt")]
    over = {b: synthetic[synthetic["before"] == b] for b in ("tmt", "tmt_uniform", "tmt_random")}
    mae = over["tmt"][over["tmt"]["metric"] == "mae"]
    changes = "; ".join(
        f"{dataset_title(r.dataset, 'synthetic')} {r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}]"
        for r in mae.itertuples()
    )
    counts = {b: _tally(cells) for b, cells in over.items()}
    fast = found.reach[found.reach["method"] == "tmt_amw_fast"]
    own = found.reach[found.reach["method"] == "tmt_amw"]
    acc5 = found.bonus.set_index(["method", "metric"]).loc[("tmt", "acc5")]
    verdicts = found.claims["verdict"].value_counts()
    sentences = (
        f"On synthetic data, TMT+AMW changes the MAE of TMT by {changes} (means of {mae['n'].max()} seeds, 95 % t "
        f"intervals); of {len(over['tmt'])} comparisons (data set and metric) {counts['tmt']}.",
        "A gain from learned weights would have to show over fixed ones too: over uniform weights "
        f"{counts['tmt_uniform']}, over random ones {counts['tmt_random']}.",
        f"The weights move from 1/3 to {_span(own)} at the training's learning rate, and to {_span(fast)} at one of "
        "their own; but they are the same for every utterance: claims about single samples are impossible as written.",
        f"Picking epochs on test, as the original TMT's code does, would have added {acc5['bonus']:+.3f} "
        f"[{acc5['low']:+.3f}, {acc5['high']:+.3f}] to TMT's Acc-5 on {dataset_title(acc5['dataset'], acc5['source'])} "
        f"(n = {acc5['n']:.0f}), where the largest gain the paper prints is {_largest_gain():+.3f}.",
        f"On real files, of {len(others)} comparisons with TMT {_tally(others)}; "
        f"of the paper's {len(found.claims)} claims "
        + ", ".join(
            f"{verdicts[v]} are {v}" if v != "cannot tell" else f"for {verdicts[v]} we cannot tell"
            for v in VERDICTS
            if v in verdicts
        )
        + ".",
    )
    return "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(sentences, 1))


def _largest_gain() -> float:
    """The largest Acc-5 gain of the paper's Table 1."""
    return max(table1_value(d, "tmt_amw", "acc5") - table1_value(d, "tmt", "acc5") for d in DATASETS)


def _span(reach: pd.DataFrame) -> str:
    return f"between {reach['a_low'].min():.3f} and {reach['a_high'].max():.3f}"


def _tally(cells: pd.DataFrame) -> str:
    """How many comparisons show a gain, surely none of half the printed size (or a loss), or neither."""
    found = cells["verdict"].value_counts()
    gain, none, open_ = (found.get(v, 0) for v in ("supported", "not supported", "cannot tell"))
    return f"{gain} show a gain, {none} surely none of half the printed size (or a loss), {open_} cannot tell"


def _table(table1: pd.DataFrame) -> str:
    """Trained methods, the strongest linear floor, the best constant and, where known, the best possible."""
    kept = [table1["method"].isin((*README_METHODS, "constant", "oracle"))]
    for _, some in table1[table1["metric"] == "mae"].groupby("dataset", sort=False):
        best = _best_linear(some)
        kept.append((table1["dataset"] == best["dataset"]) & (table1["method"] == best["method"]))
    return tables.shown(table1[np.any(kept, axis=0)]).to_markdown(index=False, disable_numparse=True)


def verdict_table(claims: pd.DataFrame) -> str:
    """How many claims have which verdict, and a row a claim: its words, its place, and what it was judged from."""
    counts = claims["verdict"].value_counts()
    total = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
    judged = claims["source"].map({"paper": "the paper itself", "synthetic": "synthetic data", "real": "real data"})
    frame = claims.assign(claim=[f'"{q}" ({p})' for q, p in zip(claims["quote"], claims["place"], strict=True)])
    frame = frame.assign(judged=judged).rename(columns={"judged": "judged from"})
    table = frame[["claim", "verdict", "judged from"]].to_markdown(index=False)
    summary = f"<summary>All {len(claims)} claims</summary>"
    return f"Of {len(claims)} claims: {total}.\n\n<details>{summary}\n\n{table}\n\n</details>"


def floor_sentence(real: pd.DataFrame) -> str:
    """Where a trained TMT beats the best linear model in MAE and where not, and by how much; a list item a data set."""
    lines = []
    for dataset, some in real[real["metric"] == "mae"].groupby("dataset", sort=False):
        tmt, best = some.set_index("method").loc["tmt"], _best_linear(some)
        gap = tmt["mean"] - best["mean"]
        what = "beats" if gap < 0 else "does **not** beat"
        lines.append(
            f"- `{dataset}`: TMT {what} the best linear model ({method_title(best['method'])}): MAE {tmt['mean']:.3f} "
            f"± {tmt['sd']:.3f} against {best['mean']:.3f}, {abs(gap):.3f} {'less' if gap < 0 else 'more'}."
        )
    return "\n".join(lines)


def _best_linear(mae: pd.DataFrame) -> pd.Series:
    linear = mae[mae["method"].str.startswith("linear_")]
    return linear.loc[linear["mean"].idxmin()]


def _between(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"README.md has no pair of lines {begin} and {end} to put the table between")
    return f"{before}{begin}\n{content}\n{end}{after}"
