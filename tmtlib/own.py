"""Weightings of one's own, from a Python file: each becomes a method of the study."""

from __future__ import annotations

from pathlib import Path

from tmtlib.models.weighting import WEIGHTINGS
from tmtlib.profiles import METHOD_TITLES, METHODS


def methods_from(path: str | Path) -> list[str]:
    """Runs a Python file that registers weightings, and returns the methods "tmt_<name>" that the study now knows.

    A second call with the same file replaces what the first has registered. Records of finished runs are found by the
    weighting's name: rename it, or delete its runs, when its code changes. Raises FileNotFoundError where there is no
    such file, ValueError where it registers nothing.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} with weightings of your own")
    for name in [n for n, made in WEIGHTINGS.items() if getattr(made, "from_file", None) == str(path)]:
        del WEIGHTINGS[name]
    before = set(WEIGHTINGS)
    # As "__main__", so that worker processes are sent the classes themselves and need not find this file
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__name__": "__main__"})
    added = [name for name in WEIGHTINGS if name not in before]
    if not added:
        raise ValueError(f'{path} registers no weighting; decorate a module in it with @register("its name")')
    for name in added:
        WEIGHTINGS[name].from_file = str(path)
        METHODS[f"tmt_{name}"] = {"weighting": name}
        METHOD_TITLES[f"tmt_{name}"] = f"TMT, {name}"
    return [f"tmt_{name}" for name in added]
