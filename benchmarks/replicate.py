"""The headline numbers of the reported study again, on training seeds and synthetic worlds that it never used.

    python -m benchmarks.replicate

Trains TMT, TMT+AMW and the controls with fresh seeds on each synthetic data set, and the profile's methods in fresh
worlds, and puts what they say beside the tables in `results/full`. Finished runs are kept in the results folder, so an
interrupted replication goes on where it was. Writes `results/benchmarks/replicate.csv`.
"""

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd

from tmtlib import common
from tmtlib.analysis import importance, paired, protocol, swap, trivial_baselines, truth, weights
from tmtlib.common import write_atomic
from tmtlib.paper import verdicts
from tmtlib.paper.facts import printed
from tmtlib.paper.verdicts import LEAST
from tmtlib.study import runs
from tmtlib.study.methods import family
from tmtlib.study.study import REPORTED, Study, open_study

COLUMNS = ["headline", "cell", "value", "low", "high", "n", "reading"]
FIRST = 1000  # the first fresh seed and world; the study's are far below


def fresh_study(seeds: int, device: str = "auto") -> Study:
    """The reported study with so many seeds that it never used. Raises ValueError for fewer than two, and where a
    folder of feature files is set: what is reported is of synthetic data."""
    if seeds < 2:
        raise ValueError(f"{seeds} seeds; wanted at least 2, for an interval")
    study = open_study(REPORTED, device=device)
    if study.source != "synthetic":
        raise ValueError("TMT_DATA is set, but the reported headlines are of synthetic data; unset it")
    profile = replace(study.profile, name="replicate", seeds=tuple(range(FIRST, FIRST + seeds)), family_seeds=None)
    return replace(study, profile=profile)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """Headlines of `amw_differences.csv`: TMT+AMW minus TMT and minus each control, by data set and metric."""
    cell = table["dataset"] + ", " + table["metric"] + ", minus " + table["before"]
    return _rows("TMT+AMW minus another", cell, table, "difference", "verdict")


def swapped(table: pd.DataFrame) -> pd.DataFrame:
    """Headlines of `swap.csv`: learned weights minus 1/M in the same model."""
    own = table[(table["method"] == "tmt_amw") & (table["replaced_by"] == "uniform") & (table["regime"] == "clean")]
    return _rows("learned minus equal weights", own["dataset"] + ", " + own["metric"], own, "difference", "verdict")


def readings(agreement: pd.DataFrame) -> pd.DataFrame:
    """Headlines of `worlds_agreement.csv`: rank correlation with the truth, and what a measure may be read as."""
    rank = agreement[agreement["statistic"] == "spearman"].merge(
        truth.readable(agreement)[["method", "measure", "readable"]], on=["method", "measure"]
    )
    return _rows("may be read as", rank["method"] + ", " + rank["measure"], rank, "value", "readable")


def reach(table: pd.DataFrame) -> pd.DataFrame:
    """Headlines of `weights_reach.csv`: the least and the greatest weight, and whether they leave 1/3."""
    rows = table.assign(
        value=table["a_high"] - table["a_low"], low=table["a_low"], high=table["a_high"], n=float("nan")
    )
    rows["reading"] = (rows["value"] > 2 * LEAST).map({True: "leaves 1/3", False: "stays at 1/3"})
    return _rows("weights reach", rows["dataset"] + ", " + rows["method"], rows, "value", "reading")


def bonus(table: pd.DataFrame) -> pd.DataFrame:
    """Headlines of `selection_bonus.csv`: what picking epochs on test adds to TMT, beside the gain that is printed."""
    own = table[(table["method"] == "tmt") & table["metric"].isin(verdicts.OUR_METRICS.values())]
    cells = zip(own["dataset"], own["metric"], strict=True)
    gain = [abs(printed(dataset, "tmt_amw", m) - printed(dataset, "tmt", m)) for dataset, m in cells]
    words = ["surely below the printed gain", "about the printed gain", "surely above the printed gain"]
    own = own.assign(reading=np.select([own["high"] < gain, own["low"] <= gain], words[:2], words[2]))
    return _rows("picking epochs on test", own["dataset"] + ", " + own["metric"], own, "bonus", "reading")


def claims(table: pd.DataFrame) -> pd.DataFrame:
    """Headlines of `claims.csv`: the verdicts on claims judged from runs, which have no number."""
    table = table[table["judged_from"] != "reading"]
    rows = table.assign(value=float("nan"), low=float("nan"), high=float("nan"), n=float("nan"))
    return _rows("verdict", table["claim"], rows, "value", "verdict")


def _rows(headline: str, cell: pd.Series, table: pd.DataFrame, value: str, reading: str) -> pd.DataFrame:
    """`COLUMNS`, from a table with low, high and n and columns of these names."""
    renamed = table.rename(columns={value: "value", reading: "reading"}).assign(headline=headline, cell=cell)
    return renamed[COLUMNS]


def measured(study: Study, worlds: int) -> pd.DataFrame:
    """`COLUMNS` of all headlines, from a study's runs and so many fresh worlds."""
    device, jobs = study.device, study.profile.jobs
    main, amw, fast = family("main"), study.runs("tmt_amw"), study.runs("tmt_amw_fast")
    rows = study.ensure(*main)
    runs.ensure(fast, device, jobs)
    pairs = {b: paired.by_utterance(study.runs(*main), before=b) for b in main if b != "tmt_amw"}
    bounds = {b: paired.sampled(p).assign(before=b) for b, p in pairs.items()}
    parts = [verdicts.gains(rows, before=b, sampled=there).assign(before=b) for b, there in bounds.items()]
    unlearned = verdicts.unlearned(trivial_baselines.against_constant(study.runs("tmt")))
    inside = truth.runs_in_worlds(study, *study.profile.world_methods, worlds=range(FIRST, FIRST + worlds))
    runs.ensure(inside, device, jobs)
    table = importance.importance_table(inside, device, jobs)
    agreement = truth.worlds_agreement(pd.concat([table, truth.oracle_importance(inside)], ignore_index=True))
    swaps = swap.summary(swap.by_seed(amw, device, jobs))
    judged = verdicts.gain_verdicts(rows, swaps, unlearned, pd.concat(bounds.values(), ignore_index=True))
    judged = pd.DataFrame([(key, verdict) for key, (verdict, _) in judged.items()], columns=["claim", "verdict"])
    judged["judged_from"] = "synthetic"
    first = [run for run in study.runs("tmt") if run.data == study.refs[0]]
    found = (gains, pd.concat(parts)), (swapped, swaps)
    found = [of(verdicts.withhold(cells, unlearned)) for of, cells in found]
    found += [readings(agreement), reach(weights.reach([*amw, *fast])), claims(judged)]
    return pd.concat([*found, bonus(protocol.selection_bonus(first, device, jobs))], ignore_index=True)


def beside(reported: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """Both, a row a headline and cell: `COLUMNS` of each, and whether the reading is the same ("yes", "no", or "not
    drawn again" where only the reported study has it)."""
    both = reported.merge(fresh, on=["headline", "cell"], how="left", suffixes=("", "_fresh"))
    same = (both["reading"] == both["reading_fresh"]).map({True: "yes", False: "no"})
    return both.assign(same=same.where(both["reading_fresh"].notna(), "not drawn again"))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicate", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help=f"fresh training seeds, from {FIRST} (20)")
    parser.add_argument(
        "--worlds",
        type=int,
        default=30,
        help=f"fresh synthetic worlds, from {FIRST} (30)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    chosen = parser.parse_args(argv)
    if chosen.seeds < 2 or chosen.worlds < 2:
        parser.error(f"{chosen.seeds} seeds and {chosen.worlds} worlds; wanted at least 2 of each, for an interval")
    folder = common.ROOT / "results" / REPORTED
    made = {"amw_differences": gains, "swap": swapped, "worlds_agreement": readings, "weights_reach": reach}
    made |= {"claims": claims, "selection_bonus": bonus}
    if missing := [name for name in made if not (folder / f"{name}.csv").is_file()]:
        parser.error(
            f"{folder} has no {', '.join(missing)}; run the reported study first: tmt run --profile {REPORTED}"
        )
    reported = pd.concat([of(pd.read_csv(folder / f"{name}.csv")) for name, of in made.items()], ignore_index=True)
    table = beside(reported, measured(fresh_study(chosen.seeds, chosen.device), chosen.worlds))
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_atomic(common.results_folder("benchmarks") / "replicate.csv", lambda file: file.write(text.encode()))
    print(table.to_string(index=False, float_format="{:.4g}".format))
    print(f"\nThe reading is the same: {table['same'].value_counts().to_dict()}.")


if __name__ == "__main__":
    main()
