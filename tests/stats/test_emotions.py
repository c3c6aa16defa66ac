"""Metrics of emotions: by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score

from tmtlib.common import EMOTIONS
from tmtlib.stats import emotions, metrics

METRICS = tuple(emotions.metrics_of(EMOTIONS))

# --- Metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_by_hand():
    """Happy: 3 of 4 present are found, 1 of 6 absent is called present: TP 3, TN 5, P 4, N 6."""
    label, chance = np.zeros((10, 6)), np.full((10, 6), 0.1)
    label[:4, 0], label[:5, 1:] = 1 / 3, 3
    chance[[0, 1, 2, 9], 0] = 0.9
    found = emotions.score(chance, label)
    assert tuple(found) == METRICS
    assert found["wa_happy"] == pytest.approx((3 * 6 / 4 + 5) / 12) == pytest.approx((3 / 4 + 5 / 6) / 2)
    assert found["f1_happy"] == pytest.approx(2 * 3 / (4 + 4))
    assert found["wf1_happy"] == pytest.approx(0.4 * 6 / 8 + 0.6 * 10 / 12)
    assert (found["wa_sad"], found["f1_sad"]) == (0.5, 0), "never predicted"
    assert found["wa_mean"] == pytest.approx((found["wa_happy"] + 5 * 0.5) / 6)
    assert found["f1_mean"] == pytest.approx(0.75 / 6)


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    label, chance = np.maximum(0, rng.integers(-2, 4, (200, 6))), rng.random((200, 6))
    found = emotions.score(chance, label)
    for i, name in enumerate(EMOTIONS):
        truth, said = label[:, i] > 0, chance[:, i] > 0.5
        assert found[f"wa_{name}"] == pytest.approx(balanced_accuracy_score(truth, said))
        assert found[f"f1_{name}"] == pytest.approx(f1_score(truth, said))
        assert found[f"wf1_{name}"] == pytest.approx(f1_score(truth, said, average="weighted"))
    for kind in emotions.KINDS:
        assert found[f"{kind}_mean"] == pytest.approx(np.mean([found[f"{kind}_{name}"] for name in EMOTIONS]))


def test_what_cannot_be_measured_is_nan_and_left_out_of_the_mean():
    label = np.eye(4, 6)
    label[:, 1] = 1
    found = emotions.score(label, label)
    unmeasured = {name for name in METRICS if np.isnan(found[name])}
    assert unmeasured == {"wa_sad", "wa_disgust", "wa_fear", "f1_disgust", "f1_fear"}
    assert found["wa_mean"] == found["f1_mean"] == found["wf1_fear"] == 1
    assert np.isnan(emotions.score(label, np.zeros((4, 6)))["f1_mean"])


def test_of_named_emotions_the_most_probable_is_the_answer():
    names, chance = ("anger", "joy", "neutral"), np.array([[0.3, 0.2, 0.1], [0.2, 0.4, 0.3], [0.9, 0.8, 0.7]])
    found = emotions.score(chance, np.eye(3)[[0, 1, 1]], names)
    truth, said = [0, 1, 1], chance.argmax(1)
    for i, name in enumerate(names[:2]):
        assert found[f"f1_{name}"] == pytest.approx(f1_score(truth, said, average=None)[i])
    assert found["f1_joy"] == pytest.approx(2 / 3) and np.isnan(found["f1_neutral"])
    always = emotions.score(np.ones((3, 3)), np.eye(3), names)
    assert always["wa_mean"] == 0.5 and always["f1_joy"] == 0.5, "equal chances: each is an answer"


def test_a_nan_prediction_is_wrong():
    label = np.tile([[1.0], [0.0]], (2, 6))
    found = emotions.score(np.where(np.arange(4)[:, None] < 2, np.nan, label), label)
    assert found["wa_happy"] == 0.5 and found["f1_happy"] == pytest.approx(2 / 3)
    assert found["wf1_happy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("chance", "label", "message"),
    [
        (np.zeros((3, 6)), np.zeros((4, 6)), r"chances are \(3, 6\) and labels \(4, 6\); wanted one row of 6"),
        (np.zeros(4), np.zeros(4), r"labels \(4,\)"),
        (np.zeros((0, 6)), np.zeros((0, 6)), r"\(0, 6\)"),
        (np.zeros((2, 6)), np.full((2, 6), np.nan), "labels hold NaN"),
    ],
)
def test_scores_of_nothing_sensible_are_refused(chance, label, message):
    with pytest.raises(ValueError, match=message):
        emotions.score(chance, label)


def test_scores_of_a_task_are_the_tasks_own():
    label = np.array([-1.0, 0.0, 2.0], np.float32)
    assert metrics.scores_of("regression", label, label, "mosi") == metrics.evaluate(label, label, "mosi")
    assert tuple(metrics.scores_of("emotions", np.eye(6), np.eye(6), "mosi")) == METRICS


def test_table_is_long_with_the_mean_over_runs():
    start = {"dataset": "mosei", "source": "synthetic", "alignment": "aligned"}
    good, bad = emotions.score(np.eye(6), np.eye(6)), emotions.score(1 - np.eye(6), np.eye(6))
    rows = [start | {"method": "b"} | good, start | {"method": "b"} | bad, start | {"method": "a"} | good]
    found = emotions.table(pd.DataFrame([*rows, start | {"method": "tmt", "mae": 1.0}]))
    assert len(found) == 2 * len(METRICS), "a run of another task has no row"
    assert found["method"].drop_duplicates().tolist() == ["b", "a"]
    assert found["emotion"][:7].tolist() == ["mean", *EMOTIONS]
    assert found["metric"].unique().tolist() == ["wa", "f1", "wf1"]
    first, last = found.iloc[0], found.iloc[-1]
    assert (first["mean"], first["n"]) == (0.5, 2) and first["sd"] == pytest.approx(np.sqrt(0.5))
    assert (last["mean"], last["n"]) == (1, 1) and np.isnan(last["sd"])


def test_differences_pair_seeds_and_have_t_intervals():
    rng, names = np.random.default_rng(0), ["tmt_emotions", "tmt_amw_emotions"]
    values = {m: rng.uniform(0.4, 0.8, (4, len(METRICS))) for m in names}
    rows = pd.concat(
        pd.DataFrame(v, columns=METRICS).assign(dataset="mosei", source="synthetic", method=m, seed=range(4))
        for m, v in values.items()
    )
    found = emotions.differences(rows.sample(frac=1, random_state=0))
    assert len(found) == len(METRICS) and (found["n"] == 4).all(), "no pairs of what did not run"
    assert set(found["after"]) == {"tmt_amw_emotions"} and set(found["before"]) == {"tmt_emotions"}
    gain = values["tmt_amw_emotions"] - values["tmt_emotions"]
    np.testing.assert_allclose(found["difference"], gain.mean(0))
    half = stats.t.ppf(0.975, 3) * gain.std(0, ddof=1) / 2
    np.testing.assert_allclose(found["high"] - found["difference"], half)
    np.testing.assert_allclose(found["difference"] - found["low"], half)
    assert found.loc[0, ["metric", "emotion"]].tolist() == ["wa", "mean"]

    unmeasured = rows.assign(f1_fear=rows["f1_fear"].where(rows["seed"] > 0))
    assert not ((emotions.differences(unmeasured)[["metric", "emotion"]] == ["f1", "fear"]).all(axis=1)).any()
    with pytest.raises(
        ValueError, match=r"seeds of tmt_amw_emotions are \[0, 1, 2, 3\] and of tmt_emotions \[1, 2, 3\]"
    ):
        emotions.differences(rows[(rows["method"] != "tmt_emotions") | (rows["seed"] > 0)])
    uniform = rows[rows["method"] == "tmt_emotions"].assign(method="tmt_uniform_emotions")
    three = emotions.differences(pd.concat([rows, uniform]))
    assert (
        tuple(three[["after", "before"]].drop_duplicates().itertuples(index=False, name=None)) == emotions.COMPARED[:3]
    )
