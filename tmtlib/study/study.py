"""A study: one profile, its data sets and a device."""

import ast
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from itertools import count
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from matplotlib.figure import Figure

from tmtlib import common
from tmtlib.common import as_json, check_choice, digest, pick_device, write_atomic
from tmtlib.data.corruption import REGIMES
from tmtlib.data.loading import load, resolve_all, stated
from tmtlib.data.schema import DataError, DataRef, Dataset
from tmtlib.study import runs
from tmtlib.study.methods import METHODS, family, method_config, methods_from
from tmtlib.study.profiles import PROFILES, REPORTED, Profile, beside, resized, split_names
from tmtlib.study.provenance import as_committed, code_sha256, provenance
from tmtlib.study.runs import Run

# Figure files without dates: equal figures are equal bytes
METADATA = {"pdf": {"CreationDate": None}, "png": {"Software": None}}


@dataclass(frozen=True)
class Study:
    """Made by `open_study`."""

    profile: Profile
    refs: tuple[DataRef, ...]
    device: str

    @property
    def source(self) -> str:
        """Whether the data sets are "synthetic" or "real"; a study never mixes the two."""
        return stated(self.refs[0]).source

    @property
    def results(self) -> Path:
        return common.results_folder(self.profile.name)

    @property
    def figures(self) -> Path:
        return common.figures_folder(self.profile.name)

    def datasets(self) -> Iterator[Dataset]:
        return (load(ref) for ref in self.refs)

    def runs(self, *methods: str, regime: str = "clean", few: bool = False) -> list[Run]:
        """All runs of some methods, or with `few` those of the profile's `few_seeds` (methods that are not among its
        `methods`: `family_seeds`): data set by data set, method by method, seed by seed.

        `regime` "masked" (`corruption.REGIMES`) trains on the first data set with frames missing. 5-class methods run
        on the profile's `five_class`, those of emotions where there are such labels, ablations on the first data set.
        Raises ValueError for an unknown method or regime, DataError where no data set has emotion labels.
        """
        configs = {method: method_config(method, self.profile.model) for method in methods}
        check_choice("regime", regime, tuple(REGIMES))
        refs = self.refs if regime == "clean" else (replace(self.refs[0], training_corruption=REGIMES[regime]),)
        for method in methods:
            if METHODS[method].family == "emotions" and not any(self._suits(method, ref) for ref in self.refs):
                names = ", ".join(ref.name for ref in self.refs)
                raise DataError(f"{method} needs emotion labels, which none of the study's data sets has ({names})")
        pairs = [(ref, method) for ref in refs for method in methods if self._suits(method, ref)]
        p = self.profile
        seeds = {m: p.seeds[: p.few_seeds if few else None if m in p.methods else p.family_seeds] for m in methods}
        return [Run(ref, m, configs[m], p.training, seed) for ref, m in pairs for seed in seeds[m]]

    def _suits(self, method: str, ref: DataRef) -> bool:
        if METHODS[method].family == "emotions":
            return stated(ref).has_emotions
        if METHODS[method].family == "5-class":
            return ref.name in self.profile.five_class
        return method not in self.profile.ablations or ref.clean == self.refs[0]

    @property
    def shows_reported(self) -> bool:
        """Whether this is the reported study, whose committed tables are shown and nothing is trained. TMT_REMAKE asks
        for "all" anew, or for the "figures"."""
        here = self.results == common.ROOT / "results" / REPORTED
        return here and os.environ.get("TMT_REMAKE", "") in ("", "figures")

    def ensure(self, *methods: str, **which) -> pd.DataFrame:
        """`runs.ensure` of the `runs` of some methods (default: all of the profile); of the reported study the rows of
        its `runs.csv`."""
        todo = self.runs(*(methods or self.methods), **which)
        if self.shows_reported:
            rows = read_table(self.results / "runs.csv").set_index("run_id", drop=False)
            if {run.id for run in todo} <= {*rows.index}:
                return rows.loc[[run.id for run in todo]].reset_index(drop=True).dropna(axis=1, how="all")
        return runs.ensure(todo, self.device, self.profile.jobs)

    def trained(self, run: Run) -> Run:
        """The run, trained if it is not."""
        if not runs.record_path(run).exists():
            runs.ensure([run], self.device, self.profile.jobs)
        return run

    def kept(self, name: str, compute: Callable[..., pd.DataFrame], *given, **how) -> pd.DataFrame:
        """The table `name`: what `compute` makes of what is given, saved and read back; lists of runs among it are
        trained first. Of the reported study it is the committed table; with `when=False` the `reported` one."""
        return self.kept_tables((name,), lambda *each: {name: compute(*each)}, *given, **how)[name]

    def kept_tables(
        self,
        names: Sequence[str],
        compute: Callable[..., Mapping[str, pd.DataFrame]],
        *given,
        when: bool = True,
        of_its_data: bool = True,
    ) -> dict[str, pd.DataFrame]:
        """As `kept`, of several tables that are made together, by name."""
        if not when:
            return {name: self.reported(name, of_its_data) for name in names}
        paths = {name: self.results / f"{name}.csv" for name in names}
        if not (self.shows_reported and all(path.is_file() for path in paths.values())):
            todo = [run for some in given if isinstance(some, list) for run in some if isinstance(run, Run)]
            if todo:
                runs.ensure(todo, self.device, self.profile.jobs)
            for name, table in compute(*given).items():
                self.save_table(table, name)
        return {name: read_table(path) for name, path in paths.items()}

    @property
    def methods(self) -> tuple[str, ...]:
        """The profile's methods, the 5-class ones where a data set has them, and its ablations."""
        twins = family("5-class") if any(ref.name in self.profile.five_class for ref in self.refs) else ()
        return tuple(dict.fromkeys((*self.profile.methods, *twins, *self.profile.ablations)))

    def save_table(self, frame: pd.DataFrame, name: str) -> Path:
        """`save_text` of `<name>.csv`, numbers with six digits."""
        return self.save_text(as_csv(frame), f"{name}.csv")

    def table(self, name: str) -> pd.DataFrame:
        """The table of that name which another notebook of this study saved, with the same code, profile and data.
        Empty, and said, where there is none, as in a checkout that has tables but no runs."""
        path = self.results / f"{name}.csv"
        if path.is_file() and (self.shows_reported or self._noted(path) == self._mark(path.read_bytes())):
            return read_table(path)
        print(f"{path.name} was not saved by this study: its profile does without, or run notebooks 02 to 07 first")
        return pd.DataFrame()

    def save_text(self, text: str, name: str) -> Path:
        """Writes `<results>/<profile>/<name>`, as `_save` does."""
        return self._save(text.encode(), self.results / name)

    def _save(self, content: bytes, path: Path) -> Path:
        """Writes a file atomically, and beside the runs a note by which it is known again. A file in its place that
        neither the note nor the last commit knows, as one changed by hand, is kept under another name, which is
        printed."""
        if path.is_file() and path.read_bytes() != content and not self.wrote(path) and not as_committed(path):
            kept = next(p for n in count(1) if not (p := path.with_name(f"{path.name}.kept{n}")).exists())
            path.rename(kept)
            print(f"{path} was changed since this study wrote it, or is not the study's: it is now {kept.name}")
        write_atomic(self._note(path), lambda file: file.write(self._mark(content).encode()))
        write_atomic(path, lambda file: file.write(content))
        return path

    def written(self) -> list[Path]:
        """Tables, pages and figures that this study has notes of."""
        start, folder = f"{self.profile.name}.", common.results_folder() / "runs"
        names = sorted(path.name[len(start) : -len(".txt")] for path in folder.glob(f"{start}*.txt"))
        return [(self.figures if name.endswith((*METADATA,)) else self.results) / name for name in names]

    def _note(self, path: Path) -> Path:
        return common.results_folder() / "runs" / f"{self.profile.name}.{path.name}.txt"

    def _noted(self, path: Path) -> str:
        note = self._note(path)
        return note.read_text(encoding="utf-8") if note.is_file() else ""

    def _mark(self, content: bytes) -> str:
        """SHA-256 of what was written, and of what wrote it."""
        return f"{hashlib.sha256(content).hexdigest()} {digest((self.profile, self.refs, code_sha256()))}"

    def wrote(self, path: Path) -> bool:
        """Whether a file is, byte for byte, what this study last wrote in its place."""
        content = path.read_bytes() if path.is_file() else b""
        return self._noted(path).split()[:1] == self._mark(content).split()[:1]

    def reported(self, name: str, of_its_data: bool = True, profile: str = "") -> pd.DataFrame:
        """Table `name` of a profile (default `REPORTED`; or "real", `benchmarks.real_files`), here or as committed.

        Its column `profile` says which. Empty, and that is said, unless it has this study's data sets (synthetic ones
        of any size) or need not have them.
        """
        profile = profile or REPORTED
        here = (common.results_folder(folder) for folder in (beside(profile, self.refs), profile))
        for folder in (*here, common.ROOT / "results" / profile):
            paths = folder / f"{name}.csv", folder / "provenance.json"
            if all(path.is_file() for path in paths):
                cards = json.loads(paths[1].read_text(encoding="utf-8"))["data"]
                own = (_identity(asdict(data.card)) for data in self.datasets() if of_its_data)
                if {*own} <= {_identity(card) for card in cards}:
                    return read_table(paths[0]).assign(profile=profile)
        print(f"Profile {profile} has no table {name!r} of these data to show here.")
        return pd.DataFrame()

    def show(self, figure: Figure, name: str, alt: str | None = None) -> Figure:
        """Writes a figure as PDF and PNG to `figures/<profile>/` (committed ones stay) and returns it. alt: alternative
        text for pages, in place of the one that the figure's label has."""
        figure.set_label(alt or figure.get_label())
        paths = {kind: self.figures / f"{name}.{kind}" for kind in METADATA}
        if self.shows_reported and not os.environ.get("TMT_REMAKE") and all(map(Path.is_file, paths.values())):
            return figure
        for kind, content in _rendered(figure).items():
            self._save(content, paths[kind])
        return figure

    def provenance(self, rows: pd.DataFrame) -> str:
        """JSON: the profile, the data cards (without paths), what wrote the tables, and the commits, devices and
        versions of PyTorch that trained the runs in `rows`."""
        trained = {f"trained_{key}": sorted(rows[key].unique()) for key in ("commit", "device", "torch")}
        study = {"profile": as_json(self.profile), "data": [asdict(dataset.card) for dataset in self.datasets()]}
        return json.dumps({"written": provenance()} | trained | study, indent=2) + "\n"


def read_table(path: Path) -> pd.DataFrame:
    """A saved table; one without columns is empty."""
    hashes = dict.fromkeys(("commit", "run_id", "data_sha256"), str)  # which may look like numbers
    return pd.read_csv(path, dtype=hashes) if path.stat().st_size > 1 else pd.DataFrame()


def as_csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _identity(card: dict) -> tuple[str, str]:
    """What makes data the same, whatever the size of synthetic ones: name and generator, or name and content."""
    return card["name"], card["origin" if card["source"] == "synthetic" else "sha256"]


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes name.pdf and name.png (300 dpi) to the folder, each atomically; returns their paths."""
    contents = {folder / f"{name}.{kind}": content for kind, content in _rendered(figure).items()}
    for path, content in contents.items():
        write_atomic(path, lambda file, content=content: file.write(content))
    return list(contents)


def _rendered(figure: Figure) -> dict[str, bytes]:
    """A figure as "pdf" and "png"."""
    files = {kind: BytesIO() for kind in METADATA}
    with plt.style.context(common.FIGURE_STYLE, after_reset=True):
        for kind, file in files.items():
            figure.savefig(file, format=kind, metadata=METADATA[kind])
    return {kind: file.getvalue() for kind, file in files.items()}


def check_parameters() -> None:
    """In a notebook that papermill runs, raises ValueError for a parameter that its first cell lacks; papermill only
    warns, and goes on with the defaults."""
    shell = get_ipython()
    cells = shell.user_ns.get("In", ())[1:3] if shell else ()
    if len(cells) < 2 or not cells[1].startswith("# Parameters\n"):  # what papermill puts after the first cell
        return
    nodes = (ast.walk(ast.parse(cell)) for cell in cells)
    known, given = ([n.id for n in some if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)] for some in nodes)
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"the notebook has no parameter {', '.join(unknown)}; it has {', '.join(known)}")


def open_study(
    profile: str = "smoke",
    data: str | Path | None = None,
    device: str = "auto",
    seeds: int | None = None,
    datasets: str | Sequence[str] = (),
    methods: str | Sequence[str] = (),
    own: str | Path | None = None,
) -> Study:
    """The study of a profile, one of `PROFILES`, on the data at hand.

    Args:
        data: a feature file, a folder with the standard files, or "crema"; default: TMT_DATA, else synthetic data.
        device: "auto", "cpu" or "cuda".
        seeds, datasets, methods: as for `resized`; lists may be "mosi,sims".
        own: a Python file whose weightings and models (`methods_from`) are added to `methods`; default: TMT_OWN.

    Raises ValueError for an unknown profile, method, data set or device, FileNotFoundError for data or file not found.
    """
    check_parameters()
    check_choice("profile", profile, tuple(PROFILES))
    pick_device(device)
    mine = methods_from(own) if (own := own or os.environ.get("TMT_OWN")) else ()
    size = resized(PROFILES[profile], seeds or None, split_names(datasets), split_names(methods), mine)
    refs, missing = resolve_all(size.datasets, data=data or None, normalize=size.normalize, sizes=dict(size.synthetic))
    size = replace(size, name=beside(size.name, refs))
    if datasets and {ref.name for ref in refs} - set(size.datasets):
        place = data or common.data_folder()
        raise ValueError(f"datasets is {datasets!r}, but data is the one file {place}; leave one out")
    if profile == "smoke":
        print("smoke: numbers mean nothing; this profile shows that everything runs.\n")
    for message in missing:
        print(f"Left out: {message}\n")
    return Study(size, tuple(refs), device)
