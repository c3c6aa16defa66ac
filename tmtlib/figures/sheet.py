"""A page in inches to draw a schematic on: boxes, words, arrows."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle


class Sheet:
    """A page to draw on, in inches from its lower left corner, with words of one size that fits every box."""

    def __init__(self, width: float, height: float, size: float = 6.5):
        self.width, self.height, self.size = width, height, size
        self.figure = plt.figure(figsize=(width, height))
        self.axes = self.area(0, 0, width, height)
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()
        self.labels = []

    def area(self, x: float, y: float, width: float, height: float) -> Axes:
        """New axes at a place."""
        return self.figure.add_axes((x / self.width, y / self.height, width / self.width, height / self.height))

    def box(self, x: float, y: float, width: float, height: float, lines: Sequence[str], colour: str, dashed=False):
        """A rounded box in a tint of its colour, with the first line in bold."""
        shape = "round,pad=0,rounding_size=0.05"
        look = {"facecolor": tint(colour), "edgecolor": colour, "linestyle": "--" if dashed else "-"}
        self.axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, linewidth=0.8, zorder=2, **look))
        if lines:
            self.label(x, y, width, height, lines)

    def label(self, x: float, y: float, width: float, height: float, lines: Sequence[str]) -> None:
        """Lines centred in a place, the first in bold; line breaks make further lines."""
        looks = [(part, "normal" if i else "bold") for i, line in enumerate(lines) for part in line.split("\n")]
        texts = [self.words(0, 0, line, self.size, weight) for line, weight in looks]
        self.labels.append((x, y, width, height, texts))

    def heading(self, title: str, facts: str) -> None:
        self.words(self.width / 2, self.height - 0.1, f"{title}: {facts}" if title else facts, size=7.5)

    def settled(self) -> Figure:
        """The figure, once all labels have the greatest size at which every one fits its place."""
        factor, pitch = 1.0, 1.22 * self.size / 72  # inches from line to line
        for _, _, width, height, texts in self.labels:
            widest = max(t.get_window_extent().width for t in texts) / self.figure.dpi
            factor = min(factor, (width - 0.06) / widest, (height - 0.02) / (len(texts) * pitch))
        for x, y, width, height, texts in self.labels:
            for i, text in enumerate(texts):
                text.set_fontsize(factor * self.size)
                lift = ((len(texts) - 1) / 2 - i) * factor * pitch
                text.set_position((x + width / 2, y + height / 2 + lift))
        return self.figure

    def words(self, x: float, y: float, text: str, size: float, weight: str = "normal"):
        look = {"ha": "center", "va": "center", "fontsize": size, "fontweight": weight, "zorder": 3}
        return self.axes.text(x, y, text, **look)

    def squares(self, x: float, y: float, width: float, count: int, colour: str) -> None:
        """A square a token, in a row."""
        side = min(0.085, (width - 0.1) / (1.3 * count))
        start = x + width / 2 - 1.3 * side * count / 2 + 0.15 * side
        for i in range(count):
            place = (start + 1.3 * side * i, y)
            self.axes.add_patch(Rectangle(place, side, side, color=colour, linewidth=0, zorder=3))

    def arrow(self, start: tuple, end: tuple, colour="black") -> None:
        self.path([start, end], colour)

    def path(self, points: Sequence[tuple], colour="black", dashed: bool = False, head: bool = True) -> None:
        """A line through points, with an arrow head at its end."""
        look = {"color": colour, "linewidth": 0.9, "linestyle": (0, (3, 1.5)) if dashed else "-", "zorder": 1}
        self.axes.plot(*zip(*points, strict=True), solid_joinstyle="miter", **look)
        if head:
            (x0, y0), (x1, y1) = points[-2:]
            back = min(1, 0.05 / max(1e-9, np.hypot(x1 - x0, y1 - y0)))  # only the head, so that dashes stay dashes
            arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
            start = (x1 + back * (x0 - x1), y1 + back * (y0 - y1))
            self.axes.annotate("", (x1, y1), start, arrowprops=arrow | {"mutation_scale": 6}, zorder=1)


def tint(colour: str, strength: float = 0.15) -> tuple[float, ...]:
    """The colour mixed with white."""
    return tuple(1 - strength * (1 - c) for c in to_rgb(colour))
