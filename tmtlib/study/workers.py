"""Work shared by processes that may be killed: what they had begun is begun again, and none outlives its parent."""

import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import chain

from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from tmtlib import common
from tmtlib.models import BUILT_IN
from tmtlib.models.amw import WEIGHTINGS

# joblib restarts a worker whose memory grows (as with each data set that `load` caches) and warns; no run is lost
warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")

TRIES = 3  # of work whose process is killed, as where memory runs out


class KilledError(ValueError):
    """The process of the same piece of work was killed `TRIES` times."""


def in_parallel(function: Callable, arguments: Iterable[tuple], jobs: int) -> Iterator:
    """Results of `function(*arguments[i])` in order, from `jobs` processes (this one where jobs is 1). They share large
    arrays, memory-mapped, and are sent the results folder and registered weightings.

    Where a process is killed, what has not returned is begun again, the oldest alone at its last try. Raises
    KilledError, naming the first of its arguments, where it is killed then too.
    """
    if jobs == 1:
        yield from (function(*a) for a in arguments)
        return
    setting = os.getpid(), str(common.results_folder()), registered()
    rest, begun = iter(arguments), deque()  # begun: [times killed, arguments] of what has not returned, oldest first

    def beginning() -> Iterator[list]:
        for each in rest:
            begun.append([0, each])
            yield begun[-1]

    while True:
        alone = bool(begun) and begun[0][0] == TRIES - 1
        work = [begun[0]] if alone else chain([*begun], beginning())
        calls = (delayed(_call)(setting, function, each) for _, each in work)
        try:
            for result in Parallel(n_jobs=jobs, return_as="generator", mmap_mode="c")(calls):
                begun.popleft()
                yield result
        except TerminatedWorkerError:
            for each in work if alone else begun:
                each[0] += 1
            if begun[0][0] == TRIES:
                text = f"the process of {_named(begun[0][1][0])} was killed {TRIES} times, the last time alone"
                raise KilledError(f"{text}; free some memory, or use a larger machine") from None
        else:
            if not alone:
                return


def registered() -> dict[str, type]:
    """Weightings that other processes have to be sent: those that are not built in."""
    return {name: made for name, made in WEIGHTINGS.items() if name not in BUILT_IN}


def _named(what: object) -> str:
    return ", ".join(map(_named, what)) if isinstance(what, tuple) else str(what)


def _call(setting: tuple[int, str, dict], function: Callable, arguments: tuple) -> object:
    parent, os.environ["TMT_RESULTS"], weightings = setting
    _end_with(parent)
    WEIGHTINGS.update(weightings)
    try:
        return function(*arguments)
    except SystemExit as stop:  # asked to stop: joblib would end the study with it
        os._exit(stop.code if isinstance(stop.code, int) else 1)


@lru_cache
def _end_with(parent: int) -> None:
    """Ends this process within a second of its parent's end, whatever ended that."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if os.name != "nt":  # there a parent's number says nothing
        threading.Thread(target=watch, daemon=True).start()
