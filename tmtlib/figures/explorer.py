"""The explorer: weights, Shapley values and the truth, utterance by utterance, on a page that is one HTML file. Needs
the packages of `[report]`."""

import json
import textwrap
import warnings
from string import Template

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from matplotlib.colors import to_hex

from tmtlib.common import MODALITIES
from tmtlib.figures.style import MODALITY_COLOURS, NEUTRAL, method_colour, titled
from tmtlib.figures.weights import CORNERS
from tmtlib.study.methods import method_title

WIDTH = 300  # of a panel, in pixels: one fits a phone
MEASURES = {"weight": "weights", "shapley": "Shapley values", "truth": "truth"}
OF_MODALITY = alt.Color("modality:N", legend=None).scale(domain=[*MODALITY_COLOURS], range=[*MODALITY_COLOURS.values()])
OF_METHOD = alt.Color("colour:N", scale=None)
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
  body { font: 16px/1.4 sans-serif; max-width: 1180px; margin: 0 auto; padding: 8px; color: #222 }
  h1 { font-size: 1.3em }
  #filters { display: flex; flex-wrap: wrap; gap: 8px 20px; margin-bottom: 16px }
  #filters label { display: flex; gap: 8px; align-items: center }
  select, input { font: inherit }
  svg { touch-action: pan-y }
</style>
<h1>$title</h1>
<p><b>Static weights are one point: AMW gives every utterance the same.</b> Each dot is a test utterance, nearer to a
corner where more of the size of the three values is that modality's. Drag over dots to see their errors, and where they
lie in the other triangles; click one, or move the slider with the arrow keys, to see that utterance. Noise is as strong
as the features (0 dB), in one modality. Intervals hold 90 % of the labels of clean data. $truth</p>
<div id="filters" role="group" aria-label="what is shown"></div>
<div id="charts"></div>
<script>$vega</script>
<script>
  const spec = $spec;
  spec.columns = Math.max(1, Math.min(3, Math.floor(innerWidth / 390)));
  vegaEmbed("#charts", spec, {actions: false, renderer: "svg", bind: "#filters"});
</script>
</html>
""")
TRUTH = "The truth is that of the clean utterance; an unreliable modality shows nothing of the label."


def explorer(table: pd.DataFrame) -> str:
    """The page of `analysis.explorer.table`, as HTML that loads nothing. Raises ValueError for an empty table."""
    if table.empty:
        raise ValueError("the explorer's table has no rows; wanted one an utterance, method and noise level")
    title, truth = "Weights and Shapley values, utterance by utterance", ""
    if "synthetic" in set(table["source"]):
        title, truth = "Weights, Shapley values and the truth, utterance by utterance (synthetic data)", TRUTH
    vega = vl_convert.javascript_bundle(vl_version=alt.SCHEMA_VERSION.lstrip("v").rpartition(".")[0])
    with warnings.catch_warnings():  # altair warns of a brush that panels share on purpose
        warnings.filterwarnings("ignore", message="Automatically deduplicated")
        spec = json.dumps(_page(_drawn(titled(table))).to_dict())
    spec = spec.replace("<", "\\u003c")  # no transcript ends the script
    return PAGE.substitute(title=title, truth=truth, vega=vega, spec=spec)


def _drawn(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each utterance's place in each triangle, error and colour, and transcripts in short lines."""
    for measure in MEASURES:
        size = table[[f"{measure}_{m}" for m in MODALITIES]].abs().fillna(0).to_numpy()
        with np.errstate(invalid="ignore"):  # no place without any size
            table[[f"{measure}_x", f"{measure}_y"]] = (size / size.sum(1, keepdims=True) @ CORNERS).round(4)
    lines = table["transcript"].astype(str).map(_wrapped)
    error = (table["prediction"] - table["label"]).abs().round(3)
    return table.assign(transcript=lines, error=error, colour=table["method"].map(lambda m: to_hex(method_colour(m))))


def _wrapped(text: str) -> str:
    """At most five lines as wide as a panel, in which a Chinese character takes the place of two others."""
    return textwrap.fill(text, 22 if max(text, default="") > "\u2e80" else 44, max_lines=5)


def _page(table: pd.DataFrame) -> alt.ConcatChart:
    """Triangles, errors and one utterance, of one choice of data, method, noise and reliability."""
    choices = [_choice(table, *names) for names in (("title", "data"), ("method", "method"), ("noise", "noise"))]
    reliability = _choice(table, "unreliable", "unreliable", "any")
    brush = alt.selection_interval("brush", resolve="global")
    slider = alt.binding_range(min=0, max=int(table["utterance"].max()), step=1, name="utterance")
    pick = {"fields": ["utterance"], "bind": slider, "value": [{"utterance": 0}], "clear": False, "toggle": False}
    on_a_dot = "click[event.item && event.item.datum && isDefined(event.item.datum.utterance)]"
    pick = alt.selection_point("pick", on=on_a_dot, **pick)
    measures = [measure for measure in MEASURES if table[f"{measure}_x"].notna().any()]
    dots = [_triangle(measure, brush, pick) for measure in measures] + [_errors(table, brush)]
    panels = [chart.transform_filter("unreliable == 'any' || datum.unreliable == unreliable") for chart in dots]
    scale = _label_units(table)
    panels += [_prediction(scale, pick), _values(measures, scale, pick)]
    parse = dict.fromkeys(table.select_dtypes("number"), "number")
    rows = alt.InlineData(table.to_csv(index=False), format=alt.CsvDataFormat(type="csv", parse=parse), name="rows")
    page = alt.concat(*panels, columns=3, data=rows, spacing=30, align="none").add_params(*choices, reliability)
    for choice in choices:
        page = page.transform_filter(f"datum.{choice.name} == {choice.name}")
    words = ", ".join(MEASURES[measure] for measure in measures)
    page = page.properties(description=f"Triangles of {words}; a histogram of errors; the chosen utterance.")
    return (
        page.configure(font="sans-serif").configure_view(stroke=None).configure_axis(labelFontSize=12, titleFontSize=12)
    )


def _choice(table: pd.DataFrame, column: str, name: str, *others: str) -> alt.Parameter:
    """A drop-down list of a column's values, and others before them."""
    values = [*others, *table[column].unique()]
    labels = [method_title(value) for value in values]
    return alt.param(column, value=values[0], bind=alt.binding_select(options=values, labels=labels, name=name))


def _label_units(table: pd.DataFrame) -> alt.Scale:
    """From -x to x, where x is what labels, Shapley values and truth of the chosen data set reach."""
    parts = ["label", *(f"{measure}_{m}" for measure in ("shapley", "truth") for m in MODALITIES)]
    most = np.ceil(2 * table.set_index("title")[parts].abs().max(axis=1).groupby("title").max()) / 2
    x = f"{json.dumps(most.to_dict())}[title]"
    return alt.Scale(domain=[alt.ExprRef(f"-{x}"), alt.ExprRef(x)], nice=False)


def _triangle(measure: str, brush: alt.Parameter, pick: alt.Parameter) -> alt.LayerChart:
    """Each utterance at its shares of a measure; a cross where all are equal, a ring around the chosen one."""
    x = alt.X(f"{measure}_x:Q", axis=None).scale(domain=[-0.1, 1.1], nice=False)
    y = alt.Y(f"{measure}_y:Q", axis=None).scale(domain=[-0.1, 0.96], nice=False)
    points = [*CORNERS, CORNERS[0], CORNERS.mean(0), *(CORNERS + [[0, -0.06], [0, -0.06], [0, 0.05]])]
    points = pd.DataFrame(points, columns=[f"{measure}_x", f"{measure}_y"]).reset_index()
    side = alt.Chart(points[:4]).mark_line(color=NEUTRAL, strokeWidth=1).encode(x, y, order="index:O")
    cross = alt.Chart(points[4:5]).mark_point(shape="cross", color=NEUTRAL, size=60).encode(x, y)
    names = alt.Chart(points[5:].assign(modality=MODALITIES)).mark_text(fontSize=14, fontWeight="bold")
    names = names.encode(x, y, OF_MODALITY, text="modality:N")
    shown = ["id:N", *(f"{name}:Q" for name in ("label", "prediction", *(f"{measure}_{m}" for m in MODALITIES)))]
    colour = alt.when(brush).then(OF_METHOD).otherwise(alt.value("#DDDDDD"))
    dots = alt.Chart().mark_circle(size=45, opacity=0.6).encode(x, y, color=colour, tooltip=shown)
    ring = alt.Chart().mark_point(size=120, color="black", strokeWidth=2).encode(x, y).transform_filter(pick)
    title = MEASURES[measure] + " (of synthetic data)" * (measure == "truth")
    chart = alt.layer(side, cross, names, dots.add_params(brush, pick), ring)
    return chart.properties(title=title, width=WIDTH, height=WIDTH * 1.06 / 1.2, description=title)


def _errors(table: pd.DataFrame, brush: alt.Parameter) -> alt.LayerChart:
    """A histogram of errors, those within the brush in colour, with their number and mean."""
    x = alt.X("bin:Q", bin="binned", title="|prediction - label| (label units)")
    bars = alt.Chart().mark_bar().encode(x, x2="bin_end", y=alt.Y("count()", title="utterances"))
    brushed = bars.encode(color=OF_METHOD).transform_filter(brush)
    words = alt.Chart().transform_filter(brush).transform_aggregate(n="count()", mae="mean(error)")
    words = words.transform_calculate(words="datum.n + ' utterances, mean error ' + format(datum.mae, '.3f')")
    words = words.mark_text(align="left", baseline="bottom", fontSize=12).encode(x=alt.value(0), y=alt.value(-6))
    chart = alt.layer(bars.encode(color=alt.value("#DDDDDD")), brushed, words.encode(text="words:N"))
    ran = json.dumps({title: [*methods.unique()] for title, methods in table.groupby("title")["method"]})
    title = f"indexof({ran}[title], method) < 0 ? 'this method was not run on ' + title : 'errors, ' + title"
    chart = chart.transform_bin("bin", "error", bin=alt.Bin(maxbins=20)).properties(title=alt.Title(alt.ExprRef(title)))
    return chart.properties(width=WIDTH, height=220, description="histogram of errors")


def _prediction(scale: alt.Scale, pick: alt.Parameter) -> alt.LayerChart:
    """The chosen utterance in words, above its prediction with the interval, and its label."""
    one, y = alt.Chart().transform_filter(pick), alt.value(185)
    number = "'{0} ' + format(datum.{0}, '.2f')".format
    lines = ["datum.id", "title", "'unreliable: ' + datum.unreliable"]
    lines += [f"{number('label')} + ' (diamond), ' + {number('prediction')} + ' (dot)'"]
    lines += [f"'90 % interval: ' + {number('low')} + ', ' + {number('high')}", "datum.transcript"]
    words = one.transform_calculate(words=" + '\\n' + ".join(lines))
    words = words.mark_text(align="left", baseline="top", lineBreak="\n", lineHeight=17, fontSize=13)
    line = one.mark_rule(strokeWidth=3, color=NEUTRAL).encode(_on(scale, "low"), x2="high", y=y)
    dot = one.mark_circle(size=120, opacity=1, color="black").encode(_on(scale, "prediction"), y=y)
    label = one.mark_point(shape="diamond", size=160, strokeWidth=2, color="black").encode(_on(scale, "label"), y=y)
    chart = alt.layer(words.encode(x=alt.value(0), y=alt.value(0), text="words:N"), line, dot, label)
    return chart.properties(title="the chosen utterance", width=WIDTH, height=200, description="one utterance")


def _on(scale: alt.Scale, column: str) -> alt.X:
    return alt.X(f"{column}:Q", scale=scale, title="label units", axis=alt.Axis(grid=False, tickCount=5))


def _values(measures: list[str], scale: alt.Scale, pick: alt.Parameter) -> alt.VConcatChart:
    """Bars of the chosen utterance's weights, Shapley values and truth."""
    charts, y = [], alt.Y("modality:N", sort=[*MODALITIES], title=None)
    for measure in measures:
        weight = measure == "weight"
        one = alt.Chart().transform_filter(pick).transform_fold([f"{measure}_{m}" for m in MODALITIES])
        one = one.transform_calculate(modality="split(datum.key, '_')[1]")
        on = alt.Scale(domain=[0, 1]) if weight else scale
        x = alt.X("value:Q", title=None, axis=alt.Axis(tickCount=5), scale=on)
        text = one.mark_text(align="right", x=WIDTH, fontSize=12)
        text = text.encode(y, text=alt.Text("value:Q", format=".3f" if weight else "+.3f"))
        title = f"{MEASURES[measure]} of this utterance ({'share' if weight else 'label units'})"
        chart = alt.layer(one.mark_bar().encode(x, y, OF_MODALITY), text)
        charts.append(chart.properties(title=title, width=WIDTH - 60, height=48, description=title))
    return alt.vconcat(*charts, spacing=8)
