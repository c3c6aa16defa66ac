"""Training and inference of `tmtlib` against the yardstick, in turn, on the same utterances."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from joblib import cpu_count
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.eager_tmt import EagerTMT, Utterances, copy_parameters, loader
from benchmarks.eager_tmt import train_epoch as train_eager
from tmtlib.common import MODALITIES, one_thread
from tmtlib.data.schema import Dataset, DataShape, Split, SyntheticSize, normalize, normalizer
from tmtlib.data.synthetic import generate
from tmtlib.models import build_model
from tmtlib.models.tmt import TMTConfig
from tmtlib.study.runs import in_parallel
from tmtlib.training.batches import OnDevice
from tmtlib.training.fit import Training, adam, autocast, train_epoch

PAPER = TMTConfig()
# The original's width, with heads that fill it, as the yardstick's attention knows no others
WIDE = TMTConfig(width=256, encoder_layers=2, cross_layers=4, head_width=32, encoder_hidden=512, cross_hidden=256)


@dataclass(frozen=True)
class Case:
    """A data set's shape and a model's size. `full`: every utterance is as long as the longest."""

    name: str
    dataset: str
    frames: tuple[int, int, int]
    config: TMTConfig = PAPER
    full: bool = False


HEADLINE = Case("MOSI 3x50", "mosi", (50, 50, 50))
CASES = (
    HEADLINE,
    Case("MOSI 3x20", "mosi", (20, 20, 20)),
    Case("MOSI 3x50, no padding", "mosi", (50, 50, 50), full=True),
    Case("MOSI 3x50, 256 wide", "mosi", (50, 50, 50), WIDE),
    Case("MOSEI 3x50", "mosei", (50, 50, 50)),
    Case("SIMS 39/400/55", "sims", (39, 400, 55)),
)


def utterances(case: Case, count: int) -> Dataset:
    """Synthetic utterances of a case: their lengths are as uneven as real ones."""
    data = generate(case.dataset, SyntheticSize((count, 8, 8), case.frames))
    data = replace(data, train=normalize(data.train, normalizer(data.train)))
    if not case.full:
        return data
    rng = np.random.default_rng(0)
    noise = {m: rng.standard_normal(x.shape, np.float32) for m, x in data.train.features.items()}
    lengths = {m: np.full(count, t) for m, t in zip(MODALITIES, case.frames, strict=True)}
    return replace(data, train=replace(data.train, features=noise, lengths=lengths))


def our_rate(
    config: TMTConfig,
    split: Split,
    shape: DataShape,
    training: Training,
    device: str,
    threads: int,
    clock=time.perf_counter,
) -> float:
    """Utterances trained a second of `clock` in this process."""
    where = torch.device(device)
    with one_thread(device):
        torch.set_num_threads(threads)
        model = build_model(config, shape).to(where)
        optimiser, shuffle = adam(model, training.learning_rate), torch.Generator()
        warm_up = OnDevice(split.take(np.arange(min(training.batch_size, len(split)))), where, config, shape.family)
        train_epoch(model, warm_up, optimiser, training, shuffle)
        data = OnDevice(split, where, config, shape.family)
        started = clock()
        train_epoch(model, data, optimiser, training, shuffle)  # its result waited for the device
        return len(split) / (clock() - started)


def machine_rate(
    case: Case, data: Dataset, training: Training, device: str, processes: int | None = None, threads: int = 1
) -> float:
    """Utterances trained a second by the whole machine; on a CPU by a process a core with a thread each."""
    processes = 1 if device == "cuda" else processes or cpu_count()
    arguments = [(case.config, data.train, data.shape, training, device, threads)] * processes
    return sum(in_parallel(our_rate, arguments, processes))


class Eager:
    """The yardstick on one case, with all the threads PyTorch takes by itself."""

    def __init__(self, case: Case, data: Dataset, device: str, batch_size: int = 64):
        self.device, self.count = torch.device(device), len(data.train)
        self.model = EagerTMT(case.config, data.shape).to(self.device)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.batches = loader(data.train, batch_size)

    def rate(self, clock=time.perf_counter) -> float:
        """Utterances trained a second of `clock`."""
        started = clock()
        train_eager(self.model, self.batches, self.optimiser, self.device)
        return self.count / (clock() - started)


def core_for_core(case: Case, data: Dataset, training: Training, rounds: int) -> np.ndarray:
    """(rounds, 2): utterances trained a second of CPU time by the yardstick and ours, in turn, one thread each."""
    eager, clock = Eager(case, data, "cpu"), time.process_time
    ours = partial(our_rate, case.config, data.train, data.shape, training, "cpu", 1, clock)
    with one_thread("cpu"):
        return in_turn(partial(eager.rate, clock), ours, rounds=rounds)


def flops(case: Case, data: Dataset, training: Training) -> float:
    """Floating point operations of one training step of ours, by the utterance, counted as they are done."""
    model = build_model(case.config, data.shape)
    on_device = OnDevice(data.train, torch.device("cpu"), case.config, data.family)
    optimiser = torch.optim.SGD(model.parameter_groups(0.0))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the counter knows its products
        train_epoch(model, on_device, optimiser, training, torch.Generator())
    return counter.get_total_flops() / len(data.train)


def in_turn(*rates: Callable[[], float], rounds: int) -> np.ndarray:
    """(rounds, rates): each measured once a round, the first round left out as a warm-up."""
    return np.array([[rate() for rate in rates] for _ in range(rounds + 1)])[1:]


def latency(case: Case, data: Dataset, size: int, device: str, rounds: int, repeats: int = 10) -> np.ndarray:
    """(rounds, 2): seconds a batch of `size` utterances takes the yardstick and ours to predict, in turn."""
    where = torch.device(device)
    ours = build_model(case.config, data).to(where).eval()
    eager = EagerTMT(case.config, data.shape).to(where).eval()
    copy_parameters(eager, ours)
    split = data.train.take(np.arange(size))
    collated = torch.utils.data.default_collate([Utterances(split)[i] for i in range(size)])
    collated = {k: x.to(where) for k, x in collated.items()}
    on_device = OnDevice(split, where, case.config, data.family)
    order = on_device.by_length(torch.arange(size))

    @torch.inference_mode()
    def seconds(predict: Callable[[], torch.Tensor]) -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            value = predict()
        value[0].item()  # waits for the device
        return (time.perf_counter() - started) / repeats

    def predict_ours() -> torch.Tensor:
        with autocast(Training(precision="float32"), where):
            return ours(on_device.batch(order))[0]

    return in_turn(lambda: seconds(lambda: eager(collated)[0]), lambda: seconds(predict_ours), rounds=rounds)
