"""Parameters and operations of a method, counted, and its training time relative to another's, measured in turn."""

import math
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tmtlib.common import MODALITIES, one_thread, pick_device
from tmtlib.data.schema import Dataset
from tmtlib.models import build_model
from tmtlib.models.base import ModelConfig, count_parameters
from tmtlib.paper.ledger import Cost
from tmtlib.stats.statistics import Interval, t_interval
from tmtlib.study.methods import method_config
from tmtlib.study.profiles import Profile
from tmtlib.training.batches import OnDevice, sample_batch
from tmtlib.training.fit import Training, adam, train_epoch


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
        models = [build_model(c, dataset.shape).to(where) for c in (baseline, config)]
        optimisers = [adam(model, training.learning_rate) for model in models]
        extra = []
        for i in range(rounds + 1):
            seconds = [0.0, 0.0]
            for k in (0, 1) if i % 2 else (1, 0):
                start = time.perf_counter()
                train_epoch(models[k], data, optimisers[k], training, torch.Generator().manual_seed(i))
                seconds[k] = time.perf_counter() - start  # its return value waited for the device
            extra.append(math.log(seconds[1] / seconds[0]))
    mean, low, high, n = t_interval(extra[1:])
    return Interval(*(math.expm1(x) for x in (mean, low, high)), n)  # a mean of ratios would be too large


def table(
    methods: Sequence[str], profile: Profile, dataset: Dataset, device: str = "auto", rounds: int = 8
) -> pd.DataFrame:
    """What each method costs beyond TMT: method, parameters and operations (more than TMT's, see `beyond`), share (of
    TMT's operations), extra_time (share, a training step), low, high (95 % t interval over rounds), n (rounds)."""
    plain = method_config("tmt", profile.model)
    rows = [
        (method, *cost[:3], *cost.time)
        for method in methods
        for cost in [beyond(method_config(method, profile.model), plain, dataset, profile.training, device, rounds)]
    ]
    return pd.DataFrame(rows, columns="method parameters operations share extra_time low high n".split())


def beyond(
    config: ModelConfig, baseline: ModelConfig, dataset: Dataset, training: Training, device: str = "auto", rounds=10
) -> Cost:
    """What a model costs beyond another: more parameters and `operations`, by counts, and `extra_time`."""
    time_ = extra_time(config, baseline, dataset, training, device, rounds)
    (more, ours), (less, theirs) = (
        (count_parameters(build_model(c, dataset)), operations(c, dataset)) for c in (config, baseline)
    )
    return Cost(more - less, ours - theirs, (ours - theirs) / theirs, time_)


@torch.no_grad()
def operations(config: ModelConfig, dataset: Dataset, size: int = 32) -> int:
    """Floating-point operations of predicting an utterance, in the mean over the first `size` of test.

    Those of matrix products (`torch.utils.flop_counter`: a multiplication and an addition are two), and the products of
    weights and features, which it leaves out: M k d a time of k tokens a modality after disentanglement (R1M: twice, as
    A is multiplied by M), d a frame before it (R3). Functions of single elements, such as softmax and GELU, count none.
    """
    model = build_model(config, dataset).eval()
    batch = sample_batch(model, dataset.test, size)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # it knows its products
        model(batch)
    count = len(batch.lengths["text"])
    weighted = 0
    if config.weighting != "none" and config.placement == "R3":
        weighted = config.width * sum(int(batch.lengths[m].sum()) for m in MODALITIES) / count
    elif config.weighting != "none":
        weighted = len(MODALITIES) * config.specific_tokens * config.width * (2 if config.placement == "R1M" else 1)
    return round(counter.get_total_flops() / count + weighted)
