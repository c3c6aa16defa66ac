"""Importance by taking modalities away: exact for games and models whose answer is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from model_helpers import SMALL, synthetic
from sklearn.metrics import roc_auc_score
from torch import nn

from tmtlib.analysis import importance
from tmtlib.common import MODALITIES
from tmtlib.data.corrupt import swap_utterances
from tmtlib.data.loading import resolve
from tmtlib.data.schema import SyntheticSize, valid_frames
from tmtlib.data.synthetic import SplitTruth
from tmtlib.models import build_model
from tmtlib.models.base import Model, Trace
from tmtlib.study import runs
from tmtlib.study.methods import method_config
from tmtlib.study.profiles import PROFILES
from tmtlib.study.runs import Run
from tmtlib.training.fit import Training, predict

SPLIT, TRAIN = synthetic().valid, synthetic().train
EXACT = Training(precision="float32")


class Additive(Model):
    """Predicts a weighted sum of the modalities' means over valid frames (absent: 0): its Shapley values are known."""

    weights = {"text": 2.0, "audio": -1.0, "vision": 0.0}

    def __init__(self):
        super().__init__(SMALL, "mosi")
        self.unused = nn.Parameter(torch.zeros(1))

    def parts(self, batch):
        found = {}
        for m, w in self.weights.items():
            valid = batch.valid(m)[..., None]
            mean = (batch.features[m] * valid).sum(1) / valid.sum(1).clamp_min(1)
            found[m] = w * mean.mean(1)
        return found

    def forward(self, batch, attention=False):
        return sum(self.parts(batch).values()), Trace()


class Product(Additive):
    """Text times audio: an interaction, which the two share."""

    def forward(self, batch, attention=False):
        parts = self.parts(batch)
        return parts["text"] * parts["audio"], Trace()


def alone(modality):
    valid = valid_frames(SPLIT, modality)[..., None]
    mean = np.where(valid, SPLIT.features[modality], 0).sum(1) / np.maximum(valid.sum(1), 1)
    return Additive.weights[modality] * mean.mean(1)


def values(model, removal="absent"):
    return importance.subset_values(model, SPLIT, removal, TRAIN, EXACT, "cpu")


def test_an_additive_model_gives_each_modality_its_own_part():
    parts = np.stack([alone(m) for m in MODALITIES])
    np.testing.assert_allclose(importance.prediction_shapley(values(Additive())), parts, atol=1e-5)
    np.testing.assert_allclose(importance.occlusion(values(Additive())), parts, atol=1e-5)


def test_an_interaction_is_shared_by_those_who_make_it():
    text, audio, vision = importance.prediction_shapley(values(Product()))
    whole = alone("text") * alone("audio")
    np.testing.assert_allclose(text, whole / 2, atol=1e-5)
    np.testing.assert_allclose(audio, whole / 2, atol=1e-5)
    np.testing.assert_allclose(vision, 0, atol=1e-6)
    np.testing.assert_allclose(importance.occlusion(values(Product()))[0], whole, atol=1e-5)


@pytest.mark.parametrize("removal", importance.REMOVALS)
def test_values_sum_to_what_all_add_over_none(removal):
    torch.manual_seed(0)
    model = build_model(SMALL, synthetic())
    found = values(model, removal)
    total = importance.prediction_shapley(found).sum(0)
    np.testing.assert_allclose(total, found[MODALITIES] - found[()], atol=1e-5)
    error = importance.error_shapley(found, SPLIT.labels)
    mae = {s: np.abs(v - SPLIT.labels).mean() for s, v in found.items()}
    assert error.sum() == pytest.approx(mae[()] - mae[MODALITIES], abs=1e-6)


def test_each_removal_is_what_it_says():
    absent = importance.taken_away(SPLIT, ("audio",), "absent", TRAIN)
    assert not absent.features["audio"].any() and not absent.lengths["audio"].any()
    mean = importance.taken_away(SPLIT, ("audio",), "mean", TRAIN)
    frames = TRAIN.features["audio"][valid_frames(TRAIN, "audio")].mean(0)
    valid = valid_frames(SPLIT, "audio")
    np.testing.assert_allclose(mean.features["audio"][valid], np.tile(frames, (valid.sum(), 1)), rtol=1e-5)
    assert not mean.features["audio"][~valid].any()
    permuted = importance.taken_away(SPLIT, ("audio", "text"), "permuted", TRAIN)
    assert not np.array_equal(permuted.features["audio"], SPLIT.features["audio"])
    for changed in (absent, mean, permuted):
        assert changed.features["vision"] is SPLIT.features["vision"]
    for removal in importance.REMOVALS:
        kept = importance.taken_away(SPLIT, (), removal, TRAIN)
        assert all(np.array_equal(kept.features[m], SPLIT.features[m]) for m in MODALITIES)
    with pytest.raises(ValueError, match="removal is 'zero'; wanted one of 'absent', 'mean', 'permuted'"):
        importance.taken_away(SPLIT, ("audio",), "zero", TRAIN)


@pytest.mark.parametrize("seed", [0, 1])
def test_utterances_are_permuted_by_the_seed_of_the_run(seed):
    data, run = synthetic(), SimpleNamespace(training=EXACT, seed=seed)
    found = importance.removal_values(run, Additive(), data, "cpu", ("permuted",))["permuted"]
    other = swap_utterances(data.test, ("text", "vision"), seed)
    np.testing.assert_allclose(found[("audio",)], predict(Additive(), other, EXACT, "cpu"), rtol=1e-5)


def test_shares_sum_to_one_and_nothing_is_shared_equally():
    assert importance.shares(np.array([2.0, -1.0, 1.0])).tolist() == [0.5, 0.25, 0.25]
    of_utterances = importance.shares(np.array([[1, 0], [-2, 0], [1, 0]]))
    np.testing.assert_allclose(of_utterances, [[0.25, 1 / 3], [0.5, 1 / 3], [0.25, 1 / 3]])


def test_table_has_shares_beside_the_truth_and_finds_what_carries_the_label(own_results):
    """Synthetic CMU-MOSI's text carries most; weights, which are the same for all, say a third."""
    profile = PROFILES["quick"]
    ref = resolve("mosi", synthetic_size=SyntheticSize((500, 100, 100), (10, 10, 10)))
    training = replace(profile.training, epochs=6)
    todo = [Run(ref, m, method_config(m, profile.model), training, s) for m in ("tmt", "tmt_amw") for s in (0, 1)]
    runs.ensure(todo, "cpu", jobs=1, progress=False)
    table = importance.importance_table(todo, "cpu", jobs=1)
    assert list(table.columns) == "dataset source method measure modality mean low high n truth".split()
    sums = table.groupby(["method", "measure"])["mean"].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    assert sums.index.get_level_values("method").value_counts().to_dict() == {"tmt": 10, "tmt_amw": 12}
    by_text = table[table["modality"] == "text"].set_index(["method", "measure"])["mean"]
    assert by_text["tmt", "shapley_absent"] > 0.45 and by_text["tmt_amw", "mae_permuted"] > 0.45
    assert by_text["tmt_amw", "weight"] == pytest.approx(1 / 3, abs=0.02)
    assert by_text["tmt", "integrated_gradients"] > 0.45
    _check_agreement(importance.importance_agreement(todo, "cpu", jobs=1), by_text.index)
    pd.testing.assert_frame_equal(importance.importance_table(todo, "cpu", jobs=1), table)  # read back
    brief = importance.importance_table(todo, "cpu", jobs=1, brief=True)
    same = brief.merge(table, on=importance.KEYS, suffixes=("", "_whole"))
    assert {"weight", "shapley_absent", "mae_absent"} <= set(brief["measure"]) and len(same) == len(brief) < len(table)
    np.testing.assert_allclose(same["mean"], same["mean_whole"])


def _check_agreement(found, measures):
    """A row a modality, measure of single utterances, and kind; a static weight agrees with nothing, and says so."""
    columns = "dataset source method measure modality what mean low high n".split()
    assert list(found.columns) == columns and len(found) == 3 * 2 * sum("mae" not in m for _, m in measures)
    static = found["measure"] == "weight"
    assert found[static]["mean"].isna().all() and not found[static]["n"].any()
    assert (found[~static]["n"] == 2).all() and not found[~static]["mean"].isna().any()
    assert found[~static & (found["what"] == "spearman")]["mean"].between(-1, 1).all()
    by_size = found[(found["measure"] == "shapley_absent") & (found["what"] == "spearman")].set_index("modality")[
        "mean"
    ]
    assert (by_size["text"] > 0.1).all()


KNOWN = SplitTruth(
    reliable=np.array([[True, True, False], [True, False, True], [False, True, True], [True, True, True]] * 10),
    importance=np.random.default_rng(0).normal(size=(40, 3)),
    best_value=np.zeros(40),
    best_class=np.zeros(40, int),
)


def agreed(shares) -> pd.DataFrame:
    rows = importance.utterance_agreement(np.asarray(shares).T, KNOWN)
    return pd.DataFrame(rows).pivot(index="modality", columns="what", values="value").loc[list(MODALITIES)]


def test_the_truth_itself_agrees_fully_whatever_its_sign_and_unit():
    assert agreed(KNOWN.importance)["spearman"].tolist() == pytest.approx([1, 1, 1])
    other = -3 * np.abs(KNOWN.importance)
    assert agreed(other)["spearman"].tolist() == pytest.approx([1, 1, 1])
    assert agreed(KNOWN.importance[:12])["spearman"].tolist() == pytest.approx([1, 1, 1])  # a split's first


def test_auc_tells_reliable_from_unreliable_and_a_constant_has_none():
    assert agreed(0.1 + KNOWN.reliable)["auc"].tolist() == [1, 1, 1]
    assert agreed(1.1 - KNOWN.reliable)["auc"].tolist() == [0, 0, 0]
    noise = np.random.default_rng(1).random((40, 3))
    wanted = [roc_auc_score(KNOWN.reliable[:, i], importance.shares(noise.T)[i]) for i in range(3)]
    assert agreed(noise)["auc"].tolist() == pytest.approx(wanted)
    assert agreed(np.tile([0.5, 0.3, 0.2], (40, 1))).isna().all(axis=None)
    always = replace(KNOWN, reliable=np.ones((40, 3), bool))
    rows = importance.utterance_agreement(KNOWN.importance[:40:4].T, always)
    assert all(np.isnan(r["value"]) == (r["what"] == "auc") for r in rows)


def test_weights_by_utterance_are_constant_only_where_static():
    torch.manual_seed(0)
    for weighting, varies in (("static", False), ("gated", True), ("token", True)):
        model = build_model(replace(SMALL, weighting=weighting, weighting_init_std=0.5), synthetic())
        if varies:
            nn.init.normal_(model.weighting.scorer[2].weight)
        measures = importance.weight_values(model, SPLIT)
        np.testing.assert_allclose(measures["weight"].sum(0), np.ones(len(SPLIT)), atol=1e-5)
        assert (np.ptp(measures["weight"][0]) > 1e-4) == varies
        assert np.ptp(measures["weighted_size"][0]) > 1e-4
    assert importance.weight_values(build_model(SMALL, synthetic()), SPLIT) == {}
