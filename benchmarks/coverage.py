"""Coverage of split conformal prediction intervals of TMT and TMT+AMW on synthetic data, at profile quick.

Over seeds on its three data sets, and over worlds: the seeds of one data set share its validation utterances and so err
together, while each world draws its own, and 3,000 to test.

    python -m benchmarks.coverage --csv results/benchmarks/coverage_synthetic.csv

Missing trainings are made first, in the results folder. Real files: `benchmarks.real_files`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from tmtlib.analysis import coverage
from tmtlib.data.loading import synthetic_ref
from tmtlib.study import runs
from tmtlib.study.methods import method_config
from tmtlib.study.runs import Run
from tmtlib.study.study import Study, open_study


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--csv", help="write the table to this file")
    parser.add_argument("--worlds", type=int, default=12, help="other draws of the first data set (12)")
    parser.add_argument("--profile", default="quick", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    study = open_study(chosen.profile, device="cpu")
    if study.source != "synthetic":
        parser.error("TMT_DATA is set, but this table is of synthetic data; unset it")
    methods = "tmt", "tmt_amw"
    todo = study.runs(*methods) + _in_worlds(study, chosen.worlds, methods)
    runs.ensure(todo, "cpu", study.profile.jobs)
    table = coverage.table(todo)
    print(table.to_string(index=False))
    if chosen.csv:
        table.to_csv(chosen.csv, index=False, float_format="%.6g", lineterminator="\n")


def _in_worlds(study: Study, worlds: int, methods: Sequence[str]) -> list[Run]:
    """A training of each method in each world, whose seed is the world's number, so that no two share one."""
    p, name = study.profile, study.refs[0].name
    size = p.synthetic[name]
    test = (*size.utterances[:2], max(size.utterances[2], 3000 if p.name != "smoke" else 0))
    refs = [synthetic_ref(name, replace(size, utterances=test, world=world)) for world in range(worlds)]
    return [
        Run(ref, method, method_config(method, p.model), p.training, seed=world)
        for world, ref in enumerate(refs)
        for method in methods
    ]


if __name__ == "__main__":
    main()
