"""A study: one profile, its data sets and a device."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from tmtlib import common
from tmtlib.common import as_json, check_choice, digest, pick_device, write_atomic
from tmtlib.data.corruption import REGIMES
from tmtlib.data.loading import load, resolve_all, stated
from tmtlib.data.schema import DataError, DataRef, Dataset
from tmtlib.study import runs
from tmtlib.study.methods import METHODS, family, method_config, methods_from
from tmtlib.study.profiles import PROFILES, REPORTED, Profile, resized, split_names
from tmtlib.study.provenance import code_sha256, provenance
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

    def ensure(self, *methods: str, **which) -> pd.DataFrame:
        """`runs.ensure` of the `runs` of some methods (default: all of the profile)."""
        return runs.ensure(self.runs(*(methods or self.methods), **which), self.device, self.profile.jobs)

    @property
    def methods(self) -> tuple[str, ...]:
        """The profile's methods, the 5-class ones where a data set has them, and its ablations."""
        twins = family("5-class") if any(ref.name in self.profile.five_class for ref in self.refs) else ()
        return tuple(dict.fromkeys((*self.profile.methods, *twins, *self.profile.ablations)))

    def save_table(self, frame: pd.DataFrame, name: str) -> Path:
        """Writes `<results>/<profile>/<name>.csv` atomically, numbers with six digits, and beside the runs a note by
        which `table` knows it again."""
        text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomic(self._note(name), lambda file: file.write(self._origin(text).encode()))
        return self.save_text(text, f"{name}.csv")

    def table(self, name: str) -> pd.DataFrame:
        """The table of that name which another notebook of this study saved, with the same code, profile and data.
        Empty, and said, where there is none, as in a checkout that has tables but no runs."""
        path, note = self.results / f"{name}.csv", self._note(name)
        if path.is_file() and note.is_file():
            if note.read_text(encoding="utf-8") == self._origin(path.read_bytes().decode()):
                return pd.read_csv(path)
        print(f"{path.name} was not saved by this study: its profile does without, or run notebooks 02 to 05 first")
        return pd.DataFrame()

    def _note(self, name: str) -> Path:
        return common.results_folder() / "runs" / f"{self.profile.name}.{name}.txt"

    def _origin(self, text: str) -> str:
        return digest((text, self.profile, self.refs, code_sha256()))

    def save_text(self, text: str, name: str) -> Path:
        """Writes `<results>/<profile>/<name>` atomically."""
        path = self.results / name
        write_atomic(path, lambda file: file.write(text.encode()))
        return path

    def reported(self, name: str, of_its_data: bool = True, profile: str = "") -> pd.DataFrame:
        """Table `name` of a profile (default `REPORTED`; or "real", `benchmarks.real_files`), here or as committed.

        Its column `profile` says which. Empty, and that is said, unless it has this study's data sets (synthetic ones
        of any size) or need not have them.
        """
        profile = profile or REPORTED
        for folder in (common.results_folder(profile), common.ROOT / "results" / profile):
            paths = folder / f"{name}.csv", folder / "provenance.json"
            if all(path.is_file() for path in paths):
                cards = json.loads(paths[1].read_text(encoding="utf-8"))["data"]
                own = (_identity(asdict(data.card)) for data in self.datasets() if of_its_data)
                if {*own} <= {_identity(card) for card in cards}:
                    return pd.read_csv(paths[0]).assign(profile=profile)
        print(f"Profile {profile} has no table {name!r} of these data to show here.")
        return pd.DataFrame()

    def show(self, figure: Figure, name: str, alt: str | None = None) -> Figure:
        """Writes a figure as PDF and PNG to `figures/<profile>/` and returns it. alt: alternative text for pages, in
        place of the one that the figure's label has."""
        figure.set_label(alt or figure.get_label())
        save_figure(figure, self.figures, name)
        return figure

    def provenance(self, rows: pd.DataFrame) -> str:
        """JSON: the profile, the data cards (without paths), what wrote the tables, and the commits, devices and
        versions of PyTorch that trained the runs in `rows`."""
        trained = {f"trained_{key}": sorted(rows[key].unique()) for key in ("commit", "device", "torch")}
        study = {"profile": as_json(self.profile), "data": [asdict(dataset.card) for dataset in self.datasets()]}
        return json.dumps({"written": provenance()} | trained | study, indent=2) + "\n"


def _identity(card: dict) -> tuple[str, str]:
    """What makes data the same, whatever the size of synthetic ones: name and generator, or name and content."""
    return card["name"], card["origin" if card["source"] == "synthetic" else "sha256"]


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes name.pdf and name.png (300 dpi) to the folder, each atomically; returns their paths."""
    paths = {suffix: folder / f"{name}.{suffix}" for suffix in METADATA}
    with plt.style.context(common.FIGURE_STYLE, after_reset=True):
        for kind, path in paths.items():
            write_atomic(path, lambda file, kind=kind: figure.savefig(file, format=kind, metadata=METADATA[kind]))
    return list(paths.values())


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
    check_choice("profile", profile, tuple(PROFILES))
    pick_device(device)
    mine = methods_from(own) if (own := own or os.environ.get("TMT_OWN")) else ()
    size = resized(PROFILES[profile], seeds or None, split_names(datasets), split_names(methods), mine)
    refs, missing = resolve_all(size.datasets, data=data or None, normalize=size.normalize, sizes=dict(size.synthetic))
    if datasets and {ref.name for ref in refs} - set(size.datasets):
        place = data or common.data_folder()
        raise ValueError(f"datasets is {datasets!r}, but data is the one file {place}; leave one out")
    if profile == "smoke":
        print("Profile smoke shows that everything runs. Its numbers mean nothing.\n")
    for message in missing:
        print(f"Left out: {message}\n")
    return Study(size, tuple(refs), device)
