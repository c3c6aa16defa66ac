"""Provenance of a result: commit, versions, platform, and a hash of the code that it depends on."""

import ast
import hashlib
import platform
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from tmtlib import __version__, common

RESULT_ROOMS = ("common", "stats", "data", "models", "training")  # what a trained result depends on
SOURCES = (".py", ".toml", ".csv")
PACKAGE = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, str]:
    """Versions, platform, commit and time (UTC)."""
    return {
        "tmtlib": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """The processor's model; virtual machines may not say."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names[0] if names else platform.processor()) or "unknown"


@lru_cache
def commit() -> str:
    """This repository's commit, with "-dirty" for uncommitted changes to tmtlib; "unknown" outside its checkout."""

    def git(*arguments: str) -> str:
        options = {"cwd": common.ROOT, "capture_output": True, "text": True, "timeout": 20}
        return subprocess.run(["git", *arguments], **options).stdout.strip()

    try:
        top = git("rev-parse", "--show-toplevel")
        if not top or Path(top).resolve() != common.ROOT:
            return "unknown"
        name = git("rev-parse", "--short=12", "HEAD") or "unknown"
        return f"{name}-dirty" if git("status", "--porcelain", "--", "tmtlib") else name
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


def as_committed(path: Path) -> bool:
    """Whether git has the file as it is now in its last commit."""
    command = ["git", "status", "--porcelain", "--ignored", "--", path.name]
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and not done.stdout


@lru_cache
def code_sha256(module: str | None = None, package: Path = PACKAGE) -> str:
    """SHA-256 of the `_statements` of `RESULT_ROOMS` and, if given, of a module such as "tmtlib.analysis.importance"
    with the modules of its room that it imports. Raises FileNotFoundError for a room or module without files."""
    files: set[Path] = set()
    for room in RESULT_ROOMS:
        place = package / room
        sources = [p for p in place.rglob("*") if p.suffix in SOURCES] if place.is_dir() else [place.with_suffix(".py")]
        if not any(p.is_file() for p in sources):
            raise FileNotFoundError(f"no code in {place}, which every trained result depends on")
        files.update(sources)
    if module is not None:
        files.update(_with_imports(module, package))
    parts = (f"{path.relative_to(package).as_posix()}\n{_statements(path)}\n" for path in sorted(files))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _with_imports(module: str, package: Path) -> set[Path]:
    """Files of a module and, recursively, of the modules of its room that it imports."""
    files, waiting = set(), [package.joinpath(*module.split(".")[1:]).with_suffix(".py")]
    while waiting:
        path = waiting.pop()
        if path in files:
            continue
        if not path.is_file():
            raise FileNotFoundError(f"no module at {path}")
        files.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tmtlib."):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                places = (package.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in names)
                waiting += [p for p in places if p.parent == path.parent and p.is_file()]
    return files


def _statements(path: Path) -> str:
    """A file's syntax tree without comments and docstrings, the same in every Python; of data files, the text."""
    text = path.read_text(encoding="utf-8")
    return repr(_plain(ast.parse(text))) if path.suffix == ".py" else text


def _plain(node: object) -> object:
    """A syntax tree as nested lists, without docstrings and what only some versions of Python put in."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
        node.body = node.body[1:]
    if isinstance(node, ast.JoinedStr):  # Python 3.12 puts empty parts into some f-strings
        node.values = [part for part in node.values if getattr(part, "value", None) != ""]
    fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if value is not None and value != [])
    return [type(node).__name__, *fields]
