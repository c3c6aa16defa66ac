"""The verdict on each claim of the paper, from the tables of a study."""

from collections.abc import Mapping

import pandas as pd

from tmtlib.analysis import attention, costs, paired, robustness
from tmtlib.analysis.paired import CONTROLS
from tmtlib.paper import facts, ledger
from tmtlib.study import findings, runs
from tmtlib.study.study import Study

MEASURED = {name.partition(":")[0] for claim in facts.CLAIMS for name in claim.measured}
NEEDED = MEASURED | {*"runs by_utterance against_constant attention_entropy costs swap noise_areas".split()}


def table(study: Study) -> pd.DataFrame:
    """`judged` from the tables that this study has saved; costs, attention and noise are measured where missing."""
    t, device, jobs = {name: study.table(name) for name in sorted(NEEDED)}, study.device, study.profile.jobs
    if t["costs"].empty:
        t["costs"] = costs.table(["tmt_amw"], study.profile, next(study.datasets()), device)
    if t["noise_areas"].empty:
        t["noise_areas"] = robustness.tables(study)["noise_areas"]
    if t["attention_entropy"].empty:
        compared = study.runs("tmt_amw", *CONTROLS)
        runs.ensure(compared, device, jobs)
        t["attention_entropy"] = attention.compared(compared, device, jobs)
    return judged(study, t)


def judged(study: Study, t: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """`ledger.claims`, and beside each what other profiles measured; t: the tables `NEEDED`, by name."""
    cost = t["costs"].set_index("method", drop=False).loc["tmt_amw"]
    cost = ledger.Cost(*cost["parameters":"share"], tuple(cost["extra_time":"n"]))
    controlled, entropy = t["runs"].query("method == 'tmt_random'")["dataset"], t["attention_entropy"]
    entropy = entropy[entropy["dataset"].isin(controlled)]
    entropy = entropy.sort_values("method", key=lambda names: names != "tmt_amw", kind="stable")
    measured = {**t, "attention_entropy": entropy, "by_utterance": paired.sampled(t["by_utterance"])}
    claims = ledger.claims(t["runs"], t["noise_areas"], cost, measured)
    return findings.beside(claims, {name: study.reported(name, of_its_data=False) for name in findings.BESIDE})
