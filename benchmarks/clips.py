"""Speed of `tmt features` on made-up clips, by modality and by number of processes; memory by number of clips.

    python -m benchmarks.clips --json results/benchmarks/clips.json

Needs the packages of the extra `features`. Clips are of 1.6 s, 160 x 160; larger pictures take longer to decode.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import machine
from tmtlib.data.text import open_encoder
from tmtlib.media import audio, clips, example, vision

MEASURE = """
import resource, sys
from tmtlib.media import clips
how = clips.Extractors(clips.installed_encoder())
clips.extract(sys.argv[1], sys.argv[2], how, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
"""


def rate(work: Callable[[], object], n: int) -> float:
    """Clips a second."""
    started = time.perf_counter()
    work()
    return n / (time.perf_counter() - started)


def measured(n: int) -> dict:
    """Clips a second by modality and by processes (`jobs`), and peak memory (MB) of n and of 2 n clips."""
    how = clips.Extractors(clips.installed_encoder())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        table = example.write_clips(folder / "clips", (n - 4, 2, 2))
        rows = clips.read_table(table)
        encode, look = open_encoder(how.text), vision.open_describer()
        by_modality = {
            "text": rate(lambda: encode([*rows["transcript"]], clips.TEXT_FRAMES), n),
            "audio": rate(lambda: [audio.acoustic_features(audio.read_sound(p)) for p in rows["path"]], n),
            "vision": rate(lambda: [look(p) for p in rows["path"]], n),
        }
        by_jobs = {
            jobs: rate(lambda j=jobs: clips.extract(table, folder / f"{j}.pkl", how, jobs=j, progress=False), n)
            for jobs in (1, 2)
        }
        twice = example.write_clips(folder / "twice", (2 * n - 4, 2, 2))
        memory = {size: peak(t, folder / f"peak{size}.pkl") for size, t in ((n, table), (2 * n, twice))}
    return {
        "clips": n,
        "by_modality": by_modality,
        "by_jobs": by_jobs,
        "peak_mb": memory,
        "machine": machine.describe(torch.device("cpu")),
    }


def peak(table: Path, out: Path) -> float:
    """Peak memory (MB) of a process that extracts a table's clips."""
    done = subprocess.run([sys.executable, "-c", MEASURE, table, out], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clips", description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=64, help="how many (64); at least 8")
    parser.add_argument("--json", help="write what was measured to this file")
    chosen = parser.parse_args(argv)
    text = json.dumps(measured(max(8, chosen.clips)), indent=2) + "\n"
    print(text)
    if chosen.json:
        Path(chosen.json).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
