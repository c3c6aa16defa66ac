"""Equivalent models with other weights: the same output, to rounding; and what does change, does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_helpers import SMALL, batch_of, make

from tmtlib.analysis import identifiability
from tmtlib.analysis.identifiability import FROZEN, OTHER, _f2, linear_pairs, pairs, with_weights
from tmtlib.common import MODALITIES
from tmtlib.data.loading import synthetic_ref
from tmtlib.data.schema import SyntheticSize
from tmtlib.study import runs
from tmtlib.study.methods import method_config
from tmtlib.study.runs import Run
from tmtlib.training.fit import Training

TRAINING = Training(learning_rate=3e-3, epochs=2, patience=None)
REF = synthetic_ref("mosi", SyntheticSize((64, 32, 40), (6, 6, 6)))


@pytest.fixture
def trained(own_results):
    def of(*methods, seeds=(0,)):
        base = replace(SMALL, weighting_init_std=1.0, position_std=1.0)
        todo = [Run(REF, m, method_config(m, base), TRAINING, s) for m in methods for s in seeds]
        runs.ensure(todo, "cpu", jobs=1, progress=False)
        return todo

    return of


def by_pair(frame):
    return {name: some.set_index("modality") for name, some in frame.groupby("pair", sort=False)}


def test_any_weights_before_disentanglement_are_made_up_for_by_the_projections(trained):
    found = by_pair(pairs(*trained("tmt_amw_r3")))
    assert list(found) == ["linear layer after", "linear layer before", "shift of W", "projection"]
    some = found["projection"]
    assert some["largest_output_difference"].max() < 1e-9
    np.testing.assert_allclose(some["weight_after"], OTHER)
    assert (some["weight_before"] - some["weight_after"]).abs().max() > 0.3
    np.testing.assert_allclose(some["weighted_size_after"], some["weighted_size_before"], rtol=1e-9)


def test_other_weights_that_nothing_makes_up_for_are_another_model():
    for placement in ("R1", "R3"):
        model = make(replace(SMALL, weighting="static", weighting_init_std=1.0, placement=placement))
        other = with_weights(model, OTHER)
        assert (model(batch_of())[0] - other(batch_of())[0]).abs().max() > 1e-3
        np.testing.assert_allclose(other(batch_of())[1].weights[0, :, 3].detach(), OTHER)


def test_w_may_be_shifted_but_a_may_not(trained):
    """W moves by far more than A could; the output, and so A, stays."""
    found = by_pair(pairs(*trained("tmt_amw")))
    assert list(found) == ["linear layer after", "linear layer before", "shift of W"]
    some = found["shift of W"]
    assert some["largest_output_difference"].max() < 1e-9
    assert (some["weight_after"] - some["weight_before"]).min() > 1
    np.testing.assert_allclose(some["weighted_size_after"], some["weighted_size_before"], rtol=1e-9)


def test_half_of_the_mutual_transformer_is_blind_to_a_modalitys_scale(trained):
    """To the epsilon of LayerNorm; without positions that follow it is not; nor is the whole model, by f1."""
    (run,) = trained("tmt_scalar")
    found = by_pair(pairs(run))
    assert list(found) == ["linear layer after", "linear layer before", "f2 alone"]
    some = found["f2 alone"]
    assert some["largest_output_difference"].max() < 1e-3
    assert (some["weight_after"] - some["weight_before"]).abs().max() > 0.3
    assert (some["weighted_size_after"] / some["weighted_size_before"] - 1).abs().max() > 0.3
    model, batch = make(replace(SMALL, weighting="scalar", position_std=1.0)), batch_of()
    other = with_weights(model, OTHER)
    assert (_f2(model, batch) - _f2(other, batch)).abs().max() > 0.01
    ratio = 3 * torch.tensor(OTHER, dtype=torch.float64).repeat_interleave(SMALL.specific_tokens)
    other.shared_from_specific.source_positions.data *= ratio[:, None]
    assert (_f2(model, batch) - _f2(other, batch)).abs().max() < 1e-3
    assert (model(batch)[0] - other(batch)[0]).abs().max() > 1e-3


def test_a_linear_layer_before_or_after_takes_up_any_scale():
    rows = linear_pairs((0.6, 0.3, 0.1)).to_dict("records")
    assert [r["modality"] for r in rows] == [*MODALITIES] * 2
    assert max(r["largest_output_difference"] for r in rows) < 1e-12
    after, before = rows[:3], rows[3:]
    for r in before:
        assert r["weighted_size_after"] == pytest.approx(r["weighted_size_before"])
    ratios = [r["weighted_size_after"] / r["weighted_size_before"] for r in after]
    assert ratios == pytest.approx([1.8, 0.9, 0.3]), "the size is no better known than the weight there"


def test_bad_weights_and_models_without_static_ones_are_refused(trained):
    for bad in ((0.5, 0.5), (0.5, 0.6, -0.1), (0.5, 0.5, 0.5)):
        with pytest.raises(ValueError, match="wanted 3 positive numbers that sum to one"):
            with_weights(make(replace(SMALL, weighting="static")), bad)
    with pytest.raises(ValueError, match="tmt has no modality weights"):
        pairs(*trained("tmt"))
    with pytest.raises(ValueError, match="the weights of tmt_gated differ between utterances"):
        pairs(*trained("tmt_gated"))


def test_frozen_weights_stand_beside_learned_ones(trained):
    todo = trained("tmt_amw", *FROZEN, seeds=(0, 1))
    frame = identifiability.frozen_weights(todo, "tmt_amw", "cpu", jobs=1)
    assert frame["method"].tolist() == [m for m in ("tmt_amw", *FROZEN) for _ in MODALITIES]
    assert frame["modality"].tolist() == [*MODALITIES] * 4
    weights = frame.set_index(["method", "modality"])["weight"]
    for m in MODALITIES:
        assert weights[f"tmt_mostly_{m}"].to_dict() == pytest.approx({x: 0.8 if x == m else 0.1 for x in MODALITIES})
    own = frame[frame["method"] == "tmt_amw"]
    assert (own["mae_difference"] == 0).all() and (frame["n"] == 2).all()
    scores = {r: runs.row(r)["mae"] for r in todo}
    differences = [scores[todo[2 + s]] - scores[todo[s]] for s in (0, 1)]
    text = frame[frame["method"] == "tmt_mostly_text"].iloc[0]
    assert text["mae_difference"] == pytest.approx(np.mean(differences))
    assert text["difference_low"] < text["mae_difference"] < text["difference_high"]
    np.testing.assert_allclose(frame.groupby("method")["shapley"].sum(), 1)
    with pytest.raises(ValueError, match="no run of 'tmt_uniform'"):
        identifiability.frozen_weights(todo, "tmt_uniform", "cpu", jobs=1)
