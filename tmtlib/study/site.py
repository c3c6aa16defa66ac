"""The site of a finished study: a front page, its report and the notebooks, as pages that need no network."""

import json
import re
import shutil
from html import escape
from importlib import import_module
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

import pandas as pd
import yaml

from tmtlib import common
from tmtlib.paper import verdicts
from tmtlib.study import findings, report, tables
from tmtlib.study.profiles import REPORTED

FRONT, STYLE = (Path(__file__).with_suffix(suffix) for suffix in (".md", ".css"))
PACKAGES = ("sphinx", "myst_nb", "sphinx_book_theme", "latex2mathml")
MARK = ".buildinfo"  # Sphinx leaves it in what it has built
LAUNCH = {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"}


def build(profile: str, out: Path, explorer: str | None = None) -> Path:
    """Builds the site of a study and returns its front page; explorer: HTML of a page of that name, which is linked.

    Notebooks are shown as executed by the study where it kept copies, else as saved in the repository; none is run.
    Raises ValueError where `out` holds other files than a site, FileNotFoundError as `report.found`, and
    ModuleNotFoundError without the extra `report`.
    """
    list(map(import_module, PACKAGES))  # one that is missing is named, as Sphinx would not
    from sphinx.application import Sphinx

    folder = report.found(profile).parent
    if out.exists() and any(out.iterdir()) and not (out / MARK).is_file():
        raise ValueError(f"{out} holds files that are no site; name a new or empty folder")
    with TemporaryDirectory() as temporary:
        pages = Path(temporary) / "pages"
        _write_pages(pages, folder, bool(explorer))
        made = Path(temporary) / "site" / "html"  # MyST-NB makes another folder beside it
        Sphinx(pages, None, made, Path(temporary) / "doctrees", "html", _settings(), status=None).build()
        shutil.copytree(made, out, dirs_exist_ok=True)
    if explorer:
        common.write_atomic(out / "explorer.html", lambda file: file.write(explorer.encode()))
    return out / "index.html"


def _settings() -> dict[str, object]:
    """Sphinx's configuration: nothing is loaded from a network, or in a way that a page on a disk may not."""
    cited = yaml.safe_load((common.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    links = {"repository_url": url, "launch_buttons": LAUNCH} if (url := cited.get("repository-code")) else {}
    return {
        "project": cited["title"],
        "html_title": "TMT and AMW",
        "extensions": ["myst_nb", __name__],
        "html_theme": "sphinx_book_theme",
        "html_theme_options": {"navbar_persistent": [], "footer_content_items": [], **links},
        "html_static_path": [str(STYLE)],
        "html_css_files": [STYLE.name],
        "html_math_renderer": "mathml",
        "html_show_search_summary": False,  # these are fetched
        "html_context": {"default_mode": "auto"},
        "nb_execution_mode": "off",
        "nb_ipywidgets_js": {},  # from a network; a progress bar of a notebook is not shown
        "myst_enable_extensions": ["dollarmath"],
        "myst_heading_anchors": 3,
        "myst_heading_slug_func": "tmtlib.study.site.slug",
    }


def setup(app) -> dict[str, bool]:
    """Makes this module an extension of Sphinx that writes mathematics as MathML, which needs no script."""
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _formula(page, node) -> None:
    from latex2mathml.converter import convert

    page.body.append(convert(node.astext(), display="block" if node.tagname == "math_block" else "inline"))
    node.clear()  # else the TeX is written behind it


def _write_pages(pages: Path, folder: Path, explorer: bool) -> None:
    """Writes the sources of the site: front page, report, notebooks, figures."""
    figures = (common.figures_folder(folder.name), folder.parent / "figures" / folder.name)
    figures = next(filter(Path.is_dir, figures), folder)
    (pages / "notebooks").mkdir(parents=True)
    for path in (*figures.glob("figure[1-5]_*.png"), common.ROOT / "CITATION.cff", folder / report.NAME):
        shutil.copy(path, pages)
    for saved in common.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"):
        executed = folder / "notebooks" / saved.name
        text = (executed if executed.is_file() else saved).read_text(encoding="utf-8")
        (pages / "notebooks" / saved.name).write_text(_with_files(text, pages / "notebooks"), encoding="utf-8")
    front = Template(FRONT.read_text(encoding="utf-8")).substitute(_parts(folder, explorer))
    (pages / "index.md").write_text(front, encoding="utf-8")


def _with_files(text: str, place: Path) -> str:
    """A notebook's text, for which the tables that it links to are copied beside the pages; other files of the
    repository are named without a link."""
    for target in set(re.findall(r"\]\((\.\./[^)#\s]+)\)", text)):
        if target.endswith(".csv") and (common.NOTEBOOKS / target).is_file():
            (place / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(common.NOTEBOOKS / target, place / target)
        else:
            text = re.sub(rf"\[([^\[\]]+)\]\({re.escape(target)}\)", r"\1", text)
    return text


def slug(heading: str) -> str:
    """A heading's anchor, as JupyterLab has it."""
    return heading.replace(" ", "-")


def _parts(folder: Path, explorer: bool) -> dict[str, str]:
    """What the front page says, by the names in its template, from a results folder and the repository's pages."""
    claims, source = pd.read_csv(folder / "claims.csv"), pd.read_csv(folder / "table1.csv")["source"].iloc[0]
    kept = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    saved = f"saved with the reported results, profile {report.REPORTED}"
    return {
        "question": _between("README.md", "# ", "\n## "),
        "notebooks": "this study executed them" if (folder / "notebooks").is_dir() else saved,
        "explorer": ', <a href="explorer.html">the explorer</a>' * explorer,
        "answer": _answer(folder),
        "data": report.DATA[source],
        "table1": _table1(folder),
        "decided": report.decided(claims),
        "claims": "\n\n".join(map(_claim, claims.itertuples())),
        "profile": folder.name,
        "commit": "{commit}, {time:.10}".format(**kept["written"]),
        **{name: ", ".join(kept[name]) for name in ("trained_commit", "trained_device", "trained_torch")},
        "speed": _between("benchmarks/README.md", "<!-- begin speed -->", "<!-- end speed -->"),
        "limits": _between("README.md", "\n## Limits\n", "\n## "),
        "cite": _between("README.md", "\n## To cite\n", "\nMIT licence"),
    }


def _between(page: str, begin: str, end: str) -> str:
    """What stands between two marks of a page of the repository; links to its files become their text."""
    text = (common.ROOT / page).read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    return re.sub(r"\[([^]]+)\]\((?!https?:|CITATION)[^)]*\)", r"\1", text)


def _answer(folder: Path) -> str:
    """The three answers where the results are those that are reported; else what the study's tables say."""
    if folder.name == REPORTED and (folder.parent / report.REAL).is_dir():
        return report.front("<!-- begin front --><!-- end front -->", folder.parent)
    names = [name for name in findings.TABLES if (folder / f"{name}.csv").is_file()]
    return findings.sentences({name: pd.read_csv(folder / f"{name}.csv") for name in names})


def _table1(folder: Path) -> str:
    """Table 1 of the methods of the front page with the verdict on each against TMT, as in notebook 08."""
    rows, table1, constant = (pd.read_csv(folder / f"{name}.csv") for name in ("runs", "table1", "against_constant"))
    others = [(method, "tmt") for method in rows["method"].unique() if method != "tmt"]
    against = verdicts.withhold(verdicts.family_gains(rows, others), verdicts.unlearned(constant))
    against = against.assign(method=against["after"], p_adjusted=against["p_moderated_adjusted"])
    table1 = table1[table1["method"].isin(report.README_METHODS)]
    shown = tables.judged(table1.assign(paper=None), against, tables.SHOWN[:3]).set_index("data")
    text = "\n\n".join(f"### {name}\n\n{report.markdown(part)}" for name, part in shown.groupby("data", sort=False))
    return re.sub(r"(\[\S+), (\S+\])", "\\1,\u00a0\\2", text)  # an interval stays in one line


def _claim(claim) -> str:
    """A claim that opens: quote, verdict and what it was judged from, then the evidence."""
    judged = f"<strong>{claim.verdict}</strong> ({report.JUDGED_FROM[claim.judged_from]})"
    head = f"\u201c{escape(claim.quote)}\u201d ({escape(claim.place)}): {judged}"
    return f"<details><summary>{head}</summary><p>{escape(claim.evidence + report.basis(claim))}</p></details>"
