"""The baselines against second implementations; padding, absence, training, compatibility, losses, sizes, configs."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from baseline_helpers import (
    LATE,
    MISA,
    MULT,
    SMALL,
    misa_by_hand,
    mult_by_hand,
    save_bert,
    spoken,
    spoken_batch,
    torchs_layer,
    with_ids,
)
from model_helpers import change, make, protocol, synthetic
from torch import nn

from tmtlib.common import MODALITIES, digest
from tmtlib.data.schema import DataShape
from tmtlib.models import build_model
from tmtlib.models.base import Batch, count_parameters
from tmtlib.models.bert import BertTextConfig
from tmtlib.models.late_fusion import LateFusionConfig
from tmtlib.models.layers import Attention
from tmtlib.models.losses import cmd
from tmtlib.models.misa import MISAConfig
from tmtlib.models.mult import MulTConfig, sinusoids
from tmtlib.training.batches import OnDevice
from tmtlib.training.fit import Training, fit, predict

CLOSE = dict(rtol=1e-9, atol=1e-9)  # models are float64 here
CPU = torch.device("cpu")
every_model = pytest.mark.parametrize("name", SMALL)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def config(name, bert):
    """The small config of the model named by the test's parameter."""
    return replace(SMALL[name], bert=bert) if name == "bert" else SMALL[name]


def train(config, data=None, seeds=(0,), **changes):
    data = data or spoken()
    return fit(config, protocol(**{"epochs": 2} | changes), data.train, data.valid, data.shape, seeds, "cpu")


def labels() -> torch.Tensor:
    return torch.from_numpy(synthetic().valid.labels).double()


# --- Every model -----------------------------------------------------------------------------------------------------


@every_model
def test_predicts_one_number_or_five_and_every_parameter_learns(config):
    model, batch = make(config).train(), spoken_batch()
    prediction, trace = model(batch)
    assert prediction.shape == (24,) and model.values(prediction) is prediction
    model.loss(prediction, labels(), trace).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    model = make(replace(config, task="classification"))
    prediction, trace = model(batch)
    assert prediction.shape == (24, 5) and model.values(prediction).shape == (24,)
    assert model.loss(prediction, torch.arange(24) % 5, trace).isfinite()


def padded(batch: Batch, extra: int, fill: float) -> Batch:
    """More frames at the end, and `fill` in all of the padding; word pieces too, as a tokenizer pads them."""
    for m in MODALITIES:
        batch = change(batch, m, nn.functional.pad(batch.features[m], (0, 0, 0, extra)))
        batch = change(batch, m, torch.where(batch.valid(m)[..., None], batch.features[m], fill))
    return replace(batch, text_bert=nn.functional.pad(batch.text_bert, (0, extra)))


@every_model
def test_padding_does_not_change_a_prediction(config):
    model, batch = make(config), spoken_batch()
    expected = model(batch)[0]
    for extra, fill in ((4, 0.0), (0, 50.0), (3, torch.nan)):
        torch.testing.assert_close(model(padded(batch, extra, fill))[0], expected, **CLOSE)


@every_model
def test_a_longer_neighbour_does_not_change_a_prediction(config):
    model, batch = make(config), spoken_batch()
    together = model(batch)[0]
    assert together.std() > 0
    for i in range(6):
        lengths = {m: n[i : i + 1] for m, n in batch.lengths.items()}
        features = {m: x[i : i + 1, : int(lengths[m])] for m, x in batch.features.items()}
        alone = Batch(features, lengths, batch.text_bert[i : i + 1, :, : int(lengths["text"])])
        torch.testing.assert_close(model(alone)[0], together[i : i + 1], **CLOSE)


@every_model
@pytest.mark.parametrize("absent", [("text",), ("audio",), ("vision",), MODALITIES], ids="+".join)
def test_absent_modality_is_finite_and_its_content_irrelevant(config, absent):
    model = make(config)
    batch = other = spoken_batch()
    for m in absent:
        batch = change(batch, m, lengths=torch.zeros(24, dtype=torch.int64))
        other = change(batch, m, batch.features[m].roll(1, 0) + 7)
    prediction, trace = model(batch)
    torch.testing.assert_close(model(other)[0], prediction, **CLOSE)
    nothing = len(absent) == 3 or (isinstance(config, BertTextConfig) and absent == ("text",))
    assert nothing is torch.allclose(prediction, prediction[0], **CLOSE), "nothing told, nothing differs"
    model.loss(prediction, labels(), trace).backward()
    assert prediction.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@every_model
def test_trimmed_batches_sorted_by_length_give_the_same(config):
    """MulT works in groups of like length; the others ignore them."""
    data = spoken("mosi", (64, 8, 8), (24, 24, 24))
    model, on_device = make(config, data).float(), OnDevice(data.train, CPU, config, "mosi")
    on_device.trim = False
    expected = model(on_device.batch(torch.arange(64)))[0]
    on_device.trim = True
    order = on_device.by_length(torch.arange(64))
    batch = on_device.batch(order)
    assert len(batch.groups) > 1
    torch.testing.assert_close(model(batch)[0], expected[order], rtol=1e-5, atol=1e-6)
    short = on_device.batch(order[:8])
    assert short.features["audio"].shape[1] < 24
    torch.testing.assert_close(model(short)[0], expected[order[:8]], rtol=1e-5, atol=1e-6)


@every_model
def test_learns_more_than_the_best_constant(config):
    data, rate = spoken("mosi", (300, 150, 8), (8, 8, 8)), 5e-3
    if config is MISA:  # its difference loss grows as 1 / width^2: at 16 it drowns the task in so few steps
        config, rate = replace(MISA, width=64, dropout=0.1), 1e-3
    (done,) = train(config, data, epochs=6, batch_size=32, learning_rate=rate)
    constant = np.abs(data.valid.labels - np.median(data.train.labels)).mean()
    best = min(row["valid_mae"] for row in done.history)
    assert best < 0.92 * constant
    assert best > 0.9 * data.truth.best_mae, "nobody is better than the truth"


@every_model
def test_the_same_seed_gives_the_same_result_and_another_another(config):
    first, other = train(config, seeds=(3, 4), epochs=1)
    (again,) = train(config, seeds=(3,), epochs=1)
    assert first.history == again.history and first.history != other.history
    assert all(value.equal(again.state[key]) for key, value in first.state.items())


@every_model
def test_features_of_other_widths_are_refused(config):
    if isinstance(config, BertTextConfig):
        pytest.skip("reads no features")
    batch = spoken_batch()
    with pytest.raises(ValueError, match="vision has 19 features a frame; wanted 20"):
        make(config)(change(batch, "vision", batch.features["vision"][..., :19]))


@every_model
def test_bfloat16_is_close(config):
    data = spoken()
    model = make(config, data).float()
    exact, half = (predict(model, data.valid, Training(precision=p), "cpu") for p in ("float32", "bfloat16"))
    assert 0 < np.abs(exact - half).max() < 0.1 * max(np.ptp(exact), np.abs(exact).max())


# --- MulT ------------------------------------------------------------------------------------------------------------


def test_mult_is_its_equations():
    """One utterance after another without padding, frame by frame and head by head."""
    model, batch = make(MULT), spoken_batch()
    for p in model.parameters():
        nn.init.normal_(p, std=0.4)  # no norm is the identity, no bias zero
    found = model(batch)[0]
    torch.testing.assert_close(found, mult_by_hand(model, batch), rtol=1e-5, atol=1e-5)  # positions are float32


def test_positions_are_sines_and_cosines():
    found = sinusoids(7, 6, CPU).numpy()
    t, j = np.arange(7)[:, None], np.arange(3)
    np.testing.assert_allclose(found[:, 0::2], np.sin(t / 10000 ** (2 * j / 6)), atol=1e-6)
    np.testing.assert_allclose(found[:, 1::2], np.cos(t / 10000 ** (2 * j / 6)), atol=1e-6)


def test_crossmodal_attention_is_torchs_multihead_attention():
    model, batch = make(MULT), spoken_batch()
    layer = model.cross["audio_to_text"].layers[0]
    theirs, a = nn.MultiheadAttention(8, 2, batch_first=True).double(), layer.attention
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([a.query.weight, a.key.weight, a.value.weight]))
        theirs.in_proj_bias.zero_()
    theirs.out_proj.load_state_dict(a.out.state_dict())
    query, source = torch.randn(24, 9, 8).double(), torch.randn(24, batch.features["audio"].shape[1], 8).double()
    valid = batch.valid("audio")
    expected, map_ = theirs(query, source, source, ~valid, average_attn_weights=False)
    maps = {}
    torch.testing.assert_close(a(query, source, source, valid, maps, "one"), expected, **CLOSE)
    torch.testing.assert_close(maps, {"one": map_}, **CLOSE)
    torch.testing.assert_close(a(query, source, source, valid), expected, **CLOSE)


def test_mults_attention_maps_change_nothing_and_are_distributions():
    model, batch = make(MULT), spoken_batch()
    prediction, trace = model(batch, attention=True)
    plain, silent = model(batch)
    torch.testing.assert_close(prediction, plain, **CLOSE)
    assert not silent.attention and len(trace.attention) == 6 * 2 + 3
    frames = {m: x.shape[1] for m, x in batch.features.items()}
    assert trace.attention["audio_to_text.1"].shape == (24, 2, frames["text"], frames["audio"])
    assert trace.attention["memory_vision.0"].shape == (24, 2, frames["vision"], frames["vision"])
    for map_ in trace.attention.values():
        torch.testing.assert_close(map_.sum(-1), torch.ones_like(map_[..., 0]), **CLOSE)


def test_dropout_of_the_map_acts_in_training_only():
    torch.manual_seed(0)
    x = torch.randn(2, 50, 8)
    attention = Attention(8, 2, 4, dropout=0.0, map_dropout=1.0)
    torch.testing.assert_close(attention(x, x, x), attention.out.bias.expand_as(x))
    plain = Attention(8, 2, 4, dropout=0.0)
    plain.load_state_dict(attention.state_dict())
    torch.testing.assert_close(attention.eval()(x, x, x), plain(x, x, x))


@pytest.mark.parametrize("source", MODALITIES)
def test_attention_dropout_is_by_source(source):
    rates = tuple(0.5 if m == source else 0.0 for m in MODALITIES)
    model = build_model(replace(MULT, attention_dropout=rates), synthetic())
    for name, transformer in model.cross.items():
        assert transformer.layers[0].attention.map_dropout.rate == 0.5 * name.startswith(source)
    assert {t.layers[0].attention.map_dropout.rate for t in model.memory.values()} == {rates[0]}


@pytest.mark.parametrize("config", [MULT, MISA], ids=["mult", "misa"])
def test_mmsas_ways_get_all_the_padding(config):
    for compat, trim in (("none", True), ("mmsa", False)):
        assert OnDevice(synthetic().train, CPU, replace(config, compat=compat), "mosi").trim is trim


# --- MISA ------------------------------------------------------------------------------------------------------------


def test_misa_is_its_equations():
    """LSTMs gate by gate over each utterance's true frames; the fusion is PyTorch's own layer."""
    model, batch = make(MISA), spoken_batch()
    for p in model.parameters():
        nn.init.normal_(p, std=0.4)
    prediction, trace = model(batch)
    expected, parts = misa_by_hand(model, batch)
    torch.testing.assert_close(prediction, expected, **CLOSE)
    for i, m in enumerate(MODALITIES):
        torch.testing.assert_close(trace.projected[m], parts[m][0], **CLOSE)
        torch.testing.assert_close(trace.tokens["shared"][:, i], parts[m][1], **CLOSE)
        torch.testing.assert_close(trace.tokens[m][:, 0], parts[m][2], **CLOSE)


def test_misas_fusion_gives_its_map():
    model, batch = make(MISA), spoken_batch()
    prediction, trace = model(batch, attention=True)
    torch.testing.assert_close(prediction, model(batch)[0], **CLOSE)
    map_ = trace.attention["fusion"]
    assert map_.shape == (24, 2, 6, 6)
    six = torch.cat(list(trace.tokens.values()), dim=1)
    theirs = torchs_layer(model.fusion).self_attn(six, six, six)[1]
    torch.testing.assert_close(map_.mean(1), theirs, **CLOSE)


def orthogonality_by_numpy(u, v):
    u, v = (x - x.mean(0) for x in (u, v))
    u, v = (x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-6) for x in (u, v))
    return ((u.T @ v) ** 2).mean()


def cmd_by_numpy(x, y):
    def moment(z, k):
        return z.mean(0) if k == 1 else np.mean([(row - z.mean(0)) ** k for row in z], axis=0)

    return sum(np.sqrt(((moment(x, k) - moment(y, k)) ** 2).sum()) for k in range(1, 6))


def test_cmd_is_its_equation():
    rng = np.random.default_rng(0)
    x, y = rng.random((20, 7)), rng.random((20, 7)) ** 2
    found = cmd(torch.from_numpy(x), torch.from_numpy(y)).item()
    assert found == pytest.approx(cmd_by_numpy(x, y), rel=1e-9)
    same = torch.from_numpy(x).requires_grad_()
    zero = cmd(same, same.detach())
    zero.backward()
    assert zero.item() == 0 and same.grad.isfinite().all()
    shifted = cmd(torch.from_numpy(x), torch.from_numpy(x + 0.5)).item()
    assert shifted == pytest.approx(0.5 * 7**0.5), "a shift moves the mean and no central moment"


@pytest.mark.parametrize("part", ["difference", "similarity", "reconstruction"])
def test_misas_loss_is_the_sum_of_its_parts(part):
    zero = {"difference": 0.0, "similarity": 0.0, "reconstruction": 0.0}
    model, batch = make(replace(MISA, **zero | {part: 0.7})), spoken_batch()
    prediction, trace = model(batch)
    u, common, own = ({m: misa_by_hand(model, batch)[1][m][i].detach() for m in MODALITIES} for i in range(3))
    pairs = list(combinations(MODALITIES, 2))
    if part == "difference":  # three of shared and private, three of private and private
        six = [(common[m], own[m]) for m in MODALITIES] + [(own[a], own[b]) for a, b in pairs]
        expected = sum(orthogonality_by_numpy(a.numpy(), b.numpy()) for a, b in six)
    elif part == "similarity":
        expected = np.mean([cmd_by_numpy(common[a].numpy(), common[b].numpy()) for a, b in pairs])
    else:
        decoded = {m: (common[m] + own[m]) @ d.weight.T + d.bias for m, d in model.decode.items()}
        expected = np.mean([((u[m] - decoded[m]).detach().numpy() ** 2).mean() for m in MODALITIES])
    task = ((prediction - labels()) ** 2).mean().item()
    assert model.loss(prediction, labels(), trace).item() == pytest.approx(task + 0.7 * expected, rel=1e-5)


def test_misas_task_loss_is_squared_as_published_or_absolute():
    prediction, target = torch.tensor([1.0, 3.0]), torch.tensor([0.0, -1.0])
    assert make(MISA).task_loss(prediction, target).item() == pytest.approx(8.5)
    assert make(replace(MISA, task_loss="l1")).task_loss(prediction, target).item() == pytest.approx(2.5)
    with pytest.raises(ValueError, match=r"prediction is \(4, 1\), target \(4,\)"):
        make(MISA).task_loss(torch.zeros(4, 1), torch.zeros(4))


def test_mmsas_misa_reads_as_many_frames_as_the_text_has_and_nothing_else_differs():
    ours, theirs = make(MISA), make(replace(MISA, compat="mmsa"))
    assert all(p.equal(q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))
    batch = spoken_batch()
    text = batch.lengths["text"]
    as_text = replace(batch, lengths={m: text.clamp_max(x.shape[1]) for m, x in batch.features.items()})
    torch.testing.assert_close(theirs(batch)[0], ours(as_text)[0], **CLOSE)
    short = text.clamp_max(4)
    batch = change(batch, "text", lengths=short)
    expected = theirs(batch)[0]
    for m in ("audio", "vision"):
        frame = torch.arange(batch.features[m].shape[1])
        beyond = torch.where((frame >= short[:, None])[..., None], 9.0, batch.features[m])
        torch.testing.assert_close(theirs(change(batch, m, beyond))[0], expected, **CLOSE)
        assert not torch.allclose(ours(change(batch, m, beyond))[0], ours(batch)[0])
        none = change(batch, m, lengths=torch.zeros_like(short))
        torch.testing.assert_close(theirs(none)[0], expected, **CLOSE)  # their own lengths are never looked at


# --- A BERT that is fine-tuned ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BertTextConfig, MISAConfig])
def test_bert_has_a_learning_rate_of_its_own(bert, kind):
    sizes = {} if kind is BertTextConfig else {"width": 8, "lstm_width": 2, "fusion_hidden": 8}
    (still,) = train(kind(bert=bert, bert_lr=0.0, **sizes), epochs=1)
    (moved,) = train(kind(bert=bert, bert_lr=1e-2, **sizes), epochs=1)
    torch.manual_seed(0)
    start = build_model(kind(bert=bert, **sizes), synthetic()).state_dict()
    inner = [k for k in start if k.startswith("bert.")]
    assert inner and all(still.state[k].equal(start[k]) for k in inner)
    assert any(not moved.state[k].equal(start[k]) for k in inner)
    assert all(not still.state[k].equal(start[k]) for k in start if k.startswith("head.") and k.endswith("weight"))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_bert_is_pooled_as_named(bert, pooling):
    model, batch = make(BertTextConfig(bert=bert, pooling=pooling)), spoken_batch()
    hidden, n = model.bert(batch.text_bert), batch.lengths["text"]
    rows = [h[0] if pooling == "cls" else h[:k].mean(0) for h, k in zip(hidden, n.tolist(), strict=True)]
    linear = model.head[1]
    expected = torch.stack(rows) @ linear.weight.T + linear.bias
    torch.testing.assert_close(model(batch)[0], expected[:, 0], **CLOSE)


def test_bert_needs_a_folder_token_ids_and_unmixed_inputs(bert):
    with pytest.raises(ValueError, match="bert is None; wanted the folder"):
        make(BertTextConfig())
    for kind in (BertTextConfig, MISAConfig):
        with pytest.raises(ValueError, match="mixup is 'correct' with a BERT; wanted 'off'"):
            make(kind(bert=bert, mixup="correct"))
        with pytest.raises(ValueError, match="no `text_bert` token ids"):
            make(kind(bert=bert))(replace(spoken_batch(), text_bert=None))


def test_token_ids_of_the_helper_fit_a_split():
    split = with_ids(synthetic().train)
    assert (split.text_bert[:, 1].sum(1) == split.lengths["text"]).all()


# --- Sizes and configs -----------------------------------------------------------------------------------------------

MOSI = DataShape({"text": (50, 768), "audio": (375, 5), "vision": (500, 20)}, "mosi")


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def mult_count(d: int, layers: int, memory_layers: int, kernels: tuple) -> int:
    def stack(width: int, depth: int) -> int:
        attention = 3 * width * width + linear(width, width)
        return depth * (2 * 2 * width + attention + linear(width, 4 * width) + linear(4 * width, width)) + 2 * width

    convolutions = sum(w * d * k for w, k in zip((768, 5, 20), kernels, strict=True))
    head = 2 * linear(6 * d, 6 * d) + linear(6 * d, 1)
    return convolutions + 6 * stack(d, layers) + 3 * stack(2 * d, memory_layers) + head


def test_parameters_of_mult_by_hand():
    assert count_parameters(build_model(MulTConfig(), MOSI)) == mult_count(40, 4, 4, (3, 3, 3))
    assert count_parameters(build_model(MulTConfig.published("mosi"), MOSI)) == mult_count(50, 4, 4, (5, 5, 5))
    assert count_parameters(build_model(MulTConfig.published("sims"), MOSI)) == mult_count(50, 2, 3, (5, 1, 1))


def test_parameters_of_misa_by_hand():
    d, count = 128, 0
    for width in (5, 20):  # two directions of four gates, each with two biases
        count += 2 * 4 * (2 * width * width + 2 * width) + 2 * 2 * width
        count += 2 * 4 * (2 * width * width + width * width + 2 * width)
    count += sum(linear(inputs, d) + 2 * d for inputs in (768, 4 * 5, 4 * 20))
    count += (1 + 3 + 3) * linear(d, d)  # shared, private, decoders
    count += 3 * d * d + linear(d, d) + linear(d, 2048) + linear(2048, d) + 2 * 2 * d
    count += linear(6 * d, 3 * d) + linear(3 * d, 1)
    assert count_parameters(build_model(MISAConfig(), MOSI)) == count


def test_parameters_of_late_fusion_by_hand():
    text = 4 * (768 * 12 + 12 * 12 + 2 * 12) + linear(12, 12)
    others = linear(5, 6) + linear(6, 6) + linear(20, 8) + linear(8, 8)
    head = linear(26, 10) + linear(10, 10) + linear(10, 1)
    assert count_parameters(build_model(LATE, MOSI)) == text + others + head


@pytest.mark.parametrize("kind", [MulTConfig, MISAConfig])
def test_published_hyper_parameters_by_data_set(kind):
    configs = {name: kind.published(name) for name in ("mosi", "mosei", "sims", "simsv2")}
    assert len({digest(c) for c in configs.values()} | {digest(kind())}) == 5
    assert kind.published("mosi", compat="mmsa") == replace(configs["mosi"], compat="mmsa")
    with pytest.raises(ValueError, match="dataset is 'meld'; wanted one of 'mosi', 'mosei', 'sims', 'simsv2'"):
        kind.published("meld")
    with pytest.raises(ValueError, match="no hyper-parameters by data set are published for a LateFusionConfig"):
        LateFusionConfig.published("mosi")


def test_configs_refuse_what_they_do_not_know():
    for bad in (
        lambda: MulTConfig(compat="paper"),
        lambda: MISAConfig(compat="paper"),
        lambda: MISAConfig(task_loss="huber"),
        lambda: BertTextConfig(pooling="max"),
        lambda: LateFusionConfig(task="ranking"),
    ):
        with pytest.raises(ValueError, match="wanted one of"):
            bad()


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (replace(MULT, heads=3), "width is 8 with 3 heads; wanted a multiple"),
        (replace(MULT, kernels=(3, 0, 1)), r"kernels is \(3, 0, 1\); wanted at least 1"),
        (replace(MISA, heads=5), "width is 16 with 5 heads; wanted a multiple"),
        (replace(MISA, width=0), "width is 0; wanted at least 1"),
        (replace(LATE, widths=(0, 1, 1)), r"widths is \(0, 1, 1\); wanted at least 1"),
    ],
    ids=str,
)
def test_sizes_that_no_model_has_are_refused(config, what):
    with pytest.raises(ValueError, match=what):
        build_model(config, synthetic())
