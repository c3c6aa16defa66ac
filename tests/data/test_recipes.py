"""Synthetic worlds against what is said of them."""

from dataclasses import replace
from itertools import chain, combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression

from tmtlib.common import MODALITIES
from tmtlib.data import recipes, synthetic
from tmtlib.data.loading import load, resolve, synthetic_ref
from tmtlib.data.recipes import RECIPES, recipe_of
from tmtlib.data.schema import SyntheticSize, dataset_title, split_name, world_name
from tmtlib.data.synthetic import explained_variance

MANY = 20_000
WORLDS = st.integers(0, 10_000)
NAMES = st.sampled_from([name for name, recipe in RECIPES.items() if not any(recipe.misleading)])


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
    assert all(recipe_of(name, None) is recipe for name, recipe in RECIPES.items())
    with pytest.raises(ValueError, match="world is -1; wanted 0, 1, 2"):
        recipe_of("mosi", -1)
    with pytest.raises(ValueError, match="no data set 'iemocap'"):
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
    """Committed tables name it; worlds that are drawn otherwise are other data."""
    size = SyntheticSize(world=3)
    before = synthetic.settings_sha256("mosi", size)
    monkeypatch.setattr(recipes, "CONCENTRATION", (1, 1, 1, 1, 1))
    assert synthetic.settings_sha256("mosi", size) != before
    assert synthetic.settings_sha256("mosi", SyntheticSize((96, 32, 64), (8, 8, 8))).startswith("23fc4f55b3de")
