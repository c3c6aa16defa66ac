"""The one training loop. It is given train and valid; no argument of it can hold the test split."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

try:
    import resource
except ImportError:  # on Windows
    resource = None

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tmtlib import metrics
from tmtlib.config import MODALITIES, ModelConfig, Run, Training
from tmtlib.data.schema import DataShape, Split
from tmtlib.models import Batch, Model, build_model
from tmtlib.models.tmt import windowed


@dataclass(frozen=True)
class Fit:
    """What training one seed left: the best epoch's parameters and everything seen on the way."""

    seed: int
    state: dict[str, Tensor]  # parameters of the best epoch on validation, on the CPU
    history: list[dict[str, int | float]]  # one row an epoch: losses, validation metrics, learning rate
    best_epoch: int  # counted from 1
    weights: np.ndarray | None  # (epochs + 1, M, d): mean A on validation before training and after each epoch
    seconds: float
    peak_memory_mb: float
    device: str


def pick_device(name: str) -> torch.device:
    """The device of "cpu", "cuda" or "auto" (cuda if there is one). Raises ValueError for cuda where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda' but torch finds no NVIDIA GPU here; use --device cpu or auto")
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device is {name!r}; wanted auto, cpu or cuda")
    return torch.device(name)


class OnDevice:
    """A split as tensors on one device; batches are taken by index, without any per-utterance Python."""

    def __init__(self, split: Split, device: torch.device, config: ModelConfig, family: str):
        features, lengths = ({m: torch.from_numpy(x[m]) for m in MODALITIES} for x in (split.features, split.lengths))
        cut = windowed(Batch(features, lengths), getattr(config, "window", None))  # before any mix-up, as the original
        self.features = {m: x.to(device) for m, x in cut.features.items()}
        self.lengths = cut.lengths  # stay on the CPU: sizes
        self.text_bert = None if split.text_bert is None else torch.from_numpy(split.text_bert).to(device)
        target = split.labels
        if config.task == "classification":
            target = metrics.classes5(split.labels, family).astype(np.int64)
        self.targets = torch.from_numpy(np.ascontiguousarray(target)).to(device)
        self.trim = getattr(config, "masked", True)  # where padding is hidden, frames nobody has need no work
        self.device = device

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, index: Tensor) -> Batch:
        features, lengths = {}, {}
        at = index.to(self.device)
        for m in MODALITIES:
            length = self.lengths[m][index]
            x = self.features[m]
            x = x[:, : max(1, int(length.max()))] if self.trim else x
            features[m], lengths[m] = x[at], length.to(self.device)
        return Batch(features, lengths, None if self.text_bert is None else self.text_bert[at])


def sample_batch(model: Model, split: Split, size: int = 64) -> Batch:
    """The first utterances of a split as one batch on the CPU, for a look at what a model computes."""
    index = torch.arange(min(size, len(split)))
    return OnDevice(split, torch.device("cpu"), model.config, model.family).batch(index)


def fit(
    run: Run,
    train: Split,
    valid: Split,
    shape: DataShape,
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    on_fit: Callable[[Fit], None] | None = None,
) -> list[Fit]:
    """Trains the run's method once per seed (default: the run's own) and keeps the best validation epoch of each.

    The protocol is `run.training`: Adam, the best epoch by validation Acc-5 (ties: lower loss) or by loss, early
    stopping after `patience` epochs without a better one. The same seed gives the same result on the same CPU (on a
    GPU, to rounding), whatever seeds are trained beside it. `on_fit` is called with each as soon as it is finished,
    so that a caller can save it. Raises ValueError for a protocol under which nothing would be learned.
    """
    _check_protocol(run.training)
    where = pick_device(device)
    data = [OnDevice(split, where, run.model, shape.family) for split in (train, valid)]
    fits = []
    for seed in (run.seed,) if seeds is None else seeds:
        fits.append(_fit_seed(run, *data, valid.labels, shape, seed, where))
        if on_fit is not None:
            on_fit(fits[-1])
    return fits


def _check_protocol(training: Training) -> None:
    least = {"epochs": 1, "batch_size": 2, "patience": 1}  # the auxiliary losses compare utterances within a batch
    for name, value in ((n, getattr(training, n)) for n in least):
        if value is not None and value < least[name]:
            raise ValueError(f"{name} is {value}; wanted at least {least[name]}")


def _fit_seed(
    run: Run, train: OnDevice, valid: OnDevice, labels: np.ndarray, shape: DataShape, seed: int, device: torch.device
) -> Fit:
    started = time.perf_counter()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = build_model(run.model, shape).to(device)
        optimiser = torch.optim.Adam(model.parameter_groups(run.training.learning_rate))
        scheduler = _scheduler(optimiser, run)
        shuffle = torch.Generator().manual_seed(seed)
        history, weights, best = [], [_evaluate(model, valid, run.training)[2]], None
        for epoch in range(1, run.training.epochs + 1):
            rate = optimiser.param_groups[0]["lr"]
            train_loss = train_epoch(model, train, optimiser, run.training, shuffle)
            scheduler.step()
            values, valid_loss, mean_weights = _evaluate(model, valid, run.training)
            scores = metrics.score(values, labels, shape.family)
            history.append(
                {"epoch": epoch, "learning_rate": rate, "train_loss": train_loss, "valid_loss": valid_loss}
                | {f"valid_{k}": v for k, v in scores.items()}
            )
            weights.append(mean_weights)
            rank = (scores["acc5"], -valid_loss) if run.training.select_by == "accuracy" else (-valid_loss,)
            if best is None or rank > best[0]:
                best = rank, epoch, {k: v.to("cpu", copy=True) for k, v in model.state_dict().items()}
            if run.training.patience is not None and epoch - best[1] >= run.training.patience:
                break
    return Fit(
        seed=seed,
        state=best[2],
        history=history,
        best_epoch=best[1],
        weights=None if weights[0] is None else np.stack(weights),
        seconds=time.perf_counter() - started,
        peak_memory_mb=_peak_memory_mb(device),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    )


def train_epoch(model: Model, data: OnDevice, optimiser, training: Training, shuffle: torch.Generator) -> float:
    """One pass in a shuffled order; returns the mean training loss of the utterances it used."""
    model.train()
    total, used = torch.zeros((), device=data.device), 0
    for index in torch.randperm(len(data), generator=shuffle).split(training.batch_size):
        if len(index) < 2 and len(data) > 1:
            continue  # the auxiliary losses compare utterances within a batch: one alone says nothing
        loss = _loss(model, data.batch(index), data.targets[index.to(data.device)], training, shuffle)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += loss.detach() * len(index)
        used += len(index)
    return float(total) / used


def _loss(
    model: Model, batch: Batch, target: Tensor, training: Training, generator: torch.Generator
) -> Float[Tensor, ""]:
    """The model's loss on a batch, with mix-up where its recipe says so: x = lam x + (1 - lam) x[perm], lam ~ U(0, 1).

    "original" keeps the first label only, as the original TMT's loop does; "correct" mixes the losses too. The loss
    itself is computed in float32 whatever the precision.
    """
    if model.config.mixup != "off":
        lam = float(torch.rand((), generator=generator))
        order = torch.randperm(len(target), generator=generator).to(target.device)
        batch = replace(
            batch,
            features={m: lam * x + (1 - lam) * x[order] for m, x in batch.features.items()},
            lengths={m: torch.maximum(n, n[order]) for m, n in batch.lengths.items()},
        )
    with autocast(training, target.device):
        prediction, trace = model(batch)
    prediction = prediction.float()
    loss = model.loss(prediction, target, trace)
    if model.config.mixup == "correct":
        loss = lam * loss + (1 - lam) * model.loss(prediction, target[order], trace)
    return loss


def _scheduler(optimiser, run: Run) -> torch.optim.lr_scheduler.LambdaLR:
    """Per epoch e = 0, 1, ..: constant, or the original's warm-up from 0 over 10 % of the epochs, then a cosine."""
    warm = max(1, round(0.1 * run.training.epochs))

    def factor(epoch: int) -> float:
        if run.model.schedule == "constant":
            return 1.0
        if epoch <= warm:
            return epoch / warm
        return 0.5 * (1 + math.cos(math.pi * (epoch - warm - 1) / (0.9 * run.training.epochs)))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


@contextmanager
def autocast(training: Training, device: torch.device) -> Iterator[None]:
    """bfloat16 where the protocol says so ("auto": on CUDA); parameters stay float32."""
    wanted = training.precision == "bfloat16" or (training.precision == "auto" and device.type == "cuda")
    with torch.autocast(device.type, torch.bfloat16, enabled=wanted):
        yield


@torch.no_grad()
def _evaluate(model: Model, data: OnDevice, training: Training) -> tuple[np.ndarray, float, np.ndarray | None]:
    """Values on the label scale (N,), mean task loss, mean weights (M, d) or None; in evaluation mode."""
    model.eval()
    order = torch.argsort(data.lengths["text"], stable=True)  # neighbours of like length: little padding
    values, weights = torch.empty(len(data)), []
    total = 0.0
    for index in order.split(4 * training.batch_size):
        with autocast(training, data.device):
            prediction, trace = model(data.batch(index))
        prediction = prediction.float()
        total += float(model.task_loss(prediction, data.targets[index.to(data.device)])) * len(index)
        values[index] = model.values(prediction).cpu()
        if trace.weights is not None:
            weights.append(trace.weights.float().expand(len(index), -1, -1).sum(0).cpu())
    mean_weights = torch.stack(weights).sum(0).div(len(data)).numpy() if weights else None
    return values.numpy(), total / len(data), mean_weights


def predict(model: Model, split: Split, training: Training, device: str = "auto") -> np.ndarray:
    """The model's values on the label scale, (N,), for any split."""
    where = pick_device(device)
    values, _, _ = _evaluate(model.to(where), OnDevice(split, where, model.config, model.family), training)
    return values


def _peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MB: allocated on the GPU, or resident in this process's whole life (on Windows: unknown, NaN)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if resource is None:
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
