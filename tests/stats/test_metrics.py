"""Metrics against MMSA's own numbers, hand-made edge cases and the identities they must obey."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tmtlib.stats import metrics

I = np.arange(200)  # noqa: E741
GOLDEN_C = (
    [-2, -2, 0, 0, 0.4999, 1.5, 3.5, 2.5, -2.5, -1e-7],
    [-2.5, -1.5, -0.5, 0, 0.5, 1.5, 2.5, 3, -3, 0],
)
GOLDEN_D = (
    [-0.7, -0.7000001, -0.1, -0.1000001, 0.1, 0, 0.1000001, 0.7, 0.7000001, 1.4, -1.4],
    np.arange(-5, 6) / 5,
)
SIMS_TEST_COUNTS = (151, 97, 69, 69, 71)  # CH-SIMS test split, 457 utterances in 5 classes


def golden_a():
    label = ((I * 7) % 31) / 5 - 3
    return label + 0.9 * np.sin(I), label


def golden_b():
    label = ((I * 3) % 11) / 5 - 1
    return 0.9 * label + 0.6 * np.sin(1.7 * I), label


def sims_test_labels() -> np.ndarray:
    return np.repeat(metrics.CLASS_CENTRES5["sims"], SIMS_TEST_COUNTS)


def random_values(seed: int, family: str):
    rng = np.random.default_rng(seed)
    limit = 3 if family == "mosi" else 1
    label = np.round(rng.uniform(-limit, limit, 73) * 5) / 5
    return label * rng.uniform(0.2, 1) + rng.normal(0, limit / 2, 73), label


# Expected values: MMSA's metricsTop.py run on these vectors, rounded to 4 digits by it.
@pytest.mark.parametrize(
    ("family", "vectors", "expected"),
    [
        (
            "mosi",
            golden_a(),
            dict(acc2_has0=0.905, f1_has0=0.905, acc2_non0=0.9223, f1_non0=0.9223)
            | dict(acc5=0.645, acc7=0.51, mae=0.5716, corr=0.9442),
        ),
        ("sims", golden_b(), dict(acc2=0.79, acc3=0.745, acc5=0.415, f1=0.787, mae=0.3346, corr=0.8092)),
        (
            "mosi",
            GOLDEN_C,
            dict(acc2_has0=0.8, f1_has0=0.8, acc2_non0=1, f1_non0=1, acc5=1, acc7=0.7, mae=0.35, corr=0.9713),
        ),
        ("sims", GOLDEN_D, dict(acc2=0.8182, acc3=0.8182, acc5=0.7273, f1=0.8182, mae=0.3818, corr=0.4434)),
    ],
    ids="ABCD",
)
def test_golden_vectors_of_mmsa(family, vectors, expected):
    found = metrics.score(*vectors, family)
    assert {k: round(found[k], 4) for k in expected} == expected


def test_keys_order_and_display_names():
    for family, keys in metrics.METRICS.items():
        assert tuple(metrics.score([0.1, -1], [0.2, -1], family)) == keys
        assert set(metrics.evaluate([0.1, -1], [0.2, -1], family)) == {
            *keys,
            "f1_5class",
            "f1_5class_swapped",
        }
        assert set(metrics.evaluate([0.1, -1], [0.2, -1], family)) <= set(metrics.LABELS)


@pytest.mark.parametrize("family", ["mosi", "sims"])
def test_perfect_prediction(family):
    label = random_values(0, family)[1]
    found = metrics.evaluate(label, label, family)
    assert found.pop("mae") == 0
    assert all(v == pytest.approx(1) for v in found.values())


def test_majority_predictor_on_sims_test():
    label = sims_test_labels()
    assert np.bincount(metrics.classes5(label, "sims")).tolist() == list(SIMS_TEST_COUNTS)
    always_negative = np.full(457, -0.9)
    found = metrics.evaluate(always_negative, label, "sims")
    assert round(found["acc5"], 4) == 0.3304
    assert round(found["acc2"], 4) == round(317 / 457, 4)
    assert round(found["f1"], 4) == 0.5682
    assert round(metrics.f1(always_negative, label, "sims", 2, "pred"), 4) == 0.8191
    assert round(found["f1_5class"], 3) == 0.164
    assert round(found["f1_5class_swapped"], 3) == 0.497


@pytest.mark.parametrize("family", ["mosi", "sims"])
@pytest.mark.parametrize("classes", [2, 5])
def test_constant_prediction_scores_2a_over_1_plus_a_when_swapped(family, classes):
    label = random_values(3, family)[1]
    for value in metrics.CLASS_CENTRES5[family]:
        prediction = np.full(len(label), value)
        accuracy_key = "acc5" if classes == 5 else {"mosi": "acc2_has0", "sims": "acc2"}[family]
        a = metrics.score(prediction, label, family)[accuracy_key]
        assert metrics.f1(prediction, label, family, classes, "pred") == pytest.approx(2 * a / (1 + a))


@pytest.mark.parametrize("family", ["mosi", "sims"])
@pytest.mark.parametrize("seed", range(5))
def test_true_and_swapped_f1_sum_to_twice_accuracy(family, seed):
    prediction, label = random_values(seed, family)
    prediction[:seed] = np.nan
    found = metrics.score(prediction, label, family)
    for classes, accuracy in ((5, found["acc5"]), (2, found.get("acc2", found.get("acc2_has0")))):
        both = [metrics.f1(prediction, label, family, classes, c) for c in ("true", "pred")]
        assert sum(both) == pytest.approx(2 * accuracy, abs=1e-12)


# Constant predictors on the official test labels: Acc-2 has0 / non0, Acc-5, Acc-7, MAE for the mosi family; Acc-2,
# Acc-3, Acc-5, F1, MAE for the sims family. The label lists at hand have 685 of CMU-MOSI's 686 test utterances and 4662
# instead of 4659 of CMU-MOSEI's, hence the tolerance there.
TRIVIAL = {
    ("mosei", 0.0): (0.7102, 0.3715, 0.4136, 0.4136, 0.8384),
    ("mosei", -1.0): (0.2898, 0.3715, 0.1189, 0.1189, 1.3827),
    ("mosi", 0.0): (0.4475, 0.5777, 0.1545, 0.1545, 1.4174),
    ("mosi", -1.0): (0.5525, 0.5777, 0.2114, 0.2114, 1.4109),
    ("sims", 0.0): (0.6937, 0.1510, 0.1510, 0.5682, 0.6057),
    ("sims", -1.0): (0.6937, 0.5427, 0.3304, 0.5682, 0.8074),
    ("simsv2", 0.0): (0.5909, 0.1190, 0.1190, 0.4390, 0.5392),
    ("simsv2", -1.0): (0.5909, 0.4720, 0.2195, 0.4390, 0.9347),
}
LABELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "labels"


@pytest.mark.skipif(not LABELS.exists(), reason="the real data sets' labels cannot be shipped and are not at hand")
@pytest.mark.parametrize(("dataset", "constant"), TRIVIAL)
def test_trivial_rows_on_real_labels(dataset, constant):
    frame = pd.read_csv(LABELS / f"{dataset}.csv")
    label = frame.loc[frame["split"] == "test", "label"].to_numpy()
    family = "sims" if dataset.startswith("sims") else "mosi"
    keys = (
        ("acc2", "acc3", "acc5", "f1", "mae") if family == "sims" else ("acc2_has0", "acc2_non0", "acc5", "acc7", "mae")
    )
    found = metrics.score(np.full(len(label), constant), label, family)
    tolerance = 6e-5 if family == "sims" else 0.0021
    assert [found[k] for k in keys] == pytest.approx(TRIVIAL[dataset, constant], abs=tolerance)


def test_rounding_is_half_to_even():
    assert metrics.classes5([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], "mosi").tolist() == [0, 0, 2, 2, 4, 4]
    assert metrics.score([0.5], [0.0])["acc7"] == 1
    assert metrics.score([1.5], [1.0])["acc7"] == 0
    assert metrics.score([2.5], [2.0])["acc7"] == 1


def test_sims_bins_are_right_closed_and_clipped():
    edges = [-0.7, -0.1, 0.1, 0.7]
    assert metrics.classes5(edges, "sims").tolist() == [0, 1, 2, 3]
    assert metrics.classes5(np.float32(edges) + np.float32(1e-6), "sims").tolist() == [1, 2, 3, 4]
    assert metrics.classes5([-9, 9], "sims").tolist() == [0, 4]
    grid = np.arange(-5, 6) / 5
    assert metrics.classes5(grid, "sims").tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 3, 4, 4]
    assert metrics.score([0.0], [-1.0], "sims")["acc2"] == 1, "zero is negative"
    assert metrics.score([5.0, -1], [1.0, -1], "sims")["mae"] == 0, "values are clipped before MAE"


def test_zero_is_nonnegative_in_has0_and_dropped_in_non0():
    found = metrics.score([0.0, -1, 1], [1.0, 0, 2])
    assert found["acc2_has0"] == pytest.approx(2 / 3)
    assert found["acc2_non0"] == 0.5


@pytest.mark.parametrize("family", ["mosi", "sims"])
def test_class_centres_fall_into_their_own_class(family):
    assert metrics.classes5(metrics.CLASS_CENTRES5[family], family).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("family", ["mosi", "sims"])
def test_lists_columns_and_tensors_give_the_same(family):
    prediction, label = random_values(1, family)
    expected = metrics.evaluate(prediction, label, family)
    column = torch.tensor(prediction, requires_grad=True)[:, None]
    assert metrics.evaluate(column, torch.tensor(label), family) == expected
    assert metrics.evaluate(prediction.tolist(), label[:, None], family) == expected
    assert metrics.score(torch.tensor(prediction).bfloat16(), label, family)["acc5"] > 0


@pytest.mark.parametrize("family", ["mosi", "sims"])
def test_undefined_values_are_nan_without_warning(family):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metrics.score([0.3, 0.3, 0.3], [1, -1, 0], family)["corr"])
        assert np.isnan(metrics.score([0.3], [1], family)["corr"])
        assert metrics.evaluate([np.inf, 0.3], [3, -1], family)["acc5"] == 0.5
        all_zero = metrics.score([0.3, 0.2], [0, 0])
    assert np.isnan(all_zero["acc2_non0"]) and np.isnan(all_zero["f1_non0"])


@pytest.mark.parametrize("family", ["mosi", "sims"])
@pytest.mark.parametrize("label", [-1.0, 0.0, 1.0])
def test_nan_prediction_is_wrong_whatever_the_label(family, label):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.evaluate([np.nan, 0.0], [label, 0.0], family)
    assert all(v <= 0.5 for k, v in found.items() if k.startswith("acc") and k != "acc2_non0")
    assert np.isnan(found["mae"]) and np.isnan(found["corr"])
    assert metrics.classes5([np.nan], family).tolist() == [-1]


@pytest.mark.parametrize(
    ("prediction", "label", "family", "message"),
    [
        ([1, 2], [1, 2, 3], "mosi", "2 predictions but 3 labels"),
        ([], [], "sims", "at least one utterance"),
        ([1, 2], [1, np.nan], "mosi", "1 of 2 labels are NaN or infinite .* index 1"),
        ([1, 2], [1, 2], "mosei", "family is 'mosei'; wanted one of 'mosi', 'sims'"),
        (np.zeros((2, 5)), [1, 2], "sims", r"prediction has shape \(2, 5\)"),
        (0.5, [1], "sims", r"prediction has shape \(\)"),
    ],
)
def test_unusable_input_is_refused(prediction, label, family, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(prediction, label, family)


def test_unknown_f1_settings_are_refused():
    with pytest.raises(ValueError, match="classes is 7"):
        metrics.f1([1], [1], "mosi", classes=7)
    with pytest.raises(ValueError, match="convention is 'swapped'"):
        metrics.f1([1], [1], "mosi", convention="swapped")


def test_import_is_light():
    code = "import sys, tmtlib.stats.metrics; print([m for m in ('sklearn', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_labels_of_three_values_have_acc3_and_macro_f1_in_place_of_finer_classes():
    for family, three, more in (("sims", [-1, 0, 1, 1], [-1, -0.4, 0, 1]), ("mosi", [-2, 0, 2, 2], [-2, -1, 0, 2])):
        assert metrics.three_valued(three, family) and not metrics.three_valued(more, family)
    label, prediction = np.array([-1, -1, 0, 1, 1, 1]), np.array([-0.3, 0.2, 0.0, 0.5, 0.5, 0.9])
    scores = metrics.evaluate(prediction, label, "sims")
    suited = metrics.for_three_values(scores, prediction, label, "sims")
    assert scores["acc5"] == pytest.approx(2 / 6), "only the two in outer or middle bins"
    assert np.isnan([suited[name] for name in ("acc5", "f1_5class", "f1_5class_swapped")]).all()
    assert "acc7" not in suited and suited["acc3"] == pytest.approx(5 / 6) and suited["mae"] == scores["mae"]
    assert suited["f1_macro"] == pytest.approx((2 / 3 + 1 + 6 / 7) / 3), "of negative, neutral and positive"
