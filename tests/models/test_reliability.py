"""Reliability weighting: gates in the attention scores, and the controls that are told the truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_helpers import SMALL, batch_of, change, grouped, make, protocol, synthetic

from tmtlib.common import MODALITIES
from tmtlib.data.schema import SyntheticSize
from tmtlib.data.synthetic import generate
from tmtlib.models import reliability
from tmtlib.models.base import Batch
from tmtlib.training.fit import fit, predict, utterance_weights

GATES = replace(SMALL, weighting="reliability", placement="attention")
OPEN = replace(GATES, weighting="reliability_open")
CLOSE = dict(rtol=1e-6, atol=1e-6)  # gates are float32
TOLD = torch.tensor([[True, True, False], [True, True, True]] * 12)  # of 24 utterances


def told(reliable: torch.Tensor = TOLD) -> Batch:
    return replace(batch_of(), reliable=reliable)


def without(batch: Batch, reliable: torch.Tensor) -> Batch:
    """The batch with the modalities that are not reliable absent."""
    for i, m in enumerate(MODALITIES):
        batch = change(batch, m, lengths=batch.lengths[m].where(reliable[:, i], 0))
    return batch


# --- Gates -----------------------------------------------------------------------------------------------------------


def test_gates_begin_nearly_open_and_equal():
    weights = make(GATES)(batch_of())[1].weights
    assert weights.shape == (24, 3, 1)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3), **CLOSE)
    gates, lesson = make(GATES).weighting.gates(projected(make(GATES), batch_of()), None)
    torch.testing.assert_close(gates.exp(), torch.full_like(gates, 0.9526), rtol=1e-3, atol=0)
    assert lesson is None


def projected(model, batch):
    return [({m: model.project[m](batch.features[m]) for m in MODALITIES}, batch)]


def test_an_absent_modality_has_weight_0_and_its_padding_changes_nothing():
    batch = change(batch_of(), "audio", lengths=torch.zeros(24, dtype=torch.int64))
    model = stirred(GATES)
    prediction, trace = model(batch)
    assert (trace.weights[:, 1] == 0).all() and (trace.weights[:, [0, 2]] > 0).all()
    torch.testing.assert_close(trace.weights.sum(1), torch.ones_like(trace.weights[:, 0]), **CLOSE)
    noise = change(batch, "audio", features=torch.randn_like(batch.features["audio"]))
    assert model(noise)[0].equal(prediction)
    nothing = without(batch, torch.zeros(24, 3, dtype=torch.bool))
    assert not model(nothing)[1].weights.any() and model(nothing)[0].isfinite().all()


def stirred(config):
    """A model whose gates have moved."""
    model = make(config)
    with torch.no_grad():
        for p in model.weighting.parameters():
            p.add_(0.15 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype))
    return model


def test_a_closed_gate_hides_a_modality_as_if_it_were_absent():
    model, batch = make(GATES), batch_of()
    with torch.no_grad():
        model.weighting.scorer[2].bias[:] = torch.tensor([20.0, -20.0, 20.0])  # audio's gate is e^-160
    absent = change(batch, "audio", lengths=torch.zeros_like(batch.lengths["audio"]))
    torch.testing.assert_close(model(batch)[0], make(SMALL)(absent)[0], rtol=1e-5, atol=1e-5)


def test_gates_see_the_utterance_and_how_its_modalities_differ():
    model, batch = stirred(GATES), batch_of()
    weights = model(batch)[1].weights
    assert weights.std(0).max() > 1e-2
    other = change(batch, "text", features=batch.features["text"].roll(1, 0), lengths=batch.lengths["text"].roll(1, 0))
    assert ((model(other)[1].weights - weights).abs() > 1e-4).any(1).float().mean() > 0.8


def test_open_gates_are_plain_TMT_in_evaluation():
    batch = batch_of()
    torch.testing.assert_close(make(OPEN)(batch)[0], make(SMALL)(batch)[0], **CLOSE)
    weights = make(OPEN)(batch)[1].weights
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3), **CLOSE)


def test_groups_of_a_batch_give_what_the_whole_gives():
    model, batch = stirred(GATES), batch_of()
    by_length, order = grouped(batch, 4)
    whole, parts = model(batch), model(by_length)
    torch.testing.assert_close(parts[0], whole[0][order], **CLOSE)
    torch.testing.assert_close(parts[1].weights, whole[1].weights[order], **CLOSE)


@pytest.mark.parametrize("weighting", ["reliability", "reliability_open"])
def test_another_placement_is_refused(weighting):
    with pytest.raises(ValueError, match="placement is 'R1'; weighting 'reliability' wants 'attention'"):
        make(replace(SMALL, weighting=weighting))
    with pytest.raises(ValueError, match="weighting 'static' has no gates, so it cannot act in placement 'attention'"):
        make(replace(SMALL, weighting="static", placement="attention"))


# --- What teaches them -----------------------------------------------------------------------------------------------


def test_noise_hits_one_modality_of_some_utterances_and_says_how_much_is_left():
    torch.manual_seed(0)
    many = synthetic(utterances=(2000, 8, 8)).train
    batch = Batch(
        {m: torch.from_numpy(many.features[m]) for m in MODALITIES},
        {m: torch.from_numpy(many.lengths[m]) for m in MODALITIES},
    )
    noised, signal = make(GATES).weighting.noised(batch)
    hit = signal < 1
    assert (hit.sum(1) <= 1).all() and hit.any(1).float().mean() == pytest.approx(reliability.NOISED, abs=0.03)
    assert ((signal == 0).sum() / hit.sum()).item() == pytest.approx(reliability.BLANK, abs=0.06)
    for i, m in enumerate(MODALITIES):
        changed = (noised.features[m] != batch.features[m]).flatten(1).any(1)
        assert changed.equal(hit[:, i]) and not noised.features[m][~batch.valid(m)].any()
        blank = signal[:, i] == 0
        assert not noised.features[m][blank].any()
        half = hit[:, i] & ((signal[:, i] - 0.5).abs() < 0.2)  # about 0 dB: noise as large as the signal
        ratio = (noised.features[m] - batch.features[m])[half].square().sum() / batch.features[m][half].square().sum()
        assert 0.3 < ratio < 3


def test_training_draws_and_evaluation_does_not():
    model, batch = make(GATES), batch_of()
    assert model(batch)[0].equal(model(batch)[0]) and model(batch)[1].lesson is None
    model.train()
    first, second = model(batch), model(batch)
    assert first[1].lesson.swapped.shape == (24 * reliability.COPIES, 3)
    assert (first[1].lesson.swapped.sum(1) <= 1).all() and not first[0].equal(second[0])


def test_swapped_copies_hold_another_utterances_content_of_that_modality_alone(monkeypatch):
    model, seen = make(GATES).train(), []
    batch = change(batch_of(), "audio", lengths=batch_of().lengths["audio"] * (torch.arange(24) % 2))
    logits = model.weighting.logits
    monkeypatch.setattr(model.weighting, "logits", lambda *given: seen.append(given) or logits(*given))
    _, lesson = model.weighting.gates(projected(model, batch), torch.ones(24, 3))
    (y, z, present), (copied_y, copied_z, copied_present) = seen
    own = torch.arange(24).repeat(reliability.COPIES)
    assert (copied_z != z[own]).equal(lesson.swapped) and (copied_y != y[own]).any(-1).equal(lesson.swapped)
    assert lesson.swapped.any(1).double().mean() == pytest.approx(reliability.SWAPPED, abs=0.15)
    for copy, m in lesson.swapped.nonzero().tolist():
        (other,) = (z[:, m] == copied_z[copy, m]).nonzero().flatten().tolist()
        assert other != own[copy] and copied_y[copy, m].equal(y[other, m])
        assert copied_present[copy, m] == present[other, m]


@pytest.mark.parametrize("task", ["regression", "classification", "emotions"])
def test_every_task_has_a_finite_loss_and_gradients_for_all_of_it(task):
    model = stirred(replace(GATES, task=task)).train()
    b = 24
    targets = {"regression": torch.randn(b).double(), "classification": torch.randint(5, (b,))}
    target = targets.get(task, torch.randint(2, (b, 6)).double())
    prediction, trace = model(batch_of())
    model.loss(prediction, target, trace).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.weighting.parameters())
    assert all(p.grad.abs().sum() > 0 for n, p in model.weighting.named_parameters() if not n.endswith("score.bias"))


@pytest.mark.parametrize("present", [["text"], ["text", "vision"], []])
def test_absent_modalities_leave_the_loss_finite(present):
    batch, model = batch_of(), make(GATES).train()
    reliable = torch.tensor([[m in present for m in MODALITIES]] * 24)
    prediction, trace = model(without(batch, reliable))
    loss = model.loss(prediction, torch.from_numpy(synthetic().valid.labels).double(), trace)
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_open_gates_learn_from_the_same_corruptions_but_teach_no_gate():
    model = make(OPEN).train()
    prediction, trace = model(batch_of())
    model.loss(prediction, torch.from_numpy(synthetic().valid.labels).double(), trace).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.weighting.scorer.parameters())
    assert all(p.grad.abs().sum() > 0 for n, p in model.weighting.content.named_parameters() if "score.bias" not in n)


@pytest.mark.parametrize("weighting", ["reliability", "oracle"])
def test_bfloat16_gives_nearly_the_same(weighting):
    config, data = replace(GATES, weighting=weighting), synthetic()
    model = make(config).float()
    exact, half = (
        (utterance_weights(model, data.valid, t, "cpu"), predict(model, data.valid, t, "cpu"))
        for t in (protocol(), protocol(precision="bfloat16"))
    )
    np.testing.assert_allclose(half[0], exact[0], atol=0.01)
    np.testing.assert_allclose(half[1], exact[1], atol=0.05)
    fit(config, protocol(precision="bfloat16", epochs=1), data.train, data.valid, data.shape, device="cpu")


def test_matching_is_least_where_partners_agree():
    present = torch.ones(4, 3, dtype=torch.bool)
    z = torch.tensor([0.0, 3.0, 6.0, 9.0])[:, None].expand(-1, 3)
    agree, shuffled = (
        reliability.matching(x, present) for x in (z, torch.stack([z[:, 0], z[:, 1].roll(1), z[:, 2]], 1))
    )
    assert agree < 0.01 < 1 < shuffled
    alone = present & torch.tensor([True, False, False])
    assert reliability.matching(z, alone) == 0


# --- Told the truth --------------------------------------------------------------------------------------------------


def test_the_oracle_in_attention_is_TMT_without_what_misleads():
    oracle = make(replace(SMALL, weighting="oracle", placement="attention"))
    prediction, trace = oracle(told())
    torch.testing.assert_close(prediction, make(SMALL)(without(batch_of(), TOLD))[0], **CLOSE)
    expected = TOLD / TOLD.sum(1, keepdim=True)
    torch.testing.assert_close(trace.weights[..., 0].double(), expected.double(), **CLOSE)


@pytest.mark.parametrize("placement", ["R1", "R2p", "R3"])
def test_the_oracle_gives_equal_weights_to_the_reliable_ones_and_0_to_others(placement):
    weights = make(replace(SMALL, weighting="oracle", placement=placement))(told())[1].weights
    expected = (TOLD / TOLD.sum(1, keepdim=True)).double()[..., None].expand(-1, -1, weights.shape[-1])
    torch.testing.assert_close(weights.expand(24, -1, -1), expected, **CLOSE)
    uniform = make(replace(SMALL, weighting="uniform", placement=placement))
    every = torch.ones_like(TOLD)
    prediction = make(replace(SMALL, weighting="oracle", placement=placement))(told(every))[0]
    torch.testing.assert_close(prediction, uniform(batch_of())[0], **CLOSE)


@pytest.mark.parametrize("placement", ["R1", "attention"])
def test_data_without_a_truth_are_refused(placement):
    with pytest.raises(ValueError, match="told which modalities are reliable, which only synthetic data know"):
        make(replace(SMALL, weighting="oracle", placement=placement))(batch_of())


def test_the_static_oracle_knows_the_mean_reliability():
    weights = make(replace(SMALL, weighting="oracle_static"))(batch_of())[1].weights[0, :, 0]
    reliable = generate("misled", SyntheticSize((20_000, 4, 4), (1, 1, 1), 3)).train.reliable.mean(0)
    np.testing.assert_allclose(weights.numpy(), reliable / reliable.sum(), atol=0.005)


# --- It learns -------------------------------------------------------------------------------------------------------


def test_where_a_modality_misleads_being_told_helps_and_gates_find_it():
    """One training each in a draw of its own: told before disentanglement beats TMT and equal weights, and the gates
    tell what misleads from what does not."""
    data = generate("misled", SyntheticSize((1200, 200, 1500), (8, 8, 8), 3))
    small = replace(SMALL, width=32, heads=4, encoder_hidden=64, cross_hidden=32, schedule="cosine")
    training = protocol(learning_rate=2e-3, batch_size=32, epochs=8, select_by="loss")
    reliable, error, weights = data.test.reliable, {}, {}
    ways = {"none": "R1", "uniform": "R1", "oracle": "R3", "reliability": "attention"}
    for weighting, placement in ways.items():
        config = replace(small, weighting=weighting, placement=placement)
        (done,) = fit(config, training, data.train, data.valid, data.shape, device="cpu")
        model = config.model_class(config, data.shape.shapes, data.family)
        model.load_state_dict(done.state)
        error[weighting] = np.abs(predict(model, data.test, training, "cpu") - data.test.labels).mean()
        weights[weighting] = utterance_weights(model, data.test, training, "cpu")
    assert error["oracle"] < min(error["none"], error["uniform"]) - 0.02, error
    misled = ~reliable.all(1)
    named = weights["reliability"].argmin(1) == (~reliable).argmax(1)
    assert named[misled].mean() > 0.6, "by chance about 1/3"
