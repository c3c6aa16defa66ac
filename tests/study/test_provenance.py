"""What a result states of its code: a hash of statements, not of prose, and a commit of this repository or none."""

import shutil
import subprocess
import sys

import pytest

from tmtlib import common
from tmtlib.study.provenance import PACKAGE, code_sha256

IMPORTANCE = "tmtlib.analysis.importance"


@pytest.fixture
def package(tmp_path):
    """A copy of the library to change."""
    return shutil.copytree(PACKAGE, tmp_path / "tmtlib", ignore=shutil.ignore_patterns("__pycache__"))


def hash_after(package, file: str, old: str, new: str, module: str | None = None) -> str:
    path = package / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    code_sha256.cache_clear()
    return code_sha256(module, package)


def test_prose_does_not_count_and_statements_do(package):
    before = code_sha256(None, package)
    assert before == code_sha256(), "wherever the library lies"
    assert hash_after(package, "models/amw.py", '"""', '"""Other words. ') == before
    assert hash_after(package, "models/amw.py", "\n\n\n", "\n\n\n# a comment\n\n\n") == before
    assert hash_after(package, "models/amw.py", "softmax(dim=1)", "softmax(dim=2)") != before


def test_data_files_count_and_analyses_do_not(package):
    before = code_sha256(None, package)
    assert hash_after(package, "analysis/importance.py", "\n\n\n", "\n\nx = 1\n\n") == before
    assert hash_after(package, "models/published_sizes.toml", "\n", "\nx = 1\n") != before


def test_an_analysis_counts_itself_and_what_it_imports_of_its_room(package):
    (package / "analysis" / "one.py").write_text("from tmtlib.analysis import two\n", encoding="utf-8")
    (package / "analysis" / "two.py").write_text("from tmtlib.analysis.three import x\n", encoding="utf-8")
    (package / "analysis" / "three.py").write_text("x = 1\n", encoding="utf-8")
    one = "tmtlib.analysis.one"
    before = code_sha256(one, package)
    assert before != code_sha256(None, package)
    assert hash_after(package, "analysis/importance.py", "\n\n\n", "\n\nx = 1\n\n", one) == before
    assert hash_after(package, "analysis/three.py", "1", "1  # a comment", one) == before
    assert hash_after(package, "analysis/three.py", "1", "2", one) != before
    assert code_sha256(IMPORTANCE, package) != code_sha256(one, package)
    with pytest.raises(FileNotFoundError, match="no module at .*four.py"):
        code_sha256("tmtlib.analysis.four", package)


@pytest.mark.parametrize("room", ["models", "common.py"])
def test_a_room_without_files_is_an_error(package, room):
    place = package / room
    place.unlink() if place.is_file() else shutil.rmtree(place)
    code_sha256.cache_clear()
    with pytest.raises(FileNotFoundError, match=f"no code in .*{room.removesuffix('.py')}"):
        code_sha256(None, package)


def test_files_inside_another_repository_do_not_state_its_commit(tmp_path):
    """An archive unpacked in somebody else's checkout."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    study = tmp_path / "study"
    shutil.copytree(common.ROOT / "tmtlib", study / "tmtlib", ignore=shutil.ignore_patterns("__pycache__"))
    code = f"import sys; sys.path.insert(0, {str(study)!r})\nfrom tmtlib.study.provenance import PACKAGE, commit\n"
    code += "print(PACKAGE, commit())"
    done = subprocess.run([sys.executable, "-c", code], cwd=study, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(study / "tmtlib"), "unknown"]
