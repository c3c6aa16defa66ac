"""`fit` trains a model config on one split and selects the best epoch by another."""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tmtlib.common import MODALITIES, check_choice, one_thread, pick_device

try:
    import resource
except ImportError:  # on Windows
    resource = None

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tmtlib.data.schema import DataShape, Split
from tmtlib.models import build_model
from tmtlib.models.base import Batch, Model, ModelConfig
from tmtlib.stats.metrics import scores_of
from tmtlib.training.batches import OnDevice, Reading, on_device, passes
from tmtlib.training.checkpoint import Checkpoint

SELECT_BY = ("accuracy", "loss")  # rules by which validation selects an epoch


@dataclass(frozen=True)
class Training:
    """The optimisation protocol. Defaults: the AMW paper's ("Implementation Details and Training Protocols").

    Raises ValueError for epochs, batch size, patience or steps with which nothing could be learned.
    """

    learning_rate: float = 1e-4  # Adam, default betas, no weight decay
    batch_size: int = 64
    epochs: int = 30
    least_steps: int = 0  # optimiser steps at least: where `epochs` give fewer, there are more epochs
    patience: int | None = 8  # epochs without improvement on validation before stopping; None: never stop early
    select_by: str = "accuracy"  # the best epoch on validation: "accuracy" (Acc-5; for emotions mean F1) or "loss"
    precision: str = "auto"  # "float32", "bfloat16" autocast, or "auto": bfloat16 on CUDA, float32 elsewhere
    # Of the training loss: "off", or a backend of torch.compile, as "cudagraphs"; it compiles for up to 8 shapes
    compiler: str = field(default="off", metadata={"identity": "if set"})

    def __post_init__(self):
        check_choice("select_by", self.select_by, SELECT_BY)
        check_choice("precision", self.precision, ("auto", "float32", "bfloat16"))
        # Auxiliary losses need two utterances in a batch
        least = {"epochs": 1, "least_steps": 0, "batch_size": 2, "patience": 1}
        for name, value in ((n, getattr(self, n)) for n in least):
            if value is not None and value < least[name]:
                raise ValueError(f"{name} is {value}; wanted at least {least[name]}")

    def epochs_for(self, utterances: int) -> int:
        """Epochs over that many training utterances: `epochs`, or as many as `least_steps` need."""
        steps = utterances // self.batch_size + (utterances % self.batch_size >= 2)  # no step for a single utterance
        return max(self.epochs, math.ceil(self.least_steps / max(1, steps)))


class NotFiniteError(ValueError):
    """A loss is infinite or NaN; nothing can be learned from then on."""


@dataclass(frozen=True)
class Fit:
    """The result of training one seed."""

    seed: int
    state: dict[str, Tensor]  # parameters of the best epoch on validation, on the CPU
    history: list[dict[str, int | float]]  # one row an epoch: losses, validation metrics, learning rate
    best_epoch: int  # counted from 1
    other_state: dict[str, Tensor]  # the same of the epoch that the other rule of `SELECT_BY` selects
    other_epoch: int
    weights: np.ndarray | None  # (epochs + 1, M, d): mean A on validation before training and after each epoch
    seconds: float
    peak_memory_mb: float
    device: str


def fit(
    config: ModelConfig,
    training: Training,
    train: Split,
    held_out: Split,
    shape: DataShape,
    seeds: Sequence[int] = (0,),
    device: str = "auto",
    checkpoint: Path | None = None,
) -> list[Fit]:
    """Trains a model once per seed and keeps the best epoch of each by the held-out split.

        data = tmtlib.load_dataset("mosi")
        config, training = tmtlib.TMTConfig(weighting="static"), tmtlib.Training(epochs=10)
        fits = tmtlib.fit(config, training, data.train, data.valid, data.shape, seeds=(0, 1, 2))

    `held_out` (validation) selects the epoch by Acc-5 (of emotions: mean F1; ties: lower loss) or by loss, see
    `Training`; `shape` is `Dataset.shape`. With `checkpoint`, a file, a training of one seed that was killed goes on
    where it was (`checkpoint.Checkpoint`).

    On a CPU it uses one thread, whatever `torch.set_num_threads` says, and restores the number afterwards. A seed's
    result is the same on the same CPU (on a GPU, to rounding) and does not depend on the other seeds. Raises DataError
    for data without the task's labels, NotFiniteError for a loss that is not finite, and ValueError for a checkpoint
    with several seeds.
    """
    if checkpoint is not None and len(seeds) > 1:
        raise ValueError(f"{len(seeds)} seeds and one checkpoint, {checkpoint}; wanted one seed, or no checkpoint")
    where = pick_device(device)
    data = [on_device(split, where, config, shape.family) for split in (train, held_out)]
    with one_thread(device), Checkpoint(checkpoint) as kept:
        return [_fit_seed(config, training, *data, shape, seed, kept) for seed in seeds]


class Progress:
    """Validation history of one seed, and the best epoch's parameters by each rule of `SELECT_BY`."""

    def __init__(self, seed: int, training: Training, weights: np.ndarray | None):
        self.seed, self.training, self.started = seed, training, time.perf_counter()
        self.history: list[dict] = []
        self.weights = [weights]
        self.best = dict.fromkeys(SELECT_BY, ((), 0, {}))  # rank, epoch and parameters by rule

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def stopped(self) -> bool:
        patience, (_, best, _) = self.training.patience, self.best[self.training.select_by]
        return patience is not None and len(self.history) - best >= patience

    def add(self, row: dict, weights: np.ndarray | None, model: Model) -> None:
        """Adds an epoch's row, and keeps the model's parameters, copied on their device, if best by a rule."""
        self.history.append(row)
        self.weights.append(weights)
        accuracy = row["valid_f1_mean" if "valid_f1_mean" in row else "valid_acc5"]
        accuracy = 0.0 if math.isnan(accuracy) else accuracy  # NaN: no validation utterance has any emotion
        ranks = {"accuracy": (accuracy, -row["valid_loss"]), "loss": (-row["valid_loss"],)}
        better = [rule for rule in SELECT_BY if ranks[rule] > self.best[rule][0]]
        parameters = {k: v.clone() for k, v in model.state_dict().items()} if better else {}
        self.best |= {rule: (ranks[rule], row["epoch"], parameters) for rule in better}

    def state_dict(self) -> dict:
        """What `torch.load` reads without pickle."""
        weights = [w if w is None else torch.from_numpy(w) for w in self.weights]
        return {"history": self.history, "weights": weights, "best": self.best, "seconds": self.seconds}

    def load_state_dict(self, state: dict) -> None:
        self.history, self.best, self.started = state["history"], state["best"], time.perf_counter() - state["seconds"]
        self.weights = [w if w is None else w.numpy() for w in state["weights"]]

    def result(self, **costs) -> Fit:
        (other,) = set(SELECT_BY) - {self.training.select_by}
        (_, epoch, state), (_, other_epoch, other_state) = self.best[self.training.select_by], self.best[other]
        state, other_state = ({name: x.cpu() for name, x in best.items()} for best in (state, other_state))
        weights = None if self.weights[0] is None else np.stack(self.weights)
        return Fit(self.seed, state, self.history, epoch, other_state, other_epoch, weights, **costs)


def _fit_seed(
    config: ModelConfig,
    training: Training,
    train: OnDevice,
    held_out: OnDevice,
    shape: DataShape,
    seed: int,
    kept: Checkpoint,
) -> Fit:
    """The loop over epochs. Raises NotFiniteError where a loss is not finite."""
    device = train.device
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.manual_seed(seed)
        if training.compiler != "off":
            torch.compiler.reset()  # forgets the models before: few are kept for one function
        model = build_model(config, shape).to(device)
        optimiser = adam(model, training.learning_rate)
        epochs = training.epochs_for(len(train))
        scheduler = _scheduler(optimiser, config.schedule, epochs)
        shuffle = torch.Generator().manual_seed(seed)
        progress = Progress(seed, training, evaluate([model], held_out, training)[2][0])
        parts = {"model": model, "optimiser": optimiser, "scheduler": scheduler, "progress": progress}
        kept.resume(parts, shuffle, device)
        while not progress.stopped and (epoch := len(progress.history) + 1) <= epochs:
            rate = optimiser.param_groups[0]["lr"]
            train_loss = train_epoch(model, train, optimiser, training, shuffle)
            scheduler.step()
            (values,), (valid_loss,), (weights,) = evaluate([model], held_out, training)
            for name, loss in (("training", train_loss), ("validation", valid_loss)):
                if not math.isfinite(loss):
                    where = f"epoch {epoch} of seed {seed} ({device.type}, {precision_on(training, device)})"
                    text = f"the {name} loss is {loss} in {where}; lower learning_rate, or use float32"
                    raise NotFiniteError(text)
            row = {"epoch": epoch, "learning_rate": rate, "train_loss": train_loss, "valid_loss": valid_loss}
            scores = scores_of(config.task, values, held_out.labels, shape.family, model.config.emotions)
            progress.add(row | {f"valid_{k}": v for k, v in scores.items()}, weights, model)
            kept.epoch_ended()
    costs = {"seconds": progress.seconds, "peak_memory_mb": _peak_memory_mb(device)}
    return progress.result(**costs, device=device_name(device))


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def adam(model: Model, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameter_groups(learning_rate), fused=True)


def train_epoch(model: Model, data: OnDevice, optimiser, training: Training, shuffle: torch.Generator) -> float:
    """One epoch; returns the mean loss. Mix-up: x = lam x + (1 - lam) x[order], lam ~ U(0, 1), by `shuffle`."""
    model.train()
    off = training.compiler == "off"
    loss_of = loss_on if off else torch.compile(loss_on, backend=training.compiler, dynamic=False)
    total, used = torch.zeros((), device=data.device), 0
    for index in torch.randperm(len(data), generator=shuffle).split(training.batch_size):
        size = len(index)
        if size < 2 and len(data) > 1:
            continue  # auxiliary losses need two utterances
        if model.config.mixup == "off":
            mix, index = (), data.by_length(index)
        else:  # partners are positions in the batch
            mix = torch.rand((), generator=shuffle), torch.randperm(size, generator=shuffle)
            mix = tuple(map(data.at, mix))
        loss = loss_of(model, data.batch(index), data.target(index), *mix, training=training)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += loss.detach() * size
        used += size
    return (total / used).item()


def loss_on(
    model: Model, batch: Batch, target: Tensor, lam: Tensor | None = None, order: Tensor | None = None, *, training
) -> Float[Tensor, ""]:
    """Loss in float32, mixed where `lam` () and `order` (B,) are given; "original" mix-up keeps the first label."""
    if lam is not None:
        batch = replace(
            batch,
            features={m: lam * x + (1 - lam) * x[order] for m, x in batch.features.items()},
            lengths={m: torch.maximum(n, n[order]) for m, n in batch.lengths.items()},
            reliable=None if batch.reliable is None else batch.reliable & batch.reliable[order],
        )
    with autocast(training, target.device):
        prediction, trace = model(batch)
    prediction = prediction.float()
    loss = model.loss(prediction, target, trace)
    if model.config.mixup == "correct":
        loss = lam * loss + (1 - lam) * model.loss(prediction, target[order], trace)
    return loss


def _scheduler(optimiser, schedule: str, epochs: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Factor of epoch e = 0, 1, ..: constant; the original TMT's warm-up from 0 over 10 % of the epochs, then a cosine
    ("warmup_cosine"); or the same without its first epoch, in which nothing is learned ("cosine")."""
    warm = max(1, round(0.1 * epochs))

    def factor(epoch: int) -> float:
        if schedule == "constant":
            return 1.0
        epoch += schedule == "cosine"
        if epoch <= warm:
            return epoch / warm
        return 0.5 * (1 + math.cos(math.pi * (epoch - warm - 1) / (0.9 * epochs)))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def precision_on(training: Training, device: torch.device) -> str:
    """The precision used: "auto" is bfloat16 on CUDA and float32 elsewhere."""
    if training.precision == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    return training.precision


def autocast(training: Training, device: torch.device) -> torch.autocast:
    """bfloat16 where the protocol says so; parameters stay float32."""
    wanted = precision_on(training, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted, cache_enabled=device.type == "cpu")


@torch.no_grad()
def evaluate(
    models: Sequence[Model], data: OnDevice, training: Training
) -> tuple[list[np.ndarray], list[float], list[np.ndarray | None]]:
    """For each model: `Model.values`, (N,) or (N, 6), mean task loss, mean weights (M, d) or None; evaluation mode.
    Each batch is made once for all models."""
    for model in models:
        model.eval()
    order = data.by_length(torch.arange(len(data)))
    parts: list[list[dict]] = [[] for _ in models]
    for index in order.split(4 * training.batch_size):
        batch, target = data.batch(index), data.target(index)
        for own, model in zip(parts, models, strict=True):
            own.append(_scored(model, batch, target, training))
    values, losses, weights = [], [], []
    for own in parts:
        outputs = torch.cat([part["values"] for part in own]).float().cpu()
        restored = torch.empty_like(outputs)
        restored[order] = outputs
        means = {name: sum(part[name] for part in own) / len(data) for name in own[0] if name != "values"}
        values.append(restored.numpy())
        losses.append(means["loss"].item())
        weights.append(means["weights"].cpu().numpy() if "weights" in means else None)
    return values, losses, weights


def _scored(model: Model, batch: Batch, target: Tensor, training: Training) -> dict[str, Tensor]:
    """Values (B,) or (B, 6), and sums over the batch of the task loss and of the weights (M, d), if any."""
    with autocast(training, target.device):
        prediction, trace = model(batch)
    prediction, size = prediction.float(), len(target)
    outputs = {"values": model.values(prediction), "loss": model.task_loss(prediction, target) * size}
    if trace.weights is not None:
        outputs["weights"] = trace.weights.float().expand(size, -1, -1).sum(0)
    return outputs


def predict(model: Model, split: Split, training: Training, device: str = "auto") -> np.ndarray:
    """The model's values: on the label scale (N,), or probabilities of emotions (N, K)."""
    return predict_together([model], split, training, device)[0]


def predict_together(
    models: Sequence[Model], split: Split, training: Training, device: str = "auto"
) -> list[np.ndarray]:
    """As `predict` of each model. Models that read the same features share the work of making batches."""
    where, groups, values = pick_device(device), {}, {}
    for i, model in enumerate(models):
        groups.setdefault(Reading.of(model.config), []).append(i)
    with one_thread(device):
        for members in groups.values():
            alike = [models[i].to(where) for i in members]
            data = on_device(split, where, alike[0].config, alike[0].family)
            values |= dict(zip(members, evaluate(alike, data, training)[0], strict=True))
    return [values[i] for i in range(len(models))]


@torch.no_grad()
def utterance_weights(
    model: Model, split: Split, training: Training, device: str = "auto"
) -> Float[np.ndarray, "N M"] | None:
    """A by utterance, its mean over features; None without a weighting."""
    if model.config.weighting == "none":
        return None
    weights = np.empty((len(split), len(MODALITIES)), np.float32)
    with one_thread(device):
        for index, batch in passes(model, split, 4 * training.batch_size, device):
            with autocast(training, pick_device(device)):
                a = model(batch)[1].weights
            weights[index.numpy()] = a.float().mean(-1).expand(len(index), -1).cpu().numpy()
    return weights


def _peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MB: allocated on the GPU, or resident since the process began (on Windows NaN)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if resource is None:
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
