"""Coverage of split conformal prediction intervals of TMT and TMT+AMW on synthetic data, at profile quick.

    python -m benchmarks.coverage --csv results/benchmarks/coverage_synthetic.csv

Missing trainings are made first, in the results folder. Real files: `benchmarks.real_files`.
"""

import argparse

from tmtlib.analysis import coverage
from tmtlib.study.study import open_study


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--csv", help="write the table to this file")
    parser.add_argument("--profile", default="quick", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    study = open_study(chosen.profile, device="cpu")
    if study.source != "synthetic":
        parser.error("TMT_DATA is set, but this table is of synthetic data; unset it")
    methods = "tmt", "tmt_amw"
    study.ensure(*methods)
    table = coverage.table(study.runs(*methods))
    print(table.to_string(index=False))
    if chosen.csv:
        table.to_csv(chosen.csv, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    main()
