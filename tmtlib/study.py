"""A study: one profile on the data at hand. What a notebook opens first, and asks for everything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from tmtlib import paths, runs
from tmtlib.config import DataRef, Profile, Run, as_json, check_choice
from tmtlib.corruption import REGIMES
from tmtlib.data.loading import load, resolve_all
from tmtlib.data.schema import DataError, Dataset
from tmtlib.profiles import EMOTION_METHODS, FIVE_CLASS, PROFILES, method_config
from tmtlib.training import pick_device


@dataclass(frozen=True)
class Study:
    """A profile, the data sets it runs on, and the device; made by `open_study`."""

    profile: Profile
    refs: tuple[DataRef, ...]
    device: str
    missing: tuple[str, ...] = ()  # what a data folder lacks, a message for each data set

    @property
    def source(self) -> str:
        """What the data say of themselves, "planted" or "real"; a study never mixes the two."""
        return load(self.refs[0]).card.source

    @property
    def results(self) -> Path:
        return paths.results(self.profile.name)

    @property
    def figures(self) -> Path:
        return paths.figures(self.profile.name)

    def datasets(self) -> Iterator[Dataset]:
        """The study's data sets, one at a time; the last three stay in memory."""
        return (load(ref) for ref in self.refs)

    def runs(self, *methods: str, regime: str = "clean") -> list[Run]:
        """All runs of some methods: data set by data set, method by method, seed by seed.

        `regime` "masked" trains on the first data set with frames missing, see `corruption.REGIMES`. A 5-class method
        has runs only on the data sets that the profile names for it, one of emotions only where there are emotion
        labels, an ablation on the first. Raises DataError where no data set has emotion labels.
        """
        model, training = self.profile.model, self.profile.training
        check_choice("regime", regime, tuple(REGIMES))
        refs = self.refs if regime == "clean" else (replace(self.refs[0], training_corruption=REGIMES[regime]),)
        for method in methods:
            if method in EMOTION_METHODS and not any(self._suits(method, ref) for ref in self.refs):
                names = ", ".join(ref.name for ref in self.refs)
                raise DataError(f"{method} needs emotion labels, which none of the study's data sets has ({names})")
        return [
            Run(ref, method, method_config(method, model), training, seed)
            for ref in refs
            for method in methods
            if self._suits(method, ref)
            for seed in self.profile.seeds
        ]

    def _suits(self, method: str, ref: DataRef) -> bool:
        if method in EMOTION_METHODS:
            return load(ref).train.emotion_labels is not None
        if method in FIVE_CLASS:
            return ref.name in self.profile.five_class
        return method not in self.profile.ablations or ref.clean == self.refs[0]

    def ensure(self, *methods: str, regime: str = "clean") -> pd.DataFrame:
        """Trains what is missing of some methods (default: all of the profile) and returns one row a run."""
        return runs.ensure(self.runs(*(methods or self.methods), regime=regime), self.device, self.profile.jobs)

    @property
    def methods(self) -> tuple[str, ...]:
        """The profile's methods, with the 5-class ones where a data set has them, and its ablations."""
        twins = FIVE_CLASS if any(ref.name in self.profile.five_class for ref in self.refs) else ()
        return (*self.profile.methods, *twins, *self.profile.ablations)

    def save_table(self, frame: pd.DataFrame, name: str) -> Path:
        """Writes a table to `<results>/<profile>/<name>.csv`, whole or not at all."""
        return self._write(f"{name}.csv", frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))

    def save_text(self, text: str, name: str) -> Path:
        """Writes text to `<results>/<profile>/<name>`, whole or not at all."""
        return self._write(name, text)

    def save_figure(self, figure, name: str) -> list[Path]:
        """Writes a figure as PDF and PNG to `figures/<profile>/`."""
        from tmtlib import figures

        return figures.save(figure, self.figures, name)

    def _write(self, name: str, text: str) -> Path:
        path = self.results / name
        runs.write_aside(path, lambda file: file.write(text.encode()))
        return path

    def provenance(self, rows: pd.DataFrame) -> str:
        """JSON: the profile, the data (with SHA-256, without any place on this machine), what wrote these tables, and
        the commits, devices and versions of PyTorch that the runs in `rows` were trained with."""
        trained = {f"trained_{key}": sorted(rows[key].unique()) for key in ("commit", "device", "torch")}
        cards = [asdict(dataset.card) for dataset in self.datasets()]
        found = {"written": runs.provenance()} | trained | {"profile": as_json(self.profile), "data": cards}
        return json.dumps(found, indent=2) + "\n"


def open_study(profile: str = "smoke", data: str | Path | None = None, device: str = "auto") -> Study:
    """The study of a profile ("smoke", "quick" or "paper") on the data at hand.

    Args:
        profile: the study's size, see `tmtlib.PROFILES`.
        data: a feature file, or a folder with the standard files; default: TMT_DATA, else planted data.
        device: "auto", "cpu" or "cuda".

    Raises ValueError for an unknown profile or a device that is not there, FileNotFoundError for data not found.
    """
    check_choice("profile", profile, tuple(PROFILES))
    pick_device(device)
    chosen = PROFILES[profile]
    refs, missing = resolve_all(
        chosen.datasets, data=data or None, normalize=chosen.normalize, sizes=dict(chosen.planted)
    )
    for message in missing:
        print(f"Left out: {message}\n")
    return Study(chosen, tuple(refs), device, tuple(missing))
