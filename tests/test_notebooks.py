"""The saved notebooks: thin, parametrised, executed, and clean. That they run is checked by nbval and test_series."""

import ast
import json
import re

import nbformat
import pytest

from tmtlib import common
from tmtlib.study import notebooks

NOTEBOOKS = notebooks.notebooks()
CHECKED = "nbval-check-output"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def test_the_series_is_complete_and_in_order():
    assert [path.stem for path in NOTEBOOKS] == [
        "00_paper_audit",
        "01_data_prep",
        "02_baseline_tmt",
        "03_amw_training",
        "04_noise_robustness",
        "05_weight_visualization",
        "06_adaptation",
        "07_importance",
        "08_verdict",
        "09_beyond",
        "10_your_own_clips",
    ]


def test_notebooks_define_nothing(notebook):
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)), cell.source


def test_cells_are_at_most_fifteen_lines(notebook):
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= 15, cell.source
        assert max(map(len, cell.source.splitlines())) <= 120, cell.source


def test_one_parameters_cell_with_explained_defaults(notebook):
    (cell,) = tagged(notebook, "parameters")
    found = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}
    number = notebook.cells[0].source.split()[1]
    own = {"04": {"encoder": ""}, "09": {"own": ""}}.get(number, {})
    size = {"seeds": 0, "datasets": "", "methods": ""}
    assert found == {"profile": "full", "data": "", "device": "auto"} | size | own
    assert all("  # " in line for line in cell.source.splitlines())
    first_code = code_cells(notebook)[0]
    assert first_code is cell, "nothing may run before the parameters are known"
    assert re.search(r"open_study\(|check_parameters\(", code_cells(notebook)[1].source), "both refuse unknown ones"


def test_saved_outputs_name_no_place_of_a_machine(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    shown = [json.dumps(o.get("data", {}).get("text/plain", o.get("text", ""))) for o in outputs]
    found = [text for text in shown if re.search(r"PosixPath|WindowsPath|/(tmp|home|root|Users)/", text)]
    assert found == [], "end the cell with something else than the path that was written"


def test_every_cell_was_run_in_order_without_error(notebook):
    """nbval passes over a cell without an execution count, so a stripped notebook would be checked for nothing."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds
    streams = [o.name for cell in cells for o in cell.outputs if o.output_type == "stream"]
    assert "stderr" not in streams


def test_each_notebook_checks_something(notebook):
    nodes = [node for cell in code_cells(notebook) for node in ast.walk(ast.parse(cell.source))]
    assert any(isinstance(node, ast.Assert) for node in nodes)
    for cell in tagged(notebook, CHECKED):
        assert cell.outputs, "a compared cell needs an output to compare with"


def test_the_audit_is_compared_word_by_word():
    audit = nbformat.read(common.NOTEBOOKS / "00_paper_audit.ipynb", as_version=4)
    assert len(tagged(audit, CHECKED)) >= 10


def test_markdown_opens_with_the_notebook_s_number(notebook, request):
    title = notebook.cells[0].source.splitlines()[0]
    assert re.match(r"# \d\d [A-Z]", title)


def test_saved_notebooks_are_clean(notebook):
    text = json.dumps(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not re.search(r"\"/(home|root|tmp|Users|work)/|papermill|widget-view|object at 0x", text)
    for i, cell in enumerate(notebook.cells):
        assert cell.id == f"cell-{i:02d}" and set(cell.metadata) <= {"tags"}


def test_stripping_again_changes_nothing():
    for path in NOTEBOOKS:
        saved = path.read_text(encoding="utf-8")
        assert nbformat.writes(notebooks.strip(nbformat.reads(saved, as_version=4))) + "\n" == saved
