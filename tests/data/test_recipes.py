"""Synthetic worlds against what is said of them, and agreement of measures with their truth."""

from dataclasses import replace
from itertools import chain, combinations, permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression

from tmtlib.analysis import importance, many_worlds
from tmtlib.analysis.many_worlds import STATISTICS, agreement, runs_in_worlds
from tmtlib.common import MODALITIES
from tmtlib.data import recipes, synthetic
from tmtlib.data.loading import load, resolve, synthetic_ref
from tmtlib.data.recipes import RECIPES, recipe_of, world_recipe
from tmtlib.data.schema import SyntheticSize, dataset_title, split_name, world_name
from tmtlib.data.synthetic import explained_variance
from tmtlib.study import runs
from tmtlib.study.study import open_study

MANY = 20_000
WORLDS = st.integers(0, 10_000)
NAMES = st.sampled_from(list(RECIPES))


def variances(recipe):
    return (recipe.shared, *recipe.specific, recipe.interaction, recipe.noise)


def true_shares(recipe):
    found = synthetic.shapley(lambda subset: explained_variance(recipe, subset))
    return {m: v / explained_variance(recipe, MODALITIES) for m, v in found.items()}


# --- The recipes -----------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(NAMES, WORLDS)
def test_a_world_is_a_recipe_like_the_others(name, world):
    recipe = recipe_of(name, world)
    assert sum(variances(recipe)) == pytest.approx(1) and min(variances(recipe)) >= 0
    assert 0.2 <= recipe.noise <= 0.4 and all(0.7 <= rho <= 1 for rho in recipe.reliability)
    shares = true_shares(recipe)
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > 0
    assert recipe == recipe_of(name, world), "reproducible"
    same = ("family", "step", "counts", "utterances", "shapes", "fill", "partner", "videos_shared")
    assert all(getattr(recipe, k) == getattr(RECIPES[name], k) for k in same)


@settings(max_examples=50, deadline=None)
@given(NAMES, st.tuples(WORLDS, WORLDS).filter(lambda w: w[0] != w[1]))
def test_worlds_differ(name, numbers):
    first, second = (recipe_of(name, w) for w in numbers)
    assert not set(variances(first)) & set(variances(second)) and first.reliability != second.reliability
    sizes = [SyntheticSize((8, 4, 4), (1, 1, 1), w) for w in (*numbers, None)]
    assert len({synthetic.settings_sha256(name, s) for s in sizes}) == 3


def test_true_importance_spans_nearly_all_there_is_and_favours_no_modality_much():
    shares = np.array([list(true_shares(recipe_of("mosi", w)).values()) for w in range(500)])
    assert shares.min() < 0.08 and shares.max() > 0.75
    assert shares.std(0).min() > 0.12
    top = np.bincount(shares.argmax(1), minlength=3) / len(shares)
    assert top.min() > 0.2 and abs(shares.mean(0) - 1 / 3).max() < 0.06


def test_no_world_is_the_recipe_as_it_is():
    assert all(world_recipe(r, None) is r for r in RECIPES.values())
    with pytest.raises(ValueError, match="world is -1; wanted 0, 1, 2"):
        recipe_of("mosi", -1)
    with pytest.raises(ValueError, match="no synthetic data set 'iemocap'"):
        recipe_of("iemocap", 3)


# --- Their data and truth --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[("mosi", 0), ("mosei", 4), ("sims", 6)])
def world(request):
    name, number = request.param
    return synthetic.generate(name, SyntheticSize((MANY, 20, 20), (1, 1, 1), number))


def latents(data):
    """What each modality shows, (N, M, 3): its single frame decoded by its basis, zeros where it fails."""
    name, number = split_name(data.card.name)
    streams = np.random.SeedSequence([0, list(RECIPES).index(name), number + 1]).spawn(4)
    bases = synthetic._bases(data.truth.recipe, np.random.default_rng(streams[3]))
    z = [data.train.features[m][:, 0] @ np.linalg.pinv(b) for m, b in zip(MODALITIES, bases, strict=True)]
    shown = np.stack([x[:, 1:4] for x in z], axis=1)
    return shown * data.truth.splits["train"].reliable[:, :, None]


def underlying(data, rng):
    """y of each label, drawn within the histogram's step, and the share of a regression's R^2 that the steps leave:
    E[x | y] is linear in y, so cov(x, E[y | step]) = cov(x, y) Var(E[y | step])."""
    edges = np.concatenate([[0], synthetic._edges(data.truth.recipe), [1]])
    step = np.searchsorted(synthetic.grid(data.truth.recipe), data.train.labels - 1e-4)
    y = stats.norm.ppf(edges[step] + (edges[step + 1] - edges[step]) * rng.random(len(step)))
    means = np.bincount(step, y) / np.bincount(step)
    return y, np.var(means[step]) ** 2


def test_the_oracle_explains_what_is_stated_and_reaches_the_stated_mae(world):
    truth, rows, labels = world.truth, world.truth.splits["train"], world.train.labels
    o = rows.importance.sum(1)
    for found, stated in ((o**2, truth.explained), (np.abs(rows.best_value - labels), truth.best_mae)):
        assert abs(found.mean() - stated) < 4 * found.std() / np.sqrt(MANY)
    assert sum(truth.importance.values()) == pytest.approx(truth.explained)


def test_regression_on_what_is_shown_explains_each_subset_as_stated(world):
    """Not from the formula: least squares on decoded features, subset by subset, and Shapley over all orders."""
    shown, recipe = latents(world), world.truth.recipe
    y, left = underlying(world, np.random.default_rng(0))
    reliable = world.truth.splits["train"].reliable
    partner = MODALITIES.index(recipe.partner)
    value = {}
    for subset in chain.from_iterable(combinations(range(3), k) for k in range(4)):
        some = list(subset)
        seen = reliable[:, some].any(1)
        u0 = np.where(seen, np.abs(shown[:, some, 0]).max(1, initial=0) * np.sign(shown[:, some, 0].sum(1)), 0)
        x = [u0, *(shown[:, i, 1] for i in some)]
        if {0, partner} <= set(some):
            x.append(shown[:, 0, 2] * shown[:, partner, 2])
        x = np.column_stack(x)
        value[subset] = LinearRegression().fit(x, y).score(x, y) / left
        stated = explained_variance(recipe, tuple(MODALITIES[i] for i in some))
        assert value[subset] == pytest.approx(stated, abs=0.02), subset
    for i, m in enumerate(MODALITIES):
        gains = []
        for order in permutations(range(3)):
            before = tuple(sorted(order[: order.index(i)]))
            gains.append(value[tuple(sorted((*before, i)))] - value[before])
        assert np.mean(gains) == pytest.approx(world.truth.importance[m], abs=0.02)


def test_worlds_are_data_sets_of_their_own():
    size = SyntheticSize((12, 6, 6), (20, 20, 20), 4)
    data, other, plain = (synthetic.generate("sims", replace(size, world=w)) for w in (4, 5, None))
    assert (data.card.name, data.card.title) == ("sims-world4", "CH-SIMS (synthetic), world 4")
    assert split_name(world_name("sims", 4)) == ("sims", 4) and split_name("sims") == ("sims", None)
    assert dataset_title("mine-world4", "real") == "mine-world4", "a file may be called as it likes"
    for one, two in combinations((data, other, plain), 2):
        assert not np.array_equal(one.train.labels, two.train.labels)
        assert not np.array_equal(one.train.features["text"][:, 0], two.train.features["text"][:, 0])
        assert not np.array_equal(one.train.lengths["text"], two.train.lengths["text"]), "the same draws"
        assert one.card.sha256 != two.card.sha256
    again = synthetic.generate("sims", size)
    assert all(np.array_equal(again.test.features[m], data.test.features[m]) for m in MODALITIES)
    ref = resolve("sims", synthetic_size=size)
    assert ref == synthetic_ref("sims", size) and load(ref).card.sha256 == ref.sha256


def test_data_without_a_world_keep_their_hash(monkeypatch):
    """Tables that were written before there were worlds name it."""
    # and worlds that are drawn otherwise are other data
    size = SyntheticSize(world=3)
    before = synthetic.settings_sha256("mosi", size)
    monkeypatch.setattr(recipes, "CONCENTRATION", (1, 1, 1, 1, 1))
    assert synthetic.settings_sha256("mosi", size) != before
    assert synthetic.settings_sha256("mosi", SyntheticSize((96, 32, 64), (8, 8, 8))).startswith("16bfb6cb2832")


# --- Agreement -------------------------------------------------------------------------------------------------------


def table_of(share, truth, measure="m"):
    rows = [
        {"dataset": f"mosi-world{w}", "source": "synthetic", "method": "tmt_amw", "measure": measure, "modality": m}
        | {"mean": share[w, i], "truth": truth[w, i]}
        for w in range(len(truth))
        for i, m in enumerate(MODALITIES)
    ]
    return pd.DataFrame(rows)


def found_for(share, truth):
    return agreement(table_of(share, truth)).set_index("statistic")


@pytest.fixture
def truth():
    return np.random.default_rng(0).dirichlet([1, 1, 1], 12)


def test_statistics_are_those_of_scipy(truth):
    share = np.random.default_rng(1).dirichlet([1, 1, 1], 12) + truth
    share /= share.sum(1, keepdims=True)
    found = found_for(share, truth)
    assert found["value"]["pearson"] == pytest.approx(stats.pearsonr(share.ravel(), truth.ravel())[0])
    assert found["value"]["spearman"] == pytest.approx(stats.spearmanr(share.ravel(), truth.ravel())[0])
    assert found["value"]["slope"] == pytest.approx(stats.linregress(truth.ravel(), share.ravel()).slope)
    assert found["value"]["top"] == pytest.approx((share.argmax(1) == truth.argmax(1)).mean())
    assert found["chance"]["top"] == np.bincount(truth.argmax(1)).max() / 12 and found["chance"]["slope"] == 0
    assert (found["low"] < found["value"]).all() and (found["value"] < found["high"]).all()
    assert (found["n"] == 12).all()


def test_the_truth_agrees_with_itself_and_a_constant_with_nothing(truth):
    found = found_for(truth, truth)
    np.testing.assert_allclose(found[["value", "low", "high"]], 1)
    assert found_for(truth / 2 + 1 / 6, truth)["value"].to_dict() == pytest.approx(
        {"spearman": 1, "pearson": 1, "slope": 0.5, "top": 1}
    )
    constant = found_for(np.full((12, 3), 1 / 3), truth)
    assert constant["value"][["spearman", "pearson"]].isna().all()
    assert constant["value"]["slope"] == pytest.approx(0) and constant["value"]["top"] == pytest.approx(1 / 3)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(12)), st.integers(0, 100))
def test_the_order_of_worlds_does_not_matter(order, seed):
    rng = np.random.default_rng(seed)
    share, true = rng.dirichlet([1, 1, 1], 12), rng.dirichlet([1, 1, 1], 12)
    for statistic in STATISTICS.values():
        assert statistic(share[order], true[order]) == pytest.approx(statistic(share, true))


def test_intervals_cover_and_worlds_are_drawn_whole():
    """A measure that is truth plus noise: in 95 of 100 draws of worlds, about, the interval holds the true slope."""
    rng, held = np.random.default_rng(2), []
    for _ in range(100):
        true = rng.dirichlet([1, 1, 1], 30)
        share = 1 / 3 + 0.6 * (true - 1 / 3) + rng.normal(0, 0.1, true.shape)
        _, low, high = many_worlds._over_worlds(many_worlds.slope, share, true, 400, 0)
        held.append(low < 0.6 < high)
    assert 85 <= sum(held) <= 99


def test_one_world_has_no_interval_and_real_data_no_agreement(truth):
    one = found_for(truth[:1], truth[:1])
    assert one["low"].isna().all() and (one["n"] == 1).all()
    table = table_of(truth, truth).assign(truth=np.nan)
    with pytest.raises(ValueError, match="none of 12 data sets has a ground truth"):
        agreement(table)


def test_runs_in_worlds_go_through_training_and_importance(own_results, monkeypatch, tmp_path):
    study = open_study("smoke", device="cpu")
    monkeypatch.setenv("TMT_DATA", str(tmp_path))  # synthetic, whatever data there are
    todo = runs_in_worlds(study, "tmt_amw_fast", "tmt")
    assert [split_name(load(r.data).card.name)[1] for r in todo] == [0, 1, 0, 1] and len({r.id for r in todo}) == 4
    assert len(runs_in_worlds(study, "tmt", worlds=5)) == 5
    rows = runs.ensure(todo, "cpu", jobs=1, progress=False)
    assert rows["dataset"].tolist() == ["mosi-world0", "mosi-world1"] * 2
    table = importance.table(todo, "cpu", jobs=1)
    for world in (0, 1):
        some = table[(table["dataset"] == f"mosi-world{world}") & (table["measure"] == "occlusion")]
        wanted = true_shares(recipe_of("mosi", world))
        assert some[some["method"] == "tmt"].set_index("modality")["truth"].to_dict() == pytest.approx(wanted)
    found = agreement(table)
    assert set(found["method"]) == {"tmt", "tmt_amw_fast"} and (found["n"] == 2).all()
    assert found[found["statistic"] == "top"]["value"].between(0, 1).all()


def test_what_may_be_read_follows_from_both_intervals():
    def rows(measure, spearman, slope):
        values = {"spearman": (*spearman, 0), "pearson": (0.5, 0.4, 0), "slope": (*slope, 1), "top": (0.8, 0.6, 0.5)}
        return [
            {"method": "tmt_amw", "measure": measure, "statistic": s, "value": v, "low": low, "high": 1, "chance": c}
            for s, (v, low, c) in values.items()
        ]

    over = [
        *rows("follows", (0.9, 0.8), (0.8, 0.6)),
        *rows("hardly moves", (0.9, 0.8), (0.01, 0.005)),
        *rows("open", (0.3, -0.1), (0.8, 0.6)),
        *rows("constant", (np.nan, np.nan), (0.0, 0.0)),
    ]
    found = many_worlds.readable(pd.DataFrame(over).assign(n=12)).set_index("measure")
    wanted = {"follows": "size", "hardly moves": "order", "open": "not", "constant": "not"}
    assert found["readable"].to_dict() == wanted and (found["n"] == 12).all() and (found["chance"] == 0.5).all()
