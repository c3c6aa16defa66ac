"""All measurements as one dictionary."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from joblib import cpu_count

from benchmarks import machine, scaling, startup
from benchmarks import training as speed
from tmtlib.common import pick_device, write_atomic
from tmtlib.data.recipes import RECIPES
from tmtlib.study.methods import family
from tmtlib.study.profiles import PROFILES
from tmtlib.study.provenance import provenance
from tmtlib.training.fit import Training

COMPARED = ("tmt", "tmt_amw", "tmt_uniform", "tmt_random")  # what the projection trains on every data set
FULL = {
    "rounds": 5,
    "utterances": 512,
    "cases": speed.CASES,
    "frames": (20, 50, 100, 200, 500),
    "throughput": (20, 50, 100, 200, 400),
    "n": (1_000, 10_000, 100_000),
}
QUICK = {
    "rounds": 3,
    "utterances": 192,
    "cases": (speed.HEADLINE,),
    "frames": (20, 60, 180),
    "throughput": (20, 60),
    "n": (1_000, 4_000, 16_000),
}


def run(quick: bool, device: str, path: str | None) -> None:
    """Measures, prints what was found and, with a path, writes it there as JSON."""
    measured = measure(quick, pick_device(device).type)
    text = json.dumps(measured, indent=1)
    print(text)
    if path is not None:
        write_atomic(Path(path), lambda file: file.write(text.encode()))


def measure(quick: bool, device: str) -> dict:
    """Every benchmark, a few minutes in full; what it is doing is said on stderr. Returns JSON types."""
    size, where = QUICK if quick else FULL, torch.device(device)
    measured = {"machine": machine.describe(where), "quick": quick} | provenance()
    training = [_announced(f"training, {case.name}", _case, case, size, device) for case in size["cases"]]
    measured["training"] = training
    measured["train_speedup_vs_eager"] = training[0]["speedup"]
    measured["share_of_peak"] = training[0]["share_of_peak"]
    measured["layouts"] = [] if device == "cuda" else _announced("processes and threads", _layouts, size)
    if device == "cpu":
        measured["core_for_core"] = _announced("core for core", _core_for_core, size)
    measured["latency"] = _announced("latency", _latencies, size, device)
    measured["throughput"] = _announced("throughput", scaling.throughput, size["throughput"], device).to_dict("records")
    scaled = {
        "T": _announced("scaling in frames", scaling.over_frames, size["frames"], device),
        "N": _announced("scaling in utterances", scaling.over_utterances, size["n"], device),
    }
    measured["scaling"] = {axis: frame.to_dict("records") for axis, frame in scaled.items()}
    measured["scaling_exponents"] = {
        f"{cost}_{axis}": scaling.exponent(frame[axis], frame[cost])
        for axis, frame in scaled.items()
        for cost in ("seconds", "mb")
    }
    measured["startup"] = _announced("start-up", startup.seconds, size["rounds"])
    if not quick:
        measured["paper_profile"] = _projection(training)
    return measured


def _announced(title: str, function, *arguments):
    print(f"tmt bench: {title} ...", file=sys.stderr, flush=True)
    return function(*arguments)


def _case(case: speed.Case, size: dict, device: str) -> dict:
    """One case: the yardstick, ours in float32 and in bfloat16, and the machine's peak, in turn."""
    data = speed.utterances(case, size["utterances"])
    exact, half = (Training(precision=p) for p in ("float32", "bfloat16"))
    eager = speed.Eager(case, data, device)
    rates = speed.in_turn(
        eager.rate,
        lambda: speed.machine_rate(case, data, exact, device),
        lambda: speed.machine_rate(case, data, half, device),
        lambda: machine.machine_peak(device, torch.float32),
        lambda: machine.machine_peak(device, torch.bfloat16),
        rounds=size["rounds"],
    )
    work = speed.flops(case, data, exact)
    ratio, ratio_half = rates[:, 1] / rates[:, 0], rates[:, 2] / rates[:, 0]
    return {
        "case": case.name,
        "mean_frames": float(np.mean(sum(data.train.lengths.values()))),
        "eager_utterances_per_second": float(np.median(rates[:, 0])),
        "our_utterances_per_second": float(np.median(rates[:, 1])),
        "speedup": float(np.median(ratio)),
        "speedup_low": float(ratio.min()),
        "speedup_high": float(ratio.max()),
        "speedup_bfloat16": float(np.median(ratio_half)),
        "rounds": size["rounds"],
        "megaflop_per_utterance": work / 1e6,
        "peak_gflops": float(np.median(rates[:, 3])) / 1e9,
        "peak_gflops_bfloat16": float(np.median(rates[:, 4])) / 1e9,
        "share_of_peak": float(np.median(rates[:, 1] * work / rates[:, 3])),
        "share_of_peak_bfloat16": float(np.median(rates[:, 2] * work / rates[:, 4])),
    }


def _core_for_core(size: dict) -> dict:
    case = speed.HEADLINE
    data = speed.utterances(case, size["utterances"])
    rates = speed.core_for_core(case, data, Training(precision="float32"), size["rounds"])
    ratio = rates[:, 1] / rates[:, 0]
    ends = {"speedup": np.median(ratio), "speedup_low": ratio.min(), "speedup_high": ratio.max()}
    return {"case": case.name, "rounds": size["rounds"]} | {name: float(value) for name, value in ends.items()}


def _layouts(size: dict) -> list[dict]:
    """Ways to share the cores: one process or one a core, one thread each or all in one."""
    case, cores = speed.HEADLINE, cpu_count()
    data = speed.utterances(case, size["utterances"])
    training = Training(precision="float32")
    layouts = sorted({(1, 1), (1, cores), (cores, 1)})
    rates = speed.in_turn(
        *(lambda p=p, t=t: speed.machine_rate(case, data, training, "cpu", p, t) for p, t in layouts),
        rounds=size["rounds"],
    )
    median = np.median(rates, axis=0)
    return [
        {"processes": p, "threads": t, "utterances_per_second": float(rate)}
        for (p, t), rate in zip(layouts, median, strict=True)
    ]


def _latencies(size: dict, device: str) -> list[dict]:
    rows = []
    data = speed.utterances(speed.HEADLINE, 64)
    for batch in (1, 64):
        seconds = speed.latency(speed.HEADLINE, data, batch, device, size["rounds"])
        eager, ours = np.median(seconds, axis=0)
        ratio = float(np.median(seconds[:, 0] / seconds[:, 1]))
        rows.append({"batch": batch, "eager_ms": float(eager) * 1e3, "our_ms": float(ours) * 1e3, "speedup": ratio})
    return rows


def _projection(training: list[dict]) -> dict:
    """TMT, AMW and controls at profile paper's size on synthetic data of published size, projected from the rates
    measured here; it was not run.

    Every run is counted with all its epochs, though most stop early.
    """
    profile, by_case = PROFILES["paper"], {row["case"]: row for row in training}
    hours = work = runs_counted = 0.0
    for name, case in (("mosi", "MOSI 3x50"), ("mosei", "MOSEI 3x50"), ("sims", "SIMS 39/400/55")):
        methods = len(COMPARED) + (len(family("5-class")) if name in profile.five_class else 0)
        runs_counted += methods * len(profile.seeds)
        seen = RECIPES[name].utterances[0] * profile.training.epochs * methods * len(profile.seeds)
        hours += seen / by_case[case]["our_utterances_per_second"] / 3600
        work += seen * by_case[case]["megaflop_per_utterance"] / 1e9
    return {"projected": True, "runs": int(runs_counted), "hours_here": hours, "petaflop": work}
