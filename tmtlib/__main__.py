"""The command line `tmt` (`python -m tmtlib`). Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted."""

import argparse
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PROFILES = ("smoke", "quick", "full", "paper")  # those of `study.profiles`, whose import would load torch for --help
Commands = argparse._SubParsersAction
# What needs a package that is not always installed, and the extra that has it
NEEDED = dict.fromkeys(("av", "cv2", "h5py", "librosa"), ("what reads clips and .csd", "features"))
NEEDED |= {"distributed": ("--cluster", "cluster")}
NEEDED |= dict.fromkeys(("altair", "vl_convert"), ("--explorer", "report"))
NEEDED |= dict.fromkeys(("sphinx", "myst_nb", "sphinx_book_theme", "latex2mathml"), ("--site", "report"))
# Options of several commands
DEVICE = {"choices": ("auto", "cpu", "cuda"), "default": "auto"}
CLIP = {"action": "store_true", "help": "clip labels of files to the range of their metric family"}
OWN = {"metavar": "PY", "help": "file of your own weightings or models; it is run with your rights"}
ONLY = {"metavar": "02,03", "help": "only the notebooks with these numbers"}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code. Whatever it raises becomes one message on stderr, with `--debug`
    after the traceback."""
    options = _parser().parse_args(arguments)
    if getattr(options, "results", None):
        os.environ["TMT_RESULTS"] = options.results
    elif options.command in (_report, _check_results) and not getattr(options, "readme", False):
        _prefer_own(options.profile)
    if getattr(options, "clip_labels", False):
        os.environ["TMT_CLIP_LABELS"] = "1"
    try:
        code = options.command(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\ntmt: stopped. Finished runs are kept; the same command goes on from here.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of `tmt report | head` has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        print(f"tmt: {_told(error, options)}", file=sys.stderr)
        return getattr(error, "exit_code", 1)


def _prefer_own(profile: str) -> None:
    """Where `tmt run` has written a study of that profile to study/, it is meant, and that is said."""
    from tmtlib import common

    if not os.environ.get("TMT_RESULTS") and any((common.ROOT / "study").glob(f"{profile}*/report.md")):
        os.environ["TMT_RESULTS"] = str(common.ROOT / "study")
        print("tmt: of your own study, in study/ (--results results: of what is committed)", file=sys.stderr)


def _told(error: Exception, options: argparse.Namespace) -> str:
    """An error in words: where in a file of one's own, where there is no room, or, of an error of tmtlib's own, how to
    see more."""
    kind, text = type(error).__name__, " ".join(str(getattr(error, "msg", error)).split())
    own = os.path.abspath(os.path.expanduser(getattr(options, "own", None) or os.environ.get("TMT_OWN") or ""))
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    if lines := [line for path, line in places if os.path.abspath(path) == own]:
        return f"{own}, line {lines[-1]}: {kind}: {text}"
    if number := re.search(r"\(os error (\d+)\)", str(error)):  # as safetensors tells it
        error = OSError(int(number[1]), os.strerror(int(number[1])))
    if isinstance(error, OSError) and error.errno:
        return _no_room(error, options)
    if isinstance(error, (ValueError, OSError)):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (extra := NEEDED.get((error.name or "").split(".")[0])):
        return f'no package {error.name}; {extra[0]} needs: pip install -e ".[{extra[1]}]"'
    return f"{kind}: {text} (this is not foreseen: --debug shows where)"


def _no_room(error: OSError, options: argparse.Namespace) -> str:
    """An error of the system, with the option that names another place where it is about what a command writes."""
    from tmtlib import common

    option = next((name for name in ("out", "json", "results") if hasattr(options, name)), "")
    given = getattr(options, option, None) if option in ("out", "json") else None
    place = os.path.abspath(os.path.expanduser(given or common.results_folder()))
    named = os.path.abspath(error.filename or place)
    near = os.path.commonpath([named, place]) in (named, place)  # the place, in it, or a folder above it
    related = error.filename and error.errno != errno.ENOENT and near
    if error.errno in FULL or related:
        advice = f"; give --{option} another {'folder' if option == 'results' else 'place'}" if option else ""
        return f"cannot write to {named}: {error.strerror}{advice}"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tmt", description="A reproducible study of AMW in TMT.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_study, _add_features, _add_models, _add_data, _add_upkeep):
        add(commands)
    for command in _ends(commands):
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser


def _ends(commands: Commands) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands, and of the commands of a group such as `tmt data`."""
    for parser in commands.choices.values():
        below = [action for action in parser._actions if isinstance(action, Commands)]
        yield from _ends(below[0]) if below else (parser,)


def _add_study(commands: Commands) -> None:
    size = argparse.ArgumentParser(add_help=False)
    size.add_argument(
        "--data", metavar="X", help="feature file, folder of standard files, or crema (default: TMT_DATA)"
    )
    size.add_argument("--clip-labels", **CLIP)
    size.add_argument("--profile", choices=PROFILES, default="quick", help="size of the study (default: quick)")
    size.add_argument("--seeds", type=_seeds, metavar="N", help="train with N seeds (default: as the profile says)")
    size.add_argument("--datasets", default="", metavar="mosi,sims", help="only these data sets of the profile")
    size.add_argument("--methods", default="", metavar="a,b|all", help="these methods beside the main ones, everywhere")
    size.add_argument(
        "--results",
        metavar="FOLDER",
        help="where results lie (default: TMT_RESULTS; else of `run` study/, or results/)",
    )

    text = "Executes the notebook series into study/ and compares its tables with the committed ones. Results of other "
    text += "data, seeds or methods than the profile's go to a folder of their own, such as study/quick_10seeds."
    run = commands.add_parser("run", parents=[size], help="execute the notebook series", description=text)
    run.add_argument("--only", **ONLY)
    run.add_argument("--device", **DEVICE)
    run.add_argument("--own", **OWN)
    run.add_argument(
        "--cluster", metavar="TCP://HOST:PORT", help="train on this dask scheduler's workers (default: TMT_CLUSTER)"
    )
    run.set_defaults(command=_run)

    report = commands.add_parser("report", parents=[size], help="print the report of a finished study")
    text = "instead, write weights, Shapley values and truth by utterance as one page to be looked through"
    instead = report.add_mutually_exclusive_group()
    instead.add_argument("--readme", action="store_true", help="instead, put the committed results into the README")
    instead.add_argument("--site", metavar="FOLDER", help="instead, build pages that a browser shows offline")
    instead.add_argument("--latex", action="store_true", help="instead, print Table 1 for LaTeX (booktabs)")
    instead.add_argument("--explorer", metavar="HTML", help=text)
    report.set_defaults(command=_report)

    text = (
        "Checks hashes of records and parameters, scores predictions anew, makes tables and pages again and compares. "
    )
    text += "Trains nothing; a folder without records is checked as far as its tables go. Exit code 1 for a difference."
    check = commands.add_parser(
        "check", parents=[size], help="check a results folder against its records", description=text
    )
    check.set_defaults(command=_check_results)


def _add_features(commands: Commands) -> None:
    text = "Sound, faces and words of a table of clips (columns id, path, transcript; split and label for training) as "
    text += "a feature file. Goes on where it was interrupted; clips that fail are named and left out."
    features = commands.add_parser("features", help="turn clips into a feature file", description=text)
    features.add_argument("table", metavar="TABLE", help="CSV file, a row a clip")
    features.add_argument("--out", required=True, metavar="FILE", help="the feature file, such as features.pkl")
    features.add_argument("--text", metavar="ENCODER", help="folder of a BERT, or .npz of word vectors")
    features.add_argument("--vision", metavar="FOLDER", help="folder of an image model (such as a ViT); default: HOG")
    features.add_argument("--family", choices=("mosi", "sims"), help="label range -3..3 or -1..1 (default: by labels)")
    features.add_argument("--jobs", type=int, default=1, metavar="N", help="clips at a time (default: 1)")
    features.add_argument("--device", **DEVICE)
    features.set_defaults(command=_features)


def _add_models(commands: Commands) -> None:
    text = "Trains one model and saves it with all that its use needs: parameters, scaler, validation errors, card."
    train = commands.add_parser("train", help="train a model on a feature file and save it", description=text)
    train.add_argument("file", metavar="FILE", help="feature file with the splits train, valid and test")
    train.add_argument("--method", default="tmt_amw", metavar="NAME", help="one of tmt methods (default: tmt_amw)")
    train.add_argument("--out", required=True, metavar="MODEL", help="a new folder")
    train.add_argument("--profile", choices=PROFILES, default="quick", help="its size and protocol (default: quick)")
    train.add_argument("--seed", type=_seed, default=0, metavar="N")
    train.set_defaults(command=_train)

    text = "Predictions with intervals, weights and Shapley values of each utterance; labels are not needed."
    predict = commands.add_parser("predict", help="apply a saved model to a feature file", description=text)
    predict.add_argument("model", metavar="MODEL", help="folder that tmt train wrote")
    predict.add_argument("file", metavar="FILE", help="feature file, with or without splits and labels")
    predict.add_argument("--out", required=True, metavar="CSV", help="one row an utterance")
    predict.add_argument("--level", type=float, default=0.9, help="probability of the intervals (default: 0.9)")
    predict.add_argument("--no-shapley", action="store_true", help="leave out Shapley values: an eighth of the time")
    predict.set_defaults(command=_predict)
    for command in (train, predict):
        command.add_argument("--clip-labels", **CLIP)
        command.add_argument("--device", **DEVICE)
        command.add_argument("--own", **OWN)
    commands.add_parser("methods", help="list name and title of every method").set_defaults(command=_methods)


def _add_data(commands: Commands) -> None:
    data = commands.add_parser("data", help="look at feature files").add_subparsers(required=True, metavar="COMMAND")
    text = "Prints the card, tables and oddities of each file. Exit code 1 when one is refused."
    check = data.add_parser("check", help="check feature files and print what is in them", description=text)
    check.add_argument("files", nargs="+", metavar="FILE")
    check.add_argument("--clip-labels", **CLIP)
    check.set_defaults(command=_check)

    text = "Joins the computational sequences of a CMU-MultimodalSDK data set by words into a feature file."
    join = data.add_parser("join", help="make a feature file of .csd files", description=text)
    for name in ("words", "text", "audio", "vision", "labels"):
        join.add_argument(name, metavar=f"{name.upper()}.csd")
    join.add_argument("--splits", required=True, metavar="FILE.csv", help="columns id (segment or video) and split")
    join.add_argument("--out", required=True, metavar="FILE.pkl", help="where the feature file is written")
    join.set_defaults(command=_join)


def _add_upkeep(commands: Commands) -> None:
    text = "Compares two folders' CSV files row by row. Exit code 1 when they differ."
    compare = commands.add_parser("compare", help="compare the tables of two results folders", description=text)
    compare.add_argument("before", metavar="FOLDER_A")
    compare.add_argument("after", metavar="FOLDER_B")
    compare.set_defaults(command=_compare)

    text = "Re-executes the notebooks in place, with the reported results, and strips what changes from run to run."
    clean = commands.add_parser("clean", help="re-execute the saved notebooks", description=text)
    clean.add_argument("--only", **ONLY)
    clean.set_defaults(command=_clean)

    text = "Measures training, inference, scaling and start-up; ratios are of what runs in turn here."
    bench = commands.add_parser("bench", help="measure speed against a plain implementation", description=text)
    bench.add_argument("--quick", action="store_true", help="fewer cases and rounds: about a minute")
    bench.add_argument("--json", metavar="FILE", help="write what was measured to this file")
    bench.add_argument("--device", **DEVICE)
    bench.add_argument("--readme", action="store_true", help="instead, put the committed measurements into their page")
    bench.set_defaults(command=_bench)

    text = "What this machine has, which data are found, what will run and about how long. Exit code 1 where something "
    text += "that tmt run needs is missing."
    doctor = commands.add_parser("doctor", help="say what this machine has and what will run", description=text)
    doctor.add_argument("--data", metavar="X", help="feature file, folder or crema, as of tmt run (default: TMT_DATA)")
    doctor.add_argument("--results", metavar="FOLDER", help="where results lie (default: TMT_RESULTS, else results/)")
    doctor.set_defaults(command=_doctor)


def _seed(text: str) -> int:
    if not text.isdigit() or int(text) >= 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; wanted 0, 1, 2, ...")
    return int(text)


def _seeds(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seeds; wanted at least 1")
    return int(text)


def _say_own(path: str) -> None:
    print(f"tmt: running {path} with your rights: it can do all that you can", file=sys.stderr)


def _run(o: argparse.Namespace) -> int:
    from tmtlib import common
    from tmtlib.study import cluster, notebooks

    if o.own:  # kernels inherit it
        os.environ["TMT_OWN"] = os.path.abspath(os.path.expanduser(o.own))
    if address := o.cluster or os.environ.get("TMT_CLUSTER"):
        os.environ["TMT_CLUSTER"] = address
        cluster.connected(address).close()  # a wrong one is said at once, not by the first training
    if own := os.environ.get("TMT_OWN"):
        _say_own(own)
    os.environ.setdefault("TMT_RESULTS", str(common.ROOT / "study"))  # committed results are not written over
    return notebooks.run(o.profile, o.data, o.device, o.only, o.seeds, o.datasets, o.methods)


def _check_out(out: str, *inputs: str) -> None:
    """Raises ValueError where a command would write over what it reads."""
    for path in inputs:
        if os.path.realpath(os.path.expanduser(out)) == os.path.realpath(os.path.expanduser(path)):
            raise ValueError(f"--out is {out}, which is read; name another file")


def _features(o: argparse.Namespace) -> int:
    from tmtlib.media import clips

    _check_out(o.out, o.table)
    how = clips.Extractors(o.text or clips.installed_encoder(), o.vision, o.device)
    done = clips.extract(o.table, o.out, how, o.family, o.jobs)
    print("\n".join(f"- {note}" for note in done.notes))
    for clip, reason in done.failed.items():
        print(f"tmt: left out {clip}: {reason}", file=sys.stderr)
    shapes = ", ".join(f"{m} {shape}" for m, shape in done.shapes.items())
    left_out = f"; {len(done.failed)} left out, see {o.out}.failed.csv" if done.failed else ""
    print(f"{done.clips} clips in {o.out}: {shapes}{left_out}")
    return 0


def _use_own(path: str | None) -> None:
    """Adds the weightings and models of a file of the user's own, if there is one."""
    from tmtlib.study.methods import methods_from

    if path:
        _say_own(path)
        methods_from(path)


def _train(o: argparse.Namespace) -> int:
    from tmtlib.study import saved

    _use_own(o.own)
    print(saved.train_model(o.file, o.method, o.out, o.profile, o.seed, o.device).summary())
    own = f" --own {o.own}" * bool(o.own)
    print(f"\nThe model is in {o.out}; apply it: tmt predict {o.out} FILE --out predictions.csv{own}")
    return 0


def _predict(o: argparse.Namespace) -> int:
    from pathlib import Path

    from tmtlib.analysis.prediction import predict_file
    from tmtlib.study.saved import open_model

    _use_own(o.own)
    _check_out(o.out, o.file)
    done = predict_file(open_model(o.model), o.file, o.level, not o.no_shapley, o.device)
    done.write(Path(o.out))
    print(f"{done.summary(o.level)}\n{len(done.table)} utterances in {o.out}")
    return 0


def _methods(_: argparse.Namespace) -> int:
    from tmtlib.study.methods import METHODS

    print("\n".join(f"{name:<25} {method.title}" for name, method in METHODS.items()))
    return 0


def _check(options: argparse.Namespace) -> int:
    from tmtlib.data.check import report

    refused = 0
    for path in options.files:
        try:
            print(report(path, options.clip_labels), end="\n\n")
        except (ValueError, OSError) as error:
            print(f"tmt: refused: {error}", file=sys.stderr)
            refused += 1
    return 1 if refused else 0


def _join(o: argparse.Namespace) -> int:
    from pathlib import Path

    from tmtlib.data.check import describe
    from tmtlib.data.mmsa import write_mmsa
    from tmtlib.media.csd_join import aligned

    _check_out(o.out, o.words, o.text, o.audio, o.vision, o.labels, o.splits)
    dataset = aligned(*map(Path, (o.words, o.text, o.audio, o.vision, o.labels, o.splits)))
    write_mmsa(dataset, o.out)
    print(f"{describe(dataset)}\n\nWritten to {o.out}")
    return 0


def _report(o: argparse.Namespace) -> int:
    from tmtlib.data.loading import resolve_all
    from tmtlib.study import report
    from tmtlib.study.profiles import PROFILES, beside, resized, split_names

    if o.readme:
        report.update_readme()
    else:
        size = resized(PROFILES[o.profile], o.seeds, split_names(o.datasets), split_names(o.methods))
        sizes = {"normalize": size.normalize, "sizes": dict(size.synthetic)}
        refs, _ = resolve_all(size.datasets, data=o.data, **sizes)
        print(_wanted_report(o, beside(size.name, refs)))
    return 0


def _wanted_report(o: argparse.Namespace, profile: str) -> str:
    from pathlib import Path

    import pandas as pd

    from tmtlib import common
    from tmtlib.study import report, site, tables

    explorer = common.results_folder(profile) / "explorer.csv"
    for given, wrong in ((o.explorer, Path.is_dir), (o.site, Path.is_file)):
        if given and wrong(Path(given).expanduser()):
            raise ValueError(f"{given} is a {'file' if given == o.site else 'folder'}; name another place")
    if o.explorer:
        page = _explorer(explorer).encode()
        common.write_atomic(Path(o.explorer).expanduser(), lambda file: file.write(page))
        return f"{o.explorer}: {len(page) / 1e6:.1f} MB, made from {explorer}"
    if o.site:
        page = _explorer(explorer) if explorer.is_file() else None
        return f"Open {site.build(profile, Path(o.site).expanduser().resolve(), page)} in a browser"
    if o.latex:
        return tables.latex(pd.read_csv(report.found(profile).with_name("table1.csv")))
    return report.read(profile)


def _explorer(path) -> str:
    """The explorer of a table. Raises FileNotFoundError where there is none."""
    import pandas as pd

    from tmtlib.figures.explorer import explorer

    if not path.is_file():
        raise FileNotFoundError(f"no table {path}; wanted that of tmtlib.analysis.explorer.table: try --profile full")
    return explorer(pd.read_csv(path))


def _check_results(o: argparse.Namespace) -> int:
    import pandas as pd

    from tmtlib.analysis import recheck
    from tmtlib.study.study import open_study

    study = open_study(o.profile, o.data, "cpu", o.seeds, o.datasets, o.methods)
    differences, unchecked = recheck.check(study)
    print(*(f"not checked: {line}" for line in unchecked), sep="\n")
    if differences:
        print("\n" + pd.DataFrame(differences).map(lambda cell: f"{cell:.60}").to_markdown(index=False) + "\n")
    print(f"{study.results}: {len(differences) or 'no'} differences")
    return 1 if differences else 0


def _compare(options: argparse.Namespace) -> int:
    from pathlib import Path

    from tmtlib.study import compare

    before, after = (compare.read_tables(Path(folder)) for folder in (options.before, options.after))
    differences, equal = compare.compare(before, after)
    print(compare.summary(differences, equal, options.before))
    return 1 if differences else 0


def _bench(options: argparse.Namespace) -> int:
    from tmtlib import common

    sys.path.insert(0, str(common.ROOT))  # benchmarks/ is outside the package
    from benchmarks import report, tables

    if options.readme:
        tables.update_readme()
    else:
        report.run(options.quick, options.device, options.json)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from tmtlib.study import doctor

    return doctor.examine(options.data)


def _clean(options: argparse.Namespace) -> int:
    from tmtlib.study import notebooks

    return notebooks.clean(options.only)


if __name__ == "__main__":
    sys.exit(main())
