"""Measures of importance against people's labels of each modality alone."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import SMALL, synthetic

from tmtlib.analysis import unimodal
from tmtlib.common import MODALITIES
from tmtlib.data.loading import load, resolve, synthetic_ref
from tmtlib.data.schema import DataError, SyntheticSize
from tmtlib.data.synthetic import generate
from tmtlib.study import runs
from tmtlib.study.methods import method_config
from tmtlib.study.profiles import PROFILES
from tmtlib.study.runs import Run
from tmtlib.training.fit import Training

SIMS = synthetic("sims")
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
FOLDER = Path(os.environ.get("TMT_REAL_DATA") or BESIDE)


def labelled(labels, text, audio, vision):
    split = SIMS.valid.take(np.arange(len(labels)))
    by = {m: np.array(x, np.float32) for m, x in zip(MODALITIES, (text, audio, vision), strict=True)}
    return replace(split, labels=np.array(labels, np.float32), unimodal_labels=by)


def test_the_label_farthest_to_the_right_side_carries_and_ties_say_nothing():
    split = labelled(
        [0.8, -0.4, 0.0, 0.2, 0.6], [0.6, 0.4, 0.2, 0.2, -1], [-1, -0.4, -0.2, 0.2, -0.2], [0, -1, 0.6, 0, 0]
    )
    assert unimodal.carriers(split).tolist() == [0, 2, -1, -1, -1]
    assert unimodal.carriers(labelled([0.2], [0.4], [0.4001], [-1.0])).tolist() == [-1], "equal but for rounding"


def test_synthetic_importance_names_the_carrier():
    """So the yardstick measures importance where that is known; nearness of labels would not (47 % against 42 %)."""
    data = generate("sims", SyntheticSize((2, 2, 4000), (1, 1, 1)))
    carrier, importance = unimodal.carriers(data.test), data.truth.splits["test"].importance
    named = (np.sign(data.test.labels)[:, None] * importance).argmax(1)
    said = carrier >= 0
    assert said.mean() > 0.4 and (named == carrier)[said].mean() > 0.85


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-5, 5)] * 4), min_size=1, max_size=20), st.permutations(range(3)))
def test_the_carrier_moves_with_its_modality(rows, order):
    """Whatever the names of the modalities, the same labels carry."""
    labels, *by = np.array(rows).T / 5
    before = unimodal.carriers(labelled(labels, *by))
    after = unimodal.carriers(labelled(labels, *[by[i] for i in order]))
    assert ((before < 0) == (after < 0)).all()
    assert (np.array(order)[after[after >= 0]] == before[before >= 0]).all()


def test_naming_is_shared_by_what_is_equally_large():
    sizes, carrier = np.array([[1.0, 2, 0], [1, 1, 1], [2, 2, 1], [0, 0, 3]]), np.array([1, 2, 2, -1])
    assert unimodal.names(sizes, carrier)[:3].tolist() == [1, pytest.approx(1 / 3), 0]


def test_data_without_unimodal_labels_are_refused():
    with pytest.raises(DataError, match="no unimodal labels of text, audio, vision"):
        unimodal.carriers(synthetic("mosi").test)
    half = replace(SIMS.test, unimodal_labels={"text": SIMS.test.labels})
    with pytest.raises(DataError, match="no unimodal labels of audio, vision"):
        unimodal.carriers(half)


def trained(ref, methods, training, base=SMALL, seeds=(0,)):
    todo = [Run(ref, m, method_config(m, base), training, s) for m in methods for s in seeds]
    runs.ensure(todo, "cpu", jobs=1, progress=False)
    return todo


def test_agreement_by_hand_and_read_back(own_results):
    ref = synthetic_ref("sims", SyntheticSize((64, 32, 50), (5, 6, 7)))
    todo = trained(ref, ("tmt_amw", "late_fusion"), Training(epochs=1, patience=None), seeds=(0, 1))
    frame = unimodal.agreement(todo, "cpu", jobs=1)
    data = load(ref)
    carrier, seen = unimodal.carriers(data.test), unimodal.carriers(data.train)
    said = carrier >= 0
    assert (frame["n"] == said.sum()).all() and (frame["seeds"] == 2).all() and 10 < said.sum() < 50
    commonest = np.bincount(seen[seen >= 0]).argmax()
    np.testing.assert_allclose(frame["chance"], (carrier[said] == commonest).mean())
    assert frame.groupby("method").size().to_dict() == {"tmt_amw": 7, "late_fusion": 5}
    importance = (np.sign(data.test.labels)[:, None] * data.truth.splits["test"].importance).argmax(1)
    truth = frame.set_index(["method", "measure"])["agreement"].xs("truth", level="measure")
    np.testing.assert_allclose(truth, (importance == carrier)[said].mean(), atol=0.05)
    hits = []
    for run in todo[:2]:
        sizes = unimodal.measures(runs.load_model(run), run, "cpu", data)["shapley_mean"]
        hits.append((sizes.argmax(1) == carrier)[said].mean())
    row = frame.set_index(["method", "measure"]).loc[("tmt_amw", "shapley_mean")]
    assert row["agreement"] == pytest.approx(np.mean(hits))
    assert row["above"] == pytest.approx(row["agreement"] - row["chance"])
    assert row["low"] < row["agreement"] < row["high"] and row["above_low"] < row["above"] < row["above_high"]
    pd.testing.assert_frame_equal(unimodal.agreement(todo, "cpu", jobs=1), frame)


def test_static_weights_name_one_modality_whatever_the_utterance(own_results):
    ref = synthetic_ref("sims", SyntheticSize((64, 32, 50), (5, 6, 7)))
    frame = unimodal.agreement(trained(ref, ("tmt_mostly_vision",), Training(epochs=1, patience=None)), "cpu", jobs=1)
    carrier = unimodal.carriers(load(ref).test)
    found = frame.set_index("measure").loc["weight"]
    assert found["agreement"] == pytest.approx((carrier[carrier >= 0] == MODALITIES.index("vision")).mean())


def test_real_labels_have_a_carrier_in_most_utterances(own_results):
    path = FOLDER / "simsv2_expert_scores.pkl"
    if not path.is_file():
        pytest.skip(f"no real data: {path} is not there (set TMT_REAL_DATA to a folder that has it)")
    ref = resolve(path)
    carrier = unimodal.carriers(load(ref).test)
    shares = np.bincount(carrier[carrier >= 0], minlength=3) / len(carrier)
    assert (carrier >= 0).mean() > 0.3 and (shares > 0.05).all()
    training = replace(PROFILES["quick"].training, epochs=1)
    frame = unimodal.agreement(trained(ref, ("tmt_gated",), training), "cpu", jobs=1)
    assert frame["agreement"].between(0, 1).all() and (frame["n"] == (carrier >= 0).sum()).all()
