"""The written report: Table 1, the verdicts and where they come from, as Markdown. Read back, never recomputed."""

from __future__ import annotations

import pandas as pd

from tmtlib import common
from tmtlib.study import tables

NAME = "report.md"
EVIDENCE = "## Evidence"
DATA = {
    "synthetic": "SYNTHETIC data: generated with a known truth in the shapes of the named data sets. They test models "
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
    path = common.results_folder(profile) / NAME
    if not path.is_file():
        raise FileNotFoundError(f"no report at {path}; run the study first: tmt run --profile {profile}")
    text = path.read_text(encoding="utf-8")
    return text.partition(EVIDENCE)[0] if brief else text
