"""Time and memory against frames T and utterances N, and the exponents of the power laws fitted to them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.training import PAPER, Case, Eager, in_turn, machine_rate, utterances
from tmtlib.common import one_thread
from tmtlib.data.schema import DataShape, Split, SyntheticSize
from tmtlib.data.synthetic import generate
from tmtlib.models import build_model
from tmtlib.study.profiles import SMALL
from tmtlib.study.runs import in_parallel
from tmtlib.training.batches import OnDevice
from tmtlib.training.fit import Training, adam, loss_on, train_epoch


def exponent(x: pd.Series, y: pd.Series) -> float:
    """b of y = a x^b, by least squares in the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def over_frames(frames: tuple[int, ...], device: str, batch_size: int = 8, rounds: int = 3) -> pd.DataFrame:
    """T frames in each modality, none of them padding: seconds a training step, MB kept for the backward pass."""
    rows, training, where = [], Training(batch_size=batch_size, precision="float32"), torch.device(device)
    for t in frames:
        data = utterances(Case("", "mosi", (t, t, t), full=True), batch_size)
        with one_thread(device):
            model = build_model(PAPER, data.shape).to(where)
            optimiser = adam(model, 1e-4)
            on_device = OnDevice(data.train, where, PAPER, data.family)
            seconds = []
            for _ in range(rounds + 1):
                started = time.perf_counter()
                train_epoch(model, on_device, optimiser, training, torch.Generator())
                seconds.append(time.perf_counter() - started)
            kept = kept_for_backward(model, on_device, training)
        rows.append({"T": t, "seconds": float(np.median(seconds[1:])), "mb": kept / 2**20})
    return pd.DataFrame(rows)


def throughput(frames: tuple[int, ...], device: str, count: int = 128, rounds: int = 2) -> pd.DataFrame:
    """Utterances of uneven length trained a second, by the longest T: the yardstick and ours, in turn."""
    rows = []
    for t in frames:
        case = Case("", "mosi", (t, t, t))
        data = utterances(case, count)
        eager, training = Eager(case, data, device), Training(precision="float32")
        rates = in_turn(eager.rate, lambda c=case, d=data, p=training: machine_rate(c, d, p, device), rounds=rounds)
        rows.append({"T": t, "eager": float(np.median(rates[:, 0])), "ours": float(np.median(rates[:, 1]))})
    return pd.DataFrame(rows)


def kept_for_backward(model: torch.nn.Module, data: OnDevice, training: Training) -> int:
    """Bytes of all tensors that a forward pass keeps for the backward pass, each storage counted once."""
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    index = data.by_length(torch.arange(len(data)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_on(model.train(), data.batch(index), data.target(index), training=training)
    return sum(storages.values())


def over_utterances(counts: tuple[int, ...], device: str) -> pd.DataFrame:
    """N utterances in mapped memory: seconds an epoch, and MB of memory of its own that the training process takes."""
    rows = []
    for count in counts:
        data = generate("mosi", SyntheticSize((count, 8, 8), (4, 4, 4)))
        work = (data.train, data.shape, device)
        (costs,) = in_parallel(_epoch, [work], 2)  # 2: in another process, which maps the data
        rows.append({"N": count} | costs)
    return pd.DataFrame(rows)


def _epoch(split: Split, shape: DataShape, device: str) -> dict[str, float]:
    where, training = torch.device(device), Training(batch_size=256)
    config = replace(SMALL, width=16, heads=2, head_width=8, encoder_hidden=32, cross_hidden=16)
    with one_thread(device):
        model = build_model(config, shape).to(where)
        optimiser = adam(model, 1e-4)
        few = OnDevice(split.take(np.arange(min(512, len(split)))), where, config, shape.family)
        train_epoch(model, few, optimiser, training, torch.Generator())
        before, started = own_memory_mb(), time.perf_counter()
        train_epoch(model, OnDevice(split, where, config, shape.family), optimiser, training, torch.Generator())
        return {"seconds": time.perf_counter() - started, "mb": own_memory_mb(), "mb_before": before}


def own_memory_mb() -> float:
    """Memory that belongs to this process alone: pages mapped from a file are not counted. NaN outside Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    (line,) = [x for x in status.read_text(encoding="utf-8").splitlines() if x.startswith("RssAnon")]
    return int(line.split()[1]) / 2**10
