"""What this machine has, which data are found, what will run and about how long: `tmt doctor`."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version

from tmtlib import common

Line = tuple[str, str, str]  # name, what was found, and what to do first where `tmt run` needs something else


def examine(data: str | None = None) -> int:
    """Prints a line for each thing looked at, then what to do first; returns 0 where `tmt run` can work, else 1.
    `data`: a feature file, a folder, or "crema"; default: TMT_DATA, else synthetic data."""
    lines = [_packages()]
    if not lines[0][2]:  # what follows imports them
        lines += [*_machine(), _results(), *_studies(data)]
    print("\n".join(f"{name:<12}{found}" for name, found, _ in lines) + "\n")
    todo = [f"First: {text}" for *_, text in lines if text]
    print("\n".join(todo) or "tmt run can work here.")
    return int(bool(todo))


def unmet(extra: str = "") -> list[str]:
    """The requirements of pyproject.toml, and of an extra in it, that this Python does not meet."""
    asked = [sys.executable, str(common.ROOT / "setup_environment.py"), "unmet"]
    done = subprocess.run(asked, capture_output=True, env=os.environ | {"TMT_EXTRAS": extra})
    return ["a checkout of the study"] if done.returncode else json.loads(done.stdout)


def _packages() -> Line:
    python = f"Python {platform.python_version()}"
    if lacking := unmet():
        return "packages", f"{python}; wanted: {', '.join(lacking)}", "make setup, or pip install -e . in a checkout"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy"))
    return "packages", f"{python}, {versions}; none that is needed is missing or too old", ""


def _machine() -> Iterator[Line]:
    import joblib
    import psutil
    import torch
    from jupyter_client.kernelspec import get_kernel_spec

    from tmtlib.study.provenance import processor

    memory, gpus = psutil.virtual_memory(), map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    size = f"{memory.total / 2**30:.1f} GB of memory, {memory.available / 2**30:.1f} of them free"
    yield "processor", f"{processor()}, {joblib.cpu_count()} cores, {size}", ""
    yield "GPU", ", ".join(f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GB" for gpu in gpus) or "none", ""
    for name in ("features", "cluster"):
        yield f"[{name}]", f"not installed; to have it: make setup EXTRAS={name}" if unmet(name) else "installed", ""
    yield "JupyterLab", f"{version('jupyterlab')}, kernel python3 in {get_kernel_spec('python3').resource_dir}", ""


def _results() -> Line:
    folder = common.results_folder()
    place = next(path for path in (folder, *folder.parents) if path.exists())  # a study makes what is missing
    writable, free = place.is_dir() and os.access(place, os.W_OK), shutil.disk_usage(place).free / 2**30
    todo = "" if writable and free > 1 else "give --results a folder that can be written to, with 1 GB free"
    return "results", f"{folder}, {'' if writable else 'not '}writable, {free:.1f} GB free", todo


def _studies(data: str | None) -> Iterator[Line]:
    """The data, and the trainings of each profile's `Study.methods` on them."""
    from tmtlib.data.loading import resolve_all
    from tmtlib.study import estimate, runs
    from tmtlib.study.profiles import PROFILES
    from tmtlib.study.study import Study

    try:
        wanted = ((p, {"data": data, "normalize": p.normalize, "sizes": dict(p.synthetic)}) for p in PROFILES.values())
        studies = [Study(p, tuple(resolve_all(p.datasets, **how)[0]), "auto") for p, how in wanted]
        found = (f"{ref.name} {estimate.size(ref)[0]} utterances" for ref in studies[0].refs if ref.source == "real")
        yield "data", "; ".join(found) or "synthetic, as neither --data nor TMT_DATA is given", ""
    except (ValueError, OSError) as error:
        yield "data", "none that can be used", str(error)
        return
    for study in studies:
        every, jobs = study.runs(*study.methods), runs.processes("auto", study.profile.jobs)
        todo = [run for run in every if not runs.record_path(run).exists()]
        time = f"; training takes {estimate.said(estimate.seconds(todo, 'auto', jobs))}" if todo else ""
        yield study.profile.name, f"{len(every) - len(todo)} of {len(every)} main runs are finished{time}", ""
    yield "", "and notebooks train some more and analyse all: a whole study of quick took three times as long", ""
