"""Predictions of a saved model: one row an utterance, whatever the file holds beside its features."""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tmtlib.__main__ import main
from tmtlib.analysis import prediction
from tmtlib.common import EMOTIONS, MODALITIES
from tmtlib.data.mmsa import read
from tmtlib.data.schema import SyntheticSize
from tmtlib.data.synthetic import generate
from tmtlib.study.saved import open_model, train_model


@pytest.fixture(scope="module")
def models(feature_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    methods = ("tmt", "tmt_gated", "tmt_amw_5class", "tmt_emotions")
    return {m: train_model(feature_file, m, folder / m, "smoke", device="cpu") for m in methods}


def unlabelled(feature_file, path):
    """The test split as a flat dict of features and ids alone."""
    test = pickle.loads(feature_file.read_bytes())["test"]
    path.write_bytes(
        pickle.dumps({key: test[key] for key in ("id", *MODALITIES, *(f"{m}_lengths" for m in MODALITIES))})
    )
    return path


def test_predictions_of_a_file_without_labels_are_those_of_its_test_split(models, feature_file, tmp_path):
    whole = prediction.predict_file(models["tmt_gated"], feature_file, device="cpu")
    bare = prediction.predict_file(models["tmt_gated"], unlabelled(feature_file, tmp_path / "bare.pkl"), device="cpu")
    assert len(whole.table) == 96 + 100 + 100 and "label" in whole.table and "label" not in bare.table
    pd.testing.assert_frame_equal(
        whole.table.drop(columns="label").tail(100).reset_index(drop=True), bare.table, rtol=1e-4, atol=1e-5
    )
    mae = whole.scores["mae"]
    assert not bare.scores and mae.n == 296 and mae.low < mae.mean < mae.high
    assert mae.mean == pytest.approx((whole.table["prediction"] - whole.table["label"]).abs().mean())
    assert whole.intervals_over == "videos" and "95 % intervals over videos" in whole.summary(0.9)


def test_a_row_holds_interval_weights_and_shapley_values(models, feature_file):
    table = prediction.predict_file(models["tmt_gated"], feature_file, device="cpu").table
    assert ((table["low"] <= table["prediction"]) & (table["prediction"] <= table["high"])).all()
    assert table[["low", "high"]].abs().max().max() <= 3
    for what in ("weight", "share"):
        np.testing.assert_allclose(table[[f"{what}_{m}" for m in MODALITIES]].sum(axis=1), 1, atol=1e-5)
    assert not [c for c in prediction.predict_file(models["tmt"], feature_file, device="cpu").table if "weight" in c]
    wider = prediction.predict_file(models["tmt_gated"], feature_file, level=0.99, shapley=False, device="cpu").table
    assert (wider["high"] - wider["low"]).mean() > (table["high"] - table["low"]).mean()
    assert "shapley_text" not in wider


def test_classes_and_emotions_have_probabilities(models, feature_file):
    table = prediction.predict_file(models["tmt_amw_5class"], feature_file, device="cpu").table
    chances = table.filter(regex="^p_")
    assert [*chances] == ["p_-2", "p_-1", "p_0", "p_1", "p_2"]
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-5)
    assert (table["prediction"] == chances.idxmax(axis=1).str[2:].astype(float)).all()
    table = prediction.predict_file(models["tmt_emotions"], feature_file, device="cpu").table
    chances = table[[f"p_{name}" for name in EMOTIONS]]
    assert (table["prediction"] == chances.idxmax(axis=1).str[2:]).all() and "low" not in table


def test_features_far_from_training_s_are_counted(models, feature_file):
    test = read(feature_file).test
    assert not prediction.drift(models["tmt"], test)["far"].any()
    loud = test.features["audio"].copy()
    loud[..., 1] += 100
    moved = prediction.drift(models["tmt"], replace(test, features=test.features | {"audio": loud}))
    by_modality = moved.set_index("modality")
    assert by_modality["far"].to_dict() == {"text": 0, "audio": 1, "vision": 0}
    assert by_modality.loc["audio", "worst"].startswith("audio[1]: mean +")


@pytest.mark.parametrize(("shift", "scale", "far"), [(0, 1, 0), (1.5, 1, 0), (2.5, 1, 1), (-2.5, 1, 1), (0, 4, 1)])
def test_drift_is_a_mean_or_a_spread_and_names_the_feature(models, shift, scale, far):
    """Feature 3 of a normal file is moved by training sds, or spread out about training's mean."""
    names = {"audio": [f"loudness_{i}" for i in range(len(models["tmt"].scaler["audio"][0]))]}
    named = replace(models["tmt"], card=models["tmt"].card | {"feature_names": names})
    (mean, sd), rng = named.scaler["audio"], np.random.default_rng(0)
    sound = rng.normal(mean, sd, (40, 6, len(sd))).astype(np.float32)
    sound[..., 3] = mean[3] + sd[3] * (shift + scale * rng.normal(size=(40, 6)))
    data = generate("mosei", SyntheticSize((96, 32, 40), (6, 6, 6))).test
    every = {m: np.full(40, 6) for m in MODALITIES}
    moved = prediction.drift(named, replace(data, features=data.features | {"audio": sound}, lengths=every))
    audio = moved.set_index("modality").loc["audio"]
    assert audio["far"] == far and (audio["worst"].startswith("loudness_3: mean") or not far)


def test_a_missing_modality_is_said(models, feature_file, tmp_path):
    path = unlabelled(feature_file, tmp_path / "bare.pkl")
    content = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps({k: v for k, v in content.items() if not k.startswith("vision")}))
    done = prediction.predict_file(models["tmt_gated"], path, device="cpu")
    assert (done.table["absent"] == "vision").all()
    assert any(note.startswith("vision is absent from 100 of 100 utterances") for note in done.notes)
    np.testing.assert_allclose(done.table["shapley_vision"], 0, atol=1e-6)


@pytest.mark.parametrize(("labels", "said"), [(np.nan, "not finite"), (20.0, "not all within -3..3")])
def test_labels_that_cannot_be_compared_are_said(models, feature_file, tmp_path, labels, said):
    content = pickle.loads(feature_file.read_bytes())["test"]
    content = {k: v for k, v in content.items() if k in ("id", *MODALITIES)}
    content["regression_labels"] = np.full(100, labels)
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps(content))
    done = prediction.predict_file(models["tmt"], tmp_path / "odd.pkl", device="cpu")
    assert len(done.table) == 100 and not done.scores and any(said in note for note in done.notes)
    clipped = prediction.predict_file(models["tmt"], tmp_path / "odd.pkl", device="cpu", clip_labels=True)
    assert (clipped.scores == {}) == np.isnan(labels)
    if clipped.scores:
        assert (clipped.table["label"] == 3).all() and "labels beyond -3..3 (100): clipped, as asked" in clipped.notes


def test_the_card_s_error_is_of_the_predictions_that_tmt_predict_gives(models, feature_file):
    table = prediction.predict_file(models["tmt"], feature_file, shapley=False, device="cpu").table.tail(100)
    mae = (table["prediction"] - table["label"]).abs().mean()
    assert models["tmt"].card["metrics"]["test"]["mae"]["value"] == pytest.approx(mae, rel=1e-5)


def test_an_interval_begins_at_the_clipped_prediction(models, feature_file, monkeypatch):
    test, model = read(feature_file).test, replace(models["tmt"], errors=np.linspace(0, 1, 99, dtype=np.float32))
    monkeypatch.setattr(prediction, "_outputs", lambda *arguments: (np.full(100, 10.0), None, {}))
    table = prediction.predict_split(model, test, shapley=False)
    assert (table[["prediction", "high"]] == 3).all(axis=None)
    np.testing.assert_allclose(table["low"], 3 - model.half_width(0.9), rtol=1e-6)


def test_train_and_predict_from_the_command_line(feature_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TMT_CLIP_LABELS", "")  # restored after --clip-labels
    model, out = str(tmp_path / "model"), str(tmp_path / "predictions.csv")
    arguments = ["--method", "tmt_amw", "--profile", "smoke", "--device", "cpu", "--clip-labels"]
    assert main(["train", str(feature_file), *arguments, "--out", model]) == 0
    printed = capsys.readouterr().out
    assert "MAE" in printed and "90% intervals hold" in printed and "tmt predict" in printed
    assert main(["predict", model, str(feature_file), "--device", "cpu", "--clip-labels", "--out", out]) == 0
    assert "296 utterances in" in capsys.readouterr().out
    assert len(pd.read_csv(out)) == 296 and open_model(model).method == "tmt_amw"
    assert open_model(model).card["clip_labels"]
    assert main(["predict", str(tmp_path), str(feature_file), "--out", out]) == 1
    assert "wanted a folder that `tmt train` wrote" in capsys.readouterr().err
    assert main(["train", str(feature_file), "--method", "tmt_awm", "--out", str(tmp_path / "x")]) == 1
    assert "method is 'tmt_awm', which is none; did you mean 'tmt_amw'?" in capsys.readouterr().err
