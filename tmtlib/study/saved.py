"""A trained model as a folder: parameters, scaler and validation errors as safetensors, the rest as JSON; no pickle.

    saved = train_model("features.pkl", "tmt_amw", "my_model")
    saved = open_model("my_model")

`tmtlib.analysis.prediction` applies it to new files.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from safetensors.numpy import load_file
from safetensors.numpy import save as as_bytes
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save as tensors_as_bytes
from tabulate import tabulate

from tmtlib.common import MODALITIES, as_json, as_tuples, check_choice, pick_device
from tmtlib.data import schema
from tmtlib.data.catalog import file_sha256
from tmtlib.data.check import videos_named
from tmtlib.data.loading import load_dataset
from tmtlib.data.schema import DataError, Dataset, DataShape, Split
from tmtlib.models import build_model
from tmtlib.models.amw import WEIGHTINGS
from tmtlib.models.base import Model, ModelConfig
from tmtlib.stats.metrics import LABELS, for_three_values, scores_of, three_valued
from tmtlib.stats.statistics import bootstrap_scores, conformal_half_width
from tmtlib.study.methods import METHODS, method_config
from tmtlib.study.profiles import PROFILES
from tmtlib.study.provenance import provenance
from tmtlib.training.fit import Training, fit, precision_on, predict

FORMAT = 2  # of the folder; another number is another layout
PARAMETERS, SCALER, ERRORS, CARD = "model.safetensors", "scaler.safetensors", "errors.safetensors", "card.json"
LEVELS = (0.8, 0.9, 0.95)  # of prediction intervals whose coverage is measured on test
LARGEST_CARD = 1 << 20  # bytes
FEW = 30  # validation utterances below which intervals are said to be wide
Scaler = Mapping[str, tuple[np.ndarray, np.ndarray]]  # mean and standard deviation (D,) by modality


@dataclass(frozen=True)
class SavedModel:
    """A trained model with all that its use needs."""

    method: str
    model: Model
    training: Training
    shape: DataShape  # (T, D) by modality of the training file, metric family, names of emotions
    scaler: Scaler  # of the raw features of the training split
    errors: Float32[np.ndarray, " V"]  # |clipped prediction - label| on validation, ascending; empty for emotions
    card: dict  # data, metrics with intervals, provenance: what CARD holds

    @property
    def label_range(self) -> tuple[float, float]:
        return schema.FAMILY_RANGE[self.shape.family]

    @property
    def untrained(self) -> tuple[str, ...]:
        """Modalities that no training utterance had."""
        return tuple(self.card["untrained"])

    def feature_name(self, modality: str, i: int) -> str:
        """The name that the training file gives a feature, else its number, such as audio[3]."""
        names = self.card.get("feature_names", {}).get(modality)
        return names[i] if names else f"{modality}[{i}]"

    def prepared(self, split: Split) -> tuple[Split, dict[str, int]]:
        """A split of raw features as the model was trained on them: z-scored, cut to the training file's frames; and
        how many utterances were cut, by modality. Raises DataError for features of another width."""
        features, lengths, cut = {}, {}, {}
        for m, (frames, width) in self.shape.shapes.items():
            x, n = split.features[m], split.lengths[m]
            if x.shape[2] != width and n.any():
                wanted = f"the model was trained on {width} ({self.card['data']['origin']})"
                raise DataError(f"{m} has {x.shape[2]} features a frame; {wanted}, so extract it in the same way")
            x = x if x.shape[2] == width else np.zeros((len(split), 1, width), np.float32)
            features[m], lengths[m], cut[m] = x[:, :frames], np.minimum(n, frames), int((n > frames).sum())
        tokens = split.text_bert if split.text_bert is None else split.text_bert[..., : features["text"].shape[1]]
        unknown = np.zeros((len(split), len(self.shape.emotions)), np.float32) if self.shape.emotions else None
        fitted = replace(split, features=features, lengths=lengths, text_bert=tokens, emotion_labels=unknown)
        return schema.normalize(fitted, self.scaler), {m: n for m, n in cut.items() if n}

    def half_width(self, level: float) -> float:
        """`conformal_half_width` of the validation errors. Validation also chose the epoch, so coverage is measured on
        test: `card["coverage"]`."""
        return conformal_half_width(self.errors, level)

    def summary(self) -> str:
        """The card in a few lines: test metrics with 95 % intervals, and the measured coverage of the intervals."""
        rows = [(LABELS.get(name, name), *row.values()) for name, row in self.card["metrics"]["test"].items()]
        head = ("on test", "value", "low", "high", "n")
        lines = [f"{self.method} on {self.card['data']['name']}, seed {self.card['seed']}, {self.card['profile']}"]
        lines += ["", tabulate(rows, headers=head, floatfmt=("", ".3f", ".3f", ".3f", ".0f"))]
        lines += [f"Low to high: 95 % intervals over {self.card.get('intervals_over', 'utterances')}."]
        if coverage := self.card.get("coverage"):
            parts = (f"{float(level):.0%} intervals hold {share:.1%}" for level, share in coverage.items())
            lines += ["", f"Of the test labels, {', '.join(parts)} ({len(self.errors)} validation errors)."]
            if len(self.errors) < FEW:
                lines += [f"Under {FEW} validation utterances make wide intervals, or none."]
        if self.card["profile"] == "smoke":
            lines += ["Profile smoke shows that everything runs. Its numbers mean nothing."]
        if self.untrained:
            lines += [f"No training utterance has {' or '.join(self.untrained)}; a weight of it means nothing."]
        return "\n".join(lines)


def train_model(
    path: str | Path,
    method: str,
    folder: str | Path,
    profile: str = "quick",
    seed: int = 0,
    device: str = "auto",
    clip_labels: bool | None = None,
) -> SavedModel:
    """Trains a method on a feature file, at a profile's size and protocol, and saves it as a new folder.

    Metrics, coverage and validation errors are of predictions clipped to the label range, as `tmt predict` gives them.
    `clip_labels`: as in `load_dataset`.

    Raises ValueError for an unknown method or profile, or a folder that holds something; errors as `load_dataset` and
    `fit`.
    """
    check_choice("profile", profile, tuple(PROFILES))
    config, training = method_config(method, PROFILES[profile].model), PROFILES[profile].training
    folder = Path(folder).expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty; nothing is written over, so name a new folder")
    raw = load_dataset(path, normalize=False, clip_labels=clip_labels)
    scaler = schema.normalizer(raw.train)
    data = replace(raw, **{s: schema.normalize(raw[s], scaler) for s in schema.SPLITS})
    (done,) = fit(config, training, data.train, data.valid, data.shape, (seed,), device)
    model = build_model(config, data.shape)
    model.load_state_dict(done.state)
    values = {s: predict(model, data[s], training, device) for s in ("valid", "test")}
    labels = {s: data[s].labels_for(config.task) for s in values}
    errors = np.zeros(0, np.float32)
    if config.task != "emotions":
        values = {s: np.clip(v, *data.card.label_range) for s, v in values.items()}
        errors = np.sort(np.abs(values["valid"] - labels["valid"])).astype(np.float32)
    card = {"format": FORMAT, "method": method, "profile": profile, "seed": seed, "data": asdict(data.card)}
    card |= {"clip_labels": raw.ref.clip_labels}
    card |= {"untrained": [m for m in MODALITIES if not data.train.lengths[m].any()], "task": config.task}
    card |= {"model": as_json(model.config), "training": as_json(training), "shape": as_json(data.shape)}
    card |= {"best_epoch": done.best_epoch, "seconds": done.seconds, "device": done.device}
    card |= {"precision": precision_on(training, pick_device(device))}
    card |= {
        "feature_names": dict(data.feature_names),
        "intervals_over": "videos" if videos_named(data.test.ids) else "utterances",
    }
    card |= {"metrics": {s: _scores(data, s, values[s], labels[s], config.task) for s in values}} | provenance()
    saved = SavedModel(method, model.cpu().eval(), training, data.shape, scaler, errors, card)
    if len(errors):
        off = np.abs(values["test"] - labels["test"])
        card["coverage"] = {str(level): float((off <= saved.half_width(level)).mean()) for level in LEVELS}
    _write(saved, folder)
    return saved


def _scores(data: Dataset, split: str, values: np.ndarray, labels: np.ndarray, task: str) -> dict[str, dict]:
    """Each metric with its 95 % bootstrap interval, over videos where ids name them, else over utterances."""

    three = task != "emotions" and three_valued(np.concatenate([data[s].labels for s in schema.SPLITS]), data.family)

    def score(index: np.ndarray) -> dict[str, float]:
        judged = values[index], labels[index], data.family
        scores = scores_of(task, *judged, data.emotions)
        return for_three_values(scores, *judged) if three else scores

    intervals = bootstrap_scores(score, len(labels), groups=videos_named(data[split].ids))
    names = "value", "low", "high", "n"
    return {metric: dict(zip(names, i, strict=True)) for metric, i in intervals.items() if not np.isnan(i.mean)}


def _write(saved: SavedModel, folder: Path) -> None:
    """Writes a folder beside, then renames it: there is a whole model or none."""
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    try:
        parameters = {k: v.contiguous() for k, v in saved.model.state_dict().items()}
        (part / PARAMETERS).write_bytes(tensors_as_bytes(parameters))
        moments = {
            f"{m}.{what}": x for m in MODALITIES for what, x in zip(("mean", "sd"), saved.scaler[m], strict=True)
        }
        (part / SCALER).write_bytes(as_bytes(moments))
        (part / ERRORS).write_bytes(as_bytes({"errors": saved.errors}))
        saved.card["sha256"] = {name: file_sha256(part / name) for name in (PARAMETERS, SCALER, ERRORS)}
        text = json.dumps(saved.card, indent=2, ensure_ascii=False) + "\n"
        (part / CARD).write_text(text, encoding="utf-8")
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def open_model(folder: str | Path) -> SavedModel:
    """The model that `train_model` saved. Raises FileNotFoundError for a folder without one, DataError for a folder of
    another format or with damaged files, and for a method or weighting of one's own that is not known here."""
    folder = Path(folder).expanduser()
    if not (folder / CARD).is_file():
        raise FileNotFoundError(f"no model in {folder}; wanted a folder that `tmt train` wrote ({CARD}, {PARAMETERS})")
    try:
        _check_files(folder)
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            wrote = f"tmtlib {card.get('tmtlib', 'unknown')}"
            raise DataError(
                f"{folder} has format {card['format']} ({wrote}); this version reads {FORMAT}: train it again"
            )
        if damaged := [name for name, known in card["sha256"].items() if file_sha256(folder / name) != known]:
            raise DataError(f"{folder}: {', '.join(damaged)} is not what {CARD} says; copy or train the model again")
        model, shape = _config(card), card["shape"]
        shape = DataShape({m: tuple(s) for m, s in shape["shapes"].items()}, shape["family"], tuple(shape["emotions"]))
        parameters = load_tensors(folder / PARAMETERS)
        _check_sizes(model, shape, parameters)
        built = build_model(model, shape)
        built.load_state_dict(parameters)
        moments = load_file(folder / SCALER)
        scaler = {m: (moments[f"{m}.mean"], moments[f"{m}.sd"]) for m in MODALITIES}
        errors = load_file(folder / ERRORS)["errors"]
        _check_contents(card, shape, scaler, errors)
        training = Training(**{k: v for k, v in card["training"].items() if k != "type"})
        return SavedModel(card["method"], built.eval(), training, shape, scaler, errors, card)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file makes the readers raise
        damage = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(
            f"{folder} is no whole model folder ({damage:.200}); train it again, or copy it again"
        ) from None


def _check_files(folder: Path) -> None:
    """Raises DataError for a link, which could show any file, for a pipe, whose reading never ends, and a huge card."""
    for path in (folder / name for name in (CARD, PARAMETERS, SCALER, ERRORS)):
        if path.is_symlink() or not path.is_file():
            raise DataError(f"{path} is missing or no ordinary file; wanted the folder as `tmt train` wrote it")
    if (size := (folder / CARD).stat().st_size) > LARGEST_CARD:
        raise DataError(f"{folder / CARD} has {size} bytes; wanted at most {LARGEST_CARD}, as `tmt train` wrote it")


def _check_sizes(model: ModelConfig, shape: DataShape, parameters: Mapping[str, torch.Tensor]) -> None:
    """Raises DataError unless a card's sizes are those of its parameters, before memory is taken for them."""
    largest = max([1024, *(n for x in parameters.values() for n in x.shape)])
    large = {k: v for k, v in asdict(model).items() if isinstance(v, int) and v > largest}
    with torch.device("meta"):
        wanted = {} if large else {k: x.shape for k, x in build_model(model, shape).state_dict().items()}
    if wanted != {k: x.shape for k, x in parameters.items()}:
        raise DataError(f"{CARD} describes another model than {PARAMETERS} holds; wanted both of one folder")


def _check_contents(card: dict, shape: DataShape, scaler: Scaler, errors: np.ndarray) -> None:
    """Raises TypeError or ValueError for what would fail only when the model is used."""
    kinds = {"method": str, "task": str, "profile": str, "untrained": list, "data": dict, "metrics": dict}
    if wrong := [key for key, kind in kinds.items() if not isinstance(card[key], kind)]:
        raise TypeError(f"{wrong[0]} is a {type(card[wrong[0]]).__name__}")
    widths = {m: (width,) for m, (_, width) in shape.shapes.items()}
    fits = all(x.shape == widths[m] and np.isfinite(x).all() for m, pair in scaler.items() for x in pair)
    if not fits or errors.ndim != 1 or not np.isfinite(errors).all():
        raise ValueError(f"{SCALER} or {ERRORS} holds other shapes than its model has, or no finite numbers")


def _config(card: dict):
    """The model config of a card; raises DataError for a class or weighting of one's own that is not registered."""
    classes = {method.model.__name__: method.model for method in METHODS.values()}
    settings = dict(card["model"])
    name, weighting = settings.pop("type"), settings.get("weighting", "none")
    if name not in classes or weighting not in {"none", *WEIGHTINGS}:
        own = weighting if name in classes else name
        raise DataError(f"{own} is not part of this version of tmtlib; give the file that defines it: --own FILE")
    return classes[name](**{k: as_tuples(v) for k, v in settings.items()})
