"""The explorer's page in a browser: it loads nothing, fits, and answers to the mouse and to the keyboard."""

import itertools
import re
from pathlib import Path

import pandas as pd
import pytest

[pytest.importorskip(name, reason="needs the packages of [report]") for name in ("altair", "vl_convert")]
CHROMIUM = Path("/usr/bin/chromium")
BOXES = "all => all.filter(t => t.textContent).map(t => [t.textContent, t.getBoundingClientRect().toJSON()])"
PLACES = "all => all.map(dot => dot.getAttribute('transform'))"
DOT = "path[aria-roledescription=circle]"


def made(committed, **columns) -> str:
    """The page of the committed table, with other columns."""
    from tmtlib.figures.explorer import explorer

    return explorer(pd.read_csv(committed / "results" / "full" / "explorer.csv").assign(**columns))


@pytest.fixture(params=(1280, 390))
def page(request, committed, tmp_path):
    """The page, with transcripts that would load something, on a screen and on a phone."""
    path, browsers = tmp_path / "explorer.html", pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    path.write_text(made(committed, transcript="</script><img src='https://example.com/a.png'>"), encoding="utf-8")
    assert path.stat().st_size < 5_000_000
    with browsers.sync_playwright() as started:
        browser, seen = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]), []
        page = browser.new_page(viewport={"width": request.param, "height": 900})
        for event in ("request", "console", "pageerror"):
            page.on(event, lambda what: seen.append(getattr(what, "url", None) or str(what)))
        page.goto(path.as_uri())
        page.wait_for_selector(f"#charts {DOT}")
        yield page
    said = [what for what in seen if "Infinite extent" not in what]  # of a histogram without utterances
    assert said == [path.as_uri()], "one file is read, and nothing is said"


def shown(page) -> str:
    return " ".join(page.locator("#charts svg text").all_text_contents())


def count(page) -> int:
    return int(re.search(r"(\d+) utterances, mean error", shown(page))[1])


def test_real_data_have_no_truth_and_are_not_called_synthetic(committed):
    page = made(committed, source="real", truth_text=float("nan"), truth_audio=float("nan"), truth_vision=float("nan"))
    assert "(synthetic" not in page and "Triangles of weights, Shapley values;" in page


def test_texts_lie_on_the_page_and_apart_and_say_what_is_seen(page):
    boxes, width = page.locator("#charts svg text").evaluate_all(BOXES), page.viewport_size["width"]
    assert len(boxes) > 30 and page.evaluate("document.documentElement.scrollWidth") <= width
    assert all(box["left"] >= 0 and box["right"] <= width for _, box in boxes)
    for (a, x), (b, y) in itertools.combinations(boxes, 2):
        across, down = (min(x[k], y[k]) - max(x[j], y[j]) for j, k in (("left", "right"), ("top", "bottom")))
        assert min(across, down) <= 2, (a, b)
    assert "AMW gives every utterance the same" in page.inner_text("p") and "(synthetic data)" in page.inner_text("h1")
    assert "Triangles of weights" in page.get_attribute("[role=graphics-document]", "aria-label")
    assert all("(synthetic)" in name for name in page.locator("select[name=title] option").all_text_contents())


def test_choices_change_what_is_seen(page):
    before, everything = page.locator(f"#charts {DOT}").evaluate_all(PLACES), count(page)
    page.select_option("select[name=method]", label="TMT, gated by the input")
    assert before != page.locator(f"#charts {DOT}").evaluate_all(PLACES)
    page.select_option("select[name=unreliable]", "text")
    assert 0 < count(page) < everything
    page.select_option("select[name=title]", label="CMU-MOSEI (synthetic)")
    page.select_option("select[name=method]", label="TMT+AMW, fast W")
    assert "this method was not run on CMU-MOSEI (synthetic)" in shown(page)


def test_a_brush_keys_and_clicks(page):
    everything, triangle = count(page), page.locator("#charts g[aria-label='Shapley values'] path.background").first
    ends = {"source_position": {"x": 90, "y": 80}, "target_position": {"x": 180, "y": 210}}
    triangle.drag_to(triangle, force=True, **ends)
    assert 0 < count(page) < everything and shown(page).count("unreliable: ") == 1, "still one is chosen"
    page.press("input[type=range]", "ArrowRight")
    assert "synthetic_0001" in shown(page) and "</script><img" in shown(page)
    page.locator(f"#charts g[aria-label^=truth] {DOT}").nth(9).click(force=True)
    chosen = int(page.input_value("input[type=range]"))
    assert chosen > 1 and f"synthetic_{chosen:04}" in shown(page)
