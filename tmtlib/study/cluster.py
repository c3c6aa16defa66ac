"""Trainings on the workers of a dask cluster, which share no disk with the caller: runs and data go there by TCP, the
files of finished runs come back. The scheduler begins again what a lost worker had begun."""

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from copy import copy
from tempfile import TemporaryDirectory
from unittest.mock import patch

from tmtlib.common import digest, results_folder, write_atomic
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset
from tmtlib.models.amw import WEIGHTINGS
from tmtlib.study.provenance import code_sha256, provenance
from tmtlib.study.records import Run
from tmtlib.study.workers import KilledError, registered


class ClusterError(ValueError):
    """A cluster that cannot be reached, was lost, or is not set up as trainings need it."""


def connected(address: str) -> "distributed.Client":  # noqa: F821
    """A client of the scheduler at an address such as tcp://host:8786. Raises ClusterError where none answers."""
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # a loss is said once, by ClusterError
    try:
        return Client(address, timeout=10)
    except (OSError, ValueError):
        text = f"no dask scheduler answers at {address}; give the address that `dask scheduler` prints"
        raise ClusterError(text) from None


def train_on(address: str, train: Callable, runs: Iterable[Run], device: str) -> Iterator[None]:
    """Calls `train(run, device, data)` on a cluster's workers, and yields when a run's files are in the results folder,
    in any order. Raises KilledError for a run whose workers die again and again, ClusterError for a cluster that is
    lost or has other code, and what `train` raises; finished runs are kept."""
    from distributed import KilledWorker, as_completed
    from distributed.comm import CommClosedError

    folder = results_folder() / "runs"
    with connected(address) as client:
        if not client.nthreads():
            warnings.warn(f"the scheduler at {address} has no workers yet; the runs wait for one", stacklevel=3)
        try:
            for future in as_completed(_submitted(client, train, runs, device)):
                for name, content in future.result():
                    write_atomic(folder / name, lambda file, content=content: file.write(content))
                yield
        except KilledWorker as error:
            text = f"{error.allowed_failures + 1} workers died with {error.task[1]}, the last of them"
            raise KilledError(f"{text} {error.last_worker.address}; see its log, or give workers more memory") from None
        except (CancelledError, CommClosedError):
            text = f"the scheduler at {address} is lost; finished runs are kept in {folder}"
            raise ClusterError(f"{text}, and the same call goes on from there") from None


def _submitted(client: "distributed.Client", train: Callable, runs: Iterable[Run], device: str) -> list:  # noqa: F821
    """A future of each run. Data go to the scheduler once, by their hash; workers have them from it or each other."""
    warnings.filterwarnings("ignore", message="Sending large graph")
    code, sent, futures = _versions(), {}, []
    for run in runs:
        name = digest((run.data, code))
        if name not in sent:  # as a task's result, not scattered: made again where the workers that had it are lost
            sent[name] = client.submit(copy, load(run.data), key=(f"data-{name}", run.data.name))
        work = code, registered(), train, run, device, sent[name]
        futures.append(client.submit(_files, *work, key=(f"train-{name}-{client.id}", str(run), run.id)))
    return futures


def _versions() -> tuple[str, ...]:
    return code_sha256(), *(provenance()[name] for name in ("tmtlib", "torch", "numpy"))


def _files(
    code: tuple[str, ...], weightings: dict, train: Callable, run: Run, device: str, data: Dataset
) -> list[tuple[str, bytes]]:
    """On a worker: trains a run in a folder of its own; names and contents of its files, the record last."""
    from distributed import get_worker

    worker = get_worker()
    if worker.state.nthreads > 1:
        wanted = "wanted 1, as a process trains one run: dask worker --nthreads 1 --nworkers N"
        raise ClusterError(f"the worker {worker.address} has {worker.state.nthreads} threads; {wanted}")
    if code != _versions():
        text = "has other code, torch or numpy than the caller; install the same versions"
        raise ClusterError(f"the worker {worker.address} {text}")
    WEIGHTINGS.update(weightings)
    with TemporaryDirectory() as folder, patch.dict(os.environ, TMT_RESULTS=folder):
        train(run, device, data)
        files = sorted((results_folder() / "runs").iterdir(), reverse=True)  # .safetensors before .npz
        return [(path.name, path.read_bytes()) for path in files]
