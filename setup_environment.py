"""Find the Python that runs the study, or make one in .venv, and print its path as the last line.

    python3 setup_environment.py        (make study and make test call this)

1. The active virtual or conda environment, or else the Python that runs this file, is used as it is when it is
   Python 3.11 or 3.12 and meets every requirement of pyproject.toml. Nothing is ever installed into it.
2. Otherwise .venv, beside this file, is made once and filled by pip. A stamp in it, written last, holds the
   fingerprint of pyproject.toml: while the two agree a later call installs nothing, and a .venv whose making was
   cut short has no stamp and is gone on with.

TMT_EXTRAS=features asks for the packages of that extra as well (make ... EXTRAS=features sets it).

Any Python 3.8 or later can start this file: it uses the standard library only, and what needs more is asked of
the Python in question, by running this file there with a question as its argument.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PYPROJECT = ROOT / "pyproject.toml"
VENV = ROOT / ".venv"
STAMP = "tmt-study.stamp"
SUPPORTED = ((3, 11), (3, 12))
SUPPORTED_TEXT = " or ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
EXTRAS = [name for name in os.environ.get("TMT_EXTRAS", "").split(",") if name]
CPU_TORCH = "torch==2.13.0"  # one version, because pip and uv must mean the same file


class SetupError(Exception):
    """The set-up cannot go on; the text says what failed and what to do."""


def main() -> int:
    try:
        print(find_or_make())
    except SetupError as error:
        say(f"Set-up failed: {error}")
        return 1
    except OSError as error:  # a read-only folder, a full disk
        say(f"Set-up failed: {error.strerror}: {error.filename or VENV}; make room for .venv in {ROOT}.")
        return 1
    except KeyboardInterrupt:
        say("Set-up stopped; the next call goes on from here.")
        return 130
    return 0


def find_or_make() -> Path:
    active = active_python(os.environ)
    for python in dict.fromkeys([active, Path(sys.executable)]):
        if python is None or VENV in python.parents:  # .venv is ours: its stamp decides, below
            continue
        lacking = unmet_in(python)
        if not lacking:
            return python
        if python == active:
            more = f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""
            say(f"The active environment is left alone and not used ({python}): {'; '.join(lacking[:4])}{more}.")
            say("Using .venv instead.")
    return make(VENV)


# --- What there is -----------------------------------------------------------------------------------------------


def python_in(prefix: Path) -> Path:
    """Where an environment keeps its Python: POSIX, or a virtual or a conda environment on Windows."""
    if os.name == "nt":
        inner = prefix / "Scripts" / "python.exe"
        return inner if inner.exists() else prefix / "python.exe"
    return prefix / "bin" / "python"


def active_python(environ) -> Path | None:
    """The Python of the active environment: of VIRTUAL_ENV before CONDA_PREFIX, as conda's base is often on."""
    prefix = environ.get("VIRTUAL_ENV") or environ.get("CONDA_PREFIX")
    if prefix:
        return python_in(Path(prefix).absolute())
    return Path(sys.executable) if sys.prefix != sys.base_prefix else None


def version_of(python: str | Path, needs: str = "sys") -> tuple | None:
    """The (major, minor) of a Python, or None if it does not run (a pyenv shim may not) or lacks a module."""
    try:
        done = subprocess.run(
            [str(python), "-c", f"import {needs}, sys; print(*sys.version_info[:2])"], capture_output=True, text=True
        )
    except OSError:
        return None
    return None if done.returncode else tuple(int(part) for part in done.stdout.split())


def base_python() -> str:
    """The first Python of a supported version that really runs and can make a virtual environment."""
    for python in (sys.executable, "python3.11", "python3.12", "python3"):
        if version_of(python, needs="ensurepip, venv") in SUPPORTED:  # Debian ships the two apart from Python
            return python
    raise SetupError(
        f"no working Python {SUPPORTED_TEXT} with the module venv was found. Install one (on Debian and Ubuntu "
        "python3-venv as well), or make and activate a conda environment: conda env create -f environment.yml"
    )


def has_nvidia_gpu() -> bool:
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and "GPU" in done.stdout


# --- Questions answered inside another Python ----------------------------------------------------------------------


def ask(python: str | Path, question: str, text: str = ""):
    """The answer of `python setup_environment.py question`, which reads `text`."""
    command = [str(python), str(Path(__file__).resolve()), question]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True)
    except OSError as error:
        raise SetupError(f"{python} does not run: {error}") from error
    if done.returncode:
        raise SetupError(f"{python} does not run as it should:\n{done.stderr}")
    return json.loads(done.stdout)


def unmet_in(python: Path) -> list[str]:
    try:
        return ask(python, "unmet")
    except SetupError as error:
        return [str(error)]


def answer(question: str) -> int:
    if question == "unmet":
        print(json.dumps(unmet_here()))
    elif question == "cuda":
        print(json.dumps(cuda_requirements(json.load(sys.stdin))))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


def unmet_here() -> list[str]:
    if sys.version_info[:2] not in SUPPORTED:
        return [f"Python {sys.version_info[0]}.{sys.version_info[1]} (needs {SUPPORTED_TEXT})"]
    import tomllib  # Python 3.11

    if requirement_class() is None:
        return ["the packages of pyproject.toml (not even packaging is installed)"]
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    if unknown := [name for name in EXTRAS if name not in optional]:
        return [f"an extra {unknown[0]!r} (there are {', '.join(optional)})"]
    return unmet([*project["dependencies"], *(line for name in EXTRAS for line in optional[name])], installed_version)


def installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirement_class():
    """packaging's Requirement, or the copy that pip carries, or None where there is neither."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        try:
            from pip._vendor.packaging.requirements import Requirement
        except ImportError:
            return None
    return Requirement


def unmet(wanted: list[str], installed) -> list[str]:
    """The requirements that are not met, each with what was found; `installed` gives a version or None."""
    found = []
    for requirement in map(requirement_class(), wanted):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        version = installed(requirement.name)
        if version is None:
            found.append(f"{requirement} (not installed)")
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement} (found {version})")
    return found


def cuda_requirements(report: dict) -> list[str]:
    """The CUDA packages that the files in a pip installation report need on this platform."""
    lines = [line for item in report["install"] for line in item["metadata"].get("requires_dist", [])]
    return [
        requirement.name
        for requirement in map(requirement_class(), lines)
        if requirement.name.startswith(("nvidia-", "cuda-"))
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
    ]


# --- Making .venv --------------------------------------------------------------------------------------------------


def fingerprint() -> str:
    return hashlib.sha256(PYPROJECT.read_bytes()).hexdigest()


def is_finished(venv: Path) -> bool:
    stamp = venv / STAMP
    return python_in(venv).exists() and stamp.exists() and stamp.read_text().strip() == fingerprint()


def make(venv: Path) -> Path:
    """The Python of `venv`, made and filled as far as is still needed."""
    python, start = python_in(venv), time.monotonic()
    if is_finished(venv) and not (EXTRAS and unmet_in(python)):
        return python
    (venv / STAMP).unlink(missing_ok=True)  # unfinished, from here until a new stamp is written

    version = version_of(python)
    if version is None:
        run("Making .venv", [base_python(), "-m", "venv", "--clear", str(venv)])
    elif version not in SUPPORTED:
        raise SetupError(f".venv has Python {version[0]}.{version[1]}, not {SUPPORTED_TEXT}. Delete it and call again.")
    if version_of(python, needs="pip") is None:  # its making was cut short, or it was made without pip
        run("Adding pip", [str(python), "-Im", "ensurepip"])

    pip(python, "Looking for a pip that can ask for metadata alone", "pip>=24")
    if not has_nvidia_gpu():
        install_cpu_torch(python)
    what = f"{ROOT}[{','.join(EXTRAS)}]" if EXTRAS else str(ROOT)
    pip(python, "Installing the packages of pyproject.toml (some minutes)", "--editable", what)

    lacking = ask(python, "unmet")
    if lacking:
        raise SetupError(f"pip has finished, yet .venv lacks {'; '.join(lacking)}. Delete .venv and call again.")
    run("Starting PyTorch once", [str(python), "-c", "import torch"])
    (venv / STAMP).write_text(fingerprint() + "\n")
    say(f".venv is ready ({time.monotonic() - start:.0f} s).")
    return python


def install_cpu_torch(python: Path) -> None:
    """PyTorch without CUDA, a fraction of the size, where pip's own choice would bring CUDA along.

    On Linux the package index offers the CUDA build alone, elsewhere (or with a local wheel) pip finds a CPU
    build by itself. So pip is asked what it would take; uv knows where PyTorch keeps its CPU builds.
    """
    question = [str(python), "-Im", "pip", "install", "-qq", "--dry-run", "--no-deps", "--report", "-", CPU_TORCH]
    say(f"No NVIDIA GPU: looking for a CPU build of {CPU_TORCH}")
    done = subprocess.run(question, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SetupError(f"pip finds no {CPU_TORCH}; its own message is above.{ADVICE}")
    if not ask(python, "cuda", done.stdout):
        pip(python, "Installing it with pip", CPU_TORCH)
        return
    try:
        pip(python, "Installing uv, which knows where the CPU builds are", "uv")
        uv = [str(python), "-Im", "uv", "pip", "install", "--python", str(python), "--torch-backend=cpu"]
        run("Installing it with uv", [*uv, CPU_TORCH])
    except SetupError:
        say("The CPU build cannot be had here. The CUDA build runs on a CPU too, but brings gigabytes of CUDA along.")


ADVICE = (
    "\nMost often the network is the reason: call again and it goes on from here. If that does not help, delete "
    ".venv, or activate an environment of your own (conda env create -f environment.yml) and call again."
)


def pip(python: Path, what: str, *arguments: str) -> None:
    # -I: packages outside .venv (PYTHONPATH, the egg-info folder beside this file) are not taken for installed ones.
    # Twice quiet: errors are shown, warnings (a line per package where a second index is configured) are not.
    run(what, [str(python), "-Im", "pip", "install", "-qq", *arguments])


def run(what: str, command: list[str]) -> None:
    say(what)
    if subprocess.run(command, stdout=sys.stderr).returncode:  # stdout is for the path alone
        raise SetupError(f"`{' '.join(command)}` failed; its own message is above.{ADVICE}")


def say(text: str) -> None:
    print(f"[set-up] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(answer(sys.argv[1]) if len(sys.argv) > 1 else main())
