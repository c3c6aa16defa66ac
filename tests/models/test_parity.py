"""MulT and MISA as in MMSA: on the same weights, under MMSA's names, against the equations in numpy and MMSA itself."""

import math
from dataclasses import replace
from importlib import import_module
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from baseline_helpers import MISA, MULT, misa_by_hand, spoken_batch
from model_helpers import make, synthetic
from torch import nn
from torch.testing import assert_close

from tmtlib.common import MODALITIES
from tmtlib.models.base import Batch

MULT_MMSA, MISA_MMSA = (replace(config, compat="mmsa") for config in (MULT, MISA))
LETTER = {"text": "l", "audio": "a", "vision": "v"}
CLOSE = dict(rtol=1e-5, atol=1e-5)


def shaken(config):
    """A model none of whose norms is the identity and none of whose biases is zero."""
    model = make(config)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model


def for_mmsa(model, names: dict[str, str], attentions: dict[str, str]) -> dict[str, torch.Tensor]:
    """All weights of a model by MMSA's names, of which the beginnings are given. Biases that ours lacks are 0."""
    state = model.state_dict()
    names = names | {f"{ours}.out": f"{theirs}.out_proj" for ours, theirs in attentions.items()}
    found = {
        new + k.removeprefix(old): state[k] for old, new in names.items() for k in state if k.startswith(f"{old}.")
    }
    for ours, theirs in attentions.items():
        weight = torch.cat([state[f"{ours}.{part}.weight"] for part in ("query", "key", "value")])
        found[f"{theirs}.in_proj_weight"], found[f"{theirs}.in_proj_bias"] = weight, weight.new_zeros(len(weight))
    biases = sum(x.numel() for key, x in found.items() if key.endswith("in_proj_bias"))
    assert sum(x.numel() for x in found.values()) - biases == sum(x.numel() for x in state.values()), "all are copied"
    return found


def mult_for_mmsa(model) -> dict[str, torch.Tensor]:
    """A MulT's weights by MMSA's names."""
    names = {"residual.0": "proj1", "residual.3": "proj2", "head": "out_layer"}
    stacks = {f"memory.{m}": (f"trans_{x}_mem", model.config.memory_layers) for m, x in LETTER.items()}
    for (s, a), (t, b) in permutations(LETTER.items(), 2):
        stacks[f"cross.{s}_to_{t}"] = f"trans_{b}_with_{a}", model.config.layers
    layers = {f"{old}.layers.{i}": f"{new}.layers.{i}" for old, (new, n) in stacks.items() for i in range(n)}
    for old, new in layers.items():
        names |= {f"{old}.norm": f"{new}.layer_norms.0", f"{old}.feed_forward.0": f"{new}.layer_norms.1"}
        names |= {f"{old}.feed_forward.1": f"{new}.fc1", f"{old}.feed_forward.4": f"{new}.fc2"}
    names |= {f"{old}.norm": f"{new}.layer_norm" for old, (new, _) in stacks.items()}
    names |= {f"convolve.{m}": f"proj_{x}" for m, x in LETTER.items()}
    return for_mmsa(model, names, {f"{old}.attention": f"{new}.self_attn" for old, new in layers.items()})


def misa_for_mmsa(model) -> dict[str, torch.Tensor]:
    """A MISA's weights by MMSA's names. MMSA has the four states of an LSTM, and the six vectors, in another order."""
    names = {"shared.0": "shared.shared_1", "head.0": "fusion.fusion_layer_1", "head.3": "fusion.fusion_layer_3"}
    for m, x, i in (("text", "t", 1), ("audio", "a", 3), ("vision", "v", 1)):
        names |= {f"project.{m}.0": f"project_{x}.project_{x}", f"project.{m}.2": f"project_{x}.project_{x}_layer_norm"}
        names |= {f"private.{m}.0": f"private_{x}.private_{x}_{i}", f"decode.{m}": f"recon_{x}.recon_{x}_1"}
        names |= {f"lstms.{m}.first": f"{x}rnn1", f"lstms.{m}.second": f"{x}rnn2", f"lstms.{m}.norm": f"{x}layer_norm"}
    layer = "transformer_encoder.layers.0"
    names |= {"fusion.norm_attention": f"{layer}.norm1", "fusion.norm_feed_forward": f"{layer}.norm2"}
    names |= {"fusion.feed_forward.0": f"{layer}.linear1", "fusion.feed_forward.3": f"{layer}.linear2"}
    found = for_mmsa(model, names, {"fusion.attention": f"{layer}.self_attn"})
    inputs = {f"project_{x}.project_{x}.weight": [0, 2, 1, 3] for x in "av"}  # ours: first layer, second layer
    inputs["fusion.fusion_layer_1.weight"] = [3, 5, 4, 0, 2, 1]  # ours: shared t, a, v, private t, a, v
    return found | {k: found[k].unflatten(1, (len(i), -1))[:, i].flatten(1) for k, i in inputs.items()}


# --- MulT, by the equations, in numpy --------------------------------------------------------------------------------


def mult_by_equations(w: dict, features: dict, without: str = "") -> float:
    """MMSA's MulT of one utterance, (T, D) by modality; `without` leaves out one of its ways."""
    x = {LETTER[m]: convolved(w[f"proj_{LETTER[m]}.weight"], f, without == "unpadded") for m, f in features.items()}
    last = []
    for t in "lav":
        crossed = [transformer(w, f"trans_{t}_with_{s}", x[t], x[s], without) for s in "lav" if s != t]
        both = np.concatenate(crossed, axis=1)
        last.append(transformer(w, f"trans_{t}_mem", both, None, without)[-1])
    h = np.concatenate(last)
    h = h + linear(w, "proj2", np.maximum(0, linear(w, "proj1", h)))
    return linear(w, "out_layer", h)[0]


def convolved(weight: np.ndarray, x: np.ndarray, padded: bool) -> np.ndarray:
    k = weight.shape[2]
    x = np.pad(x, (((k - 1) // 2, k // 2), (0, 0))) if padded else x
    return np.array([sum(weight[:, :, j] @ x[t + j] for j in range(k)) for t in range(len(x) - k + 1)])


def transformer(w: dict, name: str, target: np.ndarray, source: np.ndarray | None, without: str) -> np.ndarray:
    scale = 1 if without == "scale" else math.sqrt(target.shape[1])
    target, source = scale * target, None if source is None else scale * source
    i = 0
    while f"{name}.layers.{i}.fc1.weight" in w:
        layer = f"{name}.layers.{i}"
        q = normed(w, f"{layer}.layer_norms.0", target)
        k = q if source is None else normed(w, f"{layer}.layer_norms.0", source)
        target = target + attended(w, f"{layer}.self_attn", q, k, without != "future mask")
        hidden = np.maximum(0, linear(w, f"{layer}.fc1", normed(w, f"{layer}.layer_norms.1", target)))
        target, i = target + linear(w, f"{layer}.fc2", hidden), i + 1
    return normed(w, f"{name}.layer_norm", target)


def attended(w: dict, name: str, q: np.ndarray, k: np.ndarray, masked: bool) -> np.ndarray:
    wq, wk, wv = np.split(w[f"{name}.in_proj_weight"], 3)
    e = len(wq) // MULT.heads
    mixed = np.zeros_like(q)
    for rows in (slice(h * e, (h + 1) * e) for h in range(MULT.heads)):
        for t in range(len(q)):
            seen = [s for s in range(len(k)) if not masked or s <= t + abs(len(k) - len(q))]
            p = np.exp([(wq[rows] @ q[t]) @ (wk[rows] @ k[s]) / math.sqrt(e) for s in seen])
            mixed[t, rows] = sum(p_s * (wv[rows] @ k[s]) for p_s, s in zip(p / p.sum(), seen, strict=True))
    return linear(w, f"{name}.out_proj", mixed)


def linear(w: dict, name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def normed(w: dict, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def by_equations(model, batch: Batch, count: int, without: str = "") -> torch.Tensor:
    w = {name: value.numpy() for name, value in mult_for_mmsa(model).items()}
    one = ({m: x[i].numpy() for m, x in batch.features.items()} for i in range(count))
    return torch.tensor([mult_by_equations(w, features, without) for features in one], dtype=torch.float64)


def test_mmsas_mult_is_its_equations():
    """On utterances of several lengths, whose padding it reads; without any of its ways it is another model."""
    model, batch = shaken(MULT_MMSA), spoken_batch()
    found = model(batch)[0].detach()
    assert len(set(batch.lengths["audio"][:5].tolist())) > 2
    assert_close(found[:5], by_equations(model, batch, 5), **CLOSE)
    full = {m: torch.full_like(n, batch.features[m].shape[1]) for m, n in batch.lengths.items()}
    assert_close(model(replace(batch, lengths=full))[0], found), "it knows no lengths"
    for way in ("scale", "unpadded", "future mask"):
        assert (by_equations(model, batch, 2, way) - found[:2]).abs().max() > 1e-2, way


def test_mmsas_mult_gives_maps_of_the_past():
    model, batch = shaken(MULT_MMSA), spoken_batch()
    prediction, trace = model(batch, attention=True)
    assert_close(prediction, model(batch)[0])
    assert len(trace.attention) == 6 * 2 + 3
    map_ = trace.attention["audio_to_text.1"]  # 9 frames of text under a kernel of 3, 11 of audio under one of 1
    assert map_.shape == (24, 2, 7, 11)
    q, k = np.indices((7, 11))
    assert ((map_ > 0).numpy() == (k <= q + 4)).all()


def test_mmsas_mult_fills_up_fewer_frames_than_a_kernel():
    data = synthetic("mosi", (32, 24, 8), (1, 1, 1))
    model, batch = make(MULT_MMSA, data), spoken_batch(data.valid)
    longer = {
        m: nn.functional.pad(batch.features[m], (0, 0, 0, k - 1)) for m, k in zip(MODALITIES, MULT.kernels, strict=True)
    }
    assert model(batch)[0].std() > 0
    assert_close(model(batch)[0], model(replace(batch, features=longer))[0])


# --- MISA, by the equations ------------------------------------------------------------------------------------------


def test_mmsas_misa_is_its_equations():
    """On as many frames of audio and vision as the text has; on their own lengths it is another model."""
    model, batch = shaken(MISA_MMSA), spoken_batch()
    text = batch.lengths["text"]
    as_text = replace(batch, lengths={m: text.clamp_max(x.shape[1]) for m, x in batch.features.items()})
    found = model(batch)[0]
    assert_close(found, misa_by_hand(model, as_text)[0], **CLOSE)
    assert (misa_by_hand(model, batch)[0] - found).abs().max() > 1e-2


# --- MMSA itself, where it is installed ------------------------------------------------------------------------------


def from_mmsa(name: str):
    """A class of MMSA's models, and the module that defines it."""
    pytest.importorskip("MMSA", reason="MMSA is not installed (pip install MMSA)", exc_type=ImportError)
    module = import_module(f"MMSA.models.singleTask.{name}")
    return getattr(module, name), module


def mmsas_mult() -> nn.Module:
    c, (text, audio, vision) = MULT_MMSA, MULT_MMSA.kernels
    sizes = {"dst_feature_dim_nheads": (c.width, c.heads), "feature_dims": (768, 5, 20), "nlevels": c.layers}
    kernels = {"conv1d_kernel_size_l": text, "conv1d_kernel_size_a": audio, "conv1d_kernel_size_v": vision}
    rates = ("attn_dropout", "attn_dropout_a", "attn_dropout_v", "relu_dropout", "embed_dropout", "res_dropout")
    dropout = dict.fromkeys((*rates, "output_dropout", "text_dropout"), 0.0)
    ways = {"use_bert": False, "attn_mask": True, "train_mode": "regression"}  # as in MMSA's config_regression.json
    return from_mmsa("MULT")[0](SimpleNamespace(**sizes | kernels | dropout | ways)).double().eval()


def test_mmsas_mult_is_that_of_mmsa():
    theirs = mmsas_mult()
    model, batch = shaken(replace(MULT_MMSA, memory_layers=3)), spoken_batch()  # MMSA's memories have 3 at least
    loaded = theirs.load_state_dict(mult_for_mmsa(model), strict=False)
    assert not loaded.unexpected_keys and all(key.endswith("version") for key in loaded.missing_keys)
    assert_close(model(batch)[0], theirs(*batch.features.values())["M"][:, 0], **CLOSE)


def mmsas_misa(text: torch.Tensor, monkeypatch) -> nn.Module:
    """MMSA's MISA; its BERT gives the text's features."""
    build, module = from_mmsa("MISA")
    bert = type("Bert", (nn.Module,), {"forward": lambda self, ids: text})
    monkeypatch.setattr(module, "BertTextEncoder", lambda **_: bert())
    sizes = {"feature_dims": (768, 5, 20), "hidden_size": MISA.width, "rnncell": "lstm", "train_mode": "regression"}
    ways = {"use_bert": True, "use_finetune": False, "transformers": "bert", "pretrained": "", "use_cmd_sim": True}
    return build(SimpleNamespace(**sizes | ways, dropout=0.0)).double().eval()


def test_mmsas_misa_is_that_of_mmsa(monkeypatch):
    """Predictions, and the parts of the loss."""
    model, batch = shaken(replace(MISA_MMSA, lstm_width=None, fusion_hidden=2048)), spoken_batch()
    theirs = mmsas_misa(batch.features["text"], monkeypatch)
    loaded = theirs.load_state_dict(misa_for_mmsa(model), strict=False)
    assert not loaded.unexpected_keys and all(k.startswith(("sp_disc", "tlayer")) for k in loaded.missing_keys)
    prediction = theirs(batch.text_bert, batch.features["audio"], batch.features["vision"])["M"][:, 0]
    ours, trace = model(batch)
    assert_close(ours, prediction, **CLOSE)
    trainer = import_module("MMSA.trains.singleTask.MISA").MISA(
        SimpleNamespace(train_mode="regression", dataset_name="mosi", use_cmd_sim=True)
    )
    trainer.model = SimpleNamespace(Model=theirs)
    c, target = model.config, torch.linspace(-3, 3, 24).double()
    parts = c.difference * trainer.get_diff_loss() + c.similarity * trainer.get_cmd_loss()
    total = trainer.criterion(prediction, target) + parts + c.reconstruction * trainer.get_recon_loss()
    assert_close(model.loss(ours, target, trace).double(), total, **CLOSE)
