"""Frames, data sets and small models that figures are drawn from, every figure once, and the words in a figure."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import torch

from benchmarks.figure import throughput
from tmtlib import figures
from tmtlib.analysis import robustness
from tmtlib.analysis.truth import worlds_agreement
from tmtlib.common import MODALITIES
from tmtlib.data import synthetic
from tmtlib.data.schema import Dataset
from tmtlib.figures.measures import LINES, MEASURES
from tmtlib.models import build_model
from tmtlib.paper import audit
from tmtlib.study.methods import METHODS, method_config
from tmtlib.study.profiles import PROFILES
from tmtlib.training.batches import OnDevice
from tmtlib.training.fit import fit

SMOKE = PROFILES["smoke"]
ODD = replace(SMOKE.model, width=24, heads=3, encoder_layers=3, cross_layers=1, shared_tokens=5, specific_tokens=3)
CONFIGS = {
    "tmt": SMOKE.model,
    "amw": replace(SMOKE.model, weighting="static", weighting_init_std=0.3),
    "odd_r1m": replace(ODD, weighting="static", placement="R1M"),
    "odd_r2": replace(ODD, weighting="static", placement="R2"),
    "odd_r3": replace(ODD, weighting="static", placement="R3", task="classification"),
    "uniform": replace(ODD, weighting="uniform"),
}
WEIGHTED = [name for name in CONFIGS if name != "tmt"]
SEEDS = (0, 1)


@cache
def datasets() -> dict[str, Dataset]:
    return {n: synthetic.generate(n, SMOKE.synthetic[n]) for n in ("mosi", "sims")}


@cache
def built() -> dict:
    """(model, batch) by name of a config, all on the unaligned data set."""
    torch.manual_seed(0)
    data, found = datasets()["sims"], {}
    for name, config in CONFIGS.items():
        split = OnDevice(data.train, torch.device("cpu"), config, data.family)
        found[name] = build_model(config, data), split.batch(torch.arange(7))
    return found


@cache
def trained() -> dict[str, pd.DataFrame]:
    """Frames of real short trainings: an epoch a row, and the weights by epoch."""
    history, weights = [], []
    for (name, data), method in itertools.product(datasets().items(), ("tmt", "tmt_amw")):
        config = method_config(method, SMOKE.model)
        for done in fit(config, SMOKE.training, data.train, data.valid, data.shape, SEEDS, "cpu"):
            key = {"dataset": name, "source": "synthetic", "method": method, "seed": done.seed}
            history += [key | row for row in done.history]
            for epoch, a in enumerate(() if done.weights is None else done.weights):
                parts = zip(MODALITIES, a, strict=True)
                weights += [key | weight_row(epoch, m, values) for m, values in parts]
    return {"history": pd.DataFrame(history), "weights": pd.DataFrame(weights)}


def weight_row(epoch: int, modality: str, values: np.ndarray) -> dict:
    extent = {"weight": values.mean(), "low": values.min(), "high": values.max()}
    return {"epoch": epoch, "modality": modality} | extent


def grid(
    values: dict, source="synthetic", seeds=SEEDS, methods=("tmt", "tmt_amw"), names=("mosi", "sims")
) -> pd.DataFrame:
    """A long frame over data sets, methods, seeds and the given columns, with a made-up MAE."""
    keys = {"dataset": names, "source": [source], "method": methods, "seed": seeds} | values
    frame = pd.DataFrame(list(itertools.product(*keys.values())), columns=list(keys))
    return frame.assign(mae=np.random.default_rng(0).uniform(0.4, 1.4, len(frame)))


def noise_frame(**options) -> pd.DataFrame:
    levels = [-10.0, 0.0, np.inf, 10.0, 20.0, 5.0, -5.0]
    frame = grid({"modality": [*MODALITIES, "all"], "level": levels, "mask": (0, 1)}, **options)
    return frame.assign(kind="noise", protocol="P7", regime="clean")


def frames_frame(**options) -> pd.DataFrame:
    frame = grid({"regime": ("clean", "masked"), "level": (0.0, 0.2, 1.0)}, **options)
    return frame.assign(kind="missing_frames", protocol="P1", modality="all", mask=0)


def missing_frame(**options) -> pd.DataFrame:
    subsets = ["all" if k == 3 else "+".join(s) for k in (1, 2, 3) for s in itertools.combinations(MODALITIES, k)]
    frame = grid({"modality": subsets}, **options)
    return frame.assign(kind="missing_modalities", protocol="P3", regime="clean", level=np.nan, mask=0)


def truth_frame(source="synthetic") -> pd.DataFrame:
    truth = dict(zip(MODALITIES, (0.55, 0.3, 0.15), strict=True))
    frame = grid({"modality": MODALITIES}, source)
    return frame.assign(weight=frame["mae"] / 3, truth=frame["modality"].map(truth))


def comparison(source="synthetic") -> pd.DataFrame:
    keys = itertools.product(("mosi", "mosei", "sims"), ("tmt", "tmt_amw"), ("acc5", "f1_5class", "mae"))
    frame = pd.DataFrame(list(keys), columns=["dataset", "method", "metric"])
    rng = np.random.default_rng(1)
    aligned = frame["dataset"].map({"mosi": "aligned", "mosei": "aligned", "sims": "unaligned"})
    frame = frame.assign(source=source, alignment=aligned, mean=rng.uniform(0.3, 0.6, len(frame)), n=3)
    frame = frame.assign(sd=rng.uniform(0.01, 0.03, len(frame)), paper=rng.uniform(0.4, 0.6, len(frame)))
    frame.loc[frame["dataset"] == "mosei", "paper"] = np.nan
    return frame.assign(low=frame["mean"] - 2 * frame["sd"], high=frame["mean"] + 2 * frame["sd"])


def differences(names=("mosi", "mosei", "sims"), source="synthetic") -> pd.DataFrame:
    keys = itertools.product(names, ("acc5", "f1_5class", "mae"), ("tmt", "tmt_uniform", "tmt_random"))
    frame = pd.DataFrame(list(keys), columns=["dataset", "metric", "before"]).assign(
        source=source, after="tmt_amw", n=3
    )
    frame["difference"] = np.random.default_rng(2).normal(0, 0.01, len(frame))
    return frame.assign(low=frame["difference"] - 0.02, high=frame["difference"] + 0.02)


def importances(source="synthetic") -> pd.DataFrame:
    keys = itertools.product(("mosi", "mosei", "sims"), tuple(MEASURES)[:-1], MODALITIES)
    frame = pd.DataFrame(list(keys), columns=["dataset", "measure", "modality"]).assign(source=source, n=3)
    frame["mean"] = np.random.default_rng(4).uniform(0.2, 0.5, len(frame))
    truth = frame["modality"].map({"text": 0.5, "audio": 0.3, "vision": 0.2}) if source == "synthetic" else np.nan
    return frame.assign(low=frame["mean"] - 0.05, high=frame["mean"] + 0.05, truth=truth)


def by_file(source="synthetic") -> pd.DataFrame:
    """Made-up shares on three files, the first led by vision, the second by text, the third without vision."""
    frame = importances(source).drop(columns="truth")
    frame = frame[(frame["dataset"] == "mosi") & frame["measure"].isin(("weight", "shapley_absent"))]
    parts = [frame.assign(dataset=name, method=m) for name in ("c", "a", "b") for m in ("tmt_amw", "tmt_gated")]
    led = {"c": (0.1, 0.2, 0.7), "a": (0.8, 0.1, 0.1), "b": (0.6, 0.4, np.nan)}
    whole = pd.concat(parts, ignore_index=True)
    share = [led[d][MODALITIES.index(m)] for d, m in zip(whole["dataset"], whole["modality"], strict=True)]
    whole["learned"] = True
    return whole.assign(mean=share, low=np.array(share) - 0.05, high=np.array(share) + 0.05).dropna(subset="mean")


def agreements() -> pd.DataFrame:
    frame = importances().drop(columns="truth").assign(method="tmt_amw")
    frame = pd.concat([frame.assign(what="spearman"), frame.assign(what="auc")], ignore_index=True)
    constant = frame["measure"] == "weight"
    return frame.assign(n=frame["n"].mask(constant, 0), mean=frame["mean"].mask(constant))


def curves(methods=("tmt_amw",)) -> pd.DataFrame:
    """Made-up curves, in which integrated gradients are the best and chance the worst."""
    steps = {"measure": list(LINES), "order": ("deletion", "insertion"), "fraction": np.linspace(0, 1, 11)}
    frame = grid(steps, methods=methods)
    shape = 0.3 + 0.1 * frame["measure"].map(list(LINES).index) + 0.05 * frame["seed"]
    way = np.where(frame["order"] == "deletion", frame["fraction"], 1 - frame["fraction"])
    return frame.assign(change=way**shape).drop(columns="mae")


def world_table(worlds=6) -> pd.DataFrame:
    measures = ("weight", "shapley_absent", "mae_absent", "occlusion", "gradient_input")
    rng, rows = np.random.default_rng(5), []
    for w, truth in enumerate(rng.dirichlet([1, 1, 1], worlds)):
        key = {"dataset": f"mosi-world{w}", "source": "synthetic", "method": "tmt_amw", "n": 1}
        for measure, (m, true) in itertools.product(measures, zip(MODALITIES, truth, strict=True)):
            mean = 1 / 3 if measure == "weight" else 0.5 * true + 0.5 * rng.uniform()
            rows.append(key | {"measure": measure, "modality": m, "mean": mean, "truth": true})
    return pd.DataFrame(rows)


def unimodal_table(names=("sims", "simsv2")) -> pd.DataFrame:
    keys = itertools.product(names, ("tmt_amw", "tmt_gated"), ("weight", "shapley_absent", "occlusion", "truth"))
    frame = pd.DataFrame(list(keys), columns=["dataset", "method", "measure"]).assign(
        source="synthetic", n=300, seeds=3
    )
    frame["agreement"] = np.random.default_rng(6).uniform(0.3, 0.6, len(frame))
    return frame.assign(low=frame["agreement"] - 0.05, high=frame["agreement"] + 0.05, chance=0.41)


def adapting(kind="noise", trained=("text",), **options) -> pd.DataFrame:
    levels = [-20.0, np.inf, 0.0] if kind == "noise" else [1.0, 0.0, 0.5]
    methods = ("tmt_amw", "tmt_amw_fast", "tmt_uniform", "tmt_gated", "tmt_token")
    options = {"methods": methods, "names": ("mosi",)} | options
    test = grid({"modality": MODALITIES, "level": levels}, **options).assign(when="test", regime="clean")
    training = grid({"modality": trained, "level": levels}, **options).assign(when="training", regime="noisy")
    frame = pd.concat([test, training], ignore_index=True).assign(kind=kind)
    return frame.assign(weight=0.3 + frame["mae"] / 30)


def by_reliability() -> pd.DataFrame:
    frame = grid({"modality": MODALITIES}, seeds=(0,), methods=("tmt_amw", "tmt_gated", "tmt_token"))
    frame = frame.assign(reliable=0.3 + frame["mae"] / 20, difference=0.01, low=-0.005, high=0.025, n=3)
    return frame.assign(unreliable=frame["reliable"] - 0.01)


def diagram_rows() -> pd.DataFrame:
    frame = grid({"level": [np.inf, 0.0, -10.0, -20.0], "bin": range(8)}, names=("mosi", "sims"))
    return frame.assign(prediction=frame["bin"] - 3.5 + 0.1 * frame["mae"], label=frame["bin"] - 3.5, n=62)


def reach() -> pd.DataFrame:
    rows = itertools.product(("mosi", "sims"), (("tmt_amw_slow", 0.02), ("tmt_amw", 0.2), ("tmt_amw_fast", 2.0)))
    rows = [{"dataset": d, "source": "synthetic", "method": m, "move_bound": b, "w_max": 0.8 * b} for d, (m, b) in rows]
    return pd.DataFrame(rows)


def softmax(seed: int, d: int = 16) -> np.ndarray:
    return torch.randn(3, d, generator=torch.Generator().manual_seed(seed)).softmax(0).numpy()


def utterance_weights(truth=True) -> pd.DataFrame:
    """Made-up weights of utterances: one for all, near a third each, and far apart."""
    rng, frames = np.random.default_rng(7), []
    for method, spread in (("tmt_amw", 0.0), ("tmt_gated", 0.004), ("tmt_gated_fast", 0.4)):
        weights = np.exp(spread * rng.normal(size=(80, 3)) + np.array([0.02, 0.0, -0.02]))
        frame = pd.DataFrame(weights / weights.sum(1, keepdims=True), columns=list(MODALITIES))
        frames.append(frame.assign(method=method, utterance=range(80), error=rng.exponential(0.6, 80)))
    frame = pd.concat(frames, ignore_index=True).assign(dataset="mosi", source="synthetic", seed=0)
    names = ["none", "none", "text", "audio", "vision", "audio+vision"]
    return frame.assign(unreliable=rng.choice(names, len(frame)) if truth else "unknown")


def one_utterance(**changes) -> SimpleNamespace:
    """What `tmtlib.analysis.utterance.explain` returns, made up."""
    rng, words = np.random.default_rng(8), tuple("it was $5 and I liked nothing of it at all".split())
    frames = dict(zip(MODALITIES, (len(words), 37, 9), strict=True))
    return SimpleNamespace(
        **{
            "name": "mosi-test-7",
            "transcript": " ".join(words),
            "words": words,
            "label": -1.25,
            "prediction": 0.5,
            "attention": {m: rng.dirichlet(np.ones(t), 4) for m, t in frames.items()},
            "contribution": {"text": -0.8, "audio": 0.2, "vision": 0.1},
            "truth": {"text": -1.1, "audio": 0.4, "vision": 0.0},
            "reliable": {"text": True, "audio": False, "vision": True},
            "weights": {"text": 0.42, "audio": 0.3, "vision": 0.28},
        }
        | changes
    )


def family(*methods: str) -> pd.DataFrame:
    """Made-up learning curves of TMT and other methods on one data set; the first seed stops early."""
    frame = grid({"epoch": range(1, 9)}, names=("mosi",), methods=("tmt", *methods))
    frame = frame.assign(valid_loss=frame["mae"])
    return frame[(frame["seed"] > 0) | (frame["epoch"] < 6)]


def _figure1():
    models = {"tmt": built()["tmt"][0], "tmt_amw": built()["amw"][0]}
    return figures.figure1_fusion(models, built()["amw"][1], "CH-SIMS (synthetic)")


def _heatmap():
    return figures.weight_heatmap({"CMU-MOSI (synthetic)": softmax(3), "CH-SIMS (synthetic)": softmax(4)})


DRAWINGS = {
    "figure1": _figure1,
    **{f"figure2_{n}": lambda n=n: figures.figure2_tmt(*built()[n], "CH-SIMS (synthetic)") for n in CONFIGS},
    **{f"figure3_{n}": lambda n=n: figures.figure3_amw(*built()[n], "CH-SIMS (synthetic)") for n in WEIGHTED},
    "figure4": lambda: figures.figure4_datasets(list(datasets().values())),
    "figure5": lambda: figures.figure5_comparison(comparison()),
    "learning": lambda: figures.learning_curves(trained()["history"]),
    "learning_acc5": lambda: figures.learning_curves(trained()["history"], "valid_acc5"),
    "family": lambda: figures.family_curves(family(*(m for m in METHODS if m.startswith("tmt_")))),
    "family_two": lambda: figures.family_curves(family("tmt_amw", "tmt_temporal"), "mae"),
    "noise": lambda: figures.degradation(robustness.summary(noise_frame()), "noise"),
    "noise_one": lambda: figures.degradation(
        robustness.summary(noise_frame(names=("mosei",), methods=tuple(METHODS))), "noise"
    ),
    "frames": lambda: figures.degradation(robustness.summary(frames_frame()), "missing_frames"),
    "auilc": lambda: figures.auilc(robustness.auilc(pd.concat([noise_frame(), frames_frame()]), ("mae",))),
    "missing": lambda: figures.missing_bars(robustness.summary(missing_frame())),
    "missing_one": lambda: figures.missing_bars(robustness.summary(missing_frame(names=("mosei",)))),
    "forest": lambda: figures.forest(differences()),
    "forest_one": lambda: figures.forest(differences(("sims",))),
    "importance": lambda: figures.importance(importances()),
    "importance_by_data": lambda: figures.importance_by_data(by_file()),
    "agreement": lambda: figures.agreement(agreements()),
    "faithfulness": lambda: figures.faithfulness(curves()),
    "faithfulness_methods": lambda: figures.faithfulness(curves(("tmt_amw", "late_fusion"))),
    "worlds": lambda: figures.worlds(world_table(), worlds_agreement(world_table())),
    "worlds_alone": lambda: figures.worlds(world_table(1).query("measure == 'occlusion'")),
    "unimodal": lambda: figures.unimodal(unimodal_table()),
    "unimodal_one": lambda: figures.unimodal(unimodal_table(("sims",))),
    "reach": lambda: figures.weight_reach(reach()),
    "adaptation": lambda: figures.adaptation(adapting()),
    "adaptation_all": lambda: figures.adaptation(adapting(trained=MODALITIES, names=("mosi", "sims"))),
    "adaptation_missing": lambda: figures.adaptation(adapting("missing_frames", trained=()), "missing_frames"),
    "reliability_weights": lambda: figures.reliability_weights(by_reliability()),
    "reliability_diagram": lambda: figures.reliability_diagram(diagram_rows()),
    "speed": lambda: throughput(pd.DataFrame({"T": [20, 50], "eager": [9.0, 4.0], "ours": [400.0, 21.0]}), "here"),
    "trajectories": lambda: figures.weight_trajectories(trained()["weights"]),
    "heatmap": _heatmap,
    "ternary": lambda: figures.ternary(utterance_weights()),
    "utterance": lambda: figures.utterance(one_utterance()),
    "truth": lambda: figures.weights_against_truth(truth_frame()),
    "audit": lambda: figures.mae_against_accuracy(audit.published_pairs(), audit.mae_line()),
}
NAMES = list(DRAWINGS)


@cache
def drawing(name: str):
    """A figure of synthetic data or of a model by name, drawn once."""
    return DRAWINGS[name]()


def words(figure) -> list:
    """Every text that is drawn, tick labels in view and legends included."""
    found = [t for t in figure.findobj(matplotlib.text.Text) if t.get_visible() and t.get_text().strip()]
    ticks = set()
    for axis in (a for ax in figure.axes for a in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            shown = low - 1e-9 <= tick.get_loc() <= high + 1e-9 and axis.axes.axison
            ticks |= set() if shown else {tick.label1, tick.label2}
    return [t for t in found if t not in ticks]


def text_of(figure) -> str:
    return "\n".join(t.get_text() for t in words(figure))
