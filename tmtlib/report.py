"""The written report: Table 1, the verdicts and where they come from, as Markdown. Read back, never recomputed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from tmtlib import figures, paths, tables
from tmtlib.paper import VERDICTS
from tmtlib.profiles import METHOD_TITLES

NAME = "report.md"
EVIDENCE = "## Evidence"
DATA = {
    "planted": "PLANTED data: generated with a known truth in the shapes of the named data sets. They test the models "
    "and the logic of the claims; they are no measurement of the real data sets.",
    "real": "Real data.",
}


def write(table1: pd.DataFrame, claims: pd.DataFrame, rows: pd.DataFrame, profile: str) -> str:
    """The report's text, from `table1.csv`, `claims.csv` and `runs.csv`."""
    source, commits = table1["source"].iloc[0], ", ".join(sorted(rows["commit"].unique()))
    evidence = [f'- {c.claim}, "{c.quote}" ({c.place}): {c.verdict}. {c.evidence}' for c in claims.itertuples()]
    parts = [
        f"# Report, profile {profile}",
        f"{DATA[source]} Mean ± sd over n training seeds; floors have no seed. Trained at commit {commits}.",
        "## Table 1",
        tables.shown(table1).to_markdown(index=False, disable_numparse=True),
        "## Verdicts",
        claims[["claim", "verdict", "source"]].to_markdown(index=False),
        EVIDENCE,
        "\n".join(evidence),
    ]
    return "\n\n".join(parts) + "\n"


def read(profile: str, brief: bool = False) -> str:
    """The finished report of a profile; brief: without the evidence. Raises FileNotFoundError where there is none."""
    path = paths.results(profile) / NAME
    if not path.is_file():
        raise FileNotFoundError(f"no report at {path}; run the study first: tmt run --profile {profile}")
    text = path.read_text(encoding="utf-8")
    return text.partition(EVIDENCE)[0] if brief else text


README_METHODS = ("tmt", "tmt_amw", "tmt_amw_fast", "tmt_uniform", "tmt_5class", "tmt_amw_5class")


def update_readme() -> None:
    """Rewrites README.md from the committed results: `results/quick`, and `results/<file>/quick` for real files."""
    path = paths.ROOT / "README.md"
    found = shown_tables(paths.ROOT / "results")
    path.write_text(readme(path.read_text(encoding="utf-8"), *found), encoding="utf-8", newline="\n")
    speed = found[-1]
    cores = f"{speed['machine']['cores']} CPU cores" if speed["machine"]["device"] == "cpu" else "one GPU"
    figure = figures.throughput(pd.DataFrame(speed["throughput"]), cores)
    figures.save(figure, paths.ROOT / "figures" / "benchmarks", "throughput")


def shown_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict]:
    """What the README shows of a results folder: Table 1 and the claims of the planted study, Table 1 of the studies
    of real files one below the other, and the benchmarks."""
    quick = folder / "quick"
    real = [pd.read_csv(path) for path in sorted(folder.glob("*/quick/table1.csv"))]
    speed = json.loads((folder / "benchmarks" / "cpu.json").read_text(encoding="utf-8"))
    tables = pd.read_csv(quick / "table1.csv"), pd.read_csv(quick / "claims.csv"), pd.concat(real, ignore_index=True)
    return *tables, speed


def readme(text: str, planted: pd.DataFrame, claims: pd.DataFrame, real: pd.DataFrame, speed: dict) -> str:
    """The README with its tables made anew from what `shown_tables` returns."""
    text = _between(text, "planted", _table(planted))
    text = _between(text, "claims", verdict_table(claims))
    text = _between(text, "real", f"{_table(real)}\n\n{floor_sentence(real)}")
    return _between(text, "speed", speed_table(speed))


def speed_table(found: dict) -> str:
    """A row a case of `tmt bench`: rates, ratios in float32 with their range over rounds, and the share of the peak."""
    rows = [
        {
            "utterances": row["case"],
            "mean frames": f"{row['mean_frames']:.0f}",
            "plain": f"{row['eager_utterances_per_second']:.0f}/s",
            "this project": f"{row['our_utterances_per_second']:.0f}/s",
            "ratio": f"{row['speedup']:.1f} ({row['speedup_low']:.1f} to {row['speedup_high']:.1f})",
            "ratio, bfloat16": f"{row['speedup_bfloat16']:.1f}",
            "share of peak": f"{row['share_of_peak']:.0%}",
        }
        for row in found["training"]
    ]
    table = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
    return f"{table}\n\n{speed_sentences(found)}"


def speed_sentences(found: dict) -> str:
    """What the table leaves out, a list item each."""
    machine, power, paper = found["machine"], found["scaling_exponents"], found["paper_profile"]
    first, (one, many), start = found["training"][0], found["latency"], found["startup"]
    frames = [row["T"] for row in found["scaling"]["T"]]
    own = max(0.0, start["import torch, tmtlib"] - start["import torch"])
    lines = (
        f"Measured on: {machine['name']}, {machine['cores']} cores, {machine['vector_instructions']}, torch "
        f"{machine['torch']}. Medians over {first['rounds']} rounds (and their range). Its matrix products reach "
        f"{first['peak_gflops']:.0f} GFLOP/s in float32 and {first['peak_gflops_bfloat16']:.0f} in bfloat16.",
        f"Predicting takes {one['our_ms']:.1f} ms for one utterance ({one['speedup']:.1f} times as fast as plain) and "
        f"{many['our_ms']:.0f} ms for {many['batch']} ({many['speedup']:.1f} times).",
        f"Time grows as N^{power['seconds_N']:.2f} with utterances and as T^{power['seconds_T']:.2f} with frames "
        f"(T from {frames[0]} to {frames[-1]}); memory as T^{power['mb_T']:.2f}, and as N^{power['mb_N']:.2f} where "
        "data are mapped.",
        f"`import tmtlib` adds {own:.2f} s to `import torch`; `tmt --help` takes {start['tmt --help']:.2f} s.",
        f"Profile `paper` on planted data at the published size ({paper['runs']} runs, {paper['petaflop']:.0f} PFLOP "
        f"if none stops early) would take {paper['hours_here']:.0f} hours here: a projection from these rates, not a "
        "run.",
    )
    return "\n".join(f"- {line}" for line in lines)


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
    judged = claims["source"].map({"paper": "the paper itself", "planted": "planted data", "real": "real data"})
    frame = claims.assign(claim=[f'"{q}" ({p})' for q, p in zip(claims["quote"], claims["place"], strict=True)])
    frame = frame.assign(judged=judged).rename(columns={"judged": "judged from"})
    table = frame[["claim", "verdict", "judged from"]].to_markdown(index=False)
    return f"Of {len(claims)} claims: {total}.\n\n{table}"


def floor_sentence(real: pd.DataFrame) -> str:
    """Where a trained TMT beats the best linear model in MAE and where not, and by how much; a list item a data set."""
    lines = []
    for dataset, some in real[real["metric"] == "mae"].groupby("dataset", sort=False):
        tmt, best = some.set_index("method").loc["tmt"], _best_linear(some)
        gap = tmt["mean"] - best["mean"]
        what = "beats" if gap < 0 else "does **not** beat"
        lines.append(
            f"- `{dataset}`: TMT {what} the best linear model ({METHOD_TITLES[best['method']]}): MAE {tmt['mean']:.3f} "
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
