"""The notebook series: executed in order by papermill (`run`), or saved anew with smoke outputs (`clean`)."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat

from tmtlib import common
from tmtlib.study.study import Study, open_study

NOISE = ("running over TCP without encryption",)  # what a kernel says of itself, no part of any result


class WrongUse(ValueError):
    """A request that cannot be meant; the command line exits with 2."""

    exit_code = 2


def notebooks(only: str | None = None) -> list[Path]:
    """The series in order, or those whose numbers ("02,03") are named. Raises WrongUse for an unknown number."""
    every = sorted(common.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not every:
        raise WrongUse(f"no notebooks in {common.NOTEBOOKS}; install from a checkout: pip install -e .")
    if only is None:
        return every
    wanted = [part.strip().zfill(2) for part in only.split(",") if part.strip()]
    numbers = [path.name[:2] for path in every]
    unknown = [number for number in wanted if number not in numbers]
    if unknown or not wanted:
        raise WrongUse(f"no notebook {', '.join(unknown) or repr(only)}; there are {', '.join(numbers)}")
    return [path for path in every if path.name[:2] in wanted]


def run(
    profile: str,
    data: str | None = None,
    device: str = "auto",
    only: str | None = None,
    seeds: int | None = None,
    datasets: str = "",
    methods: str = "",
) -> int:
    """Executes the series and returns an exit code: 0 done, 1 a notebook failed.

    Executed copies go to `<results>/<profile>/notebooks/`. The first failing notebook ends the series: its cell, its
    error and its executed copy are named. Data and device are checked before anything runs.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    # Kernels run in the notebooks' folder, so what is relative to this one is made absolute
    if os.environ.get("TMT_RESULTS"):
        os.environ["TMT_RESULTS"] = str(common.results_folder())
    place = Path(data).expanduser() if data else common.data_folder()
    data = str(place.resolve()) if place else ""
    todo = notebooks(only)
    parameters = {"profile": profile, "data": data, "device": device}
    parameters |= {"seeds": seeds or 0, "datasets": datasets, "methods": methods}
    for path in todo:
        _check_parameters(path, parameters)
    study = open_study(profile, data, device, seeds, datasets, methods)
    print(f"Profile {study.profile.name}, {place or 'synthetic data'}, results in {_short(study.results)}", flush=True)
    _make_room(study)
    copies = study.results / "notebooks"
    copies.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for path in todo:
        with _progress(path.name) as line:
            try:
                execute(path, copies / path.name, parameters)
            except (PapermillExecutionError, DeadKernelError) as error:
                line.end("FAILED")
                print(f"\n{_failure(path, error)}", file=sys.stderr)
                print(f"The executed copy, up to that cell, is {copies / path.name}", file=sys.stderr)
                return 1
            line.end("ok")
    print(f"{len(todo)} notebooks in {_clock(time.monotonic() - started)}\n")
    if any(path.name.startswith("06") for path in todo):
        from tmtlib.study import report

        print(report.read(study.profile.name, brief=True))
    print(f"Tables       {_short(study.results)}/\nFigures      {_short(study.figures)}/")
    print(f"Notebooks    {_short(copies)}/  (executed; open them with: make lab)")
    return 0


def _failure(path: Path, error: Exception) -> str:
    if hasattr(error, "evalue"):
        return f"cell {error.exec_count} of {path.name}: {error.ename}: {error.evalue}"
    return f"the kernel of {path.name} died ({error}); most often memory ran out"


def _make_room(study: Study) -> None:
    """Removes a profile's tables and figures when they are of other data, so that the two are never mixed.

    Finished runs stay, so the tables can be had again at once.
    """
    try:
        found = json.loads((study.results / "provenance.json").read_text(encoding="utf-8"))
        before = {card["sha256"] for card in found["data"]}
    except (OSError, ValueError, KeyError):
        return
    if before == {ref.sha256 for ref in study.refs}:
        return
    names = ", ".join(card["name"] for card in found["data"])
    print(f"Replacing the tables and figures of other data ({names}); RESULTS=folder or --results keeps both apart")
    for folder, kinds in ((study.results, ("*.csv", "*.json", "*.md")), (study.figures, ("*.pdf", "*.png"))):
        for path in (p for kind in kinds for p in folder.glob(kind)):
            path.unlink()


def execute(path: Path, copy: Path, parameters: dict[str, str] | None = None) -> None:
    """Executes a notebook in its own folder into a copy. Raises PapermillExecutionError for a cell that fails."""
    import papermill

    quiet = ["--IPKernelApp.log_level=ERROR"]  # else each kernel warns on the terminal that it listens on TCP
    papermill.execute_notebook(path, copy, parameters, cwd=str(path.parent), progress_bar=False, extra_arguments=quiet)


def clean(only: str | None = None) -> int:
    """Re-executes the saved notebooks in place at profile smoke and strips what changes from run to run."""
    with tempfile.TemporaryDirectory() as folder, _environment(TMT_RESULTS=folder, TMT_DATA=None):
        for path in notebooks(only):
            with _progress(path.name) as line:
                done = Path(folder) / path.name
                execute(path, done)
                notebook = strip(nbformat.read(done, as_version=4))
                aside = path.with_suffix(".part")
                nbformat.write(notebook, aside)
                os.replace(aside, path)
                line.end("ok")
    return 0


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without times, paths, widget states and the kernel's remarks about itself."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i:02d}"
        cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _volatile(output)]
    return notebook


def _volatile(output: nbformat.NotebookNode) -> bool:
    if output.output_type == "stream":
        return any(words in output.text for words in NOISE)
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def _check_parameters(path: Path, parameters: dict[str, str]) -> None:
    """papermill only warns about a parameter that a notebook does not know, so a typing error would be run."""
    import papermill

    unknown = set(parameters) - set(papermill.inspect_notebook(path))
    if unknown:
        raise WrongUse(f"{path.name} has no parameter {', '.join(sorted(unknown))} in its cell tagged `parameters`")


class _Line:
    """One line a notebook: rewritten every second on a terminal, else printed now and then."""

    def __init__(self, name: str):
        self.name, self.start, self.done = name, time.monotonic(), threading.Event()
        self.before = self._finished_runs()
        self.terminal = sys.stdout.isatty()

    def _finished_runs(self) -> int:
        return sum(1 for _ in (common.results_folder() / "runs").glob("*.npz"))

    def text(self, state: str) -> str:
        trained = self._finished_runs() - self.before
        runs = f"  {trained} runs trained" if trained else ""
        return f"{self.name:<32}{state:<8}{_clock(time.monotonic() - self.start):>6}{runs}"

    def watch(self) -> None:
        while not self.done.wait(1 if self.terminal else 30):
            start, end = ("\r", "") if self.terminal else ("", "\n")
            print(start + self.text("running"), end=end, flush=True)

    def end(self, state: str) -> None:
        self.done.set()
        print(("\r" if self.terminal else "") + self.text(state), flush=True)


@contextmanager
def _progress(name: str) -> Iterator[_Line]:
    line = _Line(name)
    watcher = threading.Thread(target=line.watch, daemon=True)
    watcher.start()
    try:
        yield line
    finally:
        line.done.set()
        watcher.join()


@contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _short(path: Path) -> str:
    """A path as seen from the working folder, where it lies below it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
