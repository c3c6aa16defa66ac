"""What starting costs: each command in a process of its own, in turn."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

COMMANDS = {
    "python": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import torch, tmtlib": ["-c", "import torch, tmtlib"],
    "tmt --help": ["-m", "tmtlib", "--help"],
}


def seconds(rounds: int) -> dict[str, float]:
    """Median seconds of each command over `rounds` rounds."""
    times = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times[name].append(time.perf_counter() - started)
    return {name: float(np.median(values[1:])) for name, values in times.items()}
