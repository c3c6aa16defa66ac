"""What a study found, in sentences made from its tables."""

from collections.abc import Mapping

import pandas as pd

from tmtlib.common import MODALITIES
from tmtlib.data.schema import dataset_title
from tmtlib.paper.facts import DATASETS, VERDICTS, table1_value
from tmtlib.study.methods import method_title
from tmtlib.study.profiles import REPORTED
from tmtlib.study.study import Study
from tmtlib.study.tables import intervals, titled


def found(study: Study) -> str:
    """`sentences` of the tables that a study has saved."""
    return sentences({name: study.table(name) for name in TABLES if (study.results / f"{name}.csv").is_file()})


def sentences(tables: Mapping[str, pd.DataFrame], elsewhere: Mapping[str, pd.DataFrame] | None = None) -> str:
    """A numbered list in Markdown: a sentence or two for each of `TABLES` that is at hand, by its name, and for each of
    `ELSEWHERE`, of real files (`benchmarks.real_files`)."""
    found = [words(tables[name]) for name, words in TABLES.items() if len(tables.get(name, ()))]
    found[-1:-1] = [words(elsewhere[name]) for name, words in ELSEWHERE.items() if name in (elsewhere or {})]
    return "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(found, 1))


def front(tables: Mapping[str, pd.DataFrame], real: pd.DataFrame) -> str:
    """The three answers at the head of the README, as a numbered list: does AMW help, do its weights say what matters,
    where would weights help. tables: those of profile `REPORTED`; real: `amw_differences` of real files."""
    gains, swap, reach = (tables[name] for name in ("amw_differences", "swap", "weights_reach"))
    over = gains[gains["before"] == "tmt"]
    mae = over[over["metric"] == "mae"]
    swapped = swap.query("method == 'tmt_amw' and replaced_by == 'uniform' and regime == 'clean' and metric == 'mae'")
    on_real = real[(real["before"] == "tmt") & (real["after"] == "tmt_amw") & (real["verdict"] != "withheld")]
    own = reach[reach["method"] == "tmt_amw"]
    rank = tables["worlds_agreement"].query("statistic == 'spearman'").set_index(["method", "measure"])
    rho = {m: intervals(rank.loc[[("tmt_amw", m)]], "value", ".2f").item() for m in ("weight", "shapley_permuted")}
    misled = tables["misled"][tables["misled"]["world"] == "misled"].set_index("method")
    share = {m: _share(misled, m) for m in ("tmt_amw", "tmt_reliability")}
    return "\n".join(
        (
            "1. **AMW shows no gain on any data here.** Added to TMT it changes the error (MAE, label units -3 to 3; "
            f"CH-SIMS -1 to 1; higher is worse): {_changes(mae, '+.3f')} (95 % intervals, n = {mae['n'].max()} "
            f"seeds); it lowers it by {-mae['low'].min():.3f} at most. A gain (an interval without zero, and p below "
            f".05 adjusted over the comparisons) shows in {_sure(over)} comparisons with TMT and in "
            f"{_sure(gains[gains['before'] == 'tmt_uniform'])} with uniform weights, which learn nothing. With 1/3 in "
            "place of the learned weights the trained models' error changes by less than "
            f"{swapped[['low', 'high']].abs().max(axis=None):.4f}. Of {real['dataset'].nunique()} real files TMT "
            f"learned something on {on_real['dataset'].nunique()}: a gain shows there in {_sure(on_real)}, and "
            f"{counts(on_real).get('cannot tell', 0)} cannot be told.",
            f"2. **Its weights do not say which modality matters.** They start at 1/3, end between "
            f"{own['a_low'].min():.3f} and {own['a_high'].max():.3f} and are the same for every clip. Over "
            f"{rank['n'].max():.0f} synthetic worlds their rank correlation with the true importance is "
            f"{rho['weight']}; that of Shapley values of the same models is {rho['shapley_permuted']}.",
            f"3. **Weights can help where a modality misleads, in another place.** In synthetic worlds where one does, "
            f"TMT+AMW gets {share['tmt_amw']} of what can be gained; reliability weighting, computed from each clip in "
            f"the attention, {share['tmt_reliability']} (n = {misled['n'].max()} draws of {misled['seeds'].max()} "
            "seeds). Where no modality misleads it shows no sure gain.",
        )
    )


def _sure(gains: pd.DataFrame) -> str:
    return f"{counts(gains).get('supported', 0)} of {len(gains)}"


def _share(reached: pd.DataFrame, method: str) -> str:
    return intervals(reached.loc[[method]], "share", ".0%", "share_low", "share_high").item()


def beside(claims: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The ledger with the sentences of tables of profile `REPORTED` that no rule reads (`BESIDE`) at the end of the
    evidence of the claims that they bear on."""
    evidence = claims["evidence"].copy()
    for name, keys in BESIDE.items():
        if len(tables[name]):
            words = f" Beside the rules, in profile {REPORTED} ({name}.csv): {TABLES[name](tables[name])}"
            evidence = evidence.mask(claims["claim"].isin(keys), evidence + words)
    return claims.assign(evidence=evidence)


def on_absent(weights: pd.DataFrame) -> str:
    """A line for each data set without some modality: what its weights give to what is not there. Empty where none is.

    weights: `analysis.weights.chosen`, which has no rows of an absent modality.
    """
    lines = []
    for (dataset, source), rows in weights.groupby(["dataset", "source"], sort=False):
        absent = [m for m in MODALITIES if m not in set(rows["modality"])]
        given = 1 - rows.groupby(["method", "seed"], sort=False)["weight"].sum()
        each = ((method_title(m), f"{w:.3f}") for m, w in given.groupby("method", sort=False).mean().items())
        lacks = f"{dataset_title(dataset, source)} has no {' and no '.join(absent)}"
        words = "of weights that sum to one, what is not there is given (mean over seeds)"
        lines += [f"{lacks}: {words} {', '.join(f'{w} by {m}' for m, w in each)}."] * bool(absent)
    return "\n".join(lines)


def counts(rows: pd.DataFrame) -> dict[str, int]:
    """How many rows have each verdict that occurs, in the order of `VERDICTS`."""
    number = rows["verdict"].value_counts()
    return {verdict: number[verdict] for verdict in VERDICTS if verdict in number}


def lost(table: pd.DataFrame, kind: str) -> str:
    """How far MAE rises from clean data to the strongest level of a kind of corruption, a line a data set: with all
    modalities corrupted at once, else as a mean over those corrupted alone. table: `robustness.summary`."""
    rows = titled(table[(table["kind"] == kind) & (table["metric"] == "mae")])
    rows = rows[rows["modality"] == "all"] if "all" in set(rows["modality"]) else rows
    rows = rows.sort_values("level", ascending=kind != "noise", kind="stable")
    lines = []
    for dataset, of_data in rows.groupby("dataset", sort=False):
        wide = of_data.pivot_table("mean", "method", "level", sort=False)
        each = (f"{method} {start:.3f} to {end:.3f}" for method, start, end in wide.iloc[:, [0, -1]].itertuples())
        lines.append(f"{dataset}, MAE from clean to the strongest level: {'; '.join(each)} ({_seeds(of_data['n'])}).")
    return "\n".join(lines)


def numbered(rows: pd.DataFrame) -> str:
    """`counts` in words."""
    return ", ".join(f"{n} {verdict}" for verdict, n in counts(rows).items())


def tally(gains: pd.DataFrame) -> str:
    """The verdicts on gains, counted, in words; how many show a gain is said even of none."""
    number = {"supported": 0} | counts(gains)
    return ", ".join(words.format(n=number[verdict]) for verdict, words in TALLIED.items() if verdict in number)


def _gain(gains: pd.DataFrame) -> str:
    over = dict(list(gains.groupby("before")))
    mae = over["tmt"].query("metric == 'mae'")
    controls = (f"over {title} {tally(over[m])}" for m, title in CONTROLS.items() if m in over)
    return (
        f"TMT+AMW minus TMT in MAE (less is better): {_changes(mae, '+.3f')} (n = {mae['n'].max()} seeds, 95 % "
        f"intervals). Of {len(over['tmt'])} comparisons (data set and metric) {tally(over['tmt'])}. Learned weights "
        f"would also have to gain over fixed ones: {'; '.join(controls)}."
    )


def _reach(reach: pd.DataFrame) -> str:
    rates = {"tmt_amw": "at the training's learning rate", "tmt_amw_fast": "at a faster one of their own"}
    parts = [
        f"{rows['a_low'].min():.3f} to {rows['a_high'].max():.3f} {rate}"
        for method, rate in rates.items()
        for rows in [reach[reach["method"] == method]]
        if len(rows)
    ]
    same = "They are the same for every utterance, so claims about single samples are impossible as written."
    return (
        "The weights of TMT+AMW, one a modality and feature, start at 1/3; at the tested epoch they reach (extremes "
        f"over features, seeds and data sets) {', and '.join(parts)}. {same}"
    )


def _swap(swap: pd.DataFrame) -> str:
    rows = swap.query("method == 'tmt_amw' and replaced_by == 'uniform' and regime == 'clean'")
    return (
        "The swap test, learned weights minus 1/3 in their place in the same trained models, in MAE: "
        f"{_changes(rows[rows['metric'] == 'mae'], '+.5f')} (n = {rows['n'].max()}). Whatever the sign, of {len(rows)} "
        f"comparisons {tally(rows)}."
    )


def _worlds(worlds: pd.DataFrame) -> str:
    parts = []
    for (method, measure), rows in worlds.groupby(["method", "measure"], sort=False):
        by_name = rows.set_index("statistic")
        rank, slope = (intervals(by_name.loc[[s]], "value", ".2f").item() for s in ("spearman", "slope"))
        what = MEASURES.get(measure, "").format(method_title(method)) if method != "oracle" else MEASURES["truth"]
        parts += [f"{what} {rank}, {slope}"] * bool(what)
    n = worlds["n"].max()
    return (
        f"Over {n:.0f} synthetic worlds, rank correlation with the true importance and slope on it: {'; '.join(parts)}."
    )


def _misled(reached: pd.DataFrame) -> str:
    parts = []
    for world, rows in reached.groupby("world", sort=False):
        by_method = rows.set_index("method")
        shares = (f"{words} {_share(by_method, m)}" for m, words in SHARES.items() if m in by_method.index)
        can = intervals(by_method.loc[["tmt_oracle"]], "gain", ".3f").item()
        test = "" if by_method["test"].all() else ", not surely more than nothing, so this world is no test,"
        parts.append(f"where {WORLDS[world]}, {can}{test} can be gained in MAE; of that {', '.join(shares)}")
    return (
        f"In synthetic worlds where a modality misleads in 40 % of the utterances (n = {reached['n'].max()} draws of "
        f"{reached['seeds'].max()} seeds): {'; '.join(parts)}."
    )


def _gates_elsewhere(clean: pd.DataFrame) -> str:
    mae = clean[clean["metric"] == "mae"]
    over = {before: _changes(rows, "+.3f") for before, rows in mae.groupby("before", sort=False)}
    return (
        f"Where no modality misleads, reliability weighting minus TMT in MAE: {over['tmt']}; minus itself with open "
        f"gates: {over['tmt_reliability_open']} (n = {mae['n'].max()})."
    )


def _gates_corrupted(corrupted: pd.DataFrame, where: str = "On corrupted test data") -> str:
    rows = corrupted[(corrupted["metric"] == "mae") & corrupted["kind"].isin(CORRUPTED)]
    means = rows.groupby(["kind", "method"], sort=False)["mean"].mean().unstack("kind")
    parts = [
        f"{words} " + ", ".join(f"{title} {means.loc[m, kind]:.3f}" for m, title in GATES.items())
        for kind, words in CORRUPTED.items()
        if kind in means
    ]
    n = rows["n"].max()
    return (
        f"{where}, in MAE, a mean over levels and modalities (n = {n} seeds; the table has "
        f"the spread): {'; '.join(parts)}."
    )


def _crema(carries: pd.DataFrame) -> str:
    def numbers(method: str, measure: str) -> str:
        rows = carries[(carries["method"] == method) & (carries["measure"] == measure)].set_index("modality")
        return ", ".join(f"{m} {intervals(rows.loc[[m]], 'mean').item()}" for m in MODALITIES)

    gates = "tmt_reliability"
    also = f"; reliability weighting's gates, as shares, {numbers(gates, 'weight')}" * (gates in set(carries["method"]))
    return (
        "On CREMA-D's votes (real; raters tell most from the face, something from the voice, and the sentence says "
        f"nothing) TMT+AMW's weights are {numbers('tmt_amw', 'weight')}; its Shapley shares "
        f"{numbers('tmt_amw', 'shapley_absent')}{also} (n = {carries['n'].max()})."
    )


def _real_gain(gains: pd.DataFrame) -> str:
    over = dict(list(gains[gains["before"] == "tmt"].groupby("after")))
    parts = (f"{method_title(m)} {tally(rows)}" for m, rows in over.items())
    return (
        f"On {gains['dataset'].nunique()} real files, of {len(over['tmt_amw'])} comparisons with TMT (file and metric, "
        f"{_seeds(gains['n'])}): {'; '.join(parts)}."
    )


def _seeds(numbers: pd.Series) -> str:
    low, high = numbers.min(), numbers.max()
    return f"n = {low} seeds" if low == high else f"n = {low} to {high} seeds"


def shared(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `importance.csv` of files with more than one modality, on which TMT surely learned something."""
    return table[table["learned"] & (table.groupby("dataset")["modality"].transform("nunique") > 1)]


def _real_importance(table: pd.DataFrame) -> str:
    table = shared(table)
    shares = table.set_index(["method", "measure", "dataset", "modality"])["mean"].sort_index()
    leads, weights, gates = (
        shares[key].unstack().reindex(columns=MODALITIES)
        for key in (("tmt_amw", "shapley_absent"), ("tmt_amw", "weight"), ("tmt_reliability", "weight"))
    )
    lead = leads.idxmax(axis=1)
    led = (f"{m} on {(lead == m).sum()}" for m in MODALITIES)
    uneven = weights.mul(weights.notna().sum(axis=1), axis=0).sub(1).abs().max(axis=None)
    found, base = (gates.idxmax(axis=1) == lead[gates.index]).sum(), (lead[gates.index] == MODALITIES[0]).sum()
    return (
        f"By the Shapley shares of TMT+AMW the leading modality is {', '.join(led)} of the {len(lead)} files with more "
        f"than one on which TMT learned something. On all of them its weights are the same for each modality to within "
        f"{uneven:.1%}; the gates of reliability weighting are greatest for the leading modality on {found} of "
        f"{len(gates)} (always naming text: {base})."
    )


def _real_emotions(felt: pd.DataFrame) -> str:
    f1 = felt[(felt["metric"] == "f1") & (felt["emotion"] == "mean")]
    parts = []
    for (dataset, source), rows in f1.groupby(["dataset", "source"], sort=False):
        texts = rows["mean"].map("{:.3f}".format) + rows["sd"].map(" ± {:.3f}".format, na_action="ignore").fillna("")
        scores = (f"{method_title(m)} {x}" for m, x in zip(rows["method"], texts, strict=True) if m != "majority")
        parts.append(f"{dataset_title(dataset, source)} {', '.join(scores)}")
    return f"Emotions that people named, mean F1 ± sd ({_seeds(felt['n'][felt['sd'].notna()])}): {'; '.join(parts)}."


def _absent(weights: pd.DataFrame) -> str:
    alone = weights[weights.groupby("dataset")["modality"].transform("nunique") == 1]
    return (
        f"On the {alone['dataset'].nunique()} files with one modality alone its weight of TMT+AMW is "
        f"{alone['weight'].min():.3f} to {alone['weight'].max():.3f}: the rest stays on what is not there."
    )


def _transcripts(swept: pd.DataFrame) -> str:
    rows = swept[(swept["metric"] == "mae") & (swept["kind"] == "words_dropped") & swept["level"].isin((0, 0.5))]
    wide = rows.pivot(index="method", columns="level", values="mean")
    parts = (f"{method_title(m)} from {wide.at[m, 0]:.3f} to {wide.at[m, 0.5]:.3f}" for m in wide.index)
    return (
        f"With half of the words dropped (P6; {rows['dataset'].iloc[0]}, encoded anew) MAE goes up, {', '.join(parts)} "
        f"({_seeds(rows['n'])})."
    )


def _bonus(bonus: pd.DataFrame) -> str:
    acc5 = bonus[(bonus["method"] == "tmt") & (bonus["metric"] == "acc5")]
    gain = {d: table1_value(d, "tmt_amw", "acc5") - table1_value(d, "tmt", "acc5") for d in DATASETS}
    printed = ", ".join(f"{gain[d]:+.3f}" for d in acc5["dataset"] if d in gain)
    return (
        "Picking the epoch by test instead of validation, as the original TMT's code does, would have added "
        f"{_changes(acc5, '+.4f', 'bonus')} to TMT's Acc-5 (n = {acc5['n'].max()}); TMT+AMW's gain over TMT as printed "
        f"in the paper: {printed or 'none for these data'}."
    )


def _frames(table: pd.DataFrame) -> str:
    parts = []
    for (dataset, source, frames), rows in table.groupby(["dataset", "source", "frames"], sort=False):
        models = (f"{method_title(r.method)} {r.single_mae:.3f}" for r in rows.sort_values("single_mae").itertuples())
        where = f"on {dataset_title(dataset, source)} with {FRAMES[frames]}"
        linear = intervals(rows[rows["method"] == "tmt"], "single_difference", "+.3f", "single_low", "single_high")
        ridge = f"ridge regression {rows['linear_mae'].iloc[0]:.3f} (TMT minus it {', '.join(linear)})"
        parts.append(f"{where} {', '.join(models)}, {ridge}")
    settings = f"each model's settings chosen on one grid with all frames; n = {table['n_seeds'].max()} seeds"
    return f"Where TMT's lead comes from, in MAE ({settings}): {'; '.join(parts)}."


def _claims(claims: pd.DataFrame) -> str:
    forms = {"cannot tell": "for {n} we cannot tell"}
    forms |= {"no practical difference": "for {n} there is no practical difference"}
    verdicts = (forms.get(v, f"{{n}} are {v}").format(n=n) for v, n in counts(claims).items())
    return f"Of the paper's {len(claims)} claims {', '.join(verdicts)}."


def _changes(cells: pd.DataFrame, digits: str, column: str = "difference") -> str:
    """The difference on each data set, with its interval."""
    titles = [dataset_title(*pair) for pair in zip(cells["dataset"], cells["source"], strict=True)]
    return "; ".join(f"{title} {text}" for title, text in zip(titles, intervals(cells, column, digits), strict=True))


TALLIED = {
    "supported": "{n} show a gain",
    "not supported": "{n} surely none of half the printed size",
    "no practical difference": "{n} no practical difference",
    "cannot tell": "{n} cannot tell",
    "withheld": "{n} are withheld",
}
CONTROLS = {"tmt_uniform": "uniform weights", "tmt_random": "random ones"}
MEASURES = {"weight": "the weights of {}", "shapley_permuted": "Shapley values of {}", "truth": "the truth itself"}
WORLDS = {"misled": "only disagreement tells which", "misled_cued": "a frame tells it, too"}
SHARES = {
    "tmt_oracle_r1": "weights that are told the truth get, at the paper's place (R1),",
    "tmt_oracle_r3": "before disentanglement (R3)",
    "tmt_amw": "TMT+AMW",
    "tmt_gated": "weights gated by the input",
    "tmt_reliability": "reliability weighting in the attention",
    "tmt_reliability_open": "the same with its gates held open",
}
GATES = {"tmt": "TMT", "tmt_reliability": "reliability weighting", "tmt_reliability_open": "its gates open"}
CORRUPTED = {"noise": "noise (P7)", "missing_block": "a block missing (P8)", "shift": "a modality late (P8)"}
CORRUPTED |= {"swapped": "another utterance's modality (P9)"}
FRAMES = {"all": "all frames", "salient": "the salient frame alone"}
TABLES = {
    "amw_differences": _gain,
    "weights_reach": _reach,
    "swap": _swap,
    "worlds_agreement": _worlds,
    "misled": _misled,
    "reliability_clean": _gates_elsewhere,
    "reliability_corrupted": _gates_corrupted,
    "crema_importance": _crema,
    "selection_bonus": _bonus,
    "distractors": _frames,
    "claims": _claims,
}
BESIDE = {"misled": ("emphasis", "imbalance_noise"), "crema_importance": ("emphasis", "interpretable")}
ELSEWHERE = {
    "amw_differences": _real_gain,
    "importance": _real_importance,
    "weights": _absent,
    "crema_corrupted": lambda table: _gates_corrupted(table, "On CREMA-D's votes, corrupted"),
    "transcripts": _transcripts,
    "emotions": _real_emotions,
}
