"""Would a test fail if the library were wrong? Faults are put, one at a time, into a copy of it.

python tests/mutants.py          every fault, some ten minutes on two free cores, into the table of tests/README.md
python tests/mutants.py corrupt  those with this in the name of a file, a test or the fault
"""

import multiprocessing
import os
import shlex
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "tests" / "README.md"
BEGIN, END = "<!-- begin mutants -->\n", "<!-- end mutants -->\n"
LONGEST = 300  # seconds; a fault that hangs is found
METRICS = "tests/stats/test_metrics.py"
STATISTICS = "tests/stats/test_statistics.py -k 'not nominal and not predicted_power and not covers'"
CORRUPT = "tests/data/test_corrupt.py"
VERDICTS = "tests/paper/test_verdicts.py -k 'not measured_noise and not blocks'"
PICKLE = "tests/data/test_safe_pickle.py"
RUNS = "tests/study/test_runs.py -k 'not processes and not killed'"
RECORDS = "tests/study/test_records.py -k 'another_run or logits or three_values or lost or set_aside or diverges'"
FIT = "tests/training/test_fit.py -k "
# Lines of `runs.save`
PARAMETERS = "    write_atomic(parameters_path(run), lambda file: file.write(parameters))\n"
COSTS = "    costs = {name: getattr(done, name) for name in OF_FIT} | "
COSTS += '{"parameters_sha256": sha256(parameters).hexdigest()}\n'
RECORD = "    _write(run, data, device, costs, arrays)\n"

SLOW_TO_IMPORT = ["pytest", "torch", "pandas", "scipy.stats", "sklearn.metrics", "hypothesis"]


class Mutant(NamedTuple):
    file: str  # in tmtlib
    tests: str  # arguments of pytest
    old: str  # is there once
    new: str


FAULTS = {
    ("stats/metrics.py", METRICS): [
        ('side="left"', 'side="right"'),
        ("classes = value >= 0", "classes = value > 0"),
        ("np.clip(np.nan_to_num(value), -limit, limit)", "np.nan_to_num(value)"),
        ("p, t = np.clip(p, -1, 1), np.clip(t, -1, 1)", "t = np.clip(t, -1, 1)"),
        ("_mark_nan(p > 0, p)", "_mark_nan(p >= 0, p)"),
        ("else _agreement(t, p)[1]", "else _agreement(p, t)[1]"),
        ('f1_score(t, p, average="weighted"', 'f1_score(p, t, average="weighted"'),
        ("np.where(np.isnan(value), -1, classes)", "np.where(np.isnan(value), 0, classes)"),
        ("family))) <= 3", "family))) < 3"),
        ("np.abs(p - t).mean(dtype=np.float64)", "np.sqrt(((p - t) ** 2).mean(dtype=np.float64))"),
    ],
    ("data/corrupt.py", CORRUPT): [
        ("10 ** (-snr_db / 20)", "10 ** (-snr_db / 10)"),
        ("strength * scale[m] * rng", "strength * rng"),
        ("{m: np.zeros_like(split.lengths[m]) for m in gone}", "{}"),
        ("streams = {m: np.random.default_rng([seed,", "streams = {m: np.random.default_rng([0,"),
        ("split.features[m].shape[:2]) < np", "split.features[m].shape[:2]) > np"),
        (".random(len(split))", ".random()"),
        ("default_rng([seed, len(MODALITIES)])", "default_rng([0, len(MODALITIES)])"),
        ("(length - size + 1)", "(length - size)"),
        ("np.arange(x.shape[1]) - frames", "np.arange(x.shape[1]) + frames"),
        (" & valid_frames(split, modality)", ""),
        ("np.roll(order, 1)", "np.roll(order, 0)"),
        ("lengths = dict(split.lengths) | {m: donors.lengths[m] for m in modalities}", "lengths = split.lengths"),
        ('text = donors if "text" in modalities else split', "text = split"),
        (".sum(1, keepdims=True) - 1)", ".sum(1, keepdims=True))"),
    ],
    ("data/corruption.py", CORRUPT): [
        ('math.inf if self.kind == "noise" else 0', "0"),
        ("self.level == 1)", "self.level == 0)"),
        ("for level in (math.inf, *snr_db)", "for level in snr_db"),
        ("for k in (3, 2, 1)", "for k in (2, 1)"),
    ],
    ("data/loading.py", "tests/data/test_loading.py -k masks"): [
        ('{"train": 1001, "valid": 1002}', '{"train": 0, "valid": 1}'),
        ('{"train": 1001, "valid": 1002}', '{"train": 1001, "valid": 1001}'),
        ("scale = noise_scale(dataset.train)", "scale = noise_scale(dataset.test)"),
    ],
    ("stats/statistics.py", STATISTICS): [
        ("x.std(ddof=1) / np.sqrt(n)", "x.std() / np.sqrt(n)"),
        ("special.stdtrit(n - 1, (1 + confidence) / 2)", "special.stdtrit(n - 1, confidence)"),
        ("_values(a - b)", "_values(b - a)"),
        ("np.isnan(x).any():", "np.isnan(x).all():"),
        ("np.isnan(a).any() or np.isnan(b).any()", "np.isnan(a).all() or np.isnan(b).all()"),
        ("group.dropna(subset=[value, against]) if skipna else group", "group"),
        (
            "columns = rng.multinomial(n_columns, np.full(n_columns, 1 / n_columns), size)",
            "columns = np.ones((size, n_columns))",
        ),
        ("[0.025, 0.975]", "[0.05, 0.95]"),
        ("(len(errors) + 1) * level", "len(errors) * level"),
        ("np.sign(better * (a[:, None] - b[None, :]))", "np.sign(a[:, None] - b[None, :])"),
        ("(2 * half_d0 * s0 + df * variance)", "(half_d0 * s0 + df * variance)"),
        ('method="bh"', 'method="by"'),
        ("critical = stats.t.ppf(1 - alpha / 2, df)", "critical = stats.t.ppf(1 - alpha, df)"),
        ("n = max(2, int(normal))", "n = max(3, int(normal))"),
        ("comb(total - 1, len(s))", "comb(total, len(s))"),
    ],
    ("stats/statistics.py", "tests/stats/test_statistics.py -k bootstrap_covers"): [
        ("rows = rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows), size)", "rows = np.ones((size, n_rows))"),
    ],
    ("paper/verdicts.py", "tests/paper/test_facts.py"): [
        ("if high < least and p_below < ALPHA:", "if high < least:"),
        ("if low > 0 and p_adjusted < ALPHA:", "if low > 0:"),
        ("-practical < low < high", "low < high"),
        ("changes.get(dataset, min(changes.values()))", "changes.get(dataset, max(changes.values()))"),
    ],
    ("paper/verdicts.py", VERDICTS): [
        ("low, high = sorted((better * low, better * high))", "low, high = better * low, better * high"),
        ('"withheld", "cannot tell", "supported"\n    return', '"withheld", "supported", "cannot tell"\n    return'),
        ("np.where(gain >= 0, 1, below.p)", "below.p"),
        ('frame["better"] * frame["difference"] - frame["margin"]', 'frame["difference"] - frame["margin"]'),
        ("p_adjusted=statistics.adjusted_p(test.p))", "p_adjusted=test.p)"),
        ('len(compared[control]) != len(compared["tmt"])', 'len(compared[control]) > len(compared["tmt"])'),
        ('compared["tmt"]["dataset"].nunique() < 2', 'compared["tmt"]["dataset"].nunique() < 1'),
        (' & (cells["verdict"] != "")', ""),
        ('areas[areas["modality"] == "all"]', "areas"),
    ],
    ("paper/verdicts.py", "tests/study/test_tables.py -k 'sampling or paired or failed'"): [
        ('join="inner"', 'join="outer"'),
        ("change.mean(skipna=False), change.std(skipna=False)", "change.mean(), change.std()"),
        ('np.fmin(frame["low"], other["low"])', 'other["low"]'),
        ('np.fmax(frame["high"], other["high"])', 'np.fmin(frame["high"], other["high"])'),
    ],
    ("data/safe_pickle.py", PICKLE): [
        ('if encoding != "latin1":', "if not encoding:"),
        ("PLAIN_DTYPE.fullmatch(spec)", "PLAIN_DTYPE.match(spec)"),
        ('if state[1] in ("<", ">"):', 'if state[1] == "<":'),
        ('raise RefusedPickle("a change to a function")', "self.call = state"),
        ('content.encode("latin1") if isinstance(content, str) else content', "content"),
        ("reshape(shape).transpose(axes)", "reshape(shape)"),
        ("dtype.value, fortran, content))", "dtype.value, False, content))"),
        (', encoding="latin1")', ', encoding="bytes")'),
    ],
    ("data/safe_pickle.py", "tests/data/test_formats.py -k joblib"): [
        ('reshape(shape, order=state["order"])', "reshape(shape)"),
    ],
    ("study/runs.py", RUNS): [
        (f"{PARAMETERS}{COSTS}{RECORD}", f"{COSTS}{RECORD}{PARAMETERS}"),
        (
            "predict(model, data[s], run.training, device) for s",
            "predict(model, data.test, run.training, device) for s",
        ),
        ("model.load_state_dict(done.other_state)", "model.load_state_dict(done.state)"),
        ('meta["code"] != code_sha256()', 'meta["code"] == code_sha256()'),
        ("rule == run.training.select_by", "rule != run.training.select_by"),
        ("return model.eval()", "return model"),
    ],
    ("study/runs.py", RECORDS): [
        ('if sha256(content).hexdigest() != record.meta["parameters_sha256"]:', "if not content:"),
        ("except NotFiniteError as error:", "except FloatingPointError as error:"),
        ('done.state["weighting.W"].numpy()', 'done.other_state["weighting.W"].numpy()'),
    ],
    ("study/records.py", RECORDS): [
        ('if meta["id"] != ', 'if False and meta["id"] != '),
        ("os.replace(path, aside)", "path.unlink()"),
        ('dict.fromkeys(scores, math.nan) if "failed" in self.meta else scores', "scores"),
        ("np.concatenate([*self.labels.values()])", "labels"),
        ("for run in todo if run not in failed]", "for run in todo]"),
    ],
    ("study/records.py", RUNS): [
        ('("best_epoch", "other_epoch")', '("other_epoch", "best_epoch")'),
    ],
    ("training/fit.py", f"{FIT} 'small_splits or ties or stops or schedule_of_30'"): [
        ("utterances % self.batch_size >= 2", "utterances % self.batch_size >= 1"),
        ("- best >= patience", "- best > patience"),
        ("ranks[rule] > self.best[rule][0]", "ranks[rule] >= self.best[rule][0]"),
        ('(accuracy, -row["valid_loss"])', '(accuracy, row["valid_loss"])'),
        ("            scheduler.step()\n", ""),
    ],
    ("training/fit.py", f"{FIT} lone"): [
        ("        torch.manual_seed(seed)", "        torch.manual_seed(0)"),
        ("shuffle = torch.Generator().manual_seed(seed)", "shuffle = torch.Generator().manual_seed(0)"),
        ("total += loss.detach() * size", "total += loss.detach()"),
        ("size < 2 and", "size < 1 and"),
    ],
    ("training/fit.py", "tests/training/test_fast_paths.py -k 'third_epoch and tmt'"): [
        ("optimiser.zero_grad(set_to_none=True)", "pass"),
        ("model.task_loss(prediction, target) * size", "model.task_loss(prediction, target)"),
    ],
    ("training/fit.py", f"{FIT} 'mixes or dropout or follow or together or not_finite'"): [
        ("model.loss(prediction, target[order], trace)", "model.loss(prediction, target, trace)"),
        ("model.eval()", "model.train()"),
        ("restored[order] = outputs", "restored = outputs[order]"),
        ("[values[i] for i in range(len(models))]", "[*values.values()]"),
        ("weights[index.numpy()]", "weights[np.sort(index.numpy())]"),
        ("if not math.isfinite(loss):", "if math.isinf(loss):"),
    ],
    ("study/provenance.py", "tests/study/test_provenance.py"): [
        ('"data", "models", "training")', '"data", "training")'),
    ],
    ("analysis/importance.py", "tests/analysis/test_importance.py -k 'permuted'"): [
        ("swap_utterances(split, modalities, seed)", "swap_utterances(split, modalities)"),
        ("taken_away(split, r, removal, train, seed)", "taken_away(split, r, removal, train)"),
        ("run.training, device, run.seed)", "run.training, device)"),
    ],
    ("analysis/faithfulness.py", "tests/analysis/test_faithfulness.py -k 'equal_scores or study'"): [
        ("np.random.default_rng(seed)", "np.random.default_rng(0)"),
        ("n.numpy() for m, n in lengths.items()}, seed)", "n.numpy() for m, n in lengths.items()})"),
        ("score, device, run.seed)", "score, device)"),
    ],
}
MUTANTS = [Mutant(*where, *fault) for where, faults in FAULTS.items() for fault in faults]


def mutated(mutant: Mutant, text: str) -> str:
    """The file's text with the fault. Raises ValueError where the old text is not there exactly once."""
    if (found := text.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.file} has {mutant.old!r} {found} times; wanted it once: choose another text")
    return text.replace(mutant.old, mutant.new)


class FirstFailure:
    """A plugin of pytest that keeps the name of the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.name:
            self.name = report.nodeid.split("[")[0].rpartition("/")[2]

    pytest_collectreport = pytest_runtest_logreport


def _run(tests: str, root: Path, answer: Connection) -> None:
    os.chdir(root)
    os.environ |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        code = pytest.main([*options, *shlex.split(tests)], plugins=[first := FirstFailure()])
    if code not in (0, 1, 2):
        raise RuntimeError(f"pytest {tests} ran no test: exit code {code}")
    answer.send(first.name)


def failing(tests: str, root: Path) -> str:
    """The first test that fails in a copy of the repository, "" if all pass. Not on Windows, which has no fork."""
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(SLOW_TO_IMPORT)
    answer, asked = fresh.Pipe(duplex=False)
    process = fresh.Process(target=_run, args=(tests, root, asked))
    process.start()
    asked.close()
    try:
        return answer.recv() if answer.poll(LONGEST) else "(hangs)"
    finally:
        process.kill()  # by itself it would wait for its idle workers


def outcome(mutant: Mutant, root: Path) -> str:
    """The test that finds the fault, "" for none; the copy is then as it was."""
    path = root / "tmtlib" / mutant.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(mutated(mutant, whole), encoding="utf-8")
    try:
        return failing(mutant.tests, root)
    finally:
        path.write_text(whole, encoding="utf-8")
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):  # Python compares whole seconds and sizes
            compiled.unlink()


def row(mutant: Mutant) -> str:
    """A row of the table without its last cell, which says what finds the fault."""
    old, new = (f"`{' '.join(text.split())}`".replace("|", r"\|") for text in (mutant.old, mutant.new))
    return f"| {mutant.file} | {old} | {new if mutant.new.strip() else 'nothing'} | "


def write_table(found: dict[Mutant, str]) -> None:
    """Puts outcomes into the table; a fault that was not tried now keeps the outcome that it had."""
    head, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    before, _, rest = rest.partition(END)
    last = {line[:-2].rpartition("| ")[0] + "| ": line[:-2].rpartition("| ")[2] for line in before.splitlines()}
    last |= {row(mutant): test or "**no test**" for mutant, test in found.items()}
    outcomes = [last.get(row(mutant), "not tried") for mutant in MUTANTS]
    killed = sum(test.endswith(")") or ".py" in test for test in outcomes)
    lines = [f"{killed} of {len(outcomes)} faults make a test fail.", "", "| file | this | becomes | and this fails |"]
    lines += ["|---|---|---|---|", *(f"{row(m)}{test} |" for m, test in zip(MUTANTS, outcomes, strict=True)), ""]
    README.write_text(head + BEGIN + "\n".join(lines) + END + rest, encoding="utf-8")


def main(word: str = "") -> None:
    mutants = [mutant for mutant in MUTANTS if word in " ".join(mutant)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("tmtlib", "tests"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", root)
        for tests in dict.fromkeys(mutant.tests for mutant in mutants):
            if test := failing(tests, root):
                raise RuntimeError(f"{test} fails without a fault")
        for mutant in mutants:
            test = outcome(mutant, root)
            write_table({mutant: test})
            print(f"{row(mutant)}{test or 'SURVIVED'}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
