"""The swap test: nothing changes where nothing is replaced, and weights that matter are told from those that do not."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from model_helpers import SMALL, protocol, synthetic
from scipy import stats

from tmtlib.analysis import swap
from tmtlib.data.loading import load, synthetic_ref
from tmtlib.data.schema import SyntheticSize
from tmtlib.models import build_model
from tmtlib.models.amw import AMW
from tmtlib.models.base import Model, Trace
from tmtlib.paper.verdicts import RULES, margin
from tmtlib.stats.statistics import hierarchical_bootstrap, t_interval
from tmtlib.study import runs
from tmtlib.study.methods import method_config
from tmtlib.study.runs import Run
from tmtlib.training.batches import sample_batch
from tmtlib.training.fit import predict

UNIFORM = torch.ones(3, 1)
EXACT = protocol()


def model_of(weighting, **changes):
    torch.manual_seed(0)
    model = build_model(replace(SMALL, weighting=weighting, **changes), synthetic().shape).eval()
    for name, parameter in model.weighting.named_parameters():
        torch.nn.init.normal_(parameter, std=2.0) if "scorer" not in name else torch.nn.init.normal_(parameter)
    return model


def values(model):
    return predict(model, synthetic().test, EXACT, "cpu")


@pytest.mark.parametrize("placement", ["R1", "R1M", "R2", "R3"])
def test_uniform_for_uniform_changes_no_bit_and_for_others_it_does(placement):
    model = model_of("uniform", placement=placement)
    assert np.array_equal(values(swap.with_weights(model, UNIFORM)), values(model))
    for weighting in ("mostly_text", "static", "gated", "token", "attention"):
        model = model_of(weighting, placement=placement)
        before = values(model)
        uniform = swap.with_weights(model, UNIFORM)
        assert np.abs(values(uniform) - before).max() > 1e-6, weighting
        assert np.array_equal(values(model), before), "the model itself is left as it was"
        weights = uniform(sample_batch(uniform, synthetic().test))[1].weights
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3))


def test_a_model_s_own_weights_give_its_own_predictions():
    model = model_of("static", temperature=0.5)
    own = (model.weighting.W / 0.5).softmax(0).detach()
    np.testing.assert_allclose(values(swap.with_weights(model, own)), values(model), atol=1e-6)
    assert not np.allclose(values(swap.with_weights(model, own.flip(0))), values(model), atol=1e-4)


@pytest.mark.parametrize(("masked", "wanted"), [(True, [0.5, 0, 0.5]), (False, [1 / 3, 1 / 3, 1 / 3])])
def test_an_absent_modality_is_weighted_as_in_the_model(masked, wanted):
    model = swap.with_weights(model_of("gated", mask_absent=masked), UNIFORM)
    batch = sample_batch(model, synthetic().test)
    batch.lengths["audio"][:] = 0
    weights = model(batch)[1].weights.mean(-1)
    np.testing.assert_allclose(weights.detach(), np.broadcast_to(wanted, weights.shape), atol=1e-6)


def test_a_model_without_weights_is_refused():
    with pytest.raises(ValueError, match="the model has no weights; wanted one with a weighting"):
        swap.with_weights(build_model(SMALL, synthetic().shape), UNIFORM)


def test_rows_of_trained_runs(own_results):
    ref = synthetic_ref("sims", SyntheticSize((64, 32, 50), (5, 6, 7)))
    names = ("tmt", "tmt_amw", "tmt_gated_fast", "tmt_uniform")
    todo = [Run(ref, m, method_config(m, SMALL), EXACT, seed) for m in names for seed in (0, 1)]
    runs.ensure(todo, "cpu", jobs=1, progress=False)
    rows = swap.by_seed(todo, "cpu", jobs=1)
    assert rows.groupby("method")["replaced_by"].unique().map(list).to_dict() == {
        "tmt_amw": ["uniform"],
        "tmt_gated_fast": ["uniform", "mean"],
        "tmt_uniform": ["uniform"],
    }
    for row in rows.itertuples():
        run = next(run for run in todo if (run.method, run.seed) == (row.method, row.seed))
        assert row.learned == pytest.approx(runs.read_record(run).scores()[row.metric], abs=1e-6)
        assert row.difference == row.learned - row.replaced and row.utterances == 50
        if row.metric != "f1_5class":
            assert np.mean(row.by_utterance) == pytest.approx(row.difference, abs=1e-6)
    assert not rows.loc[rows["method"] == "tmt_uniform", "difference"].any()
    gated = todo[4]
    data, model = load(ref), runs.load_model(gated)
    mean = model(sample_batch(model, data.valid))[1].weights.mean(0).detach()
    replaced = np.clip(predict(swap.with_weights(model, mean), data.test, EXACT, "cpu"), -1, 1)
    row = rows.query("method == 'tmt_gated_fast' and replaced_by == 'mean' and metric == 'mae' and seed == 0")
    assert row["replaced"].item() == pytest.approx(np.abs(replaced - data.test.labels).mean(), abs=1e-5)
    pd.testing.assert_frame_equal(swap.by_seed(todo, "cpu", jobs=1), rows)
    assert len(swap.summary(rows)) == 4 * 3


class Hand(Model):
    """Predicts (`used` A_text + 1 - used) y, and noise of its own: right with nearly all weight on text and wrong with
    uniform weights, where these are used; else right with both."""

    def __init__(self, used: float, seed: int):
        config = replace(SMALL, weighting="static")
        super().__init__(config, "mosi")
        self.weighting, self.used, self.seed = AMW(config), used, seed
        self.weighting.W.data[0] = 5 + 0.1 * seed

    def forward(self, batch):
        weights = self.weighting(torch.zeros(1, 3, 1, SMALL.width))
        truth = batch.features["text"][:, 0, 0]
        noise = 0.1 * torch.sin(1e3 * truth + self.seed)
        prediction = truth * (self.used * weights[0, 0].mean() + 1 - self.used) + noise
        return prediction, Trace(weights=weights[:, :, 0])


def judged_by_hand(monkeypatch, used, seeds=3):
    data = synthetic("mosi", (8, 8, 200), (3, 3, 3))
    test = replace(data.test, features=data.test.features | {"text": data.test.features["text"].copy()})
    test.features["text"][:, 0, 0] = test.labels
    monkeypatch.setattr(swap, "read_record", lambda run: None)
    monkeypatch.setattr(swap, "load_model", lambda run, shape: Hand(used, run.seed).eval())
    rows = []
    for seed in range(seeds):
        run = SimpleNamespace(seed=seed, training=EXACT, data=SimpleNamespace(regime="clean"))
        of_seed = swap._swapped.__wrapped__(run, "cpu", replace(data, test=test))
        which = {"dataset": "mosi", "source": "synthetic", "method": "tmt_amw", "seed": seed}
        rows += [which | row for row in of_seed]
    rows = pd.DataFrame(rows)
    return rows, swap.summary(rows).set_index("metric")


def test_weights_that_matter_are_told_from_weights_that_do_not(monkeypatch):
    _, used = judged_by_hand(monkeypatch, 1.0)
    assert (used.loc[["acc5", "mae"], "verdict"] == "supported").all() and used["difference"]["mae"] < -0.3
    _, unused = judged_by_hand(monkeypatch, 1e-4)
    assert unused["verdict"]["mae"] == "not supported" and abs(unused["difference"]["mae"]) < 1e-3
    _, one = judged_by_hand(monkeypatch, 1.0, seeds=1)
    assert (one["verdict"] == "cannot tell").all() and one["low"].isna().all() and (one["n"] == 1).all()


def test_the_summary_by_hand(monkeypatch):
    rows, table = judged_by_hand(monkeypatch, 1.0)
    mae, row = rows[rows["metric"] == "mae"], table.loc["mae"]
    assert row["difference"] == pytest.approx((mae["learned"] - mae["replaced"]).mean())
    assert (row["low"], row["high"]) == pytest.approx(t_interval(mae["difference"])[1:3])
    changes = np.stack(mae["by_utterance"])
    crossed = hierarchical_bootstrap(changes, np.zeros_like(changes))
    assert (row["crossed_low"], row["crossed_high"]) == (crossed.low, crossed.high)
    assert row["p"] == pytest.approx(stats.ttest_rel(mae["learned"], mae["replaced"]).pvalue)
    assert row["margin"] == margin("mosi", "mae") and row["n"] == 3 and row["utterances"] == 200
    assert table.loc["f1_5class", ["crossed_low", "crossed_high"]].isna().all()
    assert row["p_below"] == 1 and row["practical"] == 0.02, "its gain is beyond half the printed one"
    unused = judged_by_hand(monkeypatch, 1e-4)[1].loc["mae"]
    error = unused["high"] - unused["difference"]
    t = (unused["margin"] + unused["difference"]) / (error / stats.t.ppf(0.975, 2))
    assert unused["p_below"] == pytest.approx(2 * stats.t.sf(t, 2), rel=1e-6), (
        "of one cell with a p, as the others have none"
    )
    assert table.columns[-1] == "rules" and (table["rules"] == RULES).all()


def test_the_wider_interval_decides(monkeypatch):
    """Seeds that agree do not speak for other utterances."""
    rows, _ = judged_by_hand(monkeypatch, 1e-4)
    spread = np.tile([1.0, -1.0], 100)
    wide = rows.assign(by_utterance=[list(spread + d) for d in rows["difference"]])
    assert swap.summary(wide).set_index("metric")["verdict"]["mae"] == "cannot tell"
