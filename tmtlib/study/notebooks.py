"""The notebook series: executed by papermill (`run`), or saved again with the reported results (`clean`)."""

import os
import re
import shlex
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import nbformat
from tqdm import tqdm

from tmtlib import common
from tmtlib.common import write_atomic
from tmtlib.data import crema, mmsa
from tmtlib.study import compare, report, site
from tmtlib.study.profiles import split_names
from tmtlib.study.study import Study, open_study

NOISE = "running over TCP without encryption"  # a kernel's warning, removed from saved outputs
CHECKED, VARIES = "nbval-check-output", "varies"  # tags; the second: of cells whose numbers depend on the machine
WIDGET = "application/vnd.jupyter.widget-view+json"


NO_ROOM = re.compile(r"\[Errno (13|20|27|28|30|36|122)\]")  # permission, no folder, size, full, read-only, name, quota


class WrongUse(ValueError):
    """Invalid arguments; the command line exits with 2."""

    exit_code = 2


class Busy(ValueError):
    """Another process writes the tables of the folder."""


def notebooks(only: str | None = None) -> list[Path]:
    """The notebooks in order, or of the numbers ("02,03"). Raises WrongUse for an unknown number or no notebook."""
    every = sorted(common.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not every:
        raise WrongUse(f"no notebooks in {common.NOTEBOOKS}; install from a checkout: pip install -e .")
    if only is None:
        return every
    wanted, numbers = [name.zfill(2) for name in split_names(only)], [path.name[:2] for path in every]
    unknown = [number for number in wanted if number not in numbers]
    if unknown or not wanted:
        raise WrongUse(f"no notebook {', '.join(unknown) or repr(only)}; there are {', '.join(numbers)}")
    return [path for path in every if path.name[:2] in wanted]


def run(
    profile: str, data: str | None, device: str, only: str | None, seeds: int | None, datasets: str, methods: str
) -> int:
    """Executes the series up to the first notebook that fails; returns 0, or 1 for a failure. Executed copies go to
    `<results>/<profile>/notebooks/`. Raises WrongUse for an unknown notebook or parameter, or a results folder that
    cannot be written, Busy while another process runs this study, and as `open_study`."""
    # Kernels run in the notebooks' folder, so relative paths are made absolute
    if os.environ.get("TMT_RESULTS"):
        os.environ["TMT_RESULTS"] = str(common.results_folder())
    place = Path(data).expanduser().resolve() if data and data != crema.NAME else data or common.data_folder()
    size = {"seeds": seeds or 0, "datasets": datasets, "methods": methods}
    parameters = {"profile": profile, "data": str(place or ""), "device": device} | size
    todo = notebooks(only)
    for path in todo:
        _check_parameters(path, parameters)
    study = _opened(parameters)
    try:
        study.results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"cannot write to {study.results}: {error.strerror}; give --results (RESULTS=) another folder"
        raise WrongUse(text) from None
    print(f"Profile {study.profile.name}, {place or 'synthetic data'}, results in {_short(study.results)}", flush=True)
    before = compare.reference_tables(study.results, {ref.sha256 for ref in study.refs})
    copies, started = study.results / "notebooks", time.monotonic()
    with only_writer(study):
        failure = _execute_all(todo, copies, parameters)
    if failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    print(f"{len(todo)} notebook{'s' * (len(todo) > 1)} in {_clock(started)}\n")
    if any(path.name.startswith("08") for path in todo):
        print(report.read(study.profile.name, brief=True))
        print(report.beside_reported(study) + "\n")
    if before:
        after = {name: text for name, text in compare.tables_in(study.results).items() if name in before}
        before = {name: text for name, text in before.items() if not only or name in after}
        print(compare.summary(*compare.compare(before, after)) + "\n")
    else:
        print("There are no committed tables of this profile and these data to compare with.\n")
    print(f"Tables       {_short(study.results)}/\nFigures      {_short(study.figures)}/")
    print(f"Runs         {_short(common.results_folder() / 'runs')}/")
    print(f"Notebooks    {_short(copies)}/  (executed; open them with: {_lab_command()})")
    if any(path.name.startswith("08") for path in todo):
        print(f"Pages        {_pages(study)}")
    return 0


def _pages(study: Study) -> str:
    """Builds the site of a study beside its tables where the extra `report` is installed; where it is, in words."""
    if not all(map(find_spec, site.PACKAGES)):
        return 'none; they need: pip install -e ".[report]"'
    return f"{_short(site.build(study.profile.name, study.results / 'report'))}  (open it in a browser)"


@contextmanager
def only_writer(study: Study) -> Iterator[None]:
    """Holds the lock on a study's folder, which ends with the process however it ends. Raises Busy, naming the process
    that holds it. Where the system or its disk has no such locks, there is none."""
    path = common.results_folder() / "runs" / f"{study.profile.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            wait = "wait for it, or give --results (RESULTS=) another folder"
            raise Busy(f"{file.read() or 'another process'} writes the tables of {study.results}; {wait}") from None
        except (ImportError, OSError):
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _execute_all(todo: Sequence[Path], copies: Path, parameters: Mapping[str, object]) -> str:
    """Executes notebooks one after another; what went wrong in the first that fails, or nothing."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    with tqdm(todo, unit="notebook", disable=None) as bar:  # None: only on a terminal
        for path in bar:
            bar.set_postfix_str(path.name)
            try:
                execute(path, copies / path.name, parameters)
            except DeadKernelError as error:
                failure = f"the kernel of {path.name} died ({error}); most often memory ran out"
            except PapermillExecutionError as error:
                failure = f"cell {error.exec_count} of {path.name}: {error.ename}: {error.evalue}{_hint(error)}"
            else:
                continue
            return f"{failure}\nThe executed copy, up to that cell, is {copies / path.name}"
    return ""


def _hint(error: Exception) -> str:
    """What can be said of a cell's error: its line in a file of one's own, or that there is no room for results."""
    own = os.environ.get("TMT_OWN")
    if own and (lines := re.findall(rf"{re.escape(Path(own).name)}\W+(?:line )?(\d+)", "\n".join(error.traceback))):
        return f" ({own}, line {lines[-1]})"
    if NO_ROOM.match(str(error.evalue)):
        return f"; results are written to {common.results_folder()}: give --results (RESULTS=) another folder"
    return ""


def _opened(parameters: Mapping[str, object]) -> Study:
    """The study, whose files are read once to say at once what is wrong or odd, on stderr."""
    with warnings.catch_warnings(record=True, action="always") as said:
        study = open_study(**parameters)
        for ref in study.refs:
            if ref.path not in (None, str(crema.PATH)):
                mmsa.read(ref.path, clip_labels=ref.clip_labels)
    for message in dict.fromkeys(str(warning.message) for warning in said if warning.category is UserWarning):
        print(f"tmt: {message}", file=sys.stderr)
    return study


def clean(only: str | None = None) -> int:
    """Re-executes the saved notebooks in place: the reported results from committed tables, figures drawn anew. Each is
    `strip`ped of what changes from run to run."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, TMT_REMAKE="figures"):
        for name in ("TMT_DATA", "TMT_RESULTS", "TMT_OWN", "TMT_CLUSTER", "TMT_CLIP_LABELS"):
            os.environ.pop(name, None)
        for path in tqdm(notebooks(only), unit="notebook", disable=None):
            done = Path(folder) / path.name
            execute(path, done)
            text = nbformat.writes(strip(nbformat.read(done, as_version=4))) + "\n"
            write_atomic(path, lambda file, text=text: file.write(text.encode()))
    return 0


def execute(path: Path, copy: Path, parameters: Mapping[str, object] | None = None) -> None:
    """Executes a notebook in its own folder into a copy, and prints a line: name, ok or FAILED, minutes:seconds, runs
    trained. Raises PapermillExecutionError for a cell that fails."""
    import papermill

    copy.parent.mkdir(parents=True, exist_ok=True)
    quiet = ["--IPKernelApp.log_level=ERROR"]  # else each kernel warns on the terminal that it listens on TCP
    options = {"cwd": str(path.parent), "progress_bar": False, "extra_arguments": quiet}
    begun, records, state = time.monotonic(), common.results_folder() / "runs", "FAILED"
    before = len([*records.glob("*.npz")])
    known = os.pathsep.join(filter(None, (str(common.ROOT), os.environ.get("PYTHONPATH"))))  # tmtlib, uninstalled
    try:
        with patch.dict(os.environ, PYTHONPATH=known):
            papermill.execute_notebook(path, copy, parameters, **options)
        state = "ok"
    finally:
        trained = len([*records.glob("*.npz")]) - before
        tqdm.write(f"{path.name:<32}{state:<8}{_clock(begun):>6}" + (f"  {trained} runs trained" if trained else ""))
        sys.stdout.flush()


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without times, paths, widget states and kernel warnings. Cells that show text or tables alone are
    tagged `CHECKED`: nbval compares what they show."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i:02d}"
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != CHECKED]
        if cell.cell_type == "code":
            noisy = [NOISE in output.get("text", "") or WIDGET in output.get("data", {}) for output in cell.outputs]
            cell.outputs = [output for output, drop in zip(cell.outputs, noisy, strict=True) if not drop]
            drawn = any("image/png" in output.get("data", {}) for output in cell.outputs)
            tags += [CHECKED] if cell.outputs and not drawn and VARIES not in tags else []
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    return notebook


def _check_parameters(path: Path, parameters: Mapping[str, object]) -> None:
    """Raises WrongUse for a parameter that the notebook lacks, of which papermill only warns."""
    import papermill

    unknown = set(parameters) - set(papermill.inspect_notebook(path))
    if unknown:
        raise WrongUse(f"{path.name} has no parameter {', '.join(sorted(unknown))} in its cell tagged `parameters`")


def _clock(begun: float) -> str:
    seconds = time.monotonic() - begun
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _lab_command() -> str:
    """How JupyterLab, whose root is the repository, is started where it shows the executed notebooks."""
    folder = common.results_folder()
    return "make lab" if folder.is_relative_to(common.ROOT) else f"make lab RESULTS={shlex.quote(str(folder))}"


def _short(path: Path) -> str:
    """The path relative to the working folder where it is inside it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
