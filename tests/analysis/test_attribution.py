"""Attributions of models whose answer is known, and of every model of the study against its own predictions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_helpers import SMALL, synthetic
from torch import nn

from tmtlib.analysis import attribution
from tmtlib.common import MODALITIES
from tmtlib.data.corrupt import keep_only
from tmtlib.data.schema import valid_frames
from tmtlib.models import build_model
from tmtlib.models.base import Model, Trace
from tmtlib.models.late_fusion import LateFusionConfig
from tmtlib.models.misa import MISAConfig
from tmtlib.models.mult import MulTConfig
from tmtlib.training.batches import sample_batch
from tmtlib.training.fit import Training, predict

SPLIT = synthetic().valid
CONFIGS = {
    "tmt": SMALL,
    "amw": replace(SMALL, weighting="static"),
    "gated": replace(SMALL, weighting="gated"),
    "token": replace(SMALL, weighting="token"),
    "text_only": replace(SMALL, modalities=("text",)),
    "unmasked": replace(SMALL, masked=False),
    "window": replace(SMALL, window=6),
    "late_fusion": LateFusionConfig(),
    "mult": MulTConfig(layers=1, memory_layers=1),
    "misa": MISAConfig(),
}


def made(name: str) -> Model:
    torch.manual_seed(0)
    return build_model(CONFIGS[name], synthetic())


class Linear(Model):
    """The sum over all valid frames and features of w_m x, plus one: its attributions are its terms."""

    weights = {"text": 2.0, "audio": -1.0, "vision": 0.0}
    power = 1

    def __init__(self):
        super().__init__(SMALL, "mosi")
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, batch, attention=False):
        terms = {m: (w * batch.features[m] ** self.power).sum(-1) * batch.valid(m) for m, w in self.weights.items()}
        return 1 + sum(x.sum(1) for x in terms.values()), Trace()


class Cubic(Linear):
    power = 3


def terms(modality: str, power: int = 1) -> np.ndarray:
    return Linear.weights[modality] * (SPLIT.features[modality] ** power).sum(-1)


@pytest.mark.parametrize("measure", attribution.MEASURES[:2])
def test_a_linear_model_is_explained_term_by_term(measure):
    found = attribution.by_frame(Linear(), SPLIT, measure, "cpu")
    for i, m in enumerate(MODALITIES):
        np.testing.assert_allclose(found[m], terms(m), atol=1e-4)
        np.testing.assert_allclose(attribution.by_modality(found)[i], terms(m).sum(1), atol=1e-3)


def test_the_two_gradients_differ_as_they_must_on_a_cubic():
    """The gradient at x is 3 x^2, its mean from 0 to x is x^2."""
    gradient, integrated = (attribution.by_frame(Cubic(), SPLIT, k, "cpu") for k in attribution.MEASURES[:2])
    for m in MODALITIES:
        np.testing.assert_allclose(gradient[m], 3 * terms(m, 3), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(integrated[m], terms(m, 3), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_integrated_gradients_sum_to_the_prediction_less_that_of_nothing(name):
    model, exact = made(name), Training(precision="float32")
    nothing = replace(SPLIT, features={m: 0 * x for m, x in SPLIT.features.items()})
    difference = predict(model, SPLIT, exact, "cpu") - predict(model, nothing, exact, "cpu")
    found = attribution.by_frame(model, SPLIT, "integrated_gradients", "cpu", steps=64)
    total = attribution.by_modality(found).sum(0)
    assert np.abs(difference).mean() > 1e-3
    np.testing.assert_allclose(total, difference, atol=0.02 * np.abs(difference).max())


@pytest.mark.parametrize("measure", attribution.MEASURES)
def test_attributions_are_of_valid_frames_and_follow_their_utterance(measure):
    model = made("gated")
    found = attribution.by_frame(model, SPLIT, measure, "cpu")
    assert not model.training
    order = np.random.default_rng(0).permutation(len(SPLIT))
    shuffled = attribution.by_frame(model, SPLIT.take(order), measure, "cpu")
    for m in MODALITIES:
        assert found[m].shape == SPLIT.features[m].shape[:2]
        np.testing.assert_array_equal(found[m] != 0, valid_frames(SPLIT, m))
        np.testing.assert_allclose(shuffled[m], found[m][order], atol=1e-4)


def test_an_absent_modality_has_no_part():
    for measure in attribution.MEASURES:
        alone = attribution.by_frame(made("text_only"), SPLIT, measure, "cpu")
        absent = attribution.by_frame(made("tmt"), keep_only(SPLIT, ("text",)), measure, "cpu")
        for found in (alone, absent):
            assert found["text"].any() and not found["audio"].any() and not found["vision"].any()


def test_roll_out_of_two_layers_by_hand():
    """One head; three tokens, the first of which is asked in the last layer: (A2 + I)/2 (A1 + I)/2, first row."""
    first = torch.tensor([[[[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]]])
    last = torch.tensor([[[[0.5, 0.25, 0.25]]]])
    found = attribution.rollout([first, last])
    halves = np.array([[0.6, 0.15, 0.25], [0, 1, 0], [0.5, 0, 0.5]])
    np.testing.assert_allclose(found[0], np.array([[0.75, 0.125, 0.125]]) @ halves, atol=1e-7)
    np.testing.assert_allclose(attribution.rollout([last])[0, 0], [0.75, 0.125, 0.125])


def test_roll_out_rows_of_a_model_sum_to_one_and_leave_out_padding():
    model = made("amw").eval()
    batch = sample_batch(model, SPLIT)
    with torch.no_grad():
        _, trace = model(batch, attention=True)
    flow = attribution.rollout([trace.attention[f"encoder.{i}"] for i in range(2)])
    k = sum(model.sizes.values())
    assert flow.shape[1] == k
    torch.testing.assert_close(flow.sum(-1), torch.ones(flow.shape[:2]))
    valid = torch.cat([batch.valid(m) for m in MODALITIES], dim=1)
    assert not flow[:, :, k:].masked_select(~valid[:, None]).any()
    frames = attribution.by_frame(model, SPLIT, "rollout", "cpu")
    total = attribution.by_modality(frames).sum(0)
    np.testing.assert_allclose(total, flow[:, :, k:].sum(-1).mean(1), atol=1e-6)


def test_measures_that_a_model_does_not_have_are_refused():
    assert attribution.possible(made("tmt")) == attribution.MEASURES
    assert attribution.possible(made("mult")) == attribution.MEASURES[:2]
    classes = build_model(replace(SMALL, task="classification"), synthetic())
    assert attribution.possible(classes) == ("rollout",)
    with pytest.raises(ValueError, match="TMT for classification has no gradient_input; its measures are: rollout"):
        attribution.by_frame(classes, SPLIT, "gradient_input")
    with pytest.raises(ValueError, match="MulT for regression has no rollout"):
        attribution.by_frame(made("mult"), SPLIT, "rollout")
    with pytest.raises(ValueError, match="measure is 'saliency'; wanted one of"):
        attribution.by_frame(made("tmt"), SPLIT, "saliency")
