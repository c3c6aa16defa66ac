"""Does a measure of importance name the modality that people say carried the sentiment?

CH-SIMS and its like have, beside the label of an utterance, labels of its text, audio and vision by people who were
given that modality alone. The modality that "carried" an utterance is taken to be the one whose label goes farthest to
the side of the utterance's label; a measure names the modality that it gives most, with values of a prediction (Shapley
values, occlusion) counted to that side too. Utterances labelled 0, and those where no modality goes to that side or two
go equally far, say nothing and are left out. This is a view of ours: no file says which modality mattered. In synthetic
data the true importance names the carrier in about nine of ten utterances; were the carrier the modality whose label
is nearest to the utterance's, it would in fewer than half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64

from tmtlib.analysis.importance import REMOVALS, occlusion, per_utterance, subset_values, weight_values
from tmtlib.common import MODALITIES, one_thread
from tmtlib.data.schema import DataError, Dataset, Split
from tmtlib.models.base import Model
from tmtlib.stats.statistics import hierarchical_bootstrap
from tmtlib.study import cache
from tmtlib.study.runs import Run, load_model

TIE = 1e-3  # labels as near as this are equal: official files round them to three digits


def carriers(split: Split) -> Int64[np.ndarray, " N"]:
    """The index in MODALITIES of the one whose unimodal label goes farthest to the side of the label; -1 for none.

    Raises DataError for a split without unimodal labels of all modalities.
    """
    lacking = [m for m in MODALITIES if m not in split.unimodal_labels]
    if lacking:
        raise DataError(f"no unimodal labels of {', '.join(lacking)}; wanted a label a modality, as CH-SIMS has them")
    push = _to_the_side_of(split, split.unimodal_labels)
    second, first = np.sort(push, axis=1)[:, 1:].T
    return np.where((first > TIE) & (first - second > TIE), push.argmax(1), -1)


def _to_the_side_of(split: Split, values: Mapping[str, Float[np.ndarray, " N"]]) -> Float[np.ndarray, "N M"]:
    """Values by modality, positive where they have the sign of the label; 0 where the label is 0."""
    side = np.sign(np.where(np.abs(split.labels) > TIE, split.labels, 0))
    return side[:, None] * np.stack([values[m] for m in MODALITIES], axis=1)


def labelled(data: Dataset) -> bool:
    """Whether train and test have labels of all modalities, and some test utterance has a carrier."""
    whole = all(set(MODALITIES) <= set(split.unimodal_labels) for split in (data.train, data.test))
    return whole and bool((carriers(data.test) >= 0).any())


def agreement(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """Share of test utterances in which a measure names the modality that carried them, by finished runs.

    Columns: dataset, source, method, measure; agreement with its 95 % interval (low, high); chance, what always naming
    the modality that carried most training utterances gives; above (agreement - chance) with above_low and above_high;
    third, what naming at random gives (1/3); n (utterances with a carrier) and seeds. Intervals are percentiles of a
    bootstrap over utterances and seeds at once (`hierarchical_bootstrap`), with one seed over utterances alone.

    Measures: "shapley_absent", "shapley_mean", "shapley_permuted" and "occlusion" (absent), and of models with weights
    "weight" (mean of A over features) and "weighted_size" (mean |A_m S_m| over tokens), each by utterance; the weights
    of a static weighting name the same modality every time. In synthetic data "truth" is what the utterance's synthetic
    importance reaches, as unimodal labels are no perfect sign of it. Raises DataError for data without them.
    """
    found = cache.map_runs(_hits, [(run,) for run in todo], device, jobs, "unimodal labels")
    keys, rows = ["dataset", "source", "method", "measure"], []
    for key, some in found.groupby(keys, sort=False):
        named, always = np.array(some["named"].tolist()), np.array(some["always"].tolist())
        share, above = (hierarchical_bootstrap(named, before) for before in (np.zeros_like(named), always))
        numbers = {"agreement": share.mean, "low": share.low, "high": share.high, "chance": always.mean()}
        numbers |= {"above": above.mean, "above_low": above.low, "above_high": above.high, "third": 1 / len(MODALITIES)}
        rows.append(dict(zip(keys, key, strict=True)) | numbers | {"n": named.shape[1], "seeds": len(named)})
    return pd.DataFrame(rows)


@cache.per_run("unimodal")
def _hits(run: Run, device: str, data: Dataset) -> list[dict]:
    """A row a measure: of each utterance with a carrier, whether it names its carrier, and whether always naming the
    commonest of training does."""
    carrier, seen = carriers(data.test), carriers(data.train)
    commonest = np.bincount(seen[seen >= 0], minlength=len(MODALITIES)).argmax()
    said = carrier >= 0
    if not said.any():
        raise DataError(f"in none of {len(carrier)} test utterances of {data.card.name} one modality goes farthest")
    model = load_model(run, data.shape)
    with one_thread(device):
        sizes = measures(model, run, device, data)
    always = (carrier[said] == commonest).astype(float).tolist()
    return [{"measure": k, "named": names(x, carrier)[said].tolist(), "always": always} for k, x in sizes.items()]


def names(sizes: Float[np.ndarray, "N M"], carrier: Int64[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Whether the largest of each row is the carrier's; of k equally large ones, among them the carrier's, 1/k."""
    largest = sizes >= sizes.max(1, keepdims=True) - 1e-7
    return np.take_along_axis(largest, np.maximum(carrier, 0)[:, None], 1)[:, 0] / largest.sum(1)


def measures(model: Model, run: Run, device: str, data: Dataset) -> dict[str, Float[np.ndarray, "N M"]]:
    """Importance by test utterance and modality, by measure, see `agreement`."""
    found = {}
    for removal in REMOVALS:
        values = subset_values(model, data.test, removal, data.train, run.training, device, run.seed)
        found[f"shapley_{removal}"] = per_utterance(values)
        if removal == "absent":
            found["occlusion"] = occlusion(values)
    if data.truth is not None:
        found["truth"] = dict(zip(MODALITIES, data.truth.splits["test"].importance.T, strict=True))
    sizes = {k: np.stack([x[m] for m in MODALITIES], axis=1) for k, x in weight_values(model, data.test).items()}
    return {k: _to_the_side_of(data.test, x) for k, x in found.items()} | sizes
