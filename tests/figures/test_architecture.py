"""Figures 1 to 3 against the models they are drawn from."""

import re

import numpy as np
import pytest
import torch
from figure_helpers import CONFIGS, NAMES, WEIGHTED, built, drawing, text_of, words
from matplotlib.patches import ConnectionPatch
from torch import nn

from tmtlib import figures
from tmtlib.common import MODALITIES
from tmtlib.figures.architecture import probe
from tmtlib.models.base import count_parameters


def parameters_in(figure) -> list[int]:
    matches = (re.search(r"([\d,]+) parameters", t.get_text()) for t in words(figure))
    return [int(match[1].replace(",", "")) for match in matches if match]


@pytest.mark.parametrize("name", CONFIGS)
def test_framework_shows_the_models_own_shapes_and_parameters(name):
    model, batch = built()[name]
    text, config = text_of(drawing(f"figure2_{name}")), CONFIGS[name]
    d, k = config.width, config.specific_tokens
    frames = [batch.features[m].shape[1] for m in MODALITIES]
    for m, t in zip(MODALITIES, frames, strict=True):
        assert str(tuple(batch.features[m].shape)) in text and f"{(7, t, d)}" in text
    tokens = config.shared_tokens + 3 * k
    specific = k if config.placement == "R2" else 3 * k
    assert f"{tokens} tokens + {sum(frames)} frames" in text and f"in {(7, tokens + sum(frames), d)}" in text
    assert f"{config.encoder_layers} layers, {config.heads} heads" in text
    assert f"{config.cross_layers} layers, {config.heads} heads" in text
    assert text.count(f"target {(7, specific, d)}") == text.count(f"source {(7, specific, d)}") >= 1
    assert f"prediction {(7, 5) if config.task == 'classification' else (7,)}" in text
    assert sum(parameters_in(drawing(f"figure2_{name}"))) == 2 * count_parameters(model)  # the total and its parts
    assert text.count("■") == tokens
    assert f"{config.orthogonality:g} overlap" in text and f"{config.similarity:g} MMD" in text
    assert "shared ← specific" in text and "specific ← shared" in text


def test_no_arrow_is_drawn_twice():
    arrows = [a for a in drawing("figure2_amw").findobj(ConnectionPatch)]
    ends = [(id(a.axesA), a.xy1, id(a.axesB), a.xy2) for a in arrows]
    assert len(arrows) > 8 and len(ends) == len(set(ends)), "dashes drawn over dashes look solid"


@pytest.mark.parametrize("name", CONFIGS)
def test_words_stay_inside_their_boxes(name):
    for figure in (drawing(n) for n in NAMES if n.endswith(name)):
        boxes = [ax for ax in figure.axes if ax.axison and ax.texts]
        assert len(boxes) > (5 if figure is drawing(f"figure2_{name}") else 0)
        for ax in boxes:
            box = ax.get_window_extent()
            for text in (t.get_window_extent() for t in ax.texts if t.get_text()):
                assert box.x0 <= text.x0 and text.x1 <= box.x1 and box.y0 <= text.y0 and text.y1 <= box.y1


def test_fusion_shows_each_way_and_the_parameters_of_the_models_given():
    (plain, batch), (model, _) = built()["tmt"], built()["amw"]
    figure = figures.figure1_fusion({"TMT": plain, "tmt_amw": model, "mult": nn.Linear(5, 1)}, batch)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:2] == ["early fusion", "late fusion"] and titles[2] == "MulT, 6 parameters"
    assert parameters_in(figure)[1:] == [count_parameters(plain), count_parameters(model)]
    scaled = [t for t in figure.axes[5].texts if "odot" in t.get_text()]
    assert len(scaled) == 3 and all("odot" not in t.get_text() for ax in figure.axes[:5] for t in ax.texts)


def test_another_kind_of_model_is_refused():
    with pytest.raises(TypeError, match="model is a Linear; wanted a TMT"):
        figures.figure2_tmt(nn.Linear(5, 1), built()["tmt"][1])


def test_looking_at_a_model_leaves_it_as_it_was():
    model, batch = built()["amw"]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert model.train().training
    seen = probe(model, batch)
    assert model.training and not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert seen.outputs[""] == (7,) and not seen.trace.weights.requires_grad


@pytest.mark.parametrize("name", WEIGHTED)
def test_mechanism_shows_the_models_own_weights(name):
    model, batch = built()[name]
    figure, text = drawing(f"figure3_{name}"), text_of(drawing(f"figure3_{name}"))
    a = model.eval()(batch)[1].weights
    maps = [c.get_array() for ax in figure.axes for c in ax.collections if ax.get_xlabel() == "feature"]
    np.testing.assert_allclose(maps[-1], a[0].detach().numpy())
    assert f"A {tuple(a.shape)}" in text and f"{count_parameters(model):,} parameters" in text
    if hasattr(model.weighting, "W"):
        np.testing.assert_array_equal(maps[0], model.weighting.W.detach().numpy())
    bars = [p.get_width() for ax in figure.axes for p in ax.patches if ax.get_title() == "means of A"]
    np.testing.assert_allclose(bars, a[0].detach().numpy().mean(1), rtol=1e-6)
    k, d = CONFIGS[name].specific_tokens, CONFIGS[name].width
    into = {"R2": (7, k, d), "R3": seen_frames(model, batch)}.get(CONFIGS[name].placement, (7, 3 * k, d))
    assert f"{into}" in text


def seen_frames(model, batch) -> tuple:
    return 7, model.tokens.shape[1] + sum(x.shape[1] for x in batch.features.values()), model.tokens.shape[2]


def test_no_weighting_no_mechanism():
    with pytest.raises(ValueError, match="no weighting"):
        figures.figure3_amw(*built()["tmt"])
