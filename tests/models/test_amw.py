"""AMW's equation in its placements, its control, and weightings of one's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_helpers import SMALL, batch_of, make, reference, synthetic
from torch import nn

from tmtlib.common import MODALITIES
from tmtlib.models import amw, build_model
from tmtlib.models.amw import AMW, build_weighting, register
from tmtlib.models.base import count_parameters
from tmtlib.models.tmt import TMTConfig

CLOSE = dict(rtol=1e-9, atol=1e-9)  # models are float64 here
PLACEMENTS = ("R1", "R1M", "R2", "R2p", "R3")
STATIC = replace(SMALL, weighting="static")
UNEVEN = replace(STATIC, weighting_init_std=1.0)


@pytest.fixture(autouse=True)
def registry_of_its_own(monkeypatch):
    monkeypatch.setattr(amw, "WEIGHTINGS", dict(amw.WEIGHTINGS))


def amw_model(placement: str, config: TMTConfig = UNEVEN):
    return make(replace(config, placement=placement))


def seen_by_mutual_transformer(model, batch):
    """(prediction, trace, the specific tokens as the mutual transformer gets them)."""
    seen = []
    with model.specific_from_shared.register_forward_pre_hook(lambda module, args: seen.append(args[0])):
        prediction, trace = model(batch)
    return prediction, trace, seen[0]


# --- The equation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.2, 5.0])
def test_weights_are_the_softmax_over_modalities(temperature):
    model = make(replace(UNEVEN, temperature=temperature))
    A = model(batch_of())[1].weights
    assert A.shape == (1, 3, SMALL.width) and (A > 0).all()
    torch.testing.assert_close(A.sum(1), torch.ones_like(A[:, 0]), **CLOSE)
    e = np.exp(model.weighting.W.detach().numpy() / temperature)
    np.testing.assert_allclose(A[0].detach().numpy(), e / e.sum(axis=0), rtol=1e-9)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_model_with_weights_is_its_equations(placement):
    model, batch = amw_model(placement), batch_of()
    torch.testing.assert_close(model(batch)[0], reference(model, batch), **CLOSE)


def test_weighted_tokens_are_as_each_placement_says():
    tokens = None
    for placement in ("R1", "R1M", "R2"):
        _, trace, seen = seen_by_mutual_transformer(amw_model(placement), batch_of())
        S, A = [trace.tokens[m] for m in MODALITIES], trace.weights[0]
        expected = {
            "R1": torch.cat([A[0] * S[0], A[1] * S[1], A[2] * S[2]], dim=1),
            "R1M": torch.cat([3 * A[0] * S[0], 3 * A[1] * S[1], 3 * A[2] * S[2]], dim=1),
            "R2": A[0] * S[0] + A[1] * S[1] + A[2] * S[2],
        }[placement]
        torch.testing.assert_close(seen, expected, **CLOSE)
        tokens = tokens or S
        assert all(s.equal(t) for s, t in zip(S, tokens, strict=True)), "the tokens themselves stay unweighted"


def test_placements_predict_differently():
    predictions = [amw_model(p)(batch_of())[0] for p in PLACEMENTS]
    for i, p in enumerate(predictions):
        assert all((p - q).abs().mean() > 1e-4 for q in predictions[:i])


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_gradient_reaches_all_of_W(placement):
    model = amw_model(placement, STATIC)
    prediction, trace = model(batch_of())
    target = torch.from_numpy(synthetic().valid.labels).double()
    model.loss(prediction, target, trace).backward()
    grad = model.weighting.W.grad
    assert (grad.abs() > 1e-9).all(), "AMW that cannot change a prediction would get none"
    torch.testing.assert_close(grad.sum(0), torch.zeros_like(grad[0]), **CLOSE)  # a common shift changes no weight


@pytest.mark.parametrize("placement", ["R1", "R1M", "R2"])
def test_auxiliary_losses_see_unweighted_tokens(placement):
    """A_m varies; the loss beyond the task's does not, nor its gradient."""
    batch, target = batch_of(), torch.from_numpy(synthetic().valid.labels).double()
    plain = make(SMALL)
    parts, gradients = [], []
    for model in (plain, amw_model(placement)):
        prediction, trace = model(batch)
        parts.append(model.loss(prediction, target, trace) - SMALL.task_weight * model.task_loss(prediction, target))
        parts[-1].backward()
        gradients.append(model.tokens.grad)
    torch.testing.assert_close(parts[1], parts[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-9)


def test_similarity_sees_unweighted_frames_in_R3():
    plain, weighted = make(SMALL)(batch_of())[1], amw_model("R3")(batch_of())[1]
    for m in MODALITIES:
        torch.testing.assert_close(weighted.projected[m], plain.projected[m], **CLOSE)
        assert not torch.allclose(weighted.tokens[m], plain.tokens[m])


# --- Against plain TMT and the control -------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [STATIC, UNEVEN, replace(SMALL, weighting="uniform")])
def test_same_seed_gives_the_rest_of_the_model_the_same_parameters(config):
    plain, weighted = make(SMALL), make(config)
    state = weighted.state_dict()
    own = set(state) - set(plain.state_dict())
    assert own == ({"weighting.W"} if config.weighting == "static" else set())
    assert all(value.equal(state[name]) for name, value in plain.state_dict().items())


def test_drawing_no_W_leaves_the_random_numbers_after_it_alone():
    """So dropout is the same with and without AMW, and a paired comparison compares AMW alone."""
    make(SMALL)
    expected = torch.rand(3)
    make(STATIC)
    assert torch.rand(3).equal(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_R1M_at_W_0_is_TMT_to_the_last_bit(dtype):
    batch = batch_of()
    batch = replace(batch, features={m: x.to(dtype) for m, x in batch.features.items()})
    plain, weighted = make(SMALL).to(dtype), amw_model("R1M", STATIC).to(dtype)
    assert weighted(batch)[0].equal(plain(batch)[0])


def test_R1_at_W_0_is_the_uniform_control_and_not_TMT():
    batch = batch_of()
    uniform = make(replace(SMALL, weighting="uniform"))
    prediction, trace = uniform(batch)
    torch.testing.assert_close(amw_model("R1", STATIC)(batch)[0], prediction, **CLOSE)
    assert trace.weights.unique().tolist() == [pytest.approx(1 / 3, rel=1e-12)]
    assert (make(SMALL)(batch)[0] - prediction).abs().mean() > 1e-4, "shrinking the tokens changes TMT"
    assert count_parameters(uniform) == count_parameters(make(SMALL)), "nothing of the control is learned"


def test_R3_is_absorbed_by_the_projection():
    """A_m (V x + b) = (A_m V) x + A_m b: before the encoder, AMW adds nothing that TMT cannot do."""
    weighted, plain = amw_model("R3"), make(SMALL)
    A = weighted.weighting(torch.zeros(1, 3, 1, SMALL.width))[0, :, 0].detach()
    with torch.no_grad():
        for i, m in enumerate(MODALITIES):
            plain.project[m].weight.mul_(A[i][:, None])
            plain.project[m].bias.mul_(A[i])
    batch = batch_of()
    torch.testing.assert_close(plain(batch)[0], weighted(batch)[0], **CLOSE)
    assert not torch.allclose(make(SMALL)(batch)[0], weighted(batch)[0])


@pytest.mark.parametrize("config", [TMTConfig(), TMTConfig.original()], ids=["paper", "original"])
def test_amw_adds_exactly_M_times_d_parameters(config):
    plain = count_parameters(build_model(config, synthetic()))
    for placement in PLACEMENTS:
        found = count_parameters(build_model(replace(config, weighting="static", placement=placement), synthetic()))
        merged = 2 * (6 - 2) * config.width if placement == "R2" else 0  # positions of 2 tokens, not 6, twice
        assert found - plain == 3 * config.width - merged


def test_W_is_initialised_as_named():
    assert not AMW(TMTConfig()).W.any()
    torch.manual_seed(0)
    assert AMW(TMTConfig(weighting_init_std=0.5)).W.std().item() == pytest.approx(0.5, rel=0.1)


def test_W_and_the_rest_have_the_learning_rates_of_the_config():
    def rates(**changes):
        model = make(replace(SMALL, weighting="static", **changes))
        groups = model.parameter_groups(1e-3)
        assert sum(p.numel() for g in groups for p in g["params"]) == count_parameters(model)
        return {g["lr"]: len(g["params"]) for g in groups}, len(list(model.parameters()))

    (found, total), (same, _) = rates(weighting_lr=0.1), rates()
    assert found == {1e-3: total - 1, 0.1: 1}
    assert list(same) == [1e-3]


# --- The family ------------------------------------------------------------------------------------------------------

SEES_INPUT = ("gated", "gated_scalar", "attention", "token")
MOSTLY = tuple(f"mostly_{m}" for m in MODALITIES)
FAMILY = ("static", "uniform", "random", "scalar", "lowrank", *SEES_INPUT, *MOSTLY)
LEARNED = tuple(name for name in FAMILY if name not in ("uniform", "random", *MOSTLY))


def stirred(name: str, **changes):
    """A model whose weighting has left its starting point."""
    model = make(replace(SMALL, weighting=name, **changes))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.weighting.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def test_the_family_is_registered_by_the_names_it_is_known_by():
    others = {"oracle", "oracle_static", "reliability", "reliability_open"}  # see test_reliability.py
    assert set(FAMILY) | others == set(amw.WEIGHTINGS)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", FAMILY)
def test_weights_are_a_distribution_over_modalities(name, placement):
    prediction, trace = stirred(name, placement=placement)(batch_of())
    b = 24 if name in SEES_INPUT else 1
    assert trace.weights.shape == (b, 3, SMALL.width) and (trace.weights > 0).all() and prediction.isfinite().all()
    torch.testing.assert_close(trace.weights.sum(1), torch.ones(b, SMALL.width, dtype=torch.float64), **CLOSE)


@pytest.mark.parametrize("name", [name for name in FAMILY if name not in ("random", "attention", *MOSTLY)])
def test_at_the_start_all_weights_are_equal(name):
    """So whatever a variant gains over the uniform control, it has learned."""
    uniform, model = make(replace(SMALL, weighting="uniform")), make(replace(SMALL, weighting=name))
    torch.testing.assert_close(model(batch_of())[0], uniform(batch_of())[0], **CLOSE)


@pytest.mark.parametrize("name", FAMILY)
def test_only_what_sees_the_input_differs_between_utterances(name):
    weights = stirred(name)(batch_of())[1].weights.expand(24, -1, -1)
    assert (weights.std(0).max() > 1e-3) == (name in SEES_INPUT)


def test_each_variant_is_its_equation():
    S = torch.randn(5, 3, 2, SMALL.width, dtype=torch.float64)
    mean = S.mean(2)

    def weights(name):
        module = stirred(name).weighting
        return module, module(S, None).detach()

    module, found = weights("scalar")
    torch.testing.assert_close(found[0, :, 0, 0], module.w.detach().softmax(0), **CLOSE)
    module, found = weights("lowrank")
    torch.testing.assert_close(found[0, :, 0], (module.u[:, None] * module.v[None]).detach().softmax(0), **CLOSE)
    module, found = weights("gated")
    scores = torch.stack([module.scorer(mean[:, m]) + module.W[m] for m in range(3)], dim=1).detach()
    torch.testing.assert_close(found[:, :, 0], scores.softmax(1), **CLOSE)
    module, found = weights("gated_scalar")
    scores = torch.cat([module.scorer(mean[:, m]) + module.w[m] for m in range(3)], dim=1).detach()
    torch.testing.assert_close(found[:, :, 0, 0], scores.softmax(1), **CLOSE)
    module, found = weights("attention")
    asked = module.query(mean.mean(1))
    scores = torch.stack([(asked * module.key(mean[:, m])).sum(-1) / 4 for m in range(3)], dim=1).detach()
    torch.testing.assert_close(found[:, :, 0, 0], scores.softmax(1), **CLOSE)
    module, found = weights("token")
    for k in range(2):
        scores = torch.stack([module.scorer(S[:, m, k]) + module.W[m] for m in range(3)], dim=1).detach()
        torch.testing.assert_close(found[:, :, k], scores.softmax(1), **CLOSE)


@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("most", MODALITIES)
def test_a_frozen_preference_is_the_same_whatever_the_temperature(most, temperature):
    _, trace = make(replace(SMALL, weighting=f"mostly_{most}", temperature=temperature))(batch_of())
    wanted = torch.tensor([0.8 if m == most else 0.1 for m in MODALITIES], dtype=torch.float64)
    torch.testing.assert_close(trace.weights[0], wanted[:, None].expand(-1, SMALL.width), **CLOSE)


def test_parameters_by_hand():
    d, r = SMALL.width, amw.RANK
    wanted = dict(static=3 * d, uniform=0, random=0, scalar=3, lowrank=3 + d, attention=2 * r * d)
    scorer = d * r + r
    wanted |= dict.fromkeys(MOSTLY, 0)
    wanted |= dict(gated=3 * d + scorer + r * d, token=3 * d + scorer + r * d, gated_scalar=3 + scorer + r)
    plain = count_parameters(make(SMALL))
    assert {n: count_parameters(make(replace(SMALL, weighting=n))) - plain for n in FAMILY} == wanted


@pytest.mark.parametrize("name", LEARNED)
def test_every_variant_learns(name):
    """One step of gradient descent moves every parameter that is not behind one that starts at 0."""
    model = stirred(name)
    prediction, trace = model(batch_of())
    model.loss(prediction, torch.linspace(-3, 3, 24, dtype=torch.float64), trace).backward()
    assert all(p.grad.abs().max() > 1e-9 for p in model.weighting.parameters())


@pytest.mark.parametrize("name", FAMILY)
def test_an_absent_modality_gets_no_weight_and_the_others_share_it(name):
    batch = batch_of()
    lengths = batch.lengths["audio"].clone()
    lengths[:12] = 0
    batch = replace(batch, lengths={**batch.lengths, "audio": lengths})
    plain, masked = stirred(name), stirred(name, mask_absent=True)
    A, (_, trace) = plain(batch)[1].weights.expand(24, -1, -1), masked(batch)
    assert trace.weights.shape[0] == 24 and not trace.weights[:12, 1].any()
    torch.testing.assert_close(trace.weights[12:], A[12:], **CLOSE)
    torch.testing.assert_close(trace.weights.sum(1), torch.ones(24, SMALL.width, dtype=torch.float64), **CLOSE)
    if name != "token":  # whose weights in the trace are means over its tokens
        others = A[:12, [0, 2]]
        torch.testing.assert_close(trace.weights[:12, [0, 2]], others / others.sum(1, keepdim=True), **CLOSE)
    assert A[:12, 1].min() > 0, "and without the switch, the paper's softmax stays as it is"


def test_an_utterance_without_any_modality_has_the_unmasked_weights():
    batch = batch_of()
    batch = replace(batch, lengths={m: torch.zeros_like(n) for m, n in batch.lengths.items()})
    prediction, trace = stirred("static", mask_absent=True)(batch)
    assert prediction.isfinite().all()
    torch.testing.assert_close(trace.weights, stirred("static")(batch)[1].weights.expand(24, -1, -1), **CLOSE)


# --- Weightings of one's own -----------------------------------------------------------------------------------------


def test_own_weighting_works_by_name():
    @register("loudest")
    class Loudest(nn.Module):
        """Weights by the tokens' size: an A for each utterance."""

        def __init__(self, config):
            super().__init__()

        def forward(self, tokens):
            return tokens.abs().mean(2).softmax(1)

    model, batch = make(replace(SMALL, weighting="loudest")), batch_of()
    _, trace, seen = seen_by_mutual_transformer(model, batch)
    assert trace.weights.shape == (24, 3, SMALL.width) and trace.weights.std(0).max() > 1e-3
    for i in (0, 7):
        S = [trace.tokens[m][i] for m in MODALITIES]
        A = torch.stack([s.abs().mean(0) for s in S]).softmax(0)
        torch.testing.assert_close(seen[i], torch.cat([A[m] * S[m] for m in range(3)]), **CLOSE)


def test_taken_name_is_refused():
    with pytest.raises(ValueError, match="a weighting named 'static' is registered already: .*AMW"):
        register("static")(nn.Identity)
    assert amw.WEIGHTINGS["static"] is AMW


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match="weighting is 'dynamic'; registered are: none, attention, gated"):
        build_weighting(TMTConfig(weighting="dynamic"))


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("shape", [(3, 16), (24, 3, 1), (2, 3, 16), (24, 16, 3)])
def test_weights_of_another_shape_are_refused(shape, placement):
    @register("odd")
    class Odd(nn.Module):
        def __init__(self, config):
            super().__init__()

        def forward(self, tokens):
            return torch.full(shape, 1 / 3)

    wanted = r"weighting 'odd' gave weights of shape .*; wanted \(1, 3, 16\) or \(24, 3, 16\)"
    with pytest.raises(ValueError, match=wanted):
        make(replace(SMALL, weighting="odd", placement=placement))(batch_of())


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match=f"temperature is {temperature}; wanted a positive number"):
        AMW(TMTConfig(temperature=temperature))
