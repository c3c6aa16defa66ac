"""The ledger: a verdict for each claim of the paper, from reading and from what was measured, and what it rests on.

Tables of measurements come as the notebooks save them; a claim of claims.toml names those that bear on it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from tmtlib.data.schema import dataset_title
from tmtlib.paper import audit, facts, verdicts
from tmtlib.paper.facts import RULES, Claim
from tmtlib.paper.verdicts import CONTROLS, LEAST, combined_verdict, practical_margin, sharpness_verdict
from tmtlib.stats.statistics import Interval

COLUMNS = "claim quote place verdict evidence judged_from runs data numbers trained rules".split()
DECIDED = ("supported", "not supported", "no practical difference", "impossible as written")
WORLDS = 30  # synthetic worlds: the intervals of fewer are too narrow
SLOPE = 0.25  # of a share on the true share: weights that move less do not follow importance
SLIGHT = 0.01  # share of the operations: more is not slightly more

# By the kind of a rule: files that hold the numbers, and the methods whose runs were judged
PAIR = ("tmt", "tmt_amw")
FILES = {"amw_gain": ["amw_differences"], "learned_gain": ["amw_differences", "swap"]}
FILES |= dict.fromkeys(("noise", "learned_noise"), ["robustness_differences"]) | {"sharpness": ["attention_entropy"]}
JUDGED = {"amw_gain": PAIR, "noise": PAIR}  # others: with the controls

READ = {"judged_from": "reading", "runs": "", "data": "", "numbers": "audit_verdicts.csv", "trained": ""}

Tables = Mapping[str, pd.DataFrame]


class Cost(NamedTuple):
    """Of TMT+AMW beyond TMT: parameters, operations for an utterance (also as a share of TMT's), and time a step."""

    parameters: int
    operations: int
    share: float
    time: Interval


def claims(rows: pd.DataFrame, areas: pd.DataFrame, cost: Cost, measured: Tables) -> pd.DataFrame:
    """Claims with a verdict, in `COLUMNS`: judged_from ("reading", "synthetic" or "real"), runs and data (in words),
    numbers (files), trained (date of the last run), rules (version and date). Claims about a data set that `rows` have
    no runs of TMT and TMT+AMW on are left out: other data do not bear on them.

    Args:
        rows: one row a run of "tmt", "tmt_amw" and, where they ran, `CONTROLS`, as `study.runs.ensure` returns them.
        areas: area under the noise curves of the same runs, see `analysis.robustness.area_under_curve`.
        measured: tables by the name of their file; one that is missing or empty tells nothing. Those that claims name,
            and "swap" (`analysis.swap.summary`), "by_utterance" (`analysis.paired.sampled`), "attention_entropy"
            (`analysis.attention.table`), "against_constant" (`analysis.trivial_baselines`: verdicts are withheld on
            data sets where TMT learned nothing).
    """
    measured = {name: frame for name, frame in measured.items() if len(frame)}
    against = measured.get("against_constant")
    withheld = frozenset() if against is None else verdicts.unlearned(against)
    attention = measured.get("attention_entropy")
    sharpness = sharpness_verdict(None if attention is None else verdicts.withhold(attention, withheld))
    by_rule = {"sharpness": sharpness, "parameters": overhead(cost)}
    from_runs = {c.key: by_rule[c.rule] for c in facts.CLAIMS if c.rule in by_rule}
    from_runs |= verdicts.gain_verdicts(rows, measured.get("swap"), withheld, measured.get("by_utterance"))
    from_runs |= verdicts.noise_verdicts(areas, withheld)
    reading = {c.claim: (c.verdict, c.evidence) for c in audit.arithmetic_verdicts().itertuples()}
    table = []
    for claim in facts.CLAIMS:
        found = findings(claim, measured, withheld)
        verdict, evidence = from_runs.get(claim.key) or reading.get(claim.key, ("", ""))
        if found:
            evidence += f" Measured: {' '.join(words for _, words in found.values())}"
        if claim.rule == "measured" and found:
            lacking = ["cannot tell"] * (len(found) < len(claim.measured))
            verdict = combined_verdict([*lacking, *(v for v, _ in found.values())])
        if verdict == "withheld":
            names = ", ".join(dataset_title(d, rows["source"].iloc[0]) for d in sorted(withheld))
            evidence = f"Withheld: TMT does not surely beat the training median on {names}. {evidence}"
        if verdict:
            cells = {"claim": claim.key, "quote": claim.quote, "place": claim.place, "verdict": verdict}
            basis = _basis(claim, rows, areas, measured) if claim.key in from_runs or found else READ
            table.append(READ | basis | cells | {"evidence": evidence, "rules": RULES})
    return pd.DataFrame(table, columns=COLUMNS)


def overhead(cost: Cost) -> tuple[str, str]:
    """Verdict and evidence on slightly more parameters and operations, by their counts."""
    slightly = cost.parameters > 0 and 0 < cost.share < SLIGHT
    mean, low, high, rounds = cost.time
    evidence = (
        f"{cost.parameters} more parameters; {cost.operations:,} more floating-point operations an utterance, "
        f"{100 * cost.share:.4f} % of TMT's. As an illustration, {100 * mean:+.1f} % [{100 * low:+.1f}, "
        f"{100 * high:+.1f}] time per training step, over {rounds} interleaved rounds."
    )
    return "supported" if slightly else "not supported", evidence


def findings(claim: Claim, measured: Tables, withheld: frozenset[str]) -> dict[str, tuple[str, str]]:
    """Verdict and evidence of each of a claim's tables that are at hand, by its name in claims.toml."""
    found = {}
    for named in claim.measured:
        name, _, scene = named.partition(":")
        if name in measured:
            frame = measured[name]
            frame = frame[frame["scene"] == scene] if scene else frame
            learned = ~frame["dataset"].isin(withheld) if "dataset" in frame else pd.Series(True, frame.index)
            hidden = "withheld", f"{name}: withheld, as TMT learned nothing there."
            found[named] = READERS[name](frame[learned]) if learned.any() else hidden
    return found


def follows_truth(agreement: pd.DataFrame) -> tuple[str, str]:
    """Whether weights follow the true importance over synthetic worlds, and move with it.

    agreement: `analysis.truth.worlds_agreement` (method, measure, statistic, value, low, high, n). Not supported where
    the slope lies below `SLOPE`, supported where it lies above and the rank correlation above 0. Cannot tell of fewer
    than `WORLDS`, and where no other measure follows the truth: then the models may have learned nothing.
    """
    found, words = [], []
    for method, rows in agreement[agreement["method"] != "oracle"].groupby("method", sort=False):
        weight = rows[rows["measure"] == "weight"].set_index("statistic")
        others = rows[~rows["measure"].isin(("weight", "weighted_size")) & (rows["statistic"] == "spearman")]
        if len(weight):
            rank, slope = weight.loc["spearman"], weight.loc["slope"]
            told = slope["n"] >= WORLDS and (others["low"] > 0).any()
            follows = rank["low"] > 0 and slope["low"] > SLOPE
            found.append("not supported" if told and slope["high"] < SLOPE else "cannot tell")
            found[-1] = "supported" if told and follows else found[-1]
            numbers = (f"{x['value']:+.3f} [{x['low']:+.3f}, {x['high']:+.3f}]" for x in (slope, rank))
            text = "{}, slope of the weights on true importance {}, rank correlation {}".format(method, *numbers)
            words.append(f"{text}, {slope['n']:.0f} synthetic worlds".replace("+nan [+nan, +nan]", "undefined"))
    return combined_verdict(found), f"{'; '.join(words)}."


def names_carrier(agreement: pd.DataFrame) -> tuple[str, str]:
    """Whether the weights of TMT+AMW name the modality that unimodal labels say carried an utterance more often than
    naming always the commonest one; agreement: `analysis.truth.unimodal_agreement` (dataset, source, method, measure,
    agreement, chance, above, above_low, above_high, n, seeds). Supported above 0, not supported below `LEAST`."""
    weight = agreement[(agreement["measure"] == "weight") & (agreement["method"] == "tmt_amw")]
    found = [_around(c.above_low, c.above_high, LEAST, 0.0) for c in weight.itertuples()]
    words = (
        f"{dataset_title(c.dataset, c.source)} weights name the carrier in {c.agreement:.0%}, the commonest modality "
        f"does in {c.chance:.0%} ({c.above:+.3f} [{c.above_low:+.3f}, {c.above_high:+.3f}])"
        for c in weight.itertuples()
    )
    return combined_verdict(found), f"{'; '.join(words)}."


def held_weight_costs(held: pd.DataFrame) -> tuple[str, str]:
    """Whether .8 held on the modality of least Shapley share costs error, as it would were weights importances.

    held: `analysis.identifiability.frozen_weights` (dataset, source, method, modality, weight, shapley, mae_difference,
    difference_low, difference_high, n). Supported above `practical_margin` of MAE, not supported below it.
    """
    found, words = [], []
    for (dataset, source), rows in held.groupby(["dataset", "source"], sort=False):
        learned = rows[rows["method"] == "tmt_amw"].set_index("modality")["shapley"]
        least = learned.idxmin()
        for c in rows[rows["method"] == f"tmt_mostly_{least}"].query("modality == @least").itertuples():
            limit = practical_margin(dataset, "mae")
            found.append(_around(c.difference_low, c.difference_high, limit, limit))
            interval = f"{c.mae_difference:+.3f} [{c.difference_low:+.3f}, {c.difference_high:+.3f}], n = {c.n}"
            words.append(f"{dataset_title(dataset, source)} .8 held on {least}, the least important: MAE {interval}")
    return combined_verdict(found), f"{'; '.join(words)}."


def focus(attention: pd.DataFrame) -> tuple[str, str]:
    """Whether attention to frames is surely not sharper with AMW; sharper attention alone supports no salience."""
    verdict, evidence = sharpness_verdict(attention, ("encoder",))
    return verdict if verdict == "not supported" else "cannot tell", evidence


def _around(low: float, high: float, least: float, most: float) -> str:
    """Not supported below `least`, supported above `most`; comparisons with NaN are False."""
    return "not supported" if high < least else "supported" if low > most else "cannot tell"


def _tallied(frame: pd.DataFrame, by: list[str], title: str) -> tuple[str, str]:
    """The verdicts of cells, counted for each method that is no control."""
    cells = frame[~frame["method"].isin(CONTROLS) & frame["verdict"].fillna("").ne("")]
    parts = [
        f"{' at '.join(key)} {', '.join(f'{v} ({n})' for v, n in group['verdict'].value_counts().items())}"
        for key, group in cells.groupby(by, sort=False)
    ]
    return combined_verdict(()), f"{title}: {'; '.join(parts)}."


READERS = {
    "adaptation_combined": lambda f: _tallied(f, ["method", "when"], "A weight falls with its modality's corruption"),
    "reliability_weights": lambda f: _tallied(f, ["method"], "A weight is greater where its modality is reliable"),
    "scenes": lambda f: _tallied(f, ["method"], "The named weights rise in this scene"),
    "worlds_agreement": follows_truth,
    "unimodal_agreement": names_carrier,
    "frozen_weights": held_weight_costs,
    "attention_entropy": focus,
}


def _basis(claim: Claim, rows: pd.DataFrame, areas: pd.DataFrame, measured: Tables) -> dict[str, str]:
    """The columns judged_from, runs, data, numbers and trained of a claim that runs bear on."""
    kind, tables = claim.rule.split(":")[0], [name.partition(":")[0] for name in claim.measured]
    if kind == "parameters":
        return {"numbers": "costs.csv"}  # counted, not measured: as sure as reading
    trained = str(rows["time"].max())[:10] if "time" in rows else ""
    rows = areas[areas["modality"] == "all"] if kind in ("noise", "learned_noise") else rows
    files = [name for name in tables if name in measured]
    if kind in FILES:
        named = {dataset for dataset, _ in facts.gain_cells(claim.rule)}
        mine = rows if not named or ":all:" in claim.rule else rows[rows["dataset"].isin(named)]
        mine = mine[mine["method"].isin(JUDGED.get(kind, (*PAIR, *CONTROLS)))]
        text = f"{len(mine)} runs of {', '.join(mine['method'].unique())}, {mine['seed'].nunique()} seeds"
        said, data, sources = [text] * (len(mine) > 0), mine, set(rows["source"])
        files = [name for name in FILES[kind] if name != "swap" or name in measured]
    else:
        said = [_of_table(name, measured[name]) for name in files]
        frames = [measured[name][["dataset", "source"]] for name in files if "dataset" in measured[name]]
        data = pd.concat([*frames, rows[["dataset", "source"]][:0]])
        sources = {source for name in files for source in measured[name]["source"]}
    titles = [dataset_title(*pair) for pair in dict.fromkeys(zip(data["dataset"], data["source"], strict=True))]
    titles += ["synthetic worlds"] * ("worlds_agreement" in files)
    numbers = ", ".join(f"{name}.csv" for name in [*files, *["audit_verdicts"] * (kind not in FILES)])
    judged_from = "synthetic" if "synthetic" in sources else "real"  # a verdict that needs both is no real one
    basis = {"runs": "; ".join(said), "data": ", ".join(titles), "numbers": numbers, "trained": trained}
    return basis | ({} if kind == "weights_static" else {"judged_from": judged_from})


def _of_table(name: str, frame: pd.DataFrame) -> str:
    methods = [m for m in frame["method"].unique() if m not in (*CONTROLS, "oracle")]
    n = frame["seeds" if "seeds" in frame else "n"].max()
    return f"{', '.join(methods)}, {n:.0f} {'worlds' if name == 'worlds_agreement' else 'seeds'}"
