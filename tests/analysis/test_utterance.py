"""One utterance at a time: what is shown is what the model computes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tmtlib import figures
from tmtlib.analysis import utterance, weights
from tmtlib.common import MODALITIES
from tmtlib.data.corrupt import keep_only
from tmtlib.data.loading import load
from tmtlib.study.runs import load_model, read_record
from tmtlib.training.batches import sample_batch


@pytest.fixture(scope="module")
def seen(smoke):
    smoke.ensure("tmt_gated")
    run = smoke.runs("tmt_gated")[0]
    data = load(run.data)
    return run, data, load_model(run), utterance.explain(load_model(run), data, 7, run.training)


def test_an_explanation_is_the_model_s_prediction_and_the_synthetic_truth(seen):
    run, data, _, explanation = seen
    assert explanation.prediction == pytest.approx(float(read_record(run).predictions["test"][7]), abs=1e-5)
    assert explanation.label == data.test.labels[7] and explanation.name == data.test.ids[7]
    truth = data.truth.splits["test"]
    assert list(explanation.truth.values()) == pytest.approx(truth.importance[7].tolist())
    assert list(explanation.reliable.values()) == truth.reliable[7].tolist()
    assert sum(explanation.weights.values()) == pytest.approx(1)


def test_contributions_sum_to_the_prediction_beyond_nothing(seen):
    run, data, model, explanation = seen
    nothing = keep_only(data.test.take(np.array([7])), ("text",))
    nothing = replace(
        nothing,
        features={m: np.zeros_like(x) for m, x in nothing.features.items()},
        lengths={m: np.zeros_like(n) for m, n in nothing.lengths.items()},
    )
    with torch.no_grad():
        value = float(model.values(model(sample_batch(model, nothing))[0])[0])
    assert sum(explanation.contribution.values()) == pytest.approx(explanation.prediction - value, abs=1e-5)


def test_attention_covers_valid_frames_and_leaves_the_rest_to_label_tokens(seen):
    _, data, model, explanation = seen
    total = sum(a.sum(1) for a in explanation.attention.values())
    for m in MODALITIES:
        assert explanation.attention[m].shape == (4, data.test.lengths[m][7])
    assert (total > 0).all() and (total < 1).all()
    whole = torch.zeros(4)
    with torch.no_grad():
        _, trace = model(sample_batch(model, data.test.take(np.array([7]))), attention=True)
    map_ = trace.attention[f"encoder.{len(model.encoder) - 1}"][0].mean(0)
    for g, (rows, name) in enumerate(zip(map_.split(list(model.sizes.values())), model.sizes, strict=True)):
        whole[g] = rows.mean(0)[sum(model.sizes.values()) :].sum()
        assert name == utterance.GROUPS[g]
    np.testing.assert_allclose(total, whole, atol=1e-6)


def test_words_stand_at_frames_where_there_is_one_a_frame(smoke):
    split = next(smoke.datasets()).test
    i = int(split.lengths["text"].argmax())
    split = split.take(np.array([i]))
    n = int(split.lengths["text"][0])
    assert n > 3
    plain = replace(split, raw_text=(" ".join(f"w{k}" for k in range(n)), *split.raw_text[1:]))
    assert utterance.frame_words(plain, 0) == tuple(f"w{k}" for k in range(n))
    marked = replace(split, raw_text=(" ".join(f"w{k}" for k in range(n - 2)), *split.raw_text[1:]))
    assert utterance.frame_words(marked, 0)[0] == "[CLS]" and len(utterance.frame_words(marked, 0)) == n
    chinese = replace(split, raw_text=("欢" * n, *split.raw_text[1:]))
    assert utterance.frame_words(chinese, 0) == ("欢",) * n
    odd = replace(split, raw_text=("one two three four five six seven eight nine", *split.raw_text[1:]))
    assert utterance.frame_words(odd, 0) == tuple(str(k + 1) for k in range(n))


def test_a_model_without_weights_and_an_absent_modality_can_be_explained(smoke):
    run = smoke.runs("tmt")[0]
    data = load(run.data)
    data = replace(data, test=keep_only(data.test, ("text", "vision")))
    explanation = utterance.explain(load_model(run), data, 0, run.training)
    assert explanation.weights is None and explanation.attention["audio"].shape == (4, 0)
    assert explanation.contribution["audio"] == pytest.approx(0, abs=1e-6)
    labels = [t.get_text() for sub in figures.utterance(explanation).subfigs for ax in sub.axes for t in ax.texts]
    assert "absent" in labels and "this model has none" in labels


def test_the_figure_shows_words_and_what_each_modality_adds(seen):
    *_, explanation = seen
    top, bottom = figures.utterance(explanation).subfigs
    assert tuple(t.get_text() for t in top.axes[0].get_xticklabels()) == explanation.words
    heights = [p.get_height() for p in bottom.axes[0].patches[:3]]
    assert heights == pytest.approx(list(explanation.contribution.values()))


def test_an_utterance_that_is_not_there(seen):
    run, data, model, _ = seen
    with pytest.raises(IndexError, match="utterance 64; wanted 0 to 63"):
        utterance.explain(model, data, 64, run.training)


def test_browsing_moves_to_another_utterance(seen, monkeypatch):
    run, data, *_ = seen
    shown = []
    handle = SimpleNamespace(update=shown.append)
    monkeypatch.setattr("IPython.display.display", lambda figure, display_id: shown.append(figure) or handle)
    slider = utterance.browse(run, data, figures.utterance, start=3)
    assert slider.value == 3 and slider.max == len(data.test) - 1
    slider.value = 5
    assert [figure.get_suptitle().split(":")[0] for figure in shown] == [data.test.ids[3], data.test.ids[5]]


def test_weights_by_utterance_are_the_model_s_and_their_mean_is_the_record_s(smoke, seen):
    todo = [r for r in smoke.runs("tmt", "tmt_amw", "tmt_gated") if r.data == smoke.refs[0]]
    frame = weights.by_utterance(todo)
    assert set(frame["method"]) == {"tmt_amw", "tmt_gated"}
    np.testing.assert_allclose(frame[list(MODALITIES)].sum(axis=1), 1, atol=1e-5)
    spread = frame.groupby(["method", "seed"])["text"].std()
    assert (spread["tmt_amw"] < 1e-7).all() and (spread["tmt_gated"] > 1e-7).all()
    truth = load(todo[0].data).truth.splits["test"].reliable
    one = frame[(frame["method"] == "tmt_gated") & (frame["seed"] == 0)]
    assert ((one["unreliable"] == "none").to_numpy() == truth.all(1)).all()
    error = np.abs(read_record(todo[-2]).predictions["test"] - load(todo[0].data).test.labels)
    np.testing.assert_allclose(one["error"], error, atol=1e-5)


def test_points_of_the_triangle_stand_at_their_weights(smoke, seen):
    frame = weights.by_utterance([smoke.runs("tmt_gated")[0]])
    figure = figures.ternary(frame)
    dots = figure.axes[0].collections[0].get_offsets()
    ordered = frame.sort_values("error")
    np.testing.assert_allclose(dots[:, 1], ordered["vision"] * 3**0.5 / 2, atol=1e-6)
    np.testing.assert_allclose(dots[:, 0], ordered["audio"] + ordered["vision"] / 2, atol=1e-6)


def test_without_a_known_truth_the_triangle_has_errors_alone(smoke, seen):
    frame = weights.by_utterance([smoke.runs("tmt_gated")[0]]).assign(unreliable="unknown", source="real")
    figure = figures.ternary(frame)
    shown = [ax for ax in figure.axes if ax.get_visible() and ax.collections]
    assert len([ax for ax in shown if ax.get_title()]) == 1
