"""Where things are: from this file's place and from TMT_DATA and TMT_RESULTS, never from the working folder."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"


def results(profile: str | None = None) -> Path:
    """The results folder: TMT_RESULTS if set, else `results/` beside the package; with a profile, its subfolder."""
    base = Path(os.environ.get("TMT_RESULTS") or ROOT / "results").expanduser().resolve()
    return base / profile if profile else base


def figures(profile: str) -> Path:
    """The figures folder of a profile: `figures/` at the top, or inside TMT_RESULTS when that is set."""
    base = results() if os.environ.get("TMT_RESULTS") else ROOT
    return base / "figures" / profile


def data() -> Path | None:
    """The user's data folder or file, from TMT_DATA; None when unset."""
    value = os.environ.get("TMT_DATA")
    return Path(value).expanduser().resolve() if value else None
