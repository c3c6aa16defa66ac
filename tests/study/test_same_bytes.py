"""One training, the same bytes: in this process, in a worker, and in a process started with another number of threads.

What a process starts with (OMP_NUM_THREADS, the machine's cores) decides how many threads numpy's BLAS has, which
`torch.set_num_threads` does not change. So synthetic features are made without BLAS, and training has one thread.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tmtlib.common import ROOT
from tmtlib.data.loading import load
from tmtlib.data.synthetic import generate
from tmtlib.study.runs import in_parallel
from tmtlib.study.study import open_study
from tmtlib.training.fit import fit

METHODS = ("tmt", "tmt_amw", "mult", "misa", "late_fusion")


def fingerprint(method: str) -> str:
    """SHA-256 of the parameters that one smoke training on synthetic CMU-MOSI leaves; the data are made anew."""
    load.cache_clear()
    run = next(run for run in open_study("smoke", device="cpu").runs(method) if run.data.name == "mosi")
    data = load(run.data)
    (done,) = fit(run.model, run.training, data.train, data.valid, data.shape, (run.seed,), "cpu")
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in done.state.values())).hexdigest()


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TMT_DATA", raising=False)
        return {method: fingerprint(method) for method in METHODS}


def test_in_a_worker(here):
    assert sorted(in_parallel(fingerprint, [(method,) for method in METHODS], jobs=2)) == sorted(here.values())


@pytest.mark.parametrize("threads", ["1", "3"])
def test_in_a_process_started_with_other_threads(here, threads):
    command = "import test_same_bytes as t; print(*(t.fingerprint(m) for m in t.METHODS))"
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": path}
    environment.pop("TMT_DATA", None)
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-len(here) :] == list(here.values()), done.stderr


def test_methods_and_data_differ(here):
    """Else equal fingerprints would say nothing."""
    assert len(set(here.values())) == len(METHODS)
    assert not (generate("mosi").train.features["text"] == generate("mosi", seed=1).train.features["text"]).all()
