"""The notebooks in JupyterLab, in a real browser: copies in another folder, opened, run and used as a reader does."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import nbformat
import psutil
import pytest

from tmtlib import common
from tmtlib.study import notebooks

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package of [browser]")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs the program chromium")

OPEN = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'"
# Keeps the time in milliseconds, and the cell's number, of each message that a reader sees something of: a cell begins,
# an output comes, a progress bar moves
LISTEN = """() => {
    let cell = 0;
    window.panel = jupyterapp.shell.currentWidget;
    window.messages = [];
    panel.sessionContext.iopubMessage.connect((_, { header, content }) => {
        cell = content.execution_count ?? cell;
        if (header.msg_type != "status") messages.push([performance.now(), cell]);
    });
}"""
DONE = """() => {
    const code = panel.content.model.sharedModel.cells.filter(cell => cell.cell_type == "code");
    const failed = code.some(cell => cell.outputs.some(output => output.output_type == "error"));
    return panel.sessionContext.session?.kernel?.status == "idle" && (failed || code.every(c => c.execution_count));
}"""
NOTEBOOK = "() => JSON.stringify(panel.content.model.sharedModel.toJSON())"
GO_TO = """i => { panel.content.activeCellIndex = i; return panel.content.scrollToItem(i, "center"); }"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of its own with copies of the notebooks at profile smoke, without outputs."""
    copies = tmp_path_factory.mktemp("lab") / "copies"
    copies.mkdir()
    for path in common.NOTEBOOKS.glob("0[35]_*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                cell.source = re.sub(r'(?m)^(profile: str = )"\w+"', r'\1"smoke"', cell.source)
            if cell.cell_type == "code":
                cell.update(outputs=[], execution_count=None)
        nbformat.write(notebook, copies / path.name)
    return copies.parent


@pytest.fixture(scope="module")
def address(folder) -> Iterator[str]:
    """Of a JupyterLab, started as `make lab` does, whose root is the folder. When it ends, its kernels end."""
    own = {name: str(folder / name) for name in ("TMT_RESULTS", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")}
    own |= {"PYTHONPATH": str(common.ROOT), "OMP_NUM_THREADS": "1", "TMT_DATA": "", "TMT_OWN": "", "TMT_CLUSTER": ""}
    options = ["--no-browser", "--allow-root", "--port=0", "--LabApp.expose_app_in_browser=True"]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={folder}"]
    with open(folder / "log.txt", "w") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log)
    process, deadline = psutil.Process(server.pid), time.monotonic() + 60
    try:
        while not (found := [*folder.glob("JUPYTER_RUNTIME_DIR/jpserver-*.json")]):
            assert server.poll() is None and time.monotonic() < deadline, (folder / "log.txt").read_text()
            time.sleep(0.2)
        said = json.loads(found[0].read_text())
        yield f"{said['url']}lab/tree/copies/NAME?reset&token={said['token']}"
    finally:
        kernels = process.children(recursive=True) if server.poll() is None else []
        server.terminate()
        server.wait(30)
    assert psutil.wait_procs(kernels, timeout=10)[1] == []


@pytest.fixture(scope="module")
def page(address):
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1280, "height": 1000})
        browser.close()


def open_and_run(page, address: str, name: str, seconds: float) -> tuple[nbformat.NotebookNode, set[str]]:
    """Opens a notebook and runs all cells in a new kernel. Returns it, and what was read beside progress bars; prints
    the longest time in which a cell showed nothing new. Raises AssertionError for cells that failed or are not done."""
    page.goto(address.replace("NAME", name))
    page.wait_for_function(OPEN, timeout=60_000)
    page.evaluate(LISTEN)
    page.get_by_role("menuitem", name="Kernel").click()
    page.get_by_role("menuitem", name="Restart Kernel and Run All Cells").click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    bars, deadline = set(), time.monotonic() + seconds
    while not page.evaluate(DONE) and time.monotonic() < deadline:
        bars |= {*page.locator(".jp-OutputArea .widget-html").all_inner_texts()}
        page.wait_for_timeout(200)
    notebook = nbformat.reads(page.evaluate(NOTEBOOK), as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    errors = [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert not errors and [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), errors
    longest, cell = max((later - now, cell) for (now, cell), (later, _) in pairwise(page.evaluate("() => messages")))
    print(f"{name}: at most {longest / 1000:.1f} s without news, in cell [{cell}]")
    return notebook, bars


def test_a_notebook_runs_in_another_folder_and_shows_how_training_goes_on(page, address, folder):
    _, bars = open_and_run(page, address, "03_amw_training.ipynb", 600)
    percents = {match[0] for text in bars if (match := re.search(r"training.*?(\d+)%", text, re.DOTALL))}
    assert len(percents) >= 2, "a bar that moves"
    assert {*folder.glob("TMT_RESULTS/smoke/costs.csv")} and {*folder.glob("TMT_RESULTS/figures/smoke/*.png")}
    assert {path.suffix for path in (folder / "copies").iterdir()} <= {".ipynb", ""}, "nothing beside the notebooks"


def test_the_slider_shows_another_utterance_and_a_saved_notebook_keeps_it(page, address, folder):
    name = "05_weight_visualization.ipynb"
    notebook, _ = open_and_run(page, address, name, 600)
    (place,) = (i for i, cell in enumerate(notebook.cells) if cell.source.startswith("utterance.browse"))
    page.evaluate(GO_TO, place)
    picture = page.locator(".jp-Notebook-cell").nth(place).locator(".jp-RenderedImage img")
    before = picture.get_attribute("src")
    page.locator(".noUi-handle").focus()
    begun = time.monotonic()
    page.keyboard.press("ArrowRight")
    page.get_by_text("drawing ...").wait_for()
    print(f"it said that it draws {time.monotonic() - begun:.2f} s after the key")
    while (after := picture.get_attribute("src")) == before and time.monotonic() < begun + 30:
        page.wait_for_timeout(20)
    print(f"the figure changed {time.monotonic() - begun:.2f} s after the key")
    assert after != before and page.locator(".widget-readout").inner_text() == "8"
    page.keyboard.press("Control+s")
    page.wait_for_function("() => !panel.context.model.dirty")
    kept = notebooks.strip(nbformat.read(folder / "copies" / name, as_version=4)).cells[place].outputs
    assert [output.data["image/png"].strip() for output in kept] == [after.partition(",")[2].strip()]
