"""Figures against the frames and data sets they are drawn from, and all figures against their own page."""

import io
import itertools
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_helpers import (
    DRAWINGS,
    NAMES,
    SEEDS,
    SMOKE,
    built,
    comparison,
    datasets,
    drawing,
    family,
    frames_frame,
    grid,
    missing_frame,
    noise_frame,
    one_utterance,
    softmax,
    text_of,
    trained,
    truth_frame,
    unimodal_table,
    words,
    world_table,
)
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import StepPatch

from tmtlib import figures
from tmtlib.analysis import robustness
from tmtlib.analysis.truth import worlds_agreement
from tmtlib.common import MODALITIES
from tmtlib.data import synthetic
from tmtlib.data.schema import SPLITS, SyntheticSize
from tmtlib.figures import style
from tmtlib.figures.measures import LINES
from tmtlib.paper import facts
from tmtlib.study.methods import METHODS
from tmtlib.study.study import save_figure

SRGB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # to XYZ
# Machado, Oliveira and Fernandes 2009, severity 1
DEUTERANOPIA = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
PROTANOPIA = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])


@pytest.mark.parametrize("name", NAMES)
def test_texts_lie_on_the_page_and_apart(name):
    figure = drawing(name)
    page = figure.bbox
    boxes = [(t.get_text(), t.get_window_extent()) for t in words(figure)]
    assert boxes
    for text, box in boxes:
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, text
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, text
    for (a, one), (b, other) in itertools.combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        along = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert across <= 1 or along <= 2, f"{a!r} and {b!r} overlap"


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_one_or_two_columns_wide_and_closed(name):
    assert drawing(name).get_figwidth() in (figures.ONE_COLUMN, figures.TWO_COLUMNS)
    assert not plt.get_fignums()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "audit"])
def test_synthetic_data_carry_the_word(name):
    assert "synthetic" in text_of(drawing(name))


def test_real_data_do_not_carry_the_word():
    for figure in (
        figures.figure5_comparison(comparison("real")),
        figures.degradation(robustness.summary(noise_frame(source="real")), "noise"),
        figures.missing_bars(robustness.summary(missing_frame(source="real"))),
    ):
        assert "CMU-MOSI" in text_of(figure) and "synthetic" not in text_of(figure)


def test_saved_bytes_repeat_whatever_the_callers_settings(tmp_path):
    table = comparison()
    first = save_figure(figures.figure5_comparison(table), tmp_path / "new" / "folder", "one")
    schematic = save_figure(figures.figure2_tmt(*built()["amw"]), tmp_path, "three")
    with plt.rc_context({"font.size": 20, "axes.grid": False, "savefig.dpi": 30, "pdf.fonttype": 3}):
        second = save_figure(figures.figure5_comparison(table), tmp_path, "two")
        again = save_figure(figures.figure2_tmt(*built()["amw"]), tmp_path, "four")
        assert plt.rcParams["font.size"] == 20
    assert [p.name for p in first] == ["one.pdf", "one.png"]
    for a, b in zip(first + schematic, second + again, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert plt.imread(first[1]).shape[1] >= 200 * figures.ONE_COLUMN
    assert b"/CreationDate" not in first[0].read_bytes() and not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("name", ("missing", "importance", "reliability_diagram", "ternary", "figure3_amw"))
def test_a_figure_drawn_twice_has_the_same_pixels(name):
    pixels = []
    for figure in (drawing(name), DRAWINGS[name]()):
        figure.savefig(file := io.BytesIO(), format="raw", dpi=60)
        pixels.append(file.getvalue())
    assert pixels[0] == pixels[1]


def test_failed_save_leaves_nothing(tmp_path, monkeypatch):
    figure = figures.weight_heatmap(softmax(0))
    monkeypatch.setattr(figure, "savefig", lambda file, **_: (file.write(b"half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        save_figure(figure, tmp_path, "broken")
    assert not list(tmp_path.iterdir())


def seen_colour(colour: str, blindness: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of a colour as eyes with a blindness (a matrix of linear sRGB) see it."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    xyz = SRGB @ np.clip(blindness @ linear, 0, 1) / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("blindness", "least"), [(np.eye(3), 20), (DEUTERANOPIA, 12), (PROTANOPIA, 12)])
def test_methods_that_are_drawn_together_look_different(blindness, least):
    drawn = [
        name for name, m in METHODS.items() if m.family in ("main", "weighting", "slow", "reliability", "baseline")
    ]
    for a, b in itertools.combinations([*drawn, "text_only", "constant"], 2):
        one, other = (seen_colour(figures.method_colour(m), blindness) for m in (a, b))
        assert np.linalg.norm(one - other) > least, f"{a} and {b} look alike"
    assert not {colour for colour, _ in LINES.values()} & {figures.method_colour(m) for m in METHODS}


def test_a_modality_has_one_colour_in_every_figure():
    wanted = [to_hex(c) for c in figures.MODALITY_COLOURS.values()]
    lines = [to_hex(line.get_color()) for line in drawing("trajectories").axes[0].lines[:3]]
    frames = [p for p in drawing("figure4").axes[3].patches if isinstance(p, StepPatch)]
    dots = [to_hex(c.get_facecolor()[0]) for c in drawing("missing").axes[2].collections]  # all three are present
    boxes = {to_hex(ax.spines["left"].get_edgecolor()) for ax in drawing("figure2_amw").axes}
    points = {to_hex(colour[:3]) for c in drawing("truth").axes[0].collections for colour in c.get_facecolor()}
    assert lines == dots == wanted == [to_hex(p.get_facecolor()) for p in frames][::-1]
    assert set(wanted) <= boxes and set(wanted) == points


def test_datasets_figure_counts():
    figure = figures.figure4_datasets([datasets()["mosi"]])
    published, sizes, labels, frames = figure.axes
    assert "licence" in published.texts[0].get_text() and "1,284, 229, 686" in published.texts[0].get_text()
    assert [bar.get_width() for bar in sizes.patches] == list(SMOKE.synthetic["mosi"].utterances)
    data = datasets()["mosi"]
    for patch, split in zip(labels.patches, SPLITS, strict=True):
        values, edges = patch.get_data()[:2]
        nearest = np.clip(np.round(data[split].labels), -3, 3)
        np.testing.assert_allclose(values, [np.mean(nearest == (lo + hi) / 2) for lo, hi in itertools.pairwise(edges)])
    assert [t.get_text().split(" = ")[1] for t in frames.get_yticklabels()] == ["20", "5", "768"]
    values, edges, base = frames.patches[-1].get_data()  # text, on top
    lengths = np.concatenate([data[s].lengths["text"] for s in SPLITS])
    counts = np.array([np.sum((lengths > lo) & (lengths < hi)) for lo, hi in itertools.pairwise(edges)])
    np.testing.assert_allclose((values - base) / (values - base).max(), counts / counts.max())


def test_datasets_figure_takes_four_sets_one_frame_and_absent_modalities():
    data = datasets()["sims"]
    absent = {s: replace(data[s], lengths={**data[s].lengths, "audio": 0 * data[s].lengths["audio"]}) for s in SPLITS}
    one = synthetic.generate("mosei", SyntheticSize((20, 10, 10), (1, 1, 1)))
    long = synthetic.generate("sims", SyntheticSize((20, 10, 10), (1, 400, 55)))
    figure = figures.figure4_datasets([*datasets().values(), replace(data, **absent), one])
    assert len(figure.axes) == 16 and "absent, D = 33" in text_of(figure)
    assert "log scale" in text_of(figures.figure4_datasets([long]))
    assert "log scale" not in text_of(figures.figure4_datasets([one]))


@pytest.mark.parametrize("longest", (5, 30, 400, 500, 925, 999))
def test_utterances_of_full_length_are_counted(longest):
    data = synthetic.generate("sims", SyntheticSize((20, 10, 10), (1, longest, 1)))
    full = {
        s: replace(data[s], lengths={**data[s].lengths, "audio": 0 * data[s].lengths["audio"] + longest})
        for s in SPLITS
    }
    text, audio, vision = reversed(figures.figure4_datasets([replace(data, **full)]).axes[3].patches)
    values, edges, base = audio.get_data()
    assert edges[-1] == longest + 0.5 and values[-1] > base and (values[:-1] == base).all()


def test_corpora_are_the_papers_and_every_fact_has_a_source():
    assert list(facts.CORPORA["dataset"].unique()) == list(facts.DATASETS)
    assert facts.CORPORA.notna().all(axis=None) and not facts.CORPORA.duplicated(["dataset", "fact"]).any()


def test_figures_carry_alternative_text_into_pages():
    figure = drawing("forest")
    assert figure.get_label().startswith("Paired differences and their 95 % intervals")
    assert figure._repr_mimebundle_() == ({}, {"image/png": {"alt": figure.get_label()}})
    assert "CH-SIMS (synthetic), unaligned" in drawing("figure4").get_label()


def test_chinese_is_drawn_in_a_font_that_has_it_or_escaped(monkeypatch, tmp_path):
    said, words = "我不 喜欢 it", ("我", "不", "喜", "欢", "it")
    attention = {m: np.full((4, len(words)), 0.2) for m in MODALITIES}
    figure = figures.utterance(one_utterance(transcript=said, words=words, truth=None, attention=attention))
    save_figure(figure, tmp_path, "chinese")  # a missing glyph would warn, which is an error here
    shown, fonts = style.legible(said)
    assert shown == said or shown == r"\u6211\u4e0d \u559c\u6b22 it" and "escaped" in text_of(figure)
    assert style.legible("né 5 €\n") == ("né 5 €\n", fonts)
    monkeypatch.setattr(style, "CHINESE", ("STIXGeneral",))
    assert style.legible("ㅤ\ue000")[1] == ["DejaVu Sans", "STIXGeneral"]


@pytest.mark.parametrize("name", ("adaptation_all", "reliability_weights", "agreement"))
def test_no_panel_cuts_what_another_one_has_room_for(name):
    for ax in drawing(name).axes:
        (x0, x1), (y0, y1), box = ax.get_xlim(), sorted(ax.get_ylim()), ax.dataLim
        assert x0 <= box.x0 and box.x1 <= x1 and y0 <= box.y0 and box.y1 <= y1


def test_panels_without_rows_say_so():
    weights = trained()["weights"]
    some = weights.assign(method="tmt_amw_fast")[weights["dataset"] == "mosi"]
    figure = figures.weight_trajectories(pd.concat([weights, some]))
    assert [t.get_text() for ax in figure.axes for t in ax.texts] == ["not run"]
    assert "where a method is not drawn it was not run" in text_of(figure)


def test_comparison_has_measured_bars_with_intervals_beside_the_papers_in_its_order():
    table = comparison()
    alone = (table["dataset"] == "sims") & (table["method"] == "tmt")
    table = table.assign(low=table["low"].mask(alone), high=table["high"].mask(alone), n=table["n"].mask(alone, 1))
    figure = figures.figure5_comparison(table)
    assert "95 % intervals over seeds, n = 1 to 3" in text_of(figure)
    names = [t.get_text().split("\n")[0] for t in figure.axes[4].get_xticklabels()]
    assert names == ["CH-SIMS", "CMU-MOSI", "CMU-MOSEI"]
    assert [t.get_text() for t in figure.axes[5].get_xticklabels()] == ["CH-SIMS", "CMU-MOSI"]  # no number is known
    table = table.sort_values("dataset", key=lambda d: d.map(["sims", "mosi", "mosei"].index), kind="stable")
    for axes, metric, way in zip(np.reshape(figure.axes, (3, 2)), ("acc5", "f1_5class", "mae"), "↑↑↓", strict=True):
        assert axes[0].get_ylim()[0] == 0 and f"{way} better" in axes[0].get_ylabel()
        for ax, value in zip(axes, ("mean", "paper"), strict=True):
            for bars, method in zip(ax.containers, ("tmt", "tmt_amw"), strict=True):
                rows = table[(table["metric"] == metric) & (table["method"] == method)].dropna(subset=value)
                assert [b.get_height() for b in bars] == pytest.approx(list(rows[value]))
                assert {b.get_y() for b in bars} == {0} and to_hex(bars[0].get_facecolor()) == method_hex(method)
                assert ax.get_ylim()[1] > rows[value].max()
                for bar, row in zip(bars, rows.itertuples(), strict=True):
                    ends = whisker(ax, bar.get_x() + bar.get_width() / 2)
                    none = value == "paper" or np.isnan(row.low)
                    assert ends is None if none else ends == pytest.approx((row.low, row.high))


def whisker(ax, x: float) -> tuple[float, float] | None:
    """The ends of the upright line at a place."""
    for line in ax.lines:
        if np.nanmean(line.get_xdata()) == pytest.approx(x) and len(line.get_xdata()):
            heights = np.asarray(line.get_ydata(), float)
            return None if np.isnan(heights).all() else (np.nanmin(heights), np.nanmax(heights))
    return None


def method_hex(method: str) -> str:
    return to_hex(figures.method_colour(method))


def test_one_seed_says_that_no_spread_is_known():
    table = comparison().assign(low=np.nan, high=np.nan, n=1, paper=np.nan)
    text = text_of(figures.figure5_comparison(table))
    assert "no spread is known" in text and "whiskers" not in text and "paper" not in text
    assert "no spread is known" in text_of(figures.degradation(robustness.summary(noise_frame(seeds=(0,))), "noise"))


def test_learning_curves_are_means_and_sds_over_seeds():
    history = trained()["history"]
    ax = figures.learning_curves(history, "valid_mae").axes[0]
    rows = history[(history["dataset"] == "sims") & (history["method"] == "tmt")].groupby("epoch")["valid_mae"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), rows.mean())
    band = ax.collections[0].get_paths()[0].vertices
    for epoch, mean, sd in zip(rows.mean().index, rows.mean(), rows.std(ddof=1), strict=True):
        heights = band[np.isclose(band[:, 0], epoch), 1]
        assert (heights.min(), heights.max()) == pytest.approx((mean - sd, mean + sd))


def test_the_mean_ends_where_the_first_seed_stops():
    frame = grid({"epoch": range(1, 6)}, names=("mosi",), methods=("tmt",))
    early = frame[(frame["seed"] > 0) | (frame["epoch"] < 4)]
    figure = figures.learning_curves(early, "mae")
    mean, *seeds = figure.axes[0].lines
    assert list(mean.get_xdata()) == [1, 2, 3] and len(seeds) == len(SEEDS)
    assert "thin: single seeds" in text_of(figure)
    whole = figures.learning_curves(frame, "mae")
    assert len(whole.axes[0].lines) == 1 and "thin" not in text_of(whole)


def test_a_family_has_a_panel_a_method_beside_tmt():
    history = family("tmt_amw", "tmt_scalar", "tmt_random")
    figure = figures.family_curves(history, "mae", columns=2)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == ["TMT+AMW", "TMT, a number a modality", "TMT, random weights"]
    for ax, method in zip(shown, ("tmt_amw", "tmt_scalar", "tmt_random"), strict=True):
        means = [line for line in ax.lines if line.get_linewidth() > 1]
        for line, name in zip(means, ("tmt", method), strict=True):
            rows = history[(history["method"] == name) & (history["epoch"] < 6)]
            np.testing.assert_allclose(line.get_ydata(), rows.groupby("epoch")["mae"].mean())
    assert [ax.get_xlabel() for ax in shown] == ["", "epoch", "epoch"]
    for wrong in (history[history["method"] == "tmt"], history[history["method"] != "tmt"], trained()["history"]):
        with pytest.raises(ValueError, match="wanted one data set, tmt and at least one other method"):
            figures.family_curves(wrong, "mae")


def test_noise_runs_from_clean_to_noisy():
    figure, frame = drawing("noise"), noise_frame()
    assert len(figure.axes) == 8
    labels = [t.get_text() for t in figure.axes[-1].get_xticklabels()]
    assert labels == ["clean", "20", "10", "5", "0", "−5", "−10"]
    rows = frame.query("dataset == 'sims' and modality == 'audio' and method == 'tmt_amw'")
    wanted = rows.groupby("level")["mae"].mean().sort_index(ascending=False)
    line = figure.axes[1].lines[1]  # TMT's is the first
    np.testing.assert_allclose(line.get_ydata(), wanted)
    assert to_hex(line.get_color()) == method_hex("tmt_amw")


def test_rates_stand_at_their_values_and_regimes_in_panels_of_their_own():
    figure, frame = drawing("frames"), frames_frame()
    assert len(figure.axes) == 4 and "trained masked" in figure.axes[1].get_title()
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [0, 0.2, 1])
    rows = frame.query("dataset == 'sims' and regime == 'masked' and method == 'tmt'")
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), rows.groupby("level")["mae"].mean())


def test_areas_are_drawn_at_their_values_masked_ones_open():
    figure = drawing("auilc")
    table = robustness.auilc(frames_frame(), ("mae",)).query("dataset == 'sims' and method == 'tmt'")
    dots = []  # value and colour inside
    for collection in (ax.collections[1] for ax in figure.axes[:2]):
        dots += zip(collection.get_offsets()[:, 0], map(to_hex, collection.get_facecolor()), strict=True)
    for row in table.itertuples():
        inside = [colour for value, colour in dots if value == pytest.approx(row.auilc_normalised)]
        assert len(inside) == 1 and (inside[0] == "#ffffff") == (row.regime == "masked")


def test_missing_bars_stand_over_their_subsets():
    figure, frame = drawing("missing"), missing_frame()
    bars, dots = figure.axes[0], figure.axes[2]
    shown = np.array([[to_hex(c) for c in row.get_facecolor()] for row in dots.collections]).T
    grey = "#e0e0e0"
    subsets = ["+".join(m for m, c in zip(MODALITIES, column, strict=True) if c != grey) for column in shown]
    assert len(set(subsets)) == 7 and subsets[0] == "text+audio+vision" and subsets[-1] == "vision"
    frame = frame.assign(present=frame["modality"].replace("all", "text+audio+vision"))
    means = frame.query("dataset == 'sims' and method == 'tmt'").groupby("present")["mae"].agg(["mean", "std"])
    first = bars.containers[0]
    assert [b.get_height() for b in first] == pytest.approx(list(means["mean"].reindex(subsets)))
    ends = [np.ptp(whisker(bars, b.get_x() + b.get_width() / 2)) / 2 for b in first]
    np.testing.assert_allclose(ends, means["std"].reindex(subsets))


def test_weight_trajectories_start_at_a_third():
    ax = drawing("trajectories").axes[0]
    *lines, third = ax.lines
    assert set(third.get_ydata()) == {1 / 3} and all(line.get_ydata()[0] == pytest.approx(1 / 3) for line in lines)
    rows = trained()["weights"].query("dataset == 'sims' and modality == 'vision'").groupby("epoch")["weight"].mean()
    np.testing.assert_allclose(lines[2].get_ydata(), rows)


def test_heat_maps_share_a_scale_centred_at_a_third():
    maps = {"one": softmax(1), "two": softmax(2, d=9)}
    figure = figures.weight_heatmap(maps, sort=True)
    for ax, a in zip(figure.axes, maps.values(), strict=False):
        norm, shown = ax.collections[0].norm, ax.collections[0].get_array()
        assert (norm.vmin, norm.vmax) == (0, 1) and norm(1 / 3) == 0.5
        assert (np.diff(shown[0]) <= 0).all() and {*map(tuple, shown.T)} == {*map(tuple, a.T)}
        means = [f"{m} {row.mean():.3f}" for m, row in zip(MODALITIES, a, strict=True)]
        assert [t.get_text() for t in ax.get_yticklabels()] == means
    np.testing.assert_array_equal(figures.weight_heatmap(maps["one"]).axes[0].collections[0].get_array(), maps["one"])
    assert "1/3" in text_of(figures.weight_heatmap(np.full((3, 4), 1 / 3)))


def test_points_stand_at_truth_and_weight():
    frame = truth_frame()
    points = np.concatenate([c.get_offsets() for c in drawing("truth").axes[0].collections])
    wanted = frame[frame["method"] == "tmt"][["truth", "weight"]].to_numpy()
    assert {*map(tuple, np.round(points, 9))} == {*map(tuple, np.round(wanted, 9))}
    assert "true importance" in text_of(drawing("truth"))


def test_worlds_shows_every_share_against_its_truth_and_the_correlation():
    table = world_table()
    figure = drawing("worlds")
    panels = {ax.get_title(): ax for ax in figure.axes}
    assert list(panels) == ["weight A", "Shapley, absent", "of MAE, absent", "occlusion", "gradient × input"]
    rows = table[(table["measure"] == "occlusion") & (table["modality"] == "audio")]
    (points,) = panels["occlusion"].collections
    audio = [to_hex(c) == figures.MODALITY_COLOURS["audio"].lower() for c in points.get_facecolor()]
    places = np.asarray(points.get_offsets(), float)[audio]
    np.testing.assert_allclose(places, rows[["truth", "mean"]].to_numpy(float))
    correlation = worlds_agreement(table).set_index(["measure", "statistic"]).loc[("occlusion", "spearman")]
    assert f"ρ = {correlation['value']:.2f} [{correlation['low']:.2f}, {correlation['high']:.2f}]" in text_of(figure)
    assert panels["weight A"].texts[0].get_text() == "ρ undefined" and "n = 6 synthetic worlds" in text_of(figure)
    with pytest.raises(ValueError, match="methods are tmt_amw, tmt; wanted one"):
        figures.worlds(pd.concat([table, table.assign(method="tmt")]))


def test_files_stand_by_the_modality_that_leads_text_first():
    figure = drawing("importance_by_data")
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"{name} (synthetic)" for name in "abc"]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(np.asarray(dots[0].get_xdata(), float), [0.8, 0.6, 0.1])
    assert all(low < 0 < 1 < high for low, high in (ax.get_xlim() for ax in figure.axes)), "no dot is cut off"
    assert "TMT, gated by the input" in text_of(figure) and "Shapley, absent" in text_of(figure)


def test_unimodal_shows_agreement_and_chance():
    table = unimodal_table()
    ax = drawing("unimodal").axes[0]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(dots) == 2
    rows = table[(table["dataset"] == "sims") & (table["method"] == "tmt_gated")].set_index("measure")
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels == ["weight A", "Shapley, absent", "occlusion", "true importance"]
    wanted = rows.loc[["weight", "shapley_absent", "occlusion", "truth"], "agreement"]
    np.testing.assert_allclose(np.asarray(dots[1].get_xdata(), float), wanted)  # the second method's
    assert 0.41 in [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
