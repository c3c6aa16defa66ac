"""The pages of a finished study: complete, without a network, and readable on a phone."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
import pytest

from tmtlib import common
from tmtlib.__main__ import main
from tmtlib.study import notebooks, site
from tmtlib.study.profiles import PROFILES

CHROMIUM = Path("/usr/bin/chromium")
BAR = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "0/5"}


@pytest.fixture(scope="module")
def folder(committed, tmp_path_factory):
    """The site of the committed profile quick, with an executed copy of one notebook and a page beside."""
    if missing := [name for name in site.PACKAGES if not find_spec(name)]:
        pytest.skip(f"no {', '.join(missing)}: the extra `report` is not installed")
    results = tmp_path_factory.mktemp("results")
    for place, name in (("results", "quick"), ("figures", "figures/quick")):
        shutil.copytree(committed / place / "quick", results / name)
    notebook = nbformat.read(common.NOTEBOOKS / "02_baseline_tmt.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("stream", text="of this study"), nbformat.v4.new_output("display_data", BAR)]
    (results / "quick" / "notebooks").mkdir()
    nbformat.write(notebook, results / "quick" / "notebooks" / "02_baseline_tmt.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMT_RESULTS", str(results))
        return site.build("quick", results / "site", "<title>explorer</title>").parent


def pages(folder: Path) -> dict[Path, str]:
    every = [*folder.glob("*.html"), *folder.glob("notebooks/*.html")]  # not the theme's, in _static
    return {path: path.read_text(encoding="utf-8") for path in every}


def test_every_link_inside_leads_somewhere(folder):
    texts = pages(folder)
    for page, text in texts.items():
        for link in re.findall(r'(?:href|src)="([^"]+)"', text):
            url = urlsplit(link)
            if not url.scheme:
                target = (page.parent / unquote(url.path)).resolve() if url.path else page
                assert target.is_file(), f"{page.name}: {link}"
                assert not url.fragment or f'id="{unquote(url.fragment)}"' in texts[target], f"{page.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(folder):
    loaded = re.compile(r'<(?!a\b)\w+\b[^>]*\b(?:src|href)="(?!data:)(?:\w+:)?//[^"]*"')
    assert {page.name: found for page, text in pages(folder).items() if (found := loaded.findall(text))} == {}
    for style in folder.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_the_front_page_has_everything(folder):
    front = (folder / "index.html").read_text(encoding="utf-8")
    claims = pd.read_csv(folder.parent / "quick" / "claims.csv")
    assert front.count("<details>") == len(claims) == front.count("</strong> (")
    assert front.count("<figure") == 5 and front.count('alt="') >= 5 and 'href="explorer.html"' in front
    for words in (
        "TMT+AMW minus TMT in MAE",
        "better than TMT?",
        "PFLOP",
        "No number here is of",
        "@software",
        "2.13.0",
    ):
        assert words in re.sub(r"<[^>]+>", "", front), words
    for saved in common.NOTEBOOKS.glob("*.ipynb"):
        assert f'href="notebooks/{saved.stem}.html"' in front


def test_executed_notebooks_are_preferred_and_bars_left_out(folder):
    text = (folder / "notebooks" / "02_baseline_tmt.html").read_text(encoding="utf-8")
    assert "of this study" in text and "0/5" not in text
    assert "<math" in (folder / "notebooks" / "03_amw_training.html").read_text(encoding="utf-8")


def test_the_reported_study_gives_the_three_answers(committed):
    assert "**AMW shows no gain" in site._answer(committed / "results" / "full")
    assert "**AMW shows no gain" not in site._answer(committed / "results" / "quick")


def test_other_files_are_not_built_over(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TMT_RESULTS", str(folder.parent))
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="no site; name a new or empty folder"):
        site.build("quick", tmp_path)


def test_a_run_says_where_its_pages_are(folder, monkeypatch):
    monkeypatch.setenv("TMT_RESULTS", str(folder.parent))
    study = SimpleNamespace(profile=PROFILES["quick"], results=folder.parent / "quick")
    assert "quick/report/index.html" in notebooks._pages(study)
    monkeypatch.setattr(notebooks, "find_spec", lambda name: None)
    assert "pip install" in notebooks._pages(study)


def test_latex(committed, capsys, monkeypatch):
    monkeypatch.setenv("TMT_RESULTS", str(committed / "results"))
    assert main(["report", "--profile", "quick", "--latex"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert r"\toprule" in lines and sum(line.startswith("TMT+AMW &") for line in lines) == 1
    best = [line for line in lines if r"\textbf" in line]
    assert best and not any(line.startswith("best possible") for line in best)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it_without_a_network(folder, width):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"no {CHROMIUM}")
    wrong = []
    with api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(r.url))
        for path in pages(folder):
            page.goto(path.as_uri())
            if page.evaluate("document.documentElement.scrollWidth") > width:
                wrong.append(f"{path.name} is wider than the screen")
            if page.evaluate("[...document.querySelectorAll('math')].some(m => m.getBoundingClientRect().height < 5)"):
                wrong.append(f"{path.name} has mathematics that is not drawn")
        page.goto(f"{(folder / 'search.html').as_uri()}?q=oracle")
        page.get_by_role("link", name="08 Verdict").last.wait_for()
        browser.close()
    assert wrong == []
