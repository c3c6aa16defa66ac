"""Fast paths give the slow paths' results: groups of like length, seeds trained as one program, cheap dropout."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_helpers import SMALL, assert_alike, batch_of, make, protocol, synthetic

import tmtlib.training.fit as fit_module
from tmtlib.models.layers import Bits, Counter, Dropout, bits_from, random_bits
from tmtlib.models.tmt import TMTConfig
from tmtlib.training.batches import FRAMES, OnDevice
from tmtlib.training.fit import fit, new_learner, predict

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap has no fused attention there
AMW = replace(SMALL, weighting="static")
NO_DROPOUT = replace(AMW, dropout=0.0, embedding_dropout=0.0)
RECIPES = {
    "amw": AMW,
    "r3": replace(AMW, placement="R3", raw_dropout=0.2),
    "frame by frame": replace(AMW, placement="R3", weighting="token", mask_absent=True),
    "classes, mixed": replace(AMW, task="classification", mixup="correct", schedule="warmup_cosine"),
    "original": TMTConfig.original(width=16, heads=2, head_width=4, encoder_hidden=32, cross_hidden=16, cross_layers=1),
}


def train(config: TMTConfig, seeds=(0, 1, 2), stacked=True, on_fit=None, device="cpu", **changes):
    data = synthetic("mosi", (37, 24, 8))
    return fit(config, protocol(**changes), data.train, data.valid, data.shape, seeds, device, on_fit, stacked)


# --- Groups of like length -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 3, 24])
@pytest.mark.parametrize("placement", ["R1", "R3"])
def test_groups_change_neither_prediction_nor_loss_nor_gradient(groups, placement):
    model = make(replace(NO_DROPOUT, placement=placement, similarity=1.0, orthogonality=1.0))
    batch, target = batch_of(), torch.linspace(-3, 3, 24, dtype=torch.float64)
    order = sum(batch.lengths.values()).argsort()
    grouped = replace(
        batch,
        features={m: x[order] for m, x in batch.features.items()},
        lengths={m: n[order] for m, n in batch.lengths.items()},
        groups=groups,
    )
    found = []
    for x, y in ((batch, target), (grouped, target[order])):
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
    expected = model(batch, attention=True)[1].attention
    found = model(replace(batch, groups=3), attention=True)[1].attention
    assert found["encoder.0"].shape[0] == 24
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_groups_hold_every_utterance_once_and_save_padding():
    data = OnDevice(synthetic("mosi", (64, 8, 8), (40, 40, 40)).train, CPU, SMALL, "mosi")
    order = data.by_length(torch.arange(64))
    batch = data.batch(order)
    parts = batch.split()
    assert len(parts) == batch.groups == round(int(data.total.sum()) / FRAMES) > 3
    assert torch.equal(torch.cat([part.lengths["text"] for part in parts]), batch.lengths["text"])
    assert all(part.features["text"].shape[1] == part.lengths["text"].max() for part in parts)
    worked_on = sum(part.features["text"].shape[:2].numel() for part in parts)
    assert worked_on < 0.5 * batch.features["text"].shape[:2].numel()
    assert data.gather(order, trim=False)[0]["text"].shape == (64, 40, 768)


def test_unmasked_models_are_given_whole_batches():
    data = OnDevice(synthetic().train, CPU, replace(SMALL, masked=False), "mosi")
    assert data.batch(torch.arange(32)).groups == 1


# --- Seeds trained as one program ------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", RECIPES.values(), ids=RECIPES)
def test_a_seed_in_a_stack_gives_what_it_gives_in_a_stack_of_its_own(config):
    """Dropout, mix-up, shuffling and all: it does not matter how many seeds the memory holds."""
    together = train(config)
    assert [done.seed for done in together] == [0, 1, 2] and {done.together for done in together} == {3}
    for done in together:
        (own,) = train(config, seeds=(done.seed,))
        assert_alike(done, own)
    assert together[0].history != together[1].history


@pytest.mark.parametrize(
    "config",
    [
        NO_DROPOUT,
        replace(NO_DROPOUT, weighting="none", mixup="original", window=6),
        replace(NO_DROPOUT, weighting="token", placement="R3"),
    ],
)
def test_a_stack_gives_what_models_alone_give(config):
    """The same loop and model, with and without vmap; dropout, which draws otherwise alone, is off."""
    for stacked, alone in zip(train(config), train(config, stacked=False), strict=True):
        assert_alike(stacked, alone)
        assert alone.together == 1


def test_dropout_acts_in_a_stack_and_differs_between_seeds_and_steps():
    still = {"learning_rate": 0.0, "epochs": 2}
    (a, b), (c, d) = train(AMW, (0, 1), **still), train(NO_DROPOUT, (0, 1), **still)
    losses = [row["train_loss"] for done in (a, b, c, d) for row in done.history]
    assert len(set(losses[:4])) == 4 and all(x != y for x, y in zip(losses[:4], losses[4:], strict=True))
    assert [row["valid_loss"] for row in a.history] == pytest.approx([row["valid_loss"] for row in c.history])


def test_evaluating_leaves_no_trace_in_training():
    """Dropout goes on where it was, whatever is evaluated between epochs."""
    data = synthetic("mosi", (37, 24, 8))
    few = data.valid.take(np.arange(3))
    small = protocol(batch_size=2)  # so that the larger split is evaluated in more batches
    (a,), (b,) = (fit(AMW, small, data.train, v, data.shape, (0,), "cpu", stacked=True) for v in (data.valid, few))
    assert [row["train_loss"] for row in a.history] == [row["train_loss"] for row in b.history]


def test_a_seed_that_stops_early_stops_alone():
    """Each stops where it would alone, and its history ends there."""
    protocol = {"epochs": 12, "patience": 2, "learning_rate": 1e-2}
    together = train(AMW, seeds=range(4), **protocol)
    assert len({len(done.history) for done in together}) > 1, "else none stopped before another"
    for done in together:
        assert_alike(done, train(AMW, seeds=(done.seed,), **protocol)[0], rel=1e-3)


def test_a_stack_too_large_for_the_memory_is_halved(monkeypatch):
    """As a GPU out of memory would have it: three models do not fit, one or two do; nothing is trained twice."""
    actual, tried, saved = fit_module._fit_group, [], []

    def small_memory(config, training, data, shape, seeds, stacked):
        tried.append(tuple(seeds))
        if len(seeds) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return actual(config, training, data, shape, seeds, stacked)

    monkeypatch.setattr("tmtlib.training.fit._fit_group", small_memory)
    done = train(AMW, seeds=(5, 6, 7, 8, 9), on_fit=lambda one: saved.append(one.seed), epochs=1)
    assert tried == [(5, 6, 7, 8, 9), (5, 6), (7, 8, 9), (7,), (8, 9)]
    assert [one.seed for one in done] == saved == [5, 6, 7, 8, 9]


def test_one_model_too_large_for_the_memory_is_an_error(monkeypatch):
    def no_memory(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("tmtlib.training.fit._fit_group", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        train(AMW)


def test_a_stack_has_the_models_own_parameter_groups():
    config = replace(AMW, weighting_lr=1e-2)
    shape = synthetic().shape
    stack, alone = (new_learner(config, shape, (0, 1, 2)[:n], CPU, n > 1) for n in (3, 1))
    for many, one in zip(stack.parameter_groups(1e-4), alone.parameter_groups(1e-4), strict=True):
        assert many["lr"] == one["lr"]
        assert [p.shape for p in many["params"]] == [(3, *p.shape) for p in one["params"]]
        assert all(p.is_leaf and p.requires_grad for p in many["params"])
    assert stack.state(0).keys() == alone.state(0).keys()
    torch.testing.assert_close(stack.state(0), alone.state(0), rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no NVIDIA GPU")
def test_on_a_gpu_seeds_are_stacked_and_give_the_cpus_results():
    cpu, cuda = train(NO_DROPOUT, stacked=False), train(NO_DROPOUT, stacked=None, device="cuda")
    for a, b in zip(cpu, cuda, strict=True):
        assert b.together == 3
        for one, other in zip(a.history, b.history, strict=True):
            assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)


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


def test_bits_are_taken_in_order_and_counted():
    counter = Counter(CPU)
    with bits_from(counter):
        assert torch.equal(Dropout(0.5)(torch.ones(3, 2)), torch.full((3, 2), 2.0)), "counting drops nothing"
        Dropout(0.5)(torch.ones(4))
    assert counter.taken == 10
    bits = random_bits(10, CPU, torch.Generator().manual_seed(1))
    with bits_from(Bits(bits)):
        first, second = Dropout(0.5)(torch.ones(3, 2)), Dropout(0.5)(torch.ones(4))
    assert torch.equal(torch.cat([first.flatten(), second]) > 0, bits < 0)
    assert torch.equal(bits, random_bits(10, CPU, torch.Generator().manual_seed(1)))


# --- Precision -------------------------------------------------------------------------------------------------------


def test_attention_on_a_cpu_is_float32_within_bfloat16():
    model, split = new_learner(SMALL, synthetic().shape, (0,), CPU).model, synthetic().train
    seen = []
    model.encoder[0].attention.out.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    predict(model, split, protocol(precision="bfloat16"), "cpu")
    assert set(seen) == {torch.float32}
