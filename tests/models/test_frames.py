"""Weights frame by frame: on one clock, on clocks of their own, with padding, and with modalities absent."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_helpers import SMALL, batch_of, change, grouped, make

from tmtlib.common import MODALITIES
from tmtlib.models.amw import Weighting
from tmtlib.models.base import Batch
from tmtlib.models.frames import at_frames_of, weighted_frames

CLOSE = dict(rtol=1e-9, atol=1e-9)  # models are float64 here
TEMPORAL = replace(SMALL, weighting="token", placement="R3")


def stirred(**changes):
    """A model whose weights have left 1/M: W and the scorer are drawn."""
    model = make(replace(TEMPORAL, **changes))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.weighting.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def clocks(*lengths: int) -> tuple[dict, dict]:
    """One utterance with frames as long as given, whose every feature is their number, and the lengths."""
    given = dict(zip(MODALITIES, lengths, strict=True))
    frames = {m: torch.arange(float(max(n, 1)))[None, :, None].expand(-1, -1, 2) for m, n in given.items()}
    return frames, {m: torch.tensor([n]) for m, n in given.items()}


def seen_by_encoder(model, batch):
    """(trace, projected frames, frames as the encoder gets them), on whole batches."""
    seen = []
    project = model._disentangled
    model._disentangled = lambda x, *rest: seen.append(x) or project(x, *rest)
    _, trace = model(batch)
    return trace, {m: model.project[m](batch.features[m]) for m in MODALITIES}, seen[0]


# --- The equation ----------------------------------------------------------------------------------------------------


def test_aligned_frames_are_weighted_moment_by_moment_as_the_equation_says():
    torch.manual_seed(1)
    model, b, t = stirred(temperature=0.7), 4, 9
    features = {m: torch.randn(b, t, model.project[m].in_features, dtype=torch.float64) for m in MODALITIES}
    lengths = torch.tensor([9, 5, 1, 7])
    batch = Batch(features, dict.fromkeys(MODALITIES, lengths))
    trace, X, seen = seen_by_encoder(model, batch)
    W, scorer = model.weighting.W, model.weighting.scorer
    for i, n in enumerate(lengths.tolist()):
        z = torch.stack([W[j] + scorer(X[m][i, :n]) for j, m in enumerate(MODALITIES)])  # (M, n, d)
        A = (z / 0.7).exp() / (z / 0.7).exp().sum(0)
        for j, m in enumerate(MODALITIES):
            torch.testing.assert_close(seen[m][i, :n], A[j] * X[m][i, :n], **CLOSE)
        torch.testing.assert_close(trace.weights[i], A.mean(1), **CLOSE)
        shares = sum(seen[m][i, :n] / X[m][i, :n] for m in MODALITIES)
        torch.testing.assert_close(shares, torch.ones_like(shares), rtol=1e-6, atol=1e-6)
        assert n == 1 or A.std(1).max() > 0.01, "weights move within an utterance"


def test_moments_of_other_clocks_by_hand():
    """Lengths 2, 4 and 3: frame t of n lies at (t + 1/2) / n."""
    frames, lengths = clocks(2, 4, 3)
    wanted = {
        "text": ([0, 1], [1, 3], [0, 2]),  # at 1/4 and 3/4; audio's frames 0 and 1 are as near to 1/4: the later
        "audio": ([0, 0, 1, 1], [0, 1, 2, 3], [0, 1, 1, 2]),  # at 1/8, 3/8, 5/8, 7/8
        "vision": ([0, 1, 1], [0, 2, 3], [0, 1, 2]),  # at 1/6, 1/2, 5/6
    }
    for clock, numbers in wanted.items():
        assert at_frames_of(clock, frames, lengths)[0, :, :, 0].tolist() == [list(map(float, x)) for x in numbers]


def test_weights_on_clocks_of_their_own_by_hand():
    """Scores are a frame's own number, so each weight is a softmax of three of them."""

    class Number(Weighting):
        def logits(self, tokens):
            return tokens

    frames, lengths = clocks(2, 4, 3)
    found, mean = weighted_frames(Number(SMALL), frames, Batch(frames, lengths))
    at = {  # as in the test above
        "text": torch.tensor([[0.0, 1, 0], [1, 3, 2]]),
        "audio": torch.tensor([[0.0, 0, 0], [0, 1, 1], [1, 2, 1], [1, 3, 2]]),
        "vision": torch.tensor([[0.0, 0, 0], [1, 2, 1], [1, 3, 2]]),
    }
    for i, m in enumerate(MODALITIES):
        wanted = at[m].softmax(1)[:, i] * torch.arange(len(at[m]))
        torch.testing.assert_close(found[m][0, :, 0], wanted)
    every = torch.cat(list(at.values())).softmax(1)
    torch.testing.assert_close(mean[0, :, 1], every.mean(0))
    torch.testing.assert_close(mean.sum(1), torch.ones(1, 2))


@given(st.tuples(*3 * [st.integers(0, 40)]))
def test_the_frame_taken_is_the_nearest_and_never_padding(lengths):
    frames, given = clocks(*lengths)
    frames = {m: torch.cat([x, torch.full((1, 3, 2), 99.0)], dim=1) for m, x in frames.items()}
    for clock, n in zip(MODALITIES, lengths, strict=True):
        found = at_frames_of(clock, frames, given)[0, :, :, 0]
        assert found.max() < 99
        for row, other in zip(found, lengths, strict=True):
            assert other or not row.any(), "an absent modality is zero"
            for t in range(n if other else 0):
                distance = abs((torch.arange(other) + 0.5) / other - (t + 0.5) / n)
                assert distance[int(row[t])] <= distance.min() + 1e-6


# --- Beside the others in the slot -----------------------------------------------------------------------------------


def test_at_the_start_all_weights_are_equal_and_the_model_is_that_of_static_weights():
    """So whatever it gains over these, it has learned."""
    batch = batch_of()
    prediction, trace = make(TEMPORAL)(batch)
    static, _ = make(replace(TEMPORAL, weighting="static"))(batch)
    torch.testing.assert_close(prediction, static, **CLOSE)
    assert trace.weights.shape == (24, 3, SMALL.width)
    torch.testing.assert_close(trace.weights, torch.full_like(trace.weights, 1 / 3), rtol=1e-14, atol=0)


def test_other_weightings_at_R3_are_given_means():
    for name in ("gated", "attention"):
        model, seen = make(replace(TEMPORAL, weighting=name)), []
        model.weighting.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0].shape))
        model(batch_of())
        assert seen == [(24, 3, 1, SMALL.width)]


def test_gradient_reaches_W_and_all_of_the_scorer():
    model = stirred()
    prediction, trace = model(batch_of())
    model.loss(prediction, torch.linspace(-3, 3, 24, dtype=torch.float64), trace).backward()
    assert all(p.grad.abs().max() > 1e-9 for p in model.weighting.parameters())
    start = make(TEMPORAL)
    prediction, trace = start(batch_of())
    prediction.sum().backward()
    assert start.weighting.scorer[2].weight.grad.abs().max() > 1e-9, "from the start, where it is 0"


# --- Padding, groups, absence ----------------------------------------------------------------------------------------


def test_what_stands_in_padding_changes_nothing():
    model, batch = stirred(), batch_of()
    prediction, trace = model(batch)
    for m in MODALITIES:
        noise = torch.where(batch.valid(m)[..., None], batch.features[m], 50 * torch.randn_like(batch.features[m]))
        assert not noise.equal(batch.features[m])
        again, other = model(change(batch, m, noise))
        torch.testing.assert_close(again, prediction, **CLOSE)
        torch.testing.assert_close(other.weights, trace.weights, **CLOSE)


@pytest.mark.parametrize("groups", [2, 5, 24])
def test_groups_by_length_give_what_one_batch_gives(groups):
    model, batch = stirred(mask_absent=True), batch_of()
    parts, order = grouped(batch, groups)
    (prediction, trace), (found, by_group) = model(batch), model(parts)
    torch.testing.assert_close(found, prediction[order], **CLOSE)
    torch.testing.assert_close(by_group.weights, trace.weights[order], **CLOSE)


def test_an_absent_modality_gets_no_weight_and_the_others_share_it():
    batch = batch_of()
    lengths = batch.lengths["audio"].clone()
    lengths[:12] = 0
    batch = change(batch, "audio", lengths=lengths)
    plain, masked = stirred()(batch)[1].weights, stirred(mask_absent=True)(batch)[1].weights
    assert not masked[:12, 1].any() and plain[:12, 1].min() > 0
    torch.testing.assert_close(masked[12:], plain[12:], **CLOSE)
    torch.testing.assert_close(masked.sum(1), torch.ones(24, SMALL.width, dtype=torch.float64), **CLOSE)
    noise = change(batch, "audio", 50 * torch.randn_like(batch.features["audio"]))
    torch.testing.assert_close(stirred()(noise)[1].weights[:12], plain[:12], **CLOSE)


@pytest.mark.parametrize("mask_absent", [False, True])
def test_an_utterance_without_any_frame_is_well_defined(mask_absent):
    batch = batch_of()
    batch = replace(batch, lengths={m: torch.zeros_like(n) for m, n in batch.lengths.items()})
    prediction, trace = stirred(mask_absent=mask_absent)(batch)
    assert prediction.isfinite().all()
    torch.testing.assert_close(trace.weights.sum(1), torch.ones(24, SMALL.width, dtype=torch.float64), **CLOSE)
