"""How fast training is, by the length of the utterances."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from tmtlib.figures.style import ACCENT, NEUTRAL, ONE_COLUMN, legend, styled


@styled
def throughput(measured: pd.DataFrame, machine: str) -> Figure:
    """Utterances trained a second by T, the yardstick (`eager`) and ours (`ours`), with their ratio at each T."""
    figure, axes = plt.subplots(figsize=(ONE_COLUMN, 2.6), layout="constrained")
    axes.loglog(measured["T"], measured["ours"], "o-", color=ACCENT, label="this project")
    axes.loglog(measured["T"], measured["eager"], "s--", color=NEUTRAL, label="plain PyTorch, same model")
    for row in measured.itertuples():
        axes.text(row.T, (row.ours * row.eager) ** 0.5, f"{row.ours / row.eager:.1f}×", ha="center", va="center")
    axes.margins(x=0.12)
    axes.set_xticks(measured["T"], [str(t) for t in measured["T"]])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("longest utterance T (frames in each modality)")
    axes.set_ylabel("utterances trained per second")
    axes.set_title(f"TMT of the paper's size on {machine}")
    legend(figure, axes.get_legend_handles_labels()[0], "synthetic utterances of uneven length")
    return figure
