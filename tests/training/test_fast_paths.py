"""Fast paths give the slow paths' results: groups of like length, cheap dropout."""

import inspect
import os
import subprocess
import sys
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from model_helpers import SMALL, batch_of, grouped, make, protocol, synthetic
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tmtlib.common import MODALITIES, ROOT
from tmtlib.models import build_model
from tmtlib.models.base import Batch, Trace
from tmtlib.models.late_fusion import LateFusionConfig
from tmtlib.models.layers import Dropout
from tmtlib.models.misa import MISAConfig
from tmtlib.models.mult import MulTConfig
from tmtlib.training.batches import FRAMES, SIZES, OnDevice, Reading, uploaded
from tmtlib.training.fit import evaluate, fit, predict

CPU = torch.device("cpu")
AMW = replace(SMALL, weighting="static")
NO_DROPOUT = replace(AMW, dropout=0.0, embedding_dropout=0.0)
MULT = MulTConfig(width=8, heads=2, layers=1, memory_layers=1)


# --- The same numbers as before --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "train_loss", "valid_loss"),
    [
        (SMALL, 1.66547096, 1.27958643),
        (AMW, 1.66374636, 1.28072548),
        (replace(SMALL, mixup="correct"), 1.74900591, 1.28029597),
        (replace(SMALL, masked=False, window=6), 1.73612940, 1.27919567),
        (MULT, 1.02024686, 1.15374899),
        (MISAConfig(width=16, lstm_width=4, fusion_hidden=16), 3.82530475, 2.12797713),
        (LateFusionConfig(), 1.31242430, 1.20771909),
    ],
    ids=["tmt", "amw", "mixup", "unmasked", "mult", "misa", "late_fusion"],
)
def test_losses_of_the_third_epoch_stay_what_they_were(config, train_loss, valid_loss):
    data = synthetic("mosi", (48, 24, 8), (9, 30, 25))
    (done,) = fit(config, protocol(), data.train, data.valid, data.shape, (0,), "cpu")
    last = done.history[-1]
    assert (last["train_loss"], last["valid_loss"]) == pytest.approx((train_loss, valid_loss), rel=1e-4)


# --- Groups of like length -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 3, 24])
@pytest.mark.parametrize("placement", ["R1", "R3"])
def test_groups_change_neither_prediction_nor_loss_nor_gradient(groups, placement):
    model = make(replace(NO_DROPOUT, placement=placement, similarity=1.0, orthogonality=1.0))
    batch, target = batch_of(), torch.linspace(-3, 3, 24, dtype=torch.float64)
    parts, order = grouped(batch, groups)
    found = []
    for x, y in ((batch, target), (parts, target[order])):
        model.zero_grad()
        prediction, trace = model(x)
        loss = model.loss(prediction, y, trace)
        loss.backward()
        found.append((prediction.detach(), loss.detach(), {k: p.grad.clone() for k, p in model.named_parameters()}))
    (prediction, loss, gradients), (by_group, loss_by_group, gradients_by_group) = found
    torch.testing.assert_close(by_group, prediction[order], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(loss_by_group, loss, rtol=1e-6, atol=1e-6)  # losses are computed in float32
    torch.testing.assert_close(gradients_by_group, gradients, rtol=1e-4, atol=1e-6)


def test_attention_maps_are_of_all_utterances_whatever_the_groups():
    model, batch = make(NO_DROPOUT), batch_of()
    batch, _ = grouped(batch, 3)
    expected = model(replace(batch, groups=()), attention=True)[1].attention
    found = model(batch, attention=True)[1].attention
    assert found["encoder.0"].shape[0] == 24
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_groups_hold_every_utterance_once_and_save_padding():
    data = OnDevice(synthetic("mosi", (64, 8, 8), (40, 40, 40)).train, CPU, SMALL, "mosi")
    order = data.by_length(torch.arange(64))
    batch = data.batch(order)
    parts = batch.split()
    assert len(parts) == len(batch.groups) == round(int(data.total.sum()) / FRAMES["cpu"]) > 3
    assert torch.equal(torch.cat([part.lengths["text"] for part in parts]), batch.lengths["text"])
    assert all(part.features["text"].shape[1] == part.lengths["text"].max() for part in parts)
    worked_on = sum(part.features["text"].shape[:2].numel() for part in parts)
    assert worked_on < 0.5 * batch.features["text"].shape[:2].numel()
    data.trim = False
    assert data.gather(order)[0]["text"].shape == (64, 40, 768)


def test_a_gpus_few_shapes_change_no_prediction_and_save_most_padding():
    data, found = synthetic("mosi", (256, 8, 8), (50, 40, 60)), {}
    model = build_model(SMALL, data.shape)
    for way in ("cpu", "cuda", "whole"):
        split = OnDevice(data.train, CPU, SMALL, "mosi")
        split.trim = way != "whole"
        if way == "cuda":
            split.frames, split.step = FRAMES["cuda"], {"text": 7, "audio": 5, "vision": 8}
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            (values,), (loss,), _ = evaluate([model], split, protocol())
        np.testing.assert_allclose(values, found.setdefault("values", values), atol=1e-5)
        assert loss == pytest.approx(found.setdefault("loss", loss), rel=1e-5)
        found[way] = counter.get_total_flops()
    assert 2 * found["cuda"] < found["whole"] and found["cpu"] < found["cuda"]
    split.trim, split.step = True, {"text": 7, "audio": 5, "vision": 8}
    lengths = ({m: torch.tensor([n]) for m in MODALITIES} for n in range(61))
    assert len({tuple(split.sizes(n).values()) for n in lengths}) <= 3 * SIZES, "of 61"


def test_models_that_read_the_same_share_an_upload():
    train, reading = synthetic().train, Reading.of(SMALL)
    assert reading == Reading.of(AMW) != Reading.of(replace(SMALL, modalities=("text",)))
    first = uploaded(train, CPU, reading, "mosi")
    assert uploaded(train, CPU, Reading.of(AMW), "mosi") is first
    assert uploaded(train.take(np.arange(32)), CPU, reading, "mosi") is not first, "equal, but another split"


def test_unmasked_models_are_given_whole_batches():
    data = OnDevice(synthetic().train, CPU, replace(SMALL, masked=False), "mosi")
    assert data.batch(torch.arange(32)).groups == ()


# --- Evaluation ------------------------------------------------------------------------------------------------------


def test_evaluating_leaves_no_trace_in_training():
    """Dropout goes on where it was, whatever is evaluated between epochs."""
    data = synthetic("mosi", (37, 24, 8))
    few = data.valid.take(np.arange(3))
    small = protocol(batch_size=2)  # so that the larger split is evaluated in more batches
    (a,), (b,) = (fit(AMW, small, data.train, v, data.shape, (0,), "cpu") for v in (data.valid, few))
    assert [row["train_loss"] for row in a.history] == [row["train_loss"] for row in b.history]


# --- Dropout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_the_rate_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    x = torch.ones(400_003)  # not a multiple of four
    y = Dropout(rate)(x)
    sd = (rate * (1 - rate) / len(x)) ** 0.5
    assert (y == 0).float().mean().item() == pytest.approx(rate, abs=4 * sd)
    assert y[y != 0].unique().tolist() == [pytest.approx(1 / (1 - rate), rel=1e-4)]
    neighbours = ((y[1:] == 0) & (y[:-1] == 0)).float().mean().item()
    assert neighbours == pytest.approx(rate**2, abs=6 * sd), "independent of each other"


def test_dropout_of_nothing_everything_and_in_evaluation():
    x = torch.randn(5, 7)
    assert Dropout(0.0)(x) is x and Dropout(0.5).eval()(x) is x
    assert not Dropout(1.0)(x).any()
    with pytest.raises(ValueError, match=r"dropout is 1.5; wanted 0 to 1"):
        Dropout(1.5)


def test_gradient_flows_where_nothing_was_dropped():
    x = torch.ones(1000, requires_grad=True)
    y = Dropout(0.25)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())


# --- Compilation -----------------------------------------------------------------------------------------------------


GATED = replace(SMALL, weighting="gated")


@pytest.mark.parametrize("config", [SMALL, AMW, GATED, MULT], ids=["tmt", "amw", "gated", "mult"])
def test_compiled_in_one_graph_a_model_trains_the_same(config, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' checks of types do not compile
    for made, name in ((Trace, "__init__"), (Batch, "__init__"), (Batch, "split"), (Batch, "valid")):
        monkeypatch.setattr(made, name, inspect.unwrap(getattr(made, name)))
    model, batch, target, found = make(config).train(), batch_of(), torch.linspace(-3, 3, 24).double(), []
    for forward in (model, torch.compile(model, fullgraph=True, backend="eager")):
        torch.manual_seed(1)
        model.zero_grad()
        prediction, trace = forward(batch)
        model.loss(prediction, target, trace).backward()
        found.append([prediction.detach(), *(p.grad for p in model.parameters())])
    assert all(a.equal(b) for a, b in zip(*found, strict=True))


def test_a_compiled_training_is_the_same():
    """In a process of its own: the tests' checks of types do not compile."""
    code = """
from model_helpers import SMALL, protocol, synthetic
from tmtlib.training.fit import fit
from torch._dynamo.utils import counters
data = synthetic("mosi", (32, 24, 8), (4, 4, 4))
ways = "off", "aot_eager"
a, b = (fit(SMALL, protocol(compiler=c), data.train, data.valid, data.shape, (0,), "cpu")[0] for c in ways)
assert a.history == b.history and all(x.equal(b.state[k]) for k, x in a.state.items())
print(counters["stats"]["unique_graphs"] > 0, dict(counters["graph_break"]))
"""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    asked = [sys.executable, "-c", code]
    done = subprocess.run(asked, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.stdout.split() == ["True", "{}"], done.stderr


# --- Precision -------------------------------------------------------------------------------------------------------


def test_attention_on_a_cpu_is_float32_within_bfloat16():
    model, split = build_model(SMALL, synthetic().shape), synthetic().train
    seen = []
    model.encoder[0].attention.out.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    predict(model, split, protocol(precision="bfloat16"), "cpu")
    assert set(seen) == {torch.float32}
