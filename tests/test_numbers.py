"""The numbers of profile quick: test predictions of TMT and TMT+AMW on three synthetic data sets, kept in a file.

A change that moves a prediction by more than TOLERANCE is one of numbers and not of form. After such a change on
purpose, write the file anew: `python tests/test_numbers.py`. `tmt run` compares all tables with the committed ones
besides (`tmtlib.study.compare`).
"""

import numpy as np
import pytest
import torch

from tmtlib.common import ROOT
from tmtlib.study import runs
from tmtlib.study.study import open_study

REFERENCE = ROOT / "tests" / "quick_predictions.npz"
METHODS = ("tmt", "tmt_amw")
TOLERANCE = 1e-5  # label units, on a CPU with the instructions that the file was made with
ELSEWHERE = 2e-2  # on another: sums round otherwise, and eight epochs enlarge it


def wanted() -> list[runs.Run]:
    study = open_study("quick", device="cpu")
    return [run for run in study.runs(*METHODS) if run.seed == study.profile.seeds[0]]


@pytest.mark.parametrize("place", range(6))
def test_predictions_are_those_of_the_file(place, own_results):
    run = wanted()[place]
    runs.ensure([run], "cpu", jobs=1, progress=False)
    with np.load(REFERENCE) as file:
        before, capability = file[f"{run.data.name}/{run.method}"], str(file["cpu"])
    here = torch.backends.cpu.get_cpu_capability()
    after = runs.read_record(run).predictions["test"]
    assert np.abs(after - before).max() <= (TOLERANCE if here == capability else ELSEWHERE)
    assert before.std() > 0.1, "a constant would be met by any model that learns nothing"


if __name__ == "__main__":
    runs.ensure(wanted(), "cpu")
    kept = {f"{run.data.name}/{run.method}": runs.read_record(run).predictions["test"] for run in wanted()}
    np.savez_compressed(REFERENCE, cpu=np.array(torch.backends.cpu.get_cpu_capability()), **kept)
