"""Whether a results folder holds what its records say: files are whole, predictions are scored anew, tables and pages
are made again. Nothing is trained, and no model is run."""

from collections.abc import Iterator
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd

from tmtlib import common
from tmtlib.analysis import claims, misled, paired, trivial_baselines, truth, weights
from tmtlib.analysis.paired import CONTROLS
from tmtlib.common import DamagedError, read_sealed
from tmtlib.paper import audit, facts, verdicts
from tmtlib.study import compare, report, runs, tables
from tmtlib.study.choices import choices
from tmtlib.study.compare import Difference
from tmtlib.study.profiles import REPORTED
from tmtlib.study.records import Record, record_at
from tmtlib.study.study import Study, as_csv, read_table

# Tolerances of what is made from saved tables, whose six digits move intervals of few seeds: less than a digit that is
# printed; and of `compare.RATIOS`
ROUNDED = 2e-4, 1e-2

NEEDED = "runs by_utterance against_constant attention_entropy robustness_differences costs claims"  # tables

Tables = dict[str, pd.DataFrame]


def check(study: Study) -> tuple[list[Difference], list[str]]:
    """What differs in a study's results folder, and what could not be checked, a line each. Files of `runs/` have to be
    whole and what this study last wrote; scores and tables to agree to `compare.TOLERANCE`; pages to be equal.

    Where records are missing, tables are made from tables alone: without the columns `compare.LEFT_OUT`, and to
    `ROUNDED`. Raises FileNotFoundError for a folder without the tables of a whole series (`NEEDED`).
    """
    text = compare.read_tables(study.results)
    saved = {name.removesuffix(".csv"): read_table(study.results / name) for name in text}
    if lacking := {*NEEDED.split()} - saved.keys():
        raise FileNotFoundError(f"{study.results} has no {', '.join(sorted(lacking))}; run the whole series first")
    files, how, why = [*_files(study)], ((),), []
    try:
        made = from_records(study)
    except (FileNotFoundError, DamagedError) as error:
        made, how, why = {}, (compare.LEFT_OUT, *ROUNDED), [f"any table against records: {error}"]
    made |= from_tables(study, saved | {name: made[name] for name in ("misled_scores",) if name in made})
    again = {f"{name}.csv": as_csv(table) for name, table in made.items() if name in saved}
    differences, _ = compare.compare({name: text[name] for name in again}, again, *how)
    rest = ", ".join(sorted(text.keys() - again.keys()))
    why.append(f"what is in {rest}, but for changes since this study wrote them" if study.written() else rest)
    return [*files, *differences, *_pages(study)], why


def from_records(study: Study) -> Tables:
    """The tables that records and data alone decide, by name. Raises FileNotFoundError for an untrained run."""
    tmt = study.runs("tmt")
    made = {
        "runs": pd.DataFrame([runs.row(run) for run in study.runs(*study.methods)]),
        "against_constant": trivial_baselines.against_constant(tmt),
        "against_linear": trivial_baselines.against_linear(tmt),
        "selections": runs.mean_selections(study.runs("tmt", "tmt_amw")),
        "explained_share": truth.explained_share(tmt),
        "weights": weights.chosen(study.runs("tmt_amw", "tmt_amw_fast", few=True)),
        "by_utterance": paired.against_controls(study.runs("tmt_amw", *CONTROLS)),
    }
    return made | ({"misled_scores": misled.scores(misled.todo(study))} if study.profile.draws else {})


def from_tables(study: Study, t: Tables) -> Tables:
    """The tables that other tables, data and the paper decide."""
    trivial = t["trivial_baselines"] if "trivial_baselines" in t else trivial_baselines.table(study.datasets())
    made = {
        "table1": tables.table1(pd.concat([t["runs"], trivial], ignore_index=True)),
        "amw_differences": paired.differences(t["runs"], t["by_utterance"], t["against_constant"]),
        "claims": _claims(study, t),
        "audit_verdicts": audit.arithmetic_verdicts(),
        "choices": choices(),
    }
    made |= {"misled": misled.reached(t["misled_scores"])} if "misled_scores" in t else {}
    return made | ({"readable": truth.readable(t["worlds_agreement"])} if "worlds_agreement" in t else {})


def _claims(study: Study, t: Tables) -> pd.DataFrame:
    """The ledger; of claims on noise, where no table has the areas by seed, the verdict alone is made again."""
    if "noise_areas" in t:
        return claims.judged(study, t)
    table = claims.judged(study, t | {"noise_areas": pd.DataFrame(columns=[*t["runs"], "modality", "area"])})
    cells = t["robustness_differences"].query("kind == 'noise' and what == 'area'")
    of_noise = {b: cells[cells["before"] == b] for b in CONTROLS}
    noise = {c.key: verdicts.judged(of_noise, c.rule) for c in facts.CLAIMS if c.rule in ("noise", "learned_noise")}
    kept = t["claims"][t["claims"]["claim"].isin(noise)]
    return pd.concat([table[~table["claim"].isin(noise)], kept.assign(verdict=kept["claim"].map(noise))])


def _files(study: Study) -> Iterator[Difference]:
    """Damaged records, parameters and rows of all studies beside this one, and files changed since this study wrote."""
    folder = common.results_folder() / "runs"
    for path in sorted([*folder.glob("*.npz"), *folder.glob("*.json")]):
        try:
            yield from _scores(path, record_at(path)) if path.suffix == ".npz" else read_sealed(path)[:0]
        except (ValueError, KeyError, BadZipFile) as error:
            yield Difference(path.name, "", "file", "whole", " ".join(str(error).split()))
    for path in study.written():
        if not study.wrote(path):
            yield Difference(path.name, "", "file", "as written", "changed" if path.exists() else "missing")


def _scores(path: Path, record: Record) -> Iterator[Difference]:
    """Where parameters are not the record's, or validation predictions not of the scores that training saw."""
    parameters, row = path.with_suffix(".safetensors"), record.meta["history"][record.meta["best_epoch"] - 1 :]
    if parameters.is_file() and "failed" not in record.meta:
        found, wanted = sha256(parameters.read_bytes()).hexdigest(), record.meta["parameters_sha256"]
        if found != wanted:
            yield Difference(parameters.name, "", "SHA-256", wanted, found)
    for name, value in record.scores("valid").items() if row else ():
        before = row[0].get(f"valid_{name}", value)
        if not compare.same(str(before), str(value)):
            yield Difference(path.name, "validation", name, f"{before:.6g}", f"{value:.6g}")


def _pages(study: Study) -> Iterator[Difference]:
    """Lines of the report and, of committed studies, of the README's pages that the tables do not give."""
    own, pages = study.results / report.NAME, {}
    if common.results_folder() == common.ROOT / "results" and study.profile.name in ("quick", REPORTED):
        pages = report.pages()
    pages |= {own: report.write(study.results)} if own.is_file() else {}
    for path, text in pages.items():
        lines = zip_longest(path.read_text(encoding="utf-8").splitlines(), text.splitlines(), fillvalue="")
        yield from (
            Difference(path.name, f"line {i}", "", *pair) for i, pair in enumerate(lines, 1) if len({*pair}) > 1
        )
