"""environment.yml and pyproject.toml name the same packages, and the code imports no others.

conda is not needed: py-rattler reads its lines as conda does.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
ENVIRONMENT = (ROOT / "environment.yml").read_text(encoding="utf-8")

PIP_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "seaborn-base": "seaborn"}
PIP_NAMES |= {"jupyter_client": "jupyter-client"}  # by conda-forge name
# By package name
IMPORT_NAMES = {"ipython": "IPython", "pyyaml": "yaml", "scikit-learn": "sklearn", "py-rattler": "rattler"}
IMPORT_NAMES |= {"opencv-python-headless": "cv2", "pillow": "PIL", "scikit-image": "skimage"}
IMPORT_NAMES |= {"vl-convert-python": "vl_convert"}
OUR_OWN = {"benchmarks", "tmtlib", "setup_environment", "conftest"}


# --- Reading -------------------------------------------------------------------------------------------------------


def pip_requirements(pyproject: str) -> dict[str, SpecifierSet]:
    lines = tomllib.loads(pyproject)["project"]["dependencies"]
    return {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)}


def conda_requirements(environment: str) -> dict[str, SpecifierSet]:
    """Package name as pip knows it -> versions. Raises where conda, or pip in its section, could not read a line."""
    found: dict[str, SpecifierSet] = {}
    for line in yaml.safe_load(environment)["dependencies"]:
        if isinstance(line, dict):
            for inner in line["pip"]:
                if inner != "-e .":
                    requirement = Requirement(inner)
                    found[canonicalize_name(requirement.name)] = requirement.specifier
        else:
            spec = MatchSpec(line, strict=True)
            name = spec.name.normalized
            found[PIP_NAMES.get(name, name)] = as_specifier(spec.version)
    return found


def as_specifier(version: str | None) -> SpecifierSet:
    """conda writes 0.11.* for pip's ==0.11.*"""
    version = version or ""
    return SpecifierSet(f"=={version}" if version[:1].isdigit() else version)


def disagreements(environment: str, pyproject: str) -> list[str]:
    conda, pip = conda_requirements(environment), pip_requirements(pyproject)
    pip["python"] = SpecifierSet(tomllib.loads(pyproject)["project"]["requires-python"])
    conda.pop("pip", None)  # conda's own need, for the last lines of environment.yml
    return [
        f"{name}: environment.yml has {conda.get(name, 'nothing')!s}, pyproject.toml has {pip.get(name, 'nothing')!s}"
        for name in sorted(conda.keys() | pip.keys())
        if conda.get(name) != pip.get(name)
    ]


def uncommented(environment: str) -> list[str]:
    """The package lines that do not say what the package is for."""
    block = environment.split("\ndependencies:\n", 1)[1]
    lines = [line.strip() for line in block.splitlines() if line.strip().startswith("- ")]
    return [line for line in lines if line != "- pip:" and not re.search(r"  # \w", line)]


def imports(source: str) -> set[str]:
    """The top-level packages that a piece of code imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module)
    return {name.split(".")[0] for name in found}


def sources() -> Iterable[tuple[Path, str]]:
    for folder in ("benchmarks", "tmtlib", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        yield path, re.sub(r"(?m)^\s*[%!].*$", "", "\n".join(code))  # magics and shell lines are not Python


def undeclared(names: set[str], pyproject: str) -> set[str]:
    project = tomllib.loads(pyproject)["project"]
    optional = [line for extra in project.get("optional-dependencies", {}).values() for line in extra]
    declared = {canonicalize_name(Requirement(line).name) for line in [*project["dependencies"], *optional]}
    importable = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in declared}
    helpers = {path.stem for path in (ROOT / "tests").rglob("*.py")}
    return names - importable - helpers - OUR_OWN - set(sys.stdlib_module_names)


# --- The files as they are -----------------------------------------------------------------------------------------


def test_environment_and_pyproject_agree():
    assert disagreements(ENVIRONMENT, PYPROJECT) == []


def test_every_package_says_what_it_is_for():
    assert uncommented(ENVIRONMENT) == []


def test_environment_installs_the_study_itself():
    document = yaml.safe_load(ENVIRONMENT)
    assert document["name"] == tomllib.loads(PYPROJECT)["project"]["name"]
    assert document["channels"] == ["conda-forge"]
    assert {"pip": ["-e ."]} in document["dependencies"] and "pip" in document["dependencies"]


def test_only_declared_packages_are_imported():
    found = {str(path.relative_to(ROOT)): undeclared(imports(source), PYPROJECT) for path, source in sources()}
    assert {path: names for path, names in found.items() if names} == {}


# --- The checks can fail -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("- pytorch >=2.13 ", "- pytorch >=2.12 ", "torch"),
        ("- papermill >=2.7 ", "- papermill ", "papermill"),
        ("- nbval 0.11.* ", "- nbval >=0.11 ", "nbval"),
        ("- tabulate >=0.9 ", "- tabulator >=0.9 ", "tabulate"),
        ("- python >=3.11,<3.13 ", "- python >=3.11 ", "python"),
        ("- -e . ", "- -e .\n      - rich>=15 ", "rich"),
    ],
)
def test_a_difference_is_found(old, new, named):
    assert ENVIRONMENT.count(old) == 1
    found = disagreements(ENVIRONMENT.replace(old, new), PYPROJECT)
    assert any(line.startswith(f"{named}:") for line in found)


def test_a_line_that_conda_cannot_read_is_an_error():
    with pytest.raises(Exception, match="version"):
        conda_requirements(ENVIRONMENT.replace("pytorch >=2.13", "pytorch =>>2.13"))


def test_a_line_without_a_comment_is_found():
    bare = re.sub(r"(- scipy >=[\d.]+).*", r"\1", ENVIRONMENT)
    assert [line.split()[1] for line in uncommented(bare)] == ["scipy"]


def test_an_undeclared_import_is_found():
    source = "import os, numpy.linalg\ndef f():\n    from sklearn.svm import SVC\n    import dask\nfrom . import x"
    assert undeclared(imports(source), PYPROJECT) == {"dask"}
