"""Profile paper as far as it has been trained: the paper's size and protocol on synthetic data of the published sizes.

    python -m benchmarks.paper_size --device cuda --datasets mosi,sims --seeds 10

Trains the profile's methods on these data sets, seed by seed, and writes the tables of every finished run of the
profile to `<results>/paper/`: runs.csv, table1.csv, amw_differences.csv, weights.csv, selections.csv and
provenance.json, which also says what was not run. Finished runs are kept, so an interrupted call goes on where it was,
and `--seeds 0` writes the tables alone.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from tmtlib.analysis import trivial_baselines, weights
from tmtlib.common import check_choice
from tmtlib.paper import verdicts
from tmtlib.study import runs, tables
from tmtlib.study.profiles import split_names
from tmtlib.study.runs import Run
from tmtlib.study.study import Study, open_study


def todo(study: Study, seeds: int) -> list[Run]:
    """The runs of the first so many seeds, seed by seed, so that what is finished can be compared in pairs."""
    return sorted((run for run in study.runs(*study.methods) if run.seed < seeds), key=lambda run: run.seed)


def not_run(study: Study) -> list[dict]:
    """Data set, method and seeds of the profile that have no record."""
    rows = pd.DataFrame(
        [(r.data.name, r.method, r.seed) for r in study.runs(*study.methods) if not runs.record_path(r).exists()],
        columns=["dataset", "method", "seed"],
    )
    groups = rows.groupby(["dataset", "method"], sort=False)["seed"]
    return [{"dataset": d, "method": m, "seeds": seeds.tolist()} for (d, m), seeds in groups]


PAIRS = tuple(("tmt_amw", before) for before in ("tmt", "tmt_uniform", "tmt_random"))  # (after, before)


def write(study: Study, pairs: Sequence[tuple[str, str]] = PAIRS, trivial: Sequence[pd.DataFrame] = ()) -> frozenset:
    """Tables of the finished runs, in `table1` with rows of trivial baselines; returns the names of the data sets on
    which TMT learned nothing. Raises ValueError where no run of TMT is finished."""
    done = [run for run in study.runs(*study.methods) if runs.record_path(run).exists()]
    of = {method: [run for run in done if run.method == method] for method in study.methods}
    if not of["tmt"]:
        raise ValueError(f"no run of TMT of profile {study.profile.name} is finished; give --seeds 1 or more")
    there = replace(study, refs=tuple(ref for ref in study.refs if ref in {run.data for run in done}))
    rows = pd.DataFrame([runs.row(run) for run in done])
    against = trivial_baselines.against_constant(of["tmt"])
    unlearned = verdicts.unlearned(against)
    both = [(a, b) for a, b in pairs if of.get(a) and of.get(b)]
    parts = [verdicts.gains(rows, before=b, after=a).assign(before=b, after=a) for a, b in both]
    study.save_table(rows, "runs")
    study.save_table(tables.table1(pd.concat([rows, *trivial], ignore_index=True)), "table1")
    study.save_table(against, "against_constant")
    study.save_table(verdicts.withhold(pd.concat(parts, ignore_index=True), unlearned), "amw_differences")
    study.save_table(weights.chosen(of["tmt_amw"]), "weights")
    study.save_table(runs.mean_selections(done), "selections")
    provenance = json.loads(there.provenance(rows)) | {"not_run": not_run(study)}
    study.save_text(json.dumps(provenance, indent=2) + "\n", "provenance.json")
    return unlearned


def options(name: str, about: str, profile: str) -> argparse.ArgumentParser:
    """What a command that trains seed by seed takes: --seeds, --device, --jobs, and of the tests --profile."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about.splitlines()[0])
    parser.add_argument(
        "--seeds",
        type=int,
        choices=range(11),
        metavar="0..10",
        default=10,
        help="train the first so many (10); 0: tables alone",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--jobs", type=int, help="trainings at a time (default: one a core, or one on a GPU)")
    parser.add_argument("--profile", default=profile, help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> None:
    parser = options("paper_size", __doc__, "paper")
    parser.add_argument("--datasets", default="", help="mosi,sims (default: all three)")
    chosen = parser.parse_args(argv)
    try:
        study = open_study(chosen.profile, device=chosen.device)
        if study.source != "synthetic":
            raise ValueError("TMT_DATA is set, but these tables are of synthetic data; unset it")
        some = split_names(chosen.datasets) or study.profile.datasets
        for name in some:
            check_choice("data set", name, study.profile.datasets)
        wanted = [run for run in todo(study, chosen.seeds) if run.data.name in some]
        if wanted:
            runs.ensure(wanted, chosen.device, chosen.jobs or study.profile.jobs)
        write(study)
    except ValueError as error:
        parser.error(str(error))
    print(f"Tables in {study.results}; not complete: {len(not_run(study))} pairs of data set and method")


if __name__ == "__main__":
    main()
