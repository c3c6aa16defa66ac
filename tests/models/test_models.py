"""TMT against its equations, PyTorch's own layers and hand counts; padding, absent modalities, losses and heads."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_helpers import SMALL, batch_of, change, make, reference, synthetic
from torch import nn

from tmtlib.common import MODALITIES
from tmtlib.data.schema import DataShape
from tmtlib.models import build_model
from tmtlib.models.base import Batch, Model, ModelConfig, Trace, count_parameters
from tmtlib.models.frames import windowed
from tmtlib.models.layers import Attention, Block, Dropout
from tmtlib.models.losses import mmd, orthogonality
from tmtlib.models.tmt import TMTConfig
from tmtlib.stats.metrics import CLASS_CENTRES5, classes5

CLOSE = dict(rtol=1e-9, atol=1e-9)  # models are float64 here
UNMASKED = replace(SMALL, masked=False, position_std=1.0, head_activation="none")
WIDE_HEADS = replace(SMALL, head_width=16, encoder_layers=1, cross_layers=3)  # inner width 2d, as in the original
CLASSES = replace(SMALL, task="classification", shared_tokens=4, specific_tokens=3)


# --- The layers ------------------------------------------------------------------------------------------------------


def multihead(attention: Attention) -> nn.MultiheadAttention:
    """PyTorch's own attention with our weights."""
    width = attention.out.out_features
    theirs = nn.MultiheadAttention(width, attention.heads, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in (attention.query, attention.key, attention.value)]))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.load_state_dict(attention.out.state_dict())
    return theirs


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("width", "heads"), [(32, 4), (128, 8)], ids=["small", "paper"])
def test_attention_is_torchs_multihead_attention(width, heads, masked):
    torch.manual_seed(0)
    ours = Attention(width, heads, width // heads, dropout=0.5).double().eval()
    query, key, value = torch.randn(3, 5, 7, width, dtype=torch.float64)
    query = query[:, :3]
    valid = torch.arange(7) < torch.tensor([7, 1, 4, 6, 2])[:, None] if masked else None
    padding = None if valid is None else ~valid
    expected, map_ = multihead(ours)(query, key, value, padding, average_attn_weights=False)
    torch.testing.assert_close(ours(query, key, value, valid), expected, **CLOSE)
    maps = {}
    torch.testing.assert_close(ours(query, key, value, valid, maps, "of all"), expected, **CLOSE)
    torch.testing.assert_close(maps, {"of all": map_}, **CLOSE)


def test_block_is_torchs_pre_norm_encoder_layer():
    torch.manual_seed(0)
    ours = Block(32, 4, 8, hidden=48, dropout=0.5).double().eval()
    theirs = nn.TransformerEncoderLayer(32, 4, 48, activation="gelu", batch_first=True, norm_first=True).double().eval()
    for norm in (ours.norm_query, ours.feed_forward[0]):  # not the identity that they are at first
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    for norm in (ours.norm_key, ours.norm_value, theirs.norm1):  # PyTorch has one norm for queries, keys and values
        norm.load_state_dict(ours.norm_query.state_dict())
    theirs.norm2.load_state_dict(ours.feed_forward[0].state_dict())
    theirs.linear1.load_state_dict(ours.feed_forward[1].state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward[4].state_dict())
    theirs.self_attn.load_state_dict(multihead(ours.attention).state_dict())
    x = torch.randn(3, 6, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(x, x), theirs(x), **CLOSE)


@pytest.mark.parametrize("part", ["norm_query", "norm_key", "norm_value"])
def test_queries_keys_and_values_have_a_norm_each(part):
    torch.manual_seed(0)
    block = Block(16, 2, 8, hidden=16, dropout=0.0)
    target, source = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    before = block(target, source)
    nn.init.normal_(getattr(block, part).weight)
    assert not torch.allclose(block(target, source), before)


# --- The whole model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", [SMALL, UNMASKED, WIDE_HEADS, CLASSES], ids=["masked", "unmasked", "wide heads", "classes"]
)
def test_model_is_its_equations(config):
    """Also: the last encoder layer computes the label tokens only, the equations every row."""
    model, batch = make(config), batch_of()
    torch.testing.assert_close(model(batch)[0], reference(model, batch), **CLOSE)


@pytest.mark.parametrize("config", [SMALL, UNMASKED], ids=["masked", "unmasked"])
def test_attention_maps_change_nothing_and_are_distributions(config):
    model, batch = make(config), batch_of()
    prediction, trace = model(batch, attention=True)
    plain, silent = model(batch)
    torch.testing.assert_close(prediction, plain, **CLOSE)
    assert not silent.attention
    assert list(trace.attention) == [
        f"{part}.{i}" for part in ("encoder", "specific_from_shared", "shared_from_specific") for i in range(2)
    ]
    keys = 12 + sum(x.shape[1] for x in batch.features.values())
    shapes = [tuple(x.shape) for x in trace.attention.values()]
    assert shapes == [(24, 2, keys, keys), (24, 2, 12, keys)] + [(24, 2, 6, 6)] * 4
    for map_ in trace.attention.values():
        torch.testing.assert_close(map_.sum(-1), torch.ones_like(map_[..., 0]), **CLOSE)
    valid = torch.cat([batch.valid(m) for m in MODALITIES], dim=1)
    on_padding = trace.attention["encoder.1"][..., 12:].sum((1, 2))[~valid]
    assert len(on_padding) and bool(on_padding.any()) is not config.masked


def test_tokens_come_in_the_order_of_the_groups():
    model = make(replace(SMALL, shared_tokens=3, specific_tokens=1, encoder_layers=1))
    with torch.no_grad():  # an encoder that adds nothing: the tokens come out as they went in
        model.encoder[0].attention.out.weight.zero_(), model.encoder[0].attention.out.bias.zero_()
        model.encoder[0].feed_forward[4].weight.zero_(), model.encoder[0].feed_forward[4].bias.zero_()
    _, trace = model(batch_of())
    rows = (model.tokens + model.token_positions)[0]
    assert list(trace.tokens) == ["shared", "text", "audio", "vision"]
    for group, expected in zip(trace.tokens, (rows[:3], rows[3:4], rows[4:5], rows[5:6]), strict=True):
        torch.testing.assert_close(trace.tokens[group][0], expected, **CLOSE)


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def hand_count(c: TMTConfig, widths: dict, frames: dict, outputs: int) -> int:
    """Parameters, layer by layer, from the dimensions of the specification."""
    d, inner = c.width, c.heads * c.head_width

    def block(hidden: int) -> int:
        attention = 3 * d * inner + linear(inner, d)
        return 3 * 2 * d + attention + 2 * d + linear(d, hidden) + linear(hidden, d)

    specific = 3 * c.specific_tokens
    tokens = c.shared_tokens + specific
    return (
        sum(linear(widths[m], d) for m in MODALITIES)
        + tokens * d  # label tokens
        + (tokens + sum(frames.values())) * d  # their positions and the frames'
        + c.encoder_layers * block(c.encoder_hidden)
        + 2 * (tokens * d + c.cross_layers * block(c.cross_hidden))  # positions of targets and sources
        + linear(d, d // 2)
        + linear(d // 2, outputs)
    )


SIMS = DataShape({"text": (39, 768), "audio": (400, 33), "vision": (55, 709)}, "sims")
MOSI = DataShape({"text": (50, 768), "audio": (50, 5), "vision": (50, 20)}, "mosi")


@pytest.mark.parametrize(
    ("config", "shape", "frames", "released"),
    [
        (TMTConfig.original(), SIMS, 20, 7_440_389),
        (TMTConfig.original(window=None), MOSI, 50, 7_279_877),
        (TMTConfig(task="classification"), MOSI, 50, 1_546_245),
    ],
    ids=["original", "original, 50 frames", "paper"],
)
def test_parameters_by_hand_and_as_measured_on_the_original(config, shape, frames, released):
    """`released`: parameters of the original's code at that size, its unused BERT left out."""
    found = count_parameters(build_model(config, shape))
    widths = {m: shape.shapes[m][1] for m in MODALITIES}
    assert found == hand_count(config, widths, dict.fromkeys(MODALITIES, frames), 5)
    never_read = 4 * (150 - 6) * config.width  # it has four tables of 150 positions and reads six rows of each
    d = config.width  # its head is 128 wide at any d, ours d / 2: the same at its own d = 256
    wider_head = linear(d, 128) + linear(128, 5) - linear(d, d // 2) - linear(d // 2, 5)
    assert found == released - never_read - wider_head


def test_tables_are_initialised_as_named():
    model = build_model(TMTConfig(token_std=3.0, position_std=0.1), SIMS)
    assert model.tokens.std().item() == pytest.approx(3.0, rel=0.1)
    tables = [model.token_positions, *model.positions.values()]
    tables += [t for half in (model.specific_from_shared, model.shared_from_specific) for t in half.parameters(False)]
    assert len(tables) == 8
    assert all(t.std().item() == pytest.approx(0.1, rel=0.1) for t in tables)


# --- Padding, absence, and the original's ways -----------------------------------------------------------------------


def garbage(batch: Batch, modality: str) -> Batch:
    """The batch with large numbers in all frames beyond the utterances' lengths."""
    x = batch.features[modality]
    return change(batch, modality, torch.where(batch.valid(modality)[..., None], x, 50.0))


@pytest.mark.parametrize("modality", MODALITIES)
def test_padding_does_not_change_a_prediction(modality):
    model, whole = make(SMALL), batch_of()
    longest = int(whole.lengths[modality].max())
    x = whole.features[modality][:, :longest]
    batch = change(whole, modality, x)
    expected = model(batch)[0]
    padded = change(batch, modality, nn.functional.pad(x, (0, 0, 0, synthetic().shapes[modality][0] - longest)))
    assert padded.features[modality].shape[1] > longest
    torch.testing.assert_close(model(padded)[0], expected, **CLOSE)
    loud = garbage(padded, modality)
    assert not loud.features[modality].equal(padded.features[modality])
    prediction, trace = model(loud)
    torch.testing.assert_close(prediction, expected, **CLOSE)
    for m, mean in model(batch)[1].projected.items():
        torch.testing.assert_close(trace.projected[m], mean, **CLOSE)


def test_longer_neighbours_do_not_change_a_prediction():
    model, whole = make(SMALL), batch_of()
    together = model(whole)[0]
    for i in range(6):
        lengths = {m: whole.lengths[m][i : i + 1] for m in MODALITIES}
        alone = Batch({m: x[i : i + 1, : int(lengths[m])] for m, x in whole.features.items()}, lengths)
        torch.testing.assert_close(model(alone)[0], together[i : i + 1], **CLOSE)


@pytest.mark.parametrize("absent", [("text",), ("audio",), ("vision",), MODALITIES], ids="+".join)
def test_absent_modality_is_finite_and_its_content_irrelevant(absent):
    model = make(SMALL)
    none = torch.zeros(24, dtype=torch.int64)
    batch = other = batch_of()
    for m in absent:
        batch = change(batch, m, lengths=none)
        other = change(batch, m, batch.features[m].roll(1, 0) + 7)
    prediction, trace = model(batch)
    torch.testing.assert_close(model(other)[0], prediction, **CLOSE)
    assert (len(absent) == 3) is torch.allclose(prediction, prediction[0], **CLOSE), "nothing told, nothing differs"
    model.loss(prediction, torch.from_numpy(synthetic().valid.labels).double(), trace).backward()
    assert prediction.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_original_attends_to_padding_within_its_window_and_sees_nothing_beyond():
    data = synthetic("sims", (4, 6, 4), (25, 60, 40))
    model, batch = make(TMTConfig.original(width=16, encoder_hidden=16, cross_hidden=16), data), batch_of(data.valid)
    assert {m: p.shape[1] for m, p in model.positions.items()} == dict.fromkeys(MODALITIES, 20)
    first = model(batch)[0]
    assert first.shape == (6, 5)
    x = batch.features["audio"].clone()
    x[:, 20:] = 50
    torch.testing.assert_close(model(change(batch, "audio", x))[0], first, **CLOSE)
    x = batch.features["audio"].clone()
    short = batch.lengths["audio"] < 20
    x[short, 19] = 50
    changed = (model(change(batch, "audio", x))[0] - first).abs().amax(1) > 1e-6
    assert short.any() and changed.equal(short)
    _, trace = model(batch)
    mean = model.project["audio"](batch.features["audio"][:, :20]).mean(1)
    torch.testing.assert_close(trace.projected["audio"], mean, **CLOSE)  # over padding too


def test_raw_dropout_acts_on_the_features_in_training_only():
    batch = batch_of()
    model = make(replace(SMALL, masked=False, raw_dropout=1.0))
    plain = model(batch)[1].projected
    for m, mean in model.train()(batch)[1].projected.items():
        torch.testing.assert_close(mean, model.project[m].bias.expand_as(mean), **CLOSE)
        assert not torch.allclose(mean, plain[m])
    assert TMTConfig.original().raw_dropout == 0.5
    model = make(SMALL)
    expected = model(batch)[1].projected["text"]
    torch.testing.assert_close(model.train()(batch)[1].projected["text"], expected, **CLOSE), "off by default"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_the_dtype_and_scales_what_it_keeps(dtype):
    torch.manual_seed(0)
    x = torch.ones(4000, dtype=dtype, requires_grad=True)
    y = Dropout(0.25)(x)
    y.sum().backward()
    kept = y != 0
    assert y.dtype == x.grad.dtype == dtype and abs(kept.float().mean() - 0.75) < 0.05
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 4 / 3))
    torch.testing.assert_close(x.grad, y.detach())


def test_dropout_acts_on_both_stages_inputs_and_on_every_block():
    seen, batch = [], batch_of()
    model = make(replace(SMALL, embedding_dropout=1.0)).train()
    for layers in (model.encoder, model.specific_from_shared.layers, model.shared_from_specific.layers):
        layers[0].register_forward_pre_hook(lambda module, args: seen.extend(args[:2]))
    model(batch)
    assert len(seen) == 6 and not any(x.any() for x in seen)
    model = make(replace(SMALL, embedding_dropout=0.0, dropout=1.0)).train()
    tokens = torch.cat(list(model(batch)[1].tokens.values()), dim=1)
    torch.testing.assert_close(tokens, (model.tokens + model.token_positions).expand_as(tokens), **CLOSE)


def cut_by_the_rule(x: np.ndarray, window: int) -> np.ndarray:
    """Frame after frame: the first that is not all zero, or T - 30 when all before it are."""
    for start in range(len(x)):
        if x[start].any() or start + window + 10 >= len(x):
            return x[start : start + window]


@pytest.mark.parametrize("frames", [12, 20, 25, 30, 50])
@pytest.mark.parametrize("leading", [0, 3, 18, 22, 49])
def test_window_is_the_documented_cut(frames, leading):
    x = torch.arange(1.0, frames + 1)[None, :, None].expand(2, -1, 3).clone()
    x[1, :leading] = 0
    lengths = torch.tensor([frames, frames - 1])
    batch = Batch(dict.fromkeys(MODALITIES, x), dict.fromkeys(MODALITIES, lengths))
    found = windowed(batch, 20)
    for m in MODALITIES:
        for i in range(2):
            expected = cut_by_the_rule(x[i].numpy(), 20)
            np.testing.assert_array_equal(found.features[m][i], expected)
            start = int(expected.max()) - len(expected)  # frames are numbered from 1
            assert found.lengths[m][i] == min(max(0, int(lengths[i]) - max(0, start)), 20)
    assert windowed(batch, None) is batch


# --- Losses and heads ------------------------------------------------------------------------------------------------


def token_means() -> tuple[torch.Tensor, torch.Tensor]:
    """Two groups of token means as training meets them (B, d): of synthetic utterances."""
    trace = make(SMALL)(batch_of())[1]
    return trace.projected["text"].detach(), trace.tokens["text"].mean(1).detach()


def orthogonality_by_numpy(u, v):
    u, v = (np.asarray(x, np.float64) - np.asarray(x, np.float64).mean(0) for x in (u, v))
    u, v = (x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-6) for x in (u, v))
    return ((u.T @ v) ** 2).mean()


def mmd_by_numpy(x, y, bandwidth=None):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    z = np.concatenate([x, y])
    bandwidth = bandwidth or mean_distance(z)

    def kernel(a, b):
        return sum(np.exp(-((a - b) ** 2).sum() / (bandwidth * factor)) for factor in (0.25, 0.5, 1, 2, 4))

    xx, yy, xy = (np.mean([[kernel(a, b) for b in q] for a in p]) for p, q in ((x, x), (y, y), (x, y)))
    return xx + yy - 2 * xy


def mean_distance(z):
    n = len(z)
    return sum(((a - b) ** 2).sum() for a in z for b in z) / (n**2 - n)


def test_orthogonality_is_its_equation():
    x, s = token_means()
    assert orthogonality(x, s).item() == pytest.approx(orthogonality_by_numpy(x, s), rel=1e-9)
    assert 0 < orthogonality(x, s) <= (len(x) / x.shape[1]) ** 2, "at most (B / d)^2"
    assert orthogonality(x, x) > 2 * orthogonality(x, s)


def test_no_gradient_flows_through_the_norms_of_orthogonality():
    x, s = token_means()
    x.requires_grad_()
    orthogonality(x, s).backward()
    centred = (x - x.mean(0)).detach().requires_grad_()
    norm, other = centred.detach().norm(dim=1, keepdim=True) + 1e-6, s - s.mean(0)
    ((centred / norm).T @ (other / (other.norm(dim=1, keepdim=True) + 1e-6))).square().mean().backward()
    torch.testing.assert_close(x.grad, centred.grad - centred.grad.mean(0), **CLOSE)


def test_mmd_is_its_equation_and_in_its_range():
    x, s = token_means()
    assert mmd(x, s).item() == pytest.approx(mmd_by_numpy(x, s), rel=1e-9)
    assert 1 < mmd(x, s) < 10, "projected frames and fresh tokens lie far apart"
    assert mmd(x, x).item() == pytest.approx(0, abs=1e-9)
    assert mmd(x, x + 1e-3).item() < 1e-3
    assert mmd(torch.zeros(4, 3), torch.zeros(4, 3)) == 0, "without any spread"


def test_no_gradient_flows_through_the_bandwidth_of_mmd():
    x, s = token_means()
    x, s = x[:6], s[:6]
    x.requires_grad_()
    mmd(x, s).backward()
    fixed, step = mean_distance(np.concatenate([x.detach(), s])), 1e-5
    for i, j in ((0, 0), (3, 7)):
        up, down = x.detach().numpy().copy(), x.detach().numpy().copy()
        up[i, j] += step
        down[i, j] -= step
        slope = (mmd_by_numpy(up, s, fixed) - mmd_by_numpy(down, s, fixed)) / (2 * step)
        assert x.grad[i, j].item() == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_total_loss_is_the_weighted_sum_of_its_parts(task):
    model = make(replace(SMALL, task=task, orthogonality=5.0, similarity=0.7, task_weight=3.0))
    prediction, trace = model(batch_of())
    label = synthetic().valid.labels
    if task == "classification":
        target = torch.from_numpy(classes5(label, "mosi"))
        p = prediction.detach().numpy()
        own = np.mean([math.log(np.exp(row).sum()) - row[c] for row, c in zip(p, target.tolist(), strict=True)])
    else:
        target = torch.from_numpy(label).double()
        own = np.abs(prediction.detach().numpy() - label).mean()
    mean = {g: x.detach().mean(1) for g, x in trace.tokens.items()}
    pairs = [("shared", "text"), ("shared", "audio"), ("shared", "vision")]
    pairs += [("text", "audio"), ("audio", "vision"), ("vision", "text")]
    difference = sum(orthogonality_by_numpy(mean[a], mean[b]) for a, b in pairs) / 3
    similarity = sum(mmd_by_numpy(trace.projected[m].detach(), mean[m]) for m in MODALITIES) / 3
    expected = 3 * own + 5 * difference + 0.7 * similarity
    assert model.loss(prediction, target, trace).item() == pytest.approx(expected, rel=1e-5)  # losses are float32
    assert model.task_loss(prediction, target).item() == pytest.approx(own, rel=1e-9)


@pytest.mark.parametrize("family", ["mosi", "sims"])
def test_each_class_centre_falls_into_its_class(family):
    data = synthetic(family)
    classifier = make(replace(SMALL, task="classification"), data)
    assert classifier(batch_of(data.valid))[0].shape == (24, 5)
    values = classifier.values(torch.eye(5)[[3, 1, 4, 0, 2]])
    assert values.tolist() == pytest.approx([CLASS_CENTRES5[family][i] for i in (3, 1, 4, 0, 2)])
    assert classes5(values, family).tolist() == [3, 1, 4, 0, 2]


def test_regression_predicts_one_number_an_utterance():
    model = make(SMALL)
    prediction, _ = model(batch_of())
    assert prediction.shape == (24,)
    assert model.values(prediction) is prediction


def test_prediction_of_another_shape_than_its_target_is_refused():
    model = make(SMALL)
    with pytest.raises(ValueError, match=r"prediction is \(4, 1\), target \(4,\)"):
        model.loss(torch.zeros(4, 1), torch.zeros(4), Trace())


# --- Errors ----------------------------------------------------------------------------------------------------------


def test_config_without_a_model_is_refused():
    with pytest.raises(TypeError, match=r"no model for a ModelConfig; give it a property model_class"):
        build_model(ModelConfig(), synthetic())


@pytest.mark.parametrize("name", ["encoder_layers", "heads", "head_width", "shared_tokens", "window"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0; wanted at least 1"):
        build_model(replace(SMALL, **{name: 0}), synthetic())


def test_data_of_other_shapes_are_refused():
    model, batch = make(SMALL), batch_of()
    with pytest.raises(ValueError, match="vision is 10 frames of 19 features; wanted at most 10 frames of 20 features"):
        model(change(batch, "vision", batch.features["vision"][..., :19]))
    with pytest.raises(ValueError, match="audio is 22 frames of 5 features; wanted at most 11 frames"):
        model(change(batch, "audio", batch.features["audio"].repeat(1, 2, 1)))


def test_bert_needs_token_ids_and_unmixed_inputs(monkeypatch):
    class Bert(nn.Module):
        width = 768

    monkeypatch.setattr("tmtlib.models.bert.BertText", lambda folder: Bert())
    with pytest.raises(ValueError, match="no `text_bert` token ids"):
        make(replace(SMALL, bert="folder"))(batch_of())
    with pytest.raises(ValueError, match="mixup is 'original' with a BERT; wanted 'off'"):
        make(replace(SMALL, bert="folder", mixup="original"))


class WithABert(Model):
    """A user's model whose attribute happens to be called bert."""

    def __init__(self, config: ModelConfig, family: str):
        super().__init__(config, family)
        self.bert = nn.Linear(2, 1)


def test_a_module_called_bert_has_the_training_s_rate_where_no_bert_is_configured():
    (group,) = WithABert(ModelConfig(), "mosi").parameter_groups(1e-3)
    assert group["lr"] == 1e-3 and len(group["params"]) == 2
