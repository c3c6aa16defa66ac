"""A model as a folder: what is saved is what was trained, and what cannot be used is refused in a line."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tmtlib.common import MODALITIES
from tmtlib.data.loading import load_dataset
from tmtlib.data.mmsa import read, write_mmsa
from tmtlib.data.schema import SPLITS, DataError
from tmtlib.study import saved
from tmtlib.training.fit import predict


@pytest.fixture(scope="module")
def model(feature_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "amw"
    return saved.train_model(feature_file, "tmt_amw", folder, "smoke", device="cpu"), folder


def test_an_opened_model_predicts_what_the_trained_one_did(model, feature_file):
    trained, folder = model
    opened, raw = saved.open_model(folder), read(feature_file)
    (prepared, cut), data = opened.prepared(raw.test), load_dataset(feature_file)
    for m in MODALITIES:
        np.testing.assert_array_equal(prepared.features[m], data.test.features[m])
    values = [predict(s.model, prepared, s.training, "cpu") for s in (trained, opened)]
    np.testing.assert_array_equal(*values)
    assert not cut and opened.card == json.loads((folder / saved.CARD).read_text())
    mae = np.abs(values[0] - raw.test.labels).mean()
    assert opened.card["metrics"]["test"]["mae"]["value"] == pytest.approx(mae)
    assert opened.card["data"]["sha256"] == raw.card.sha256
    assert opened.card["intervals_over"] == "videos" and "95 % intervals over videos" in opened.summary()
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", *[".safetensors"] * 3], "no pickle"


def test_metrics_and_errors_are_of_predictions_clipped_to_the_range(feature_file, tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "predict", lambda model, split, training, device: 5 * split.labels)
    made, raw = (
        saved.train_model(feature_file, "text_only", tmp_path / "model", "smoke", device="cpu"),
        read(feature_file),
    )
    off = {s: np.abs(np.clip(5 * raw[s].labels, -3, 3) - raw[s].labels) for s in ("valid", "test")}
    assert made.card["metrics"]["test"]["mae"]["value"] == pytest.approx(off["test"].mean(), rel=1e-5)
    np.testing.assert_allclose(made.errors, np.sort(off["valid"]), atol=1e-6)


def test_labels_beyond_the_range_are_clipped_where_asked(feature_file, tmp_path):
    content = pickle.loads(feature_file.read_bytes())
    content["train"]["regression_labels"][0] = 5
    path, model = tmp_path / "odd.pkl", tmp_path / "model"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match="which 1 of 96 leave"):
        saved.train_model(path, "text_only", model, "smoke", device="cpu")
    with pytest.warns(UserWarning, match=r"labels beyond -3\.\.3 \(1\); clipped, as asked"):
        made = saved.train_model(path, "text_only", model, "smoke", device="cpu", clip_labels=True)
    assert made.card["clip_labels"]


def test_names_of_features_are_kept_where_a_file_has_them(feature_file, tmp_path):
    data = read(feature_file)
    named = {"audio": tuple(f"loudness_{i}" for i in range(data.shapes["audio"][1]))}
    ids = {s: tuple(f"{s}_{i}" for i in range(len(data[s]))) for s in SPLITS}
    numbered = {s: replace(data[s], ids=ids[s]) for s in SPLITS}
    write_mmsa(replace(data, feature_names=named, **numbered), tmp_path / "named.pkl")
    assert read(tmp_path / "named.pkl").feature_names == named
    saved.train_model(tmp_path / "named.pkl", "tmt", tmp_path / "model", "smoke", device="cpu")
    opened = saved.open_model(tmp_path / "model")
    assert (opened.feature_name("audio", 1), opened.feature_name("text", 1)) == ("loudness_1", "text[1]")
    assert opened.card["intervals_over"] == "utterances", "row numbers name no video"


@pytest.mark.parametrize(("level", "rank"), [(0.9, 9), (0.5, 5), (0.05, 1)])
def test_half_the_interval_is_a_rank_of_the_validation_errors(model, level, rank):
    nine = replace(model[0], errors=np.arange(1, 10, dtype=np.float32))
    assert nine.half_width(level) == rank
    assert nine.half_width(0.95) == np.inf, "ten utterances cannot promise it"
    with pytest.raises(ValueError, match="wanted a probability between 0 and 1"):
        nine.half_width(90)


def test_measured_coverage_is_near_nominal(model):
    for level, share in model[0].card["coverage"].items():
        error = 3 * np.sqrt(float(level) * (1 - float(level)) * (1 / 100 + 1 / 100))
        assert share == pytest.approx(float(level), abs=error)


def test_longer_utterances_are_cut_and_counted_and_other_widths_refused(model, feature_file):
    raw = read(feature_file).test
    longer = replace(raw, features=raw.features | {"audio": np.repeat(raw.features["audio"], 2, axis=1)})
    longer = replace(longer, lengths=raw.lengths | {"audio": np.full(len(raw), 12)})
    prepared, cut = model[0].prepared(longer)
    assert prepared.shapes["audio"][0] == 6 and cut == {"audio": len(raw)}
    wide = replace(raw, features=raw.features | {"audio": raw.features["audio"][..., :-1]})
    with pytest.raises(DataError, match=r"audio has \d+ features a frame; the model was trained on \d+ \(mine.pkl\)"):
        model[0].prepared(wide)


def test_a_folder_that_holds_something_is_left_alone(feature_file, tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(ValueError, match="not empty; nothing is written over"):
        saved.train_model(feature_file, "tmt", tmp_path, "smoke", device="cpu")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.md"]


def _other_format(folder):
    card = json.loads((folder / saved.CARD).read_text())
    (folder / saved.CARD).write_text(json.dumps(card | {"format": 9, "tmtlib": "9.0"}))


def _unknown_weighting(folder):
    card = json.loads((folder / saved.CARD).read_text())
    card["model"]["weighting"] = "loudness"
    (folder / saved.CARD).write_text(json.dumps(card))


def _wide(folder):
    card = json.loads((folder / saved.CARD).read_text())
    card["shape"]["shapes"]["text"][1] = 10**10
    (folder / saved.CARD).write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_other_format, r"has format 9 \(tmtlib 9.0\); this version reads 2: train it again"),
        (
            _unknown_weighting,
            "loudness is not part of this version of tmtlib; give the file that defines it: --own FILE",
        ),
        (lambda f: (f / saved.PARAMETERS).write_bytes(b"cut"), "model.safetensors is not what card.json says"),
        (lambda f: (f / saved.SCALER).unlink(), "scaler.safetensors is missing or no ordinary file"),
        (lambda f: [(f / saved.SCALER).unlink(), (f / saved.SCALER).symlink_to("/dev/zero")], "no ordinary file"),
        (_wide, "describes another model"),
        (lambda f: (f / saved.CARD).write_text("{"), "is no whole model folder"),
        (lambda f: (f / saved.CARD).unlink(), "wanted a folder that `tmt train` wrote"),
    ],
)
def test_what_cannot_be_opened_says_why(model, tmp_path, damage, message):
    folder = tmp_path / "copy"
    saved._write(model[0], folder)
    damage(folder)
    with pytest.raises((DataError, FileNotFoundError), match=message):
        saved.open_model(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "scaler.safetensors", "errors.safetensors"])
def test_a_flipped_bit_in_a_model_folder_is_noticed(model, tmp_path, name):
    shutil.copytree(model[1], tmp_path / "copy")
    content = bytearray((tmp_path / "copy" / name).read_bytes())
    content[-3] ^= 1
    (tmp_path / "copy" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is not what card.json says"):
        saved.open_model(tmp_path / "copy")
