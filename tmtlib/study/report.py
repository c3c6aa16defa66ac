"""Reports, the README's findings and the tables of results/README.md, in Markdown, from the CSV files of results."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from tmtlib import common
from tmtlib.data.schema import dataset_title
from tmtlib.paper import ledger, verdicts
from tmtlib.study import findings, tables
from tmtlib.study.findings import counts
from tmtlib.study.methods import method_title, method_titles
from tmtlib.study.profiles import PROFILES, REPORTED
from tmtlib.study.study import Study
from tmtlib.study.tables import intervals

NAME = "report.md"
EVIDENCE = "## Evidence"
REAL = "real"  # committed results of real files (`benchmarks.real_files`)
JUDGED_FROM = {"reading": "reading", "synthetic": "synthetic data", "real": "real data"}
DATA = {
    "synthetic": "SYNTHETIC data: generated with known ground truth in the shapes of the named data sets. They test "
    "the models and the logic of the claims; they are no measurement of the real data sets.",
    "real": "Data from files, taken as real.",
}
LEARNED = ["dataset", "source", "method"]
COMPARED = {"beats": "beats", "does not beat": "**loses to**", "ranks nothing": "cannot be told from"}
README_METHODS = (
    *("tmt", "tmt_amw", "tmt_amw_fast", "tmt_uniform", "tmt_random", "tmt_gated", "tmt_reliability"),
    *("tmt_5class", "tmt_amw_5class"),
    *("text_only", "late_fusion", "mult", "misa", "constant", "oracle"),
)


def write(folder: Path) -> str:
    """The report of a results folder with `table1.csv`, `claims.csv` and `runs.csv`. Robustness, adaptation, importance
    and held weights have a section where their files are there too."""
    table1, claims, runs = (_read(name, [folder]) for name in ("table1", "claims", "runs"))
    source, commits = table1["source"].iloc[0], ", ".join(sorted(runs["commit"].unique()))
    first = dataset_title(*table1[["dataset", "source"]].iloc[0])
    sections = [
        f"# Report, profile {folder.name}",
        f"{DATA[source]} Mean ± sd over n training seeds; trivial baselines have no seed. Trained at commit {commits}.",
        *_plainly(folder, source),
        *("## Table 1", markdown(tables.shown(table1))),
        *(f"## Verdicts{_rules(claims)}", decided(claims), markdown(claims[["claim", "verdict", "judged_from"]])),
        *(f"## All trained methods on {first}, best first", _family(table1)),
    ]
    for title, names, section in (
        (f"Mean MAE over the levels of a corruption of all modalities, {first}", ["auilc"], _robustness),
        ("Does a weight fall when its modality is corrupted?", ["adaptation_combined"], _adaptation),
        ("Is a weight an importance?", ["readable", "worlds_agreement"], _importance),
        ("Weights held at .8 on one modality", ["frozen_weights"], _held),
        ("TMT against the best linear model", ["against_linear"], baseline_sentences),
    ):
        if all((folder / f"{name}.csv").is_file() for name in names):
            sections += [f"## {title}", section(*(_read(name, [folder]) for name in names))]
    evidence = [
        f'- {c.claim}, "{c.quote}" ({c.place}): {c.verdict}. {c.evidence}{basis(c)}' for c in claims.itertuples()
    ]
    return "\n\n".join([*sections, EVIDENCE, "\n".join(evidence)]) + "\n"


def conclude(study: Study, rows: pd.DataFrame) -> None:
    """Saves what closes a study: `provenance.json` of the runs in `rows`, and its report. Committed ones stay."""
    if not study.shows_reported:
        study.save_text(study.provenance(rows), "provenance.json")
        study.save_text(write(study.results), NAME)


def beside_reported(study: Study) -> str:
    """This study's MAE, Acc-5 and verdicts beside the reported ones, in Markdown; nothing where there are none of the
    same data."""
    names, keys = ("table1", "claims"), ["dataset", "source", "method", "metric"]
    here, reported = ([of(name) for name in names] for of in (study.table, study.reported))
    if study.profile.name == REPORTED or any(table.empty for table in (*here, *reported)):
        return ""
    both = here[0].merge(reported[0], on=keys, suffixes=("", "_reported"))
    both = both[both["metric"].isin(("mae", "acc5")) & both["method"].isin(("tmt", "tmt_amw", "tmt_uniform"))]
    ends = [f"{end}_reported" for end in ("mean", "low", "high")]
    shown = tables.titled(both[keys]).assign(
        here=intervals(both, "mean"), reported=intervals(both, ends[0], ".3f", *ends[1:])
    )
    claims = here[1].merge(reported[1], on="claim", suffixes=("", "_reported"))
    others = claims[claims["verdict"] != claims["verdict_reported"]]
    said = f"{len(claims) - len(others)} of {len(claims)} verdicts are the reported ones (profile {REPORTED})."
    listed = others[["claim", "verdict", "verdict_reported"]].set_axis(["claim", "here", "reported"], axis=1)
    parts = ["## Beside the reported results", markdown(shown), said, *([markdown(listed)] if len(listed) else [])]
    return "\n\n".join(parts)


def _plainly(folder: Path, source: str) -> list[str]:
    """What has to be known before Table 1: that it is of profile smoke, or what TMT does on real data."""
    said = []
    if folder.name.startswith("smoke"):
        epochs = PROFILES["smoke"].training.epochs
        said = [f"Trained for {epochs} epochs, to see that everything runs: the numbers mean nothing."]
    files = {path.stem for path in folder.glob("*.csv")} if source == "real" else set()
    if {"against_linear", "against_constant"} <= files:
        linear, constant = (_read(name, [folder]) for name in ("against_linear", "against_constant"))
        both = linear.merge(constant[[*LEARNED, "constant_mae", "verdict"]], on=LEARNED).query("method == 'tmt'")
        said += map(_lost_or_won, both.to_dict("records"))
    said += [findings.on_absent(_read("weights", [folder]))] if "weights" in files else []
    return [text for text in said if text]


def _lost_or_won(row: dict) -> str:
    """TMT against the training median and the linear model, in words; row: of `against_linear` and `_constant`."""
    title, n = dataset_title(row["dataset"], row["source"]), row["n_seeds"]
    return (
        f"{title}: TMT (MAE {row['single_mae']:.3f}, n = {n} seeds) {COMPARED[row['verdict']]} the training median "
        f"({row['constant_mae']:.3f}) and {COMPARED[row['single_verdict']]} {method_title(row['linear'])} "
        f"({row['linear_mae']:.3f}), the linear model that validation chose."
    )


def read(profile: str, brief: bool = False) -> str:
    """The report that is `found`; brief: Table 1 and the verdicts."""
    text = found(profile).read_text(encoding="utf-8")
    return text.partition("## All trained")[0].partition(EVIDENCE)[0] if brief else text


def found(profile: str) -> Path:
    """The report of a profile, or that of the results folder if it is one study's own, or has one study alone. Raises
    FileNotFoundError where there is none, and where there are others."""
    folder, others = common.results_folder(), sorted(common.results_folder().glob(f"*/{NAME}"))
    found = [path for path in (common.results_folder(profile) / NAME, folder / NAME) if path.is_file()]
    path = (found or others if len(others) == 1 else found or [None])[0]
    if path is None:
        there = ", ".join(f"tmt report --results {p.parent}" for p in others)
        first = f"run the study first: tmt run --profile {profile.split('_')[0]}; or give --results its folder"
        advice = f"there are: {there}" if others else first
        raise FileNotFoundError(f"no report at {common.results_folder(profile) / NAME}; {advice}")
    return path


def _read(name: str, folders: Iterable[Path]) -> pd.DataFrame:
    return pd.concat([pd.read_csv(folder / f"{name}.csv") for folder in folders], ignore_index=True)


def decided(claims: pd.DataFrame) -> str:
    """How many claims are judged from what, with which verdicts, and how many of those judged from runs are decided."""
    lines, source = [], claims["judged_from"]
    for name in [n for n in JUDGED_FROM if n in set(source)]:
        each = ", ".join(f"{n} {verdict}" for verdict, n in counts(claims[source == name]).items())
        lines.append(f"Judged from {JUDGED_FROM[name]}, {(source == name).sum()} claims: {each}.")
    from_runs = claims[source != "reading"]
    sure = from_runs["verdict"].isin(ledger.DECIDED).sum()
    return " ".join([*lines, f"{sure} of {len(from_runs)} claims judged from runs are decided."])


def basis(claim) -> str:
    """What a claim was judged from, in words; nothing where reading alone did."""
    if pd.isna(claim.runs):
        return ""
    dated = "" if pd.isna(claim.trained) else f", trained by {claim.trained}"
    on = "" if pd.isna(claim.data) else f" on {claim.data}"
    return f" Judged from {claim.runs}{on}{dated} ({claim.numbers})."


def _rules(claims: pd.DataFrame) -> str:
    return f" (rules {claims['rules'].iloc[0]})"


def markdown(frame: pd.DataFrame) -> str:
    """A table in Markdown, with nothing where a cell is missing."""
    return frame.astype(object).fillna("").to_markdown(index=False, disable_numparse=True)


def _mae_of_first(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["dataset"] == table["dataset"].iloc[0]) & (table["metric"] == "mae")]


def _family(table1: pd.DataFrame) -> str:
    cells = _mae_of_first(table1).query("n > 1").sort_values("mean", kind="stable").replace({"method": method_titles()})
    p = cells["p_adjusted"].map("{:.2g}".format, na_action="ignore")
    return markdown(cells.assign(MAE=intervals(cells, "mean"), p=p)[["method", "MAE", "p", "n"]])


def _robustness(auilc: pd.DataFrame) -> str:
    """Normalised AUILC of MAE: a row a method, a column a corruption and regime."""
    areas = _mae_of_first(auilc).query("modality == 'all' and kind in ('missing_frames', 'noise', 'missing_block')")
    column = areas["kind"].str.replace("_", " ") + " (" + areas["protocol"] + "), trained " + areas["regime"]
    areas = areas.assign(column=column, area=intervals(areas, "auilc_normalised"))
    wide = areas.pivot(index="method", columns="column", values="area")[column.unique()]
    by_method = areas.drop_duplicates("method").set_index("method")
    shown = by_method[["clean"]].map("{:.3f}".format).join(wide).join(by_method["n"])
    return markdown(shown.rename(index=method_titles()).reset_index())


def _adaptation(combined: pd.DataFrame) -> str:
    """The verdict on each method and time, and the largest fall of a weight."""
    shown = tables.titled(combined).rename(columns={"dataset": "data", "method": "weights", "when": "corrupted at"})
    shown["largest fall"] = intervals(combined, "change", "+.4f", "change_low", "change_high")
    shown["of"] = combined["modality"] + ", " + combined["kind"].str.replace("_", " ")
    shown["MAE minus uniform's there"] = intervals(combined, "gain", "+.3f", "gain_low", "gain_high")
    columns = ["data", "weights", "corrupted at", "verdict", "cells", "largest fall", "of", "MAE minus uniform's there"]
    return markdown(shown[[*columns, "n"]])


def _importance(readable: pd.DataFrame, agreement: pd.DataFrame) -> str:
    """Agreement of each measure of importance with the ground truth, and what it may be read as."""
    names = ["method", "measure"]
    rows = readable.sort_values("spearman", ascending=False, na_position="last").set_index(names)
    texts = agreement.assign(text=intervals(agreement, "value", ".3g")).set_index(["statistic", *names])["text"]
    top = rows["top"].map("{:.0%}".format) + rows["chance"].map(" (chance {:.0%})".format)
    columns = {"rank correlation": texts["spearman"], "slope": texts["slope"], "names the top modality": top}
    frame = pd.DataFrame(columns | {"may be read as": rows["readable"], "worlds": rows["n"]}, index=rows.index)
    frame = frame.rename(method_titles(), level="method").rename(lambda name: name.replace("_", " "), level="measure")
    return markdown(frame.reset_index())


def _held(held: pd.DataFrame) -> str:
    """MAE minus that of learned weights, and the Shapley share of the text, for each modality that was held."""
    text = held[held["modality"] == "text"]
    difference = intervals(text, "mae_difference", "+.3f", "difference_low", "difference_high")
    shown = {"method": text["method"].replace(method_titles()), "MAE minus learned weights'": difference}
    return markdown(pd.DataFrame(shown | {"Shapley share of text": text["shapley"].map("{:.2f}".format), "n": text.n}))


def pages() -> dict[Path, str]:
    """README.md, results/README.md, and the report of each committed study, made from the tables in results/."""
    results = common.ROOT / "results"
    made = {common.ROOT / "README.md": front, results / "README.md": readme}
    texts = {path: make(path.read_text(encoding="utf-8"), results) for path, make in made.items()}
    return texts | {results / name / NAME: write(results / name) for name in ("quick", REPORTED)}


def update_readme() -> None:
    """Writes the `pages`."""
    for path, text in pages().items():
        common.write_atomic(path, lambda file, text=text: file.write(text.encode()))


def front(text: str, results: Path) -> str:
    """The text of README.md with its findings made from `results`."""
    tables = {name: _read(name, [results / REPORTED]) for name in findings.TABLES}
    return between(text, "front", findings.front(tables, _read("amw_differences", [results / REAL])))


def readme(text: str, results: Path) -> str:
    """The text of results/README.md with its generated parts made from `results`: `REPORTED`, verdicts of `quick`
    beside its, and `REAL` files."""
    reported, real = [results / REPORTED], [results / REAL]
    claims, quick = _read("claims", reported), _read("claims", [results / "quick"])
    table1, real_table1 = _read("table1", reported), _read("table1", real)
    measured = {name: _read(name, reported) for name in findings.TABLES}
    text = between(
        text, "findings", findings.sentences(measured, {name: _read(name, real) for name in findings.ELSEWHERE})
    )
    fresh = pd.read_csv(results / "benchmarks" / "replicate.csv")
    text = between(text, "replicated", replicated(fresh))
    text = between(text, "synthetic", _readme_table(table1, _read("against_linear", reported)))
    text = between(text, "claims", _verdict_table(claims, quick))
    against = _read("against_linear", real)
    table = f"<details><summary>All methods</summary>\n\n{_readme_table(real_table1, against)}\n\n</details>"
    return between(text, "real", f"{baseline_sentences(against, _read('against_constant', real))}\n\n{table}")


def between(text: str, name: str, content: str) -> str:
    """The text with `content` between its marks of that name. Raises ValueError where they are missing."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"the page has no pair of lines {begin} and {end} to put the table between")
    return f"{before}{begin}\n{content}\n{end}{after}"


def _readme_table(table1: pd.DataFrame, against: pd.DataFrame) -> str:
    """Table 1 of `README_METHODS` and the linear model that validation chose."""
    chosen = table1["dataset"].map(against.drop_duplicates("dataset").set_index("dataset")["linear"])
    linear = table1["method"].str.startswith("linear_") & (table1["method"] == chosen)
    return markdown(tables.shown(table1[table1["method"].isin(README_METHODS) | linear]))


def _verdict_table(claims: pd.DataFrame, quick: pd.DataFrame) -> str:
    """Counts of the verdicts, and a row a claim: quote and place, verdict, that of profile quick, source."""
    total = ", ".join(f"{n} {verdict}" for verdict, n in counts(claims).items())
    quoted = '"' + claims["quote"] + '" (' + claims["place"] + ")"
    judged = claims["judged_from"].replace(JUDGED_FROM)
    with_three = claims["claim"].map(quick.set_index("claim")["verdict"])
    columns = {"claim": quoted, "verdict": claims["verdict"], "profile quick": with_three, "judged from": judged}
    table = pd.DataFrame(columns)
    summary = f"<details><summary>All {len(claims)} claims</summary>"
    parts = decided(claims)
    return f"Of {len(claims)} claims: {total}{_rules(claims)}. {parts}\n\n{summary}\n\n{markdown(table)}\n\n</details>"


def replicated(table: pd.DataFrame) -> str:
    """How many readings came out the same on fresh seeds and worlds, and both numbers of each that did not.

    table: `benchmarks.replicate`'s, a row a headline and cell.
    """
    drawn, other = table[table["same"] != "not drawn again"], table[table["same"] == "no"]
    yes = drawn["same"] == "yes"
    by_headline = (f"{same.sum()} of {len(same)} ({name})" for name, same in yes.groupby(drawn["headline"]))
    start = f"On training seeds and worlds never used before, {yes.sum()} of {len(drawn)} readings came out"
    rest = table[table["same"] == "not drawn again"].groupby("headline")["cell"]
    left = "; ".join(f"{name} ({', '.join(cells)})" for name, cells in rest)
    before, fresh = (intervals(other, f"value{k}", "+.3f", f"low{k}", f"high{k}") for k in ("", "_fresh"))
    columns = {"headline": other["headline"], "of": other["cell"], "reported": other["reading"] + " " + before}
    rows = pd.DataFrame(columns | {"fresh": other["reading_fresh"] + " " + fresh})
    summary = f"<details><summary>The {len(other)} that did not</summary>"
    start += f" the same: {', '.join(by_headline)}. Not drawn again: {left or 'nothing'}."
    return f"{start}\n\n{summary}\n\n{markdown(rows)}\n\n</details>"


def baseline_sentences(against: pd.DataFrame, constant: pd.DataFrame | None = None) -> str:
    """A list item a data set: MAE of TMT against the linear model that validation chose, with 95 % intervals.

    against: `analysis.trivial_baselines.against_linear`; constant: `against_constant`, which says on which data nothing
    is ranked, as TMT is not surely better than the training median.
    """
    unlearned = verdicts.unlearned(constant) if constant is not None else ()
    return "\n".join(
        f"- `{r.dataset}`: TMT (MAE {r.single_mae:.3f}) does not surely beat the training median: nothing is ranked."
        if r.dataset in unlearned
        else f"- `{r.dataset}`, against {method_title(r.linear)}, the linear model that validation chose "
        f"(MAE {r.linear_mae:.3f} [{r.linear_low:.3f}, {r.linear_high:.3f}]): "
        f"a single TMT {_ranked(r, 'single')}; the ensemble of its {r.n_seeds} seeds {_ranked(r, 'ensemble')}."
        for _, r in against[against["method"] == "tmt"].iterrows()
    )


def _ranked(row: pd.Series, name: str) -> str:
    mae, difference, low, high, verdict = (row[f"{name}_{k}"] for k in ("mae", "difference", "low", "high", "verdict"))
    numbers = f"MAE {mae:.3f}, {difference:+.3f} [{low:+.3f}, {high:+.3f}]"
    if verdict == "ranks nothing":
        width = f"the interval, {high - low:.3f} wide, holds zero"
        return f"is not told apart ({numbers}: {width}, so this file ranks nothing)"
    return f"{verdict.replace('not', '**not**')} it ({numbers})"
