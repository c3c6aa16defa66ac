"""Wall time of runs on a dask cluster: predicted from what a run, a byte and a start cost, and measured.

    python -m benchmarks.cluster --json results/benchmarks/cluster.json

Scheduler and workers are processes of this machine, and share its cores with whatever else runs on it (`load`): costs
are measured with as many workers as are predicted, so the two are compared, not the workers' number. 10,000 runs are
planned from the last costs. Needs the packages of the extra `cluster`.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch

from benchmarks import machine
from tmtlib.common import write_atomic
from tmtlib.data.loading import load, synthetic_ref
from tmtlib.data.schema import SPLITS, Dataset, SyntheticSize
from tmtlib.study import cluster, runs
from tmtlib.study.methods import method_config
from tmtlib.study.profiles import PROFILES
from tmtlib.study.records import Run, record_path

NETWORK = 125e6  # bytes a second of 1 Gbit/s, for the plan


@dataclass(frozen=True)
class Costs:
    """What a cluster's wall time is made of."""

    start: float  # s until a new worker trains: to join, to import, and what is slow the first time
    run: float  # s of a run on a worker, with as many workers busy on its machine as there will be
    handling: float  # s of a run at the caller and the scheduler, which take one after another: to send, gather, write
    bandwidth: float  # bytes a second from the caller to a worker
    data: int  # bytes of all data sets, which each worker is sent

    def wall(self, n: int, workers: int) -> float:
        """Seconds that n runs take: start, data through one link, then rounds of a run a worker, or handling where
        that takes longer."""
        rounds = math.ceil(n / workers)
        return self.start + workers * self.data / self.bandwidth + max(rounds * self.run, n * self.handling)


def some_runs(n: int, first: int = 0) -> list[Run]:
    """TMT+AMW at profile quick's width on 600 synthetic utterances for two epochs, with seeds from `first`."""
    quick, size = PROFILES["quick"], SyntheticSize((400, 100, 100), (20, 20, 20))
    ref, config = synthetic_ref("mosi", size), method_config("tmt_amw", quick.model)
    training = replace(quick.training, epochs=2, least_steps=0)
    return [Run(ref, "tmt_amw", config, training, seed) for seed in range(first, first + n)]


@contextmanager
def workers(n: int) -> Iterator[str]:
    """The address of a scheduler with n worker processes on this machine, and an empty results folder."""
    from distributed import LocalCluster

    options = {"threads_per_worker": 1, "dashboard_address": None, "memory_limit": 0}
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, TMT_RESULTS=folder):
        with LocalCluster(n_workers=n, **options) as local:
            yield local.scheduler_address


def seconds(work: Callable[[], Iterable]) -> float:
    started = time.perf_counter()
    list(work())
    return time.perf_counter() - started


def costs(n: int, rounds: int = 3) -> Costs:
    """Measured with n workers: the first round of runs, some more, runs that only write a record, and 64 MiB."""
    started = time.perf_counter()
    with workers(n) as address:
        list(cluster.train_on(address, runs.train, some_runs(n, first=100), "cpu"))
        first = time.perf_counter() - started
        more = seconds(lambda: cluster.train_on(address, runs.train, some_runs(n * rounds, first=200), "cpu"))
        light = seconds(lambda: cluster.train_on(address, only_written, some_runs(100, first=1000), "cpu"))
        with cluster.connected(address) as client:
            sent = np.random.default_rng(0).bytes(2**26)
            bandwidth = len(sent) / seconds(lambda: [client.submit(len, sent).result()])
    return Costs(first - more / rounds, more / rounds, light / 100, bandwidth, size_of(load(some_runs(1)[0].data)))


def only_written(run: Run, device: str, data: Dataset) -> None:
    """Stands in for a training: 256 KiB, as large as a record with its parameters."""
    write_atomic(record_path(run), lambda file: file.write(bytes(2**18)))


def size_of(data: Dataset) -> int:
    """Bytes of a data set's features."""
    return sum(x.nbytes for split in SPLITS for x in data[split].features.values())


def compared(n: int, counts: tuple[int, ...]) -> list[dict]:
    """For each number of workers its costs, and the seconds of n runs as predicted and as measured, and the
    machine's load between the two."""
    rows = []
    for count in counts:
        cost, busy = costs(count), os.getloadavg()[0]
        started = time.perf_counter()
        with workers(count) as address:
            list(cluster.train_on(address, runs.train, some_runs(n), "cpu"))
            measured = time.perf_counter() - started
        rows.append({"workers": count, "runs": n, "predicted": cost.wall(n, count), "measured": measured})
        rows[-1] |= {"load": busy, "costs": asdict(cost)}
    return rows


def plan(cost: Costs, n: int = 10_000) -> pd.DataFrame:
    """Hours of n such runs by the number of workers, over a network of 1 Gbit/s, and the part of that in which workers
    train."""
    cost, rows = replace(cost, bandwidth=NETWORK), []
    for count in (1, 8, 64, 512):
        wall = cost.wall(n, count)
        sent = count * cost.data / 1e9
        rows.append({"workers": count, "hours": wall / 3600, "busy": n * cost.run / count / wall, "data_gb": sent})
    return pd.DataFrame(rows)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=12, help="how many are predicted and measured (12)")
    parser.add_argument("--json", help="write what was measured to this file")
    chosen = parser.parse_args(argv)
    rows = compared(chosen.runs, (1, 2))
    of_plan = plan(Costs(**rows[-1]["costs"]))
    print(pd.DataFrame(rows).drop(columns="costs").round(1).to_string(index=False))
    print(f"\n10,000 such runs\n{of_plan.round(3).to_string(index=False)}")
    if chosen.json:
        whole = {"rows": rows, "plan": of_plan.to_dict("records"), "machine": machine.describe(torch.device("cpu"))}
        Path(chosen.json).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
