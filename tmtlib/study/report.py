"""Reports and the README's tables, in Markdown, from the CSV files of results folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tmtlib import common
from tmtlib.data.schema import dataset_title
from tmtlib.paper.facts import DATASETS, VERDICTS, table1_value
from tmtlib.study import tables
from tmtlib.study.methods import method_title, method_titles
from tmtlib.study.tables import intervals

NAME = "report.md"
EVIDENCE = "## Evidence"
DATA = {
    "synthetic": "SYNTHETIC data: generated with known ground truth in the shapes of the named data sets. They test "
    "the models and the logic of the claims; they are no measurement of the real data sets.",
    "real": "Real data.",
}
README_METHODS = (
    *("tmt", "tmt_amw", "tmt_amw_fast", "tmt_uniform", "tmt_random", "tmt_gated", "tmt_5class", "tmt_amw_5class"),
    *("text_only", "late_fusion", "mult", "misa", "constant", "oracle"),
)


def write(folder: Path) -> str:
    """The report of a results folder with `table1.csv`, `claims.csv` and `runs.csv`. Further sections where their files
    are there: robustness (`auilc.csv`), adaptation (`adaptation_combined.csv`), importance (`readable.csv`,
    `worlds_agreement.csv`), held weights (`frozen_weights.csv`)."""
    table1, claims, runs = (pd.read_csv(folder / f"{name}.csv") for name in ("table1", "claims", "runs"))
    source, commits = table1["source"].iloc[0], ", ".join(sorted(runs["commit"].unique()))
    first = dataset_title(*table1[["dataset", "source"]].iloc[0])
    sections = [
        f"# Report, profile {folder.name}",
        f"{DATA[source]} Mean ± sd over n training seeds; trivial baselines have no seed. Trained at commit {commits}.",
        *("## Table 1", _markdown(tables.shown(table1))),
        *("## Verdicts", claims[["claim", "verdict", "source"]].to_markdown(index=False)),
        *(f"## All trained methods on {first}, best first", _family(table1)),
    ]
    optional = {
        ("auilc.csv",): (f"## Mean MAE over the levels of a corruption of all modalities, {first}", _robustness),
        ("adaptation_combined.csv",): ("## Does a weight fall when its modality is corrupted?", _adaptation),
        ("readable.csv", "worlds_agreement.csv"): ("## Is a weight an importance?", _importance),
        ("frozen_weights.csv",): ("## Weights held at .8 on one modality", _held),
    }
    for names, (title, section) in optional.items():
        if all((folder / name).is_file() for name in names):
            sections += [title, section(*(pd.read_csv(folder / name) for name in names))]
    evidence = [f'- {c.claim}, "{c.quote}" ({c.place}): {c.verdict}. {c.evidence}' for c in claims.itertuples()]
    return "\n\n".join([*sections, EVIDENCE, "\n".join(evidence)]) + "\n"


def read(profile: str, brief: bool = False) -> str:
    """The report of a profile; brief: Table 1 and the verdicts. Raises FileNotFoundError where there is none."""
    path = common.results_folder(profile) / NAME
    if not path.is_file():
        raise FileNotFoundError(f"no report at {path}; run the study first: tmt run --profile {profile.split('_')[0]}")
    text = path.read_text(encoding="utf-8")
    return text.partition("## All trained")[0].partition(EVIDENCE)[0] if brief else text


def _family(table1: pd.DataFrame) -> str:
    cells = table1[(table1["dataset"] == table1["dataset"].iloc[0]) & (table1["metric"] == "mae") & (table1["n"] > 1)]
    cells = cells.sort_values("mean", kind="stable").replace({"method": method_titles()})
    p = cells["p_adjusted"].map("{:.2g}".format, na_action="ignore")
    return _markdown(cells.assign(MAE=intervals(cells, "mean"), p=p)[["method", "MAE", "p", "n"]])


def _robustness(auilc: pd.DataFrame) -> str:
    """Normalised AUILC of MAE: a row a method, a column a corruption and regime."""
    kept = (auilc["dataset"] == auilc["dataset"].iloc[0]) & (auilc["metric"] == "mae") & (auilc["modality"] == "all")
    areas = auilc[kept & auilc["kind"].isin(("missing_frames", "noise", "missing_block"))]
    column = areas["kind"].str.replace("_", " ") + " (" + areas["protocol"] + "), trained " + areas["regime"]
    areas = areas.assign(column=column, area=intervals(areas, "auilc_normalised"))
    wide = areas.pivot(index="method", columns="column", values="area")[column.unique()]
    by_method = areas.drop_duplicates("method").set_index("method")
    shown = by_method[["clean"]].map("{:.3f}".format).join(wide).join(by_method["n"])
    return _markdown(shown.rename(index=method_titles()).reset_index())


def _adaptation(combined: pd.DataFrame) -> str:
    """The verdict on each method and time, and the largest fall of a weight."""
    shown = tables.titled(combined).rename(columns={"dataset": "data", "method": "weights", "when": "corrupted at"})
    shown["largest fall"] = intervals(combined, "change", "+.4f", "change_low", "change_high")
    shown["of"] = combined["modality"] + ", " + combined["kind"].str.replace("_", " ")
    shown["MAE minus uniform's there"] = intervals(combined, "gain", "+.3f", "gain_low", "gain_high")
    columns = ["data", "weights", "corrupted at", "verdict", "cells", "largest fall", "of", "MAE minus uniform's there"]
    return _markdown(shown[[*columns, "n"]])


def _importance(readable: pd.DataFrame, agreement: pd.DataFrame) -> str:
    """Agreement of each measure of importance with the ground truth, and what it may be read as."""
    rows = readable.sort_values("spearman", ascending=False, na_position="last").set_index("measure")
    texts = agreement.assign(text=intervals(agreement, "value", ".3g")).set_index(["statistic", "measure"])["text"]
    columns = {
        "rank correlation": texts["spearman"],
        "slope": texts["slope"],
        "names the top modality": [f"{top:.0%} (chance {c:.0%})" for top, c in zip(rows.top, rows.chance, strict=True)],
        "may be read as": rows["readable"],
        "worlds": rows["n"],
    }
    frame = pd.DataFrame(columns, index=rows.index)
    return _markdown(frame.rename(index=lambda measure: measure.replace("_", " ")).reset_index())


def _held(held: pd.DataFrame) -> str:
    """MAE minus that of learned weights, and the Shapley share of the text, for each modality that was held."""
    text = held[held["modality"] == "text"]
    difference = intervals(text, "mae_difference", "+.3f", "difference_low", "difference_high")
    shown = {"method": text["method"].replace(method_titles()), "MAE minus learned weights'": difference}
    return _markdown(pd.DataFrame(shown | {"Shapley share of text": text["shapley"].map("{:.2f}".format), "n": text.n}))


def _markdown(frame: pd.DataFrame) -> str:
    return frame.astype(object).fillna("").to_markdown(index=False, disable_numparse=True)


def update_readme() -> None:
    """Writes the generated parts of README.md, and the report of each committed study, from `results/`."""
    results, path = common.ROOT / "results", common.ROOT / "README.md"
    text = readme(path.read_text(encoding="utf-8"), results)
    common.write_atomic(path, lambda file: file.write(text.encode()))
    for folder in (results / "quick", results / "full", *results.glob("*/quick")):
        common.write_atomic(folder / NAME, lambda file, folder=folder: file.write(write(folder).encode()))


def readme(text: str, results: Path) -> str:
    """The README's text with its generated parts made from `results`."""
    real = pd.concat([pd.read_csv(folder / "table1.csv") for folder in real_folders(results)], ignore_index=True)
    text = between(text, "findings", findings(results))
    text = between(text, "synthetic", readme_table(pd.read_csv(results / "quick" / "table1.csv")))
    text = between(text, "claims", verdict_table(pd.read_csv(results / "quick" / "claims.csv")))
    return between(text, "real", f"{readme_table(real)}\n\n{baseline_sentences(real)}")


def real_folders(results: Path) -> list[Path]:
    """Results folders of real files; `ten` was a profile, today `full` with 10 seeds."""
    return sorted([*results.glob("*/quick"), *results.glob("*/ten")])


def between(text: str, name: str, content: str) -> str:
    """The text with `content` between its marks of that name. Raises ValueError where they are missing."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"README.md has no pair of lines {begin} and {end} to put the table between")
    return f"{before}{begin}\n{content}\n{end}{after}"


def findings(results: Path) -> str:
    """Five numbered sentences of findings."""
    folders = (results / "quick", *real_folders(results))
    gains = pd.concat([pd.read_csv(folder / "amw_differences.csv") for folder in folders], ignore_index=True)
    bonus, reach, claims = (
        pd.read_csv(results / "quick" / f"{name}.csv") for name in ("selection_bonus", "weights_reach", "claims")
    )
    over = {before: cells for before, cells in gains[gains["source"] == "synthetic"].groupby("before")}
    real = gains[(gains["source"] == "real") & (gains["before"] == "tmt")]
    mae = over["tmt"][over["tmt"]["metric"] == "mae"]
    changes = [
        f"{dataset_title(dataset, 'synthetic')} {change}"
        for dataset, change in zip(mae["dataset"], intervals(mae, "difference", "+.3f"), strict=True)
    ]
    acc5 = bonus[(bonus["method"] == "tmt") & (bonus["metric"] == "acc5")]
    printed = max(table1_value(d, "tmt_amw", "acc5") - table1_value(d, "tmt", "acc5") for d in DATASETS)
    counts = claims["verdict"].value_counts()
    verdicts = [
        f"for {counts[v]} we cannot tell" if v == "cannot tell" else f"{counts[v]} are {v}"
        for v in VERDICTS
        if v in counts
    ]
    sentences = (
        f"On synthetic data, TMT+AMW changes the MAE of TMT by {'; '.join(changes)} (means of {mae['n'].max()} seeds, "
        f"95 % t intervals); of {len(over['tmt'])} comparisons (data set and metric) {_tally(over['tmt'])}.",
        "A gain from learned weights would have to show over fixed ones too: over uniform weights "
        f"{_tally(over['tmt_uniform'])}, over random ones {_tally(over['tmt_random'])}.",
        f"The weights move from 1/3 to {_range(reach, 'tmt_amw')} at the training's learning rate, and to "
        f"{_range(reach, 'tmt_amw_fast')} at one of their own; but they are the same for every utterance: claims about "
        "single samples are impossible as written.",
        "Picking epochs on test, as the original TMT's code does, would have added "
        f"{intervals(acc5, 'bonus', '+.3f').item()} to TMT's Acc-5 on "
        f"{dataset_title(*acc5[['dataset', 'source']].iloc[0])} (n = {acc5['n'].item()}), where the largest gain the "
        f"paper prints is {printed:+.3f}.",
        f"On real files, of {len(real)} comparisons with TMT {_tally(real)}; of the paper's {len(claims)} claims "
        f"{', '.join(verdicts)}.",
    )
    return "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(sentences, 1))


def _range(reach: pd.DataFrame, method: str) -> str:
    rows = reach[reach["method"] == method]
    return f"between {rows['a_low'].min():.3f} and {rows['a_high'].max():.3f}"


def _tally(gains: pd.DataFrame) -> str:
    counts = gains["verdict"].value_counts()
    gain, none, open_ = (counts.get(v, 0) for v in ("supported", "not supported", "cannot tell"))
    return f"{gain} show a gain, {none} surely none of half the printed size (or a loss), {open_} cannot tell"


def readme_table(table1: pd.DataFrame) -> str:
    """Table 1 of `README_METHODS` and, for each data set, the best linear model."""
    mae = table1[table1["metric"] == "mae"].groupby("dataset", sort=False)
    linear = {(dataset, best_linear(cells)["method"]) for dataset, cells in mae}
    named = [(d, m) in linear or m in README_METHODS for d, m in zip(table1["dataset"], table1["method"], strict=True)]
    return _markdown(tables.shown(table1[np.array(named)]))


def verdict_table(claims: pd.DataFrame) -> str:
    """Counts of the verdicts, and a row a claim: quote and place, verdict, source."""
    counts = claims["verdict"].value_counts()
    total = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
    columns = {
        "claim": [f'"{quote}" ({place})' for quote, place in zip(claims["quote"], claims["place"], strict=True)],
        "verdict": claims["verdict"],
        "judged from": claims["source"].replace(
            {"paper": "the paper itself", "synthetic": "synthetic data", "real": "real data"}
        ),
    }
    summary = f"<details><summary>All {len(claims)} claims</summary>"
    table = pd.DataFrame(columns).to_markdown(index=False)
    return f"Of {len(claims)} claims: {total}.\n\n{summary}\n\n{table}\n\n</details>"


def baseline_sentences(table1: pd.DataFrame) -> str:
    """A list item a data set: MAE of TMT against the best linear model."""
    lines = []
    for dataset, cells in table1[table1["metric"] == "mae"].groupby("dataset", sort=False):
        tmt, best = cells.set_index("method").loc["tmt"], best_linear(cells)
        gap = tmt["mean"] - best["mean"]
        lines.append(
            f"- `{dataset}`: TMT {'beats' if gap < 0 else 'does **not** beat'} the best linear model "
            f"({method_title(best['method'])}): MAE {tmt['mean']:.3f} ± {tmt['sd']:.3f} against {best['mean']:.3f}, "
            f"{abs(gap):.3f} {'less' if gap < 0 else 'more'}."
        )
    return "\n".join(lines)


def best_linear(mae: pd.DataFrame) -> pd.Series:
    """The linear model with the least MAE, of rows of Table 1 with metric MAE."""
    linear = mae[mae["method"].str.startswith("linear_")]
    return linear.loc[linear["mean"].idxmin()]
