"""What `tmt bench` measured, as Markdown for the README, and into it."""

from __future__ import annotations

import json

import pandas as pd

from benchmarks.figure import throughput
from tmtlib import common
from tmtlib.study import report
from tmtlib.study.study import save_figure


def speed_table(measured: dict) -> str:
    """A row a case of `tmt bench`: rates, ratios in float32 with their range over rounds, and the share of the peak."""
    rows = [
        {
            "utterances": row["case"],
            "mean frames": f"{row['mean_frames']:.0f}",
            "plain": f"{row['eager_utterances_per_second']:.0f}/s",
            "this project": f"{row['our_utterances_per_second']:.0f}/s",
            "ratio": f"{row['speedup']:.1f} ({row['speedup_low']:.1f} to {row['speedup_high']:.1f})",
            "ratio, bfloat16": f"{row['speedup_bfloat16']:.1f}",
            "share of peak": f"{row['share_of_peak']:.0%}",
        }
        for row in measured["training"]
    ]
    table = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
    return f"{table}\n\n{speed_sentences(measured)}"


def speed_sentences(measured: dict) -> str:
    """What the table leaves out, a list item each."""
    machine, power, paper = measured["machine"], measured["scaling_exponents"], measured["paper_profile"]
    core = measured["core_for_core"]
    first, (one, many), start = measured["training"][0], measured["latency"], measured["startup"]
    frames = [row["T"] for row in measured["scaling"]["T"]]
    added = max(0.0, start["import torch, tmtlib"] - start["import torch"])
    lines = (
        f"Measured on: {machine['name']}, {machine['cores']} cores, {machine['vector_instructions']}, torch "
        f"{machine['torch']}. Medians over {first['rounds']} rounds (and their range). Its matrix products reach "
        f"{first['peak_gflops']:.0f} GFLOP/s in float32 and {first['peak_gflops_bfloat16']:.0f} in bfloat16.",
        "The table is machine against machine: a process a core against all the threads PyTorch takes. Core against "
        f"core (a thread each, CPU time, {core['rounds']} rounds) {core['case']} trains {core['speedup']:.1f} times as "
        f"fast ({core['speedup_low']:.1f} to {core['speedup_high']:.1f}).",
        f"Predicting takes {one['our_ms']:.1f} ms for one utterance ({one['speedup']:.1f} times as fast as plain) and "
        f"{many['our_ms']:.0f} ms for {many['batch']} ({many['speedup']:.1f} times).",
        f"Time grows as N^{power['seconds_N']:.2f} with utterances and as T^{power['seconds_T']:.2f} with frames "
        f"(T from {frames[0]} to {frames[-1]}); memory as T^{power['mb_T']:.2f}, and as N^{power['mb_N']:.2f} where "
        "data are mapped.",
        f"`import tmtlib` adds {added:.2f} s to `import torch`; `tmt --help` takes {start['tmt --help']:.2f} s.",
        f"Training TMT {paper['runs']} times for 30 epochs on synthetic data of the published sizes "
        f"({paper['petaflop']:.0f} PFLOP; TMT, AMW and controls, ten seeds, none stopping early) would take "
        f"{paper['hours_here']:.0f} hours here: a projection from these rates, not a run.",
    )
    return "\n".join(f"- {line}" for line in lines)


def update_readme() -> None:
    """Puts the committed measurements (`results/benchmarks/cpu.json`) into README.md beside, and draws them."""
    path = common.ROOT / "benchmarks" / "README.md"
    measured = json.loads((common.ROOT / "results" / "benchmarks" / "cpu.json").read_text(encoding="utf-8"))
    text = report.between(path.read_text(encoding="utf-8"), "speed", speed_table(measured))
    common.write_atomic(path, lambda file: file.write(text.encode()))
    machine = measured["machine"]
    cores = f"{machine['cores']} CPU cores" if machine["device"] == "cpu" else "one GPU"
    figure = throughput(pd.DataFrame(measured["throughput"]), cores)
    save_figure(figure, common.ROOT / "figures" / "benchmarks", "throughput")
