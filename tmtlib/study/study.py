"""A study: one profile on the data at hand. What a notebook opens first, and asks for everything else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from tmtlib import common
from tmtlib.common import as_json, check_choice, pick_device, write_atomic
from tmtlib.data.corruption import REGIMES
from tmtlib.data.loading import load, resolve_all, stated
from tmtlib.data.schema import DataError, DataRef, Dataset
from tmtlib.study import runs
from tmtlib.study.methods import METHODS, family, method_config
from tmtlib.study.profiles import PROFILES, Profile, resized, split_names
from tmtlib.study.provenance import provenance
from tmtlib.study.runs import Run

# No dates in figure files: the same figure, the same bytes
METADATA = {"pdf": {"CreationDate": None}, "png": {"Software": None}}


@dataclass(frozen=True)
class Study:
    """A profile, the data sets it runs on, and the device; made by `open_study`."""

    profile: Profile
    refs: tuple[DataRef, ...]
    device: str
    missing: tuple[str, ...] = ()  # what a data folder lacks, a message for each data set

    @property
    def source(self) -> str:
        """What the data say of themselves, "synthetic" or "real"; a study never mixes the two."""
        return stated(self.refs[0]).source

    @property
    def results(self) -> Path:
        return common.results_folder(self.profile.name)

    @property
    def figures(self) -> Path:
        return common.figures_folder(self.profile.name)

    def datasets(self) -> Iterator[Dataset]:
        """The study's data sets, one at a time; the last three stay in memory."""
        return (load(ref) for ref in self.refs)

    def runs(self, *methods: str, regime: str = "clean") -> list[Run]:
        """All runs of some methods: data set by data set, method by method, seed by seed.

        `regime` "masked" trains on the first data set with frames missing, see `corruption.REGIMES`. A 5-class method
        has runs only on the data sets that the profile names for it, one of emotions only where there are emotion
        labels, an ablation on the first. Raises ValueError for an unknown method, DataError where no data set has
        emotion labels.
        """
        configs = {method: method_config(method, self.profile.model) for method in methods}
        check_choice("regime", regime, tuple(REGIMES))
        refs = self.refs if regime == "clean" else (replace(self.refs[0], training_corruption=REGIMES[regime]),)
        for method in methods:
            if METHODS[method].family == "emotions" and not any(self._suits(method, ref) for ref in self.refs):
                names = ", ".join(ref.name for ref in self.refs)
                raise DataError(f"{method} needs emotion labels, which none of the study's data sets has ({names})")
        return [
            Run(ref, method, configs[method], self.profile.training, seed)
            for ref in refs
            for method in methods
            if self._suits(method, ref)
            for seed in self.profile.seeds
        ]

    def _suits(self, method: str, ref: DataRef) -> bool:
        if METHODS[method].family == "emotions":
            return stated(ref).has_emotions
        if METHODS[method].family == "5-class":
            return ref.name in self.profile.five_class
        return method not in self.profile.ablations or ref.clean == self.refs[0]

    def ensure(self, *methods: str, regime: str = "clean") -> pd.DataFrame:
        """Trains what is missing of some methods (default: all of the profile) and returns one row a run."""
        return runs.ensure(self.runs(*(methods or self.methods), regime=regime), self.device, self.profile.jobs)

    @property
    def methods(self) -> tuple[str, ...]:
        """The profile's methods, with the 5-class ones where a data set has them, and its ablations."""
        twins = family("5-class") if any(ref.name in self.profile.five_class for ref in self.refs) else ()
        return (*self.profile.methods, *twins, *self.profile.ablations)

    def save_table(self, frame: pd.DataFrame, name: str) -> Path:
        """Writes a table to `<results>/<profile>/<name>.csv`, whole or not at all."""
        return self._write(f"{name}.csv", frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))

    def save_text(self, text: str, name: str) -> Path:
        """Writes text to `<results>/<profile>/<name>`, whole or not at all."""
        return self._write(name, text)

    def show(self, figure: Figure, name: str) -> Figure:
        """Writes a figure as PDF and PNG to `figures/<profile>/` and returns it, for the notebook cell to display."""
        save_figure(figure, self.figures, name)
        return figure

    def _write(self, name: str, text: str) -> Path:
        path = self.results / name
        write_atomic(path, lambda file: file.write(text.encode()))
        return path

    def provenance(self, rows: pd.DataFrame) -> str:
        """JSON: the profile, the data (with SHA-256, without any place on this machine), what wrote these tables, and
        the commits, devices and versions of PyTorch that the runs in `rows` were trained with."""
        trained = {f"trained_{key}": sorted(rows[key].unique()) for key in ("commit", "device", "torch")}
        cards = [asdict(dataset.card) for dataset in self.datasets()]
        whole = {"written": provenance()} | trained | {"profile": as_json(self.profile), "data": cards}
        return json.dumps(whole, indent=2) + "\n"


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes name.pdf and name.png (300 dpi) to the folder, whole or not at all; returns their paths."""
    paths = [folder / f"{name}.{suffix}" for suffix in METADATA]
    for path, metadata in zip(paths, METADATA.values(), strict=True):
        with plt.style.context(common.FIGURE_STYLE, after_reset=True):
            write_atomic(path, lambda file, p=path, m=metadata: figure.savefig(file, format=p.suffix[1:], metadata=m))
    return paths


def open_study(
    profile: str = "smoke",
    data: str | Path | None = None,
    device: str = "auto",
    seeds: int | None = None,
    datasets: str | Sequence[str] = (),
    methods: str | Sequence[str] = (),
) -> Study:
    """The study of a profile ("smoke", "quick", "full" or "paper") on the data at hand.

    Args:
        profile: the study's size, see `tmtlib.PROFILES`.
        data: a feature file, or a folder with the standard files; default: TMT_DATA, else synthetic data.
        device: "auto", "cpu" or "cuda".
        seeds, datasets, methods: other than the profile's, see `profiles.resized`; lists may be "mosi,sims".

    Raises ValueError for an unknown profile, method or data set, or a device that is not there, FileNotFoundError for
    data not found.
    """
    check_choice("profile", profile, tuple(PROFILES))
    pick_device(device)
    chosen = resized(PROFILES[profile], seeds or None, split_names(datasets), split_names(methods))
    refs, missing = resolve_all(
        chosen.datasets, data=data or None, normalize=chosen.normalize, sizes=dict(chosen.synthetic)
    )
    for message in missing:
        print(f"Left out: {message}\n")
    return Study(chosen, tuple(refs), device, tuple(missing))
