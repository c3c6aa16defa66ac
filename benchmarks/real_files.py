"""Real files: every weighting on each, its weights beside Shapley shares, and emotions where people named them.

    python -m benchmarks.real_files features/*.pkl --seeds 10

Trains on each feature file and on CREMA-D's votes at profile quick, seed by seed. Finished runs are kept, so an
interrupted call goes on where it was, and `--seeds 0` writes the tables alone: to `<results>/real/` those of
`benchmarks.paper_size`, `against_linear.csv`, `coverage.csv` (of prediction intervals), `importance.csv` (weights and
Shapley shares by modality and file, with its figure), `emotions.csv`, `emotions_differences.csv`, `emotions_runs.csv`,
`crema_corrupted.csv` (gates and their controls under P1, P3, P7 and P9; single frames have no P8) and with `--encoder`
`transcripts.csv` (P6).
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from benchmarks import paper_size
from tmtlib import figures
from tmtlib.analysis import coverage, importance, robustness, transcripts, trivial_baselines
from tmtlib.data import crema
from tmtlib.data.loading import load, resolve
from tmtlib.data.schema import Dataset
from tmtlib.stats import emotions
from tmtlib.study import compare, findings, runs
from tmtlib.study.methods import family
from tmtlib.study.profiles import PROFILES
from tmtlib.study.runs import Run
from tmtlib.study.study import Study, open_study

NAME = "real"
METHODS = ("tmt", "tmt_amw", "tmt_uniform", "tmt_random", "tmt_amw_fast", "tmt_gated", "text_only", "late_fusion")
METHODS += ("tmt_reliability",)
MEASURED = ("tmt_amw", "tmt_gated", "tmt_reliability")
GATES = ("tmt", "tmt_reliability", "tmt_reliability_open")
SHOWN = ("weight", "shapley_absent")
COMPARED = (*paper_size.PAIRS, *((m, "tmt") for m in ("tmt_reliability", "text_only", "late_fusion")))
FEW = 5  # seeds, of what is measured in trained models, and of emotions


def real_study(files: Sequence[str | Path], seeds: int, profile: str = "quick", device: str = "auto") -> Study:
    """The study `NAME` of CREMA-D's votes and these files. Raises ValueError for two files of one name,
    FileNotFoundError as `resolve`."""
    study = open_study(profile, crema.NAME, device)
    changes = {"name": NAME, "seeds": tuple(range(seeds)), "few_seeds": FEW, "methods": METHODS}
    refs = (*study.refs, *map(resolve, files))
    if twice := [name for name, n in Counter(ref.name for ref in refs).items() if n > 1]:
        raise ValueError(f"{', '.join(twice)}: more than one file of this name; tables tell files by it, so rename one")
    return replace(study, profile=replace(study.profile, **changes, ablations=(), five_class=()), refs=refs)


def check_room(study: Study) -> None:
    """Raises ValueError where the results folder holds tables of other files, which these would replace."""
    path = study.results / "provenance.json"
    others = compare.data_hashes(path.read_text(encoding="utf-8")) if path.is_file() else set()
    if lost := others - {ref.sha256 for ref in study.refs}:
        raise ValueError(
            f"{study.results} holds tables of {len(lost)} other files; name another folder: --results FOLDER"
        )


def finished(study: Study, *methods: str, few: bool = True) -> list[Run]:
    return [run for run in study.runs(*methods, few=few) if runs.record_path(run).exists()]


def wanted(study: Study, seeds: int) -> list[Run]:
    """All trainings, seed by seed."""
    felt, gates = study.runs(*family("emotions"), few=True), study.runs(GATES[2], few=True)
    more = felt + [run for run in gates if run.data.name == crema.NAME]
    return sorted(paper_size.todo(study, seeds) + [run for run in more if run.seed < seeds], key=lambda run: run.seed)


def write(study: Study, encoder: str = "", jobs: int | None = None) -> None:
    """Tables and figure of the finished runs. Raises ValueError where no run of TMT is, and as `transcripts.sweep`."""
    device, tmt = study.device, finished(study, "tmt", few=False)
    learning = [data for data in study.datasets() if data.ref in {run.data for run in tmt}]
    unlearned = paper_size.write(study, COMPARED, [trivial_baselines.rows(data) for data in learning])
    study.save_table(trivial_baselines.against_linear(tmt), "against_linear")
    study.save_table(coverage.table(tmt), "coverage")
    if todo := finished(study, *MEASURED):
        measured = importance.importance_table(todo, device, jobs, brief=True).drop(columns="truth")
        measured = measured[measured["measure"].isin(SHOWN)]
        measured = measured.assign(learned=~measured["dataset"].isin(unlearned))
        study.save_table(measured, "importance")
        if len(shown := findings.shared(measured)):
            study.show(figures.importance_by_data(shown), "importance")
    felt = finished(study, *family("emotions"))
    whole = Counter((run.data, run.seed) for run in felt)
    felt = [run for run in felt if whole[run.data, run.seed] == len(family("emotions"))]
    if felt:
        rows = pd.DataFrame([runs.row(run) for run in felt])
        named = [data for data in study.datasets() if data.ref in {run.data for run in felt}]
        trivial = [trivial_baselines.emotion_rows(data) for data in named]
        study.save_table(rows, "emotions_runs")
        study.save_table(emotions.table(pd.concat([rows, *trivial], ignore_index=True)), "emotions")
        study.save_table(emotions.differences(rows), "emotions_differences")
    if votes := [run for run in finished(study, *GATES) if run.data.name == crema.NAME]:
        swept = robustness.sweep(votes, robustness.grid(PROFILES["full"]), 1, device, jobs)
        study.save_table(robustness.summary(swept), "crema_corrupted")
    if encoder:
        width = transcripts.open_encoder(encoder, device)(["a word"], 3)[0].shape[2]
        said = [run for run in finished(study, "tmt", "tmt_amw", "text_only") if has_words(load(run.data), width)]
        if not said:
            raise ValueError(f"no finished run's text has a frame a word, {width} wide, as {encoder} makes it")
        swept = transcripts.sweep(said, encoder, PROFILES["full"].missing_rates[::2], 1, device, jobs)
        study.save_table(robustness.summary(swept), "transcripts")


def has_words(data: Dataset, width: int) -> bool:
    """Whether data have transcripts, and a frame a word, of this width."""
    frames, features = data.test.shapes["text"]
    return frames >= 3 and features == width and all(text.strip() for text in data.test.raw_text)


def main(argv: list[str] | None = None) -> None:
    parser = paper_size.options("real_files", __doc__, "quick")
    parser.add_argument("files", nargs="*", help="feature files")
    parser.add_argument("--results", help="folder of runs and tables (default: TMT_RESULTS, else results/)")
    parser.add_argument("--encoder", default="", help="folder of the BERT that made a file's text frame by frame: P6")
    chosen = parser.parse_args(argv)
    os.environ |= {"TMT_RESULTS": chosen.results} if chosen.results else {}
    try:
        if chosen.encoder:
            transcripts.open_encoder(chosen.encoder)
        study = real_study(chosen.files, max(chosen.seeds, 10), chosen.profile, chosen.device)
        check_room(study)
        if todo := wanted(study, chosen.seeds):
            runs.ensure(todo, chosen.device, chosen.jobs or study.profile.jobs)
        write(study, chosen.encoder, chosen.jobs or study.profile.jobs)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    print(f"Tables in {study.results}; not complete: {len(paper_size.not_run(study))} pairs of data set and method")


if __name__ == "__main__":
    main()
