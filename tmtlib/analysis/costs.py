"""Parameters of a method, and its training time relative to another's, measured in turn in one process."""

import math
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from tmtlib.common import one_thread, pick_device
from tmtlib.data.schema import Dataset
from tmtlib.models import build_model
from tmtlib.models.base import ModelConfig, count_parameters
from tmtlib.stats.statistics import Interval, t_interval
from tmtlib.study.methods import method_config
from tmtlib.study.profiles import Profile
from tmtlib.training.batches import OnDevice
from tmtlib.training.fit import Training, adam, new_learner, train_epoch


def extra_time(
    config: ModelConfig,
    baseline: ModelConfig,
    dataset: Dataset,
    training: Training,
    device: str = "auto",
    rounds: int = 15,
    steps: int = 4,
) -> Interval:
    """How much longer a training step of `config` takes than one of `baseline`, as a share (0.01: 1 %). Both train on
    the same utterances, `steps` steps a round, in alternating order; the interval is over rounds without the first."""
    where = pick_device(device)
    utterances = dataset.train.take(np.arange(min(steps * training.batch_size, len(dataset.train))))
    with one_thread(device), torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        data = OnDevice(utterances, where, config, dataset.family)
        learners = [new_learner(c, dataset.shape, (0,), where) for c in (baseline, config)]
        optimisers = [adam(learner, training.learning_rate) for learner in learners]
        extra = []
        for i in range(rounds + 1):
            seconds = [0.0, 0.0]
            for k in (0, 1) if i % 2 else (1, 0):
                start = time.perf_counter()
                train_epoch(learners[k], data, optimisers[k], training, [torch.Generator().manual_seed(i)])
                seconds[k] = time.perf_counter() - start  # its return value waited for the device
            extra.append(math.log(seconds[1] / seconds[0]))
    mean, low, high, n = t_interval(extra[1:])
    return Interval(*(math.expm1(x) for x in (mean, low, high)), n)  # a mean of ratios would be too large


def table(
    methods: Sequence[str], profile: Profile, dataset: Dataset, device: str = "auto", rounds: int = 8
) -> pd.DataFrame:
    """What each method costs beyond TMT: method, parameters (more than TMT's), extra_time (share, a training step),
    low, high (95 % t interval over rounds), n (rounds)."""
    plain, rows = method_config("tmt", profile.model), []
    for method in methods:
        config = method_config(method, profile.model)
        extra = extra_time(config, plain, dataset, profile.training, device, rounds)
        rows.append((method, extra_parameters(config, plain, dataset), *extra))
    return pd.DataFrame(rows, columns=["method", "parameters", "extra_time", "low", "high", "n"])


def extra_parameters(config: ModelConfig, baseline: ModelConfig, dataset: Dataset) -> int:
    return count_parameters(build_model(config, dataset)) - count_parameters(build_model(baseline, dataset))
