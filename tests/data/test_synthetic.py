"""Synthetic data against what is said of them: labels, reachable error, importance, reliability, interaction, bytes.

Seeds are fixed, so each statistical test either always passes or always fails; bounds are four standard errors.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare
from sklearn.linear_model import Ridge

from tmtlib.common import MODALITIES
from tmtlib.data import synthetic
from tmtlib.data.recipes import RECIPES as EVERY
from tmtlib.data.schema import SPLITS, DataError, Dataset, SyntheticSize
from tmtlib.stats import metrics

LABELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "labels"
RECIPES = {name: recipe for name, recipe in EVERY.items() if not any(recipe.misleading)}
MISLED = [name for name in EVERY if name not in RECIPES]
MANY = 20_000
ONE_FRAME = SyntheticSize((MANY, 20, 20), (1, 1, 1))  # as many utterances as the statistics need, with little to store
PROBED = SyntheticSize((2500, 20, 2500), (20, 20, 20))


@pytest.fixture(scope="module")
def one_frame() -> dict[str, Dataset]:
    return {name: synthetic.generate(name, ONE_FRAME) for name in RECIPES}


@pytest.fixture(scope="module")
def probed() -> dict[str, Dataset]:
    return {name: synthetic.generate(name, PROBED) for name in RECIPES}


def assert_mean(values: np.ndarray, expected: float):
    """The mean of independent values is the expected one, up to four standard errors."""
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values, dtype=np.float64) - expected) < 4 * error, (np.mean(values), expected, error)


def counts(labels: np.ndarray, recipe: synthetic.Recipe) -> np.ndarray:
    """Utterances per grid point; a value between two goes to the nearer one, a middle to the even one."""
    steps = np.rint(labels.astype(np.float64) / recipe.step).astype(int) + len(recipe.counts) // 2
    return np.bincount(steps, minlength=len(recipe.counts))


@pytest.mark.parametrize("name", RECIPES)
def test_target_histogram_is_that_of_the_real_labels(name):
    path = LABELS / f"{name}.csv"
    if not path.is_file():
        pytest.skip(f"no real labels at {path}")
    labels = pd.read_csv(path)["label"].to_numpy()
    found = counts(labels, RECIPES[name])
    assert found.tolist() == list(RECIPES[name].counts)
    assert found[len(found) // 2] == (labels == 0).sum(), "no other label goes to zero"


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_complete(name):
    recipe = RECIPES[name]
    assert recipe.noise > 0.1
    assert recipe.shared + sum(recipe.specific) + recipe.interaction + recipe.noise == pytest.approx(1)
    grid = synthetic.grid(recipe)
    low, high = {"mosi": (-3, 3), "sims": (-1, 1)}[recipe.family]
    assert (grid[0], grid[len(grid) // 2], grid[-1]) == (low, 0, high)
    np.testing.assert_allclose(np.diff(grid), recipe.step, rtol=1e-5)
    assert recipe.partner in ("audio", "vision")


@pytest.mark.parametrize("name", RECIPES)
def test_labels_follow_the_target_histogram(one_frame, name):
    recipe = RECIPES[name]
    found = counts(one_frame[name].train.labels, recipe)
    assert chisquare(found, np.array(recipe.counts) / sum(recipe.counts) * MANY).pvalue > 1e-3
    assert np.isin(one_frame[name].train.labels, synthetic.grid(recipe)).all()


def test_the_histogram_test_can_fail(one_frame):
    found = counts(one_frame["mosi"].train.labels, RECIPES["mosi"])
    uniform = np.full(len(found), MANY / len(found))
    assert chisquare(found, uniform).pvalue < 1e-6


@pytest.mark.parametrize("name", RECIPES)
def test_oracle_reaches_the_stated_mae(one_frame, name):
    dataset, truth = one_frame[name], one_frame[name].truth
    labels, best = dataset.train.labels, truth.splits["train"].best_value
    assert_mean(np.abs(best - labels), truth.best_mae)
    rows = truth.splits["train"]
    step = np.float32(RECIPES[name].step)
    for other in (best + step, best - step, np.full_like(best, np.median(labels))):
        assert np.abs(other - labels).mean() > truth.best_mae
    assert np.abs(best - labels)[rows.reliable.all(1)].mean() < truth.best_mae, "it is lower where all is shown"


@pytest.mark.parametrize("name", RECIPES)
def test_likeliest_class_reaches_the_stated_acc5(one_frame, name):
    dataset, truth = one_frame[name], one_frame[name].truth
    family = dataset.family
    classes = metrics.classes5(dataset.train.labels, family)
    best = truth.splits["train"].best_class
    assert_mean(best == classes, truth.best_acc5)
    centres = np.array(metrics.CLASS_CENTRES5[family])[best]
    assert metrics.score(centres, dataset.train.labels, family)["acc5"] == np.mean(best == classes)
    by_median = metrics.classes5(truth.splits["train"].best_value, family)
    assert np.mean(by_median == classes) < truth.best_acc5


@pytest.mark.parametrize("name", RECIPES)
def test_class_chances_are_those_of_simulated_labels(name):
    """Given o and p, what is not shown is drawn from the model itself: the equations, without their solution."""
    recipe, rng, n = RECIPES[name], np.random.default_rng(1), 100_000
    partner = MODALITIES.index(recipe.partner)
    only_text = np.array([True, False, False])
    for reliable in (np.array([True, True, True]), only_text, ~only_text, np.array([False] * 3)):
        o, p = 0.4, 1.5
        y = np.full(n, o) + np.sqrt(recipe.noise) * rng.standard_normal(n)
        for w, shown in zip(recipe.specific, reliable, strict=True):
            y += 0 if shown else np.sqrt(w) * rng.standard_normal(n)
        y += 0 if reliable.any() else np.sqrt(recipe.shared) * rng.standard_normal(n)
        if not (reliable[0] and reliable[partner]):
            factor = p if reliable[0] else rng.standard_normal(n)
            y += np.sqrt(recipe.interaction) * factor * rng.choice([-1, 1], n)
        found = np.bincount(metrics.classes5(synthetic.quantile(recipe, y), recipe.family), minlength=5)
        chances = synthetic.class_chances(recipe, reliable[None], np.array([o]), np.array([p]))[0]
        assert chances.sum() == pytest.approx(1)
        assert chisquare(found, chances * n).pvalue > 1e-3


@pytest.mark.parametrize("name", RECIPES)
def test_reliability_rates(one_frame, name):
    for i, rho in enumerate(RECIPES[name].reliability):
        assert_mean(one_frame[name].truth.splits["train"].reliable[:, i], rho)


@pytest.mark.parametrize("name", RECIPES)
def test_importance_sums_to_what_is_explained(one_frame, name):
    truth = one_frame[name].truth
    assert sum(truth.importance.values()) == pytest.approx(truth.explained)
    assert tuple(truth.importance) == MODALITIES
    o = truth.splits["train"].importance.sum(1)
    assert_mean(o**2, truth.explained)
    assert_mean(o, 0)
    none_shown = ~truth.splits["train"].reliable.any(1)
    assert none_shown.any() and not o[none_shown].any()
    shows = truth.splits["train"].reliable
    assert not truth.splits["train"].importance[~shows].any(), "what fails has no part"


def test_order_of_importance_is_as_intended(one_frame):
    order = {n: sorted(MODALITIES, key=d.truth.importance.get, reverse=True) for n, d in one_frame.items()}
    assert order == {
        "mosi": ["text", "audio", "vision"],
        "mosei": ["text", "vision", "audio"],
        "sims": ["vision", "audio", "text"],
    }


@pytest.mark.parametrize("name", RECIPES)
def test_explained_variance_is_what_a_subset_can_predict(one_frame, name):
    """The best prediction from a subset, made from the drawn parts, explains as much as the formula says."""
    recipe = RECIPES[name]
    for subset in (("text",), ("audio", "vision"), ("text", recipe.partner), MODALITIES):
        off = tuple(0.0 if m not in subset else rho for m, rho in zip(MODALITIES, recipe.reliability, strict=True))
        without = replace(recipe, reliability=off)
        split, truth = synthetic._split(
            without,
            "train",
            MANY,
            (1, 1, 1),
            synthetic._bases(recipe, np.random.default_rng(0)),
            np.random.default_rng(5),
        )
        assert len(split) == MANY
        assert_mean(truth.importance.sum(1) ** 2, synthetic.explained_variance(recipe, subset))
    assert synthetic.explained_variance(recipe, ()) == 0


def test_shapley_of_known_games():
    value = {"text": 3.0, "audio": 1.0, "vision": 0.0}
    assert synthetic.shapley(lambda s: sum(value[m] for m in s)) == pytest.approx(value), "additive: each its own"
    glove = synthetic.shapley(lambda s: float("text" in s and len(s) > 1))
    assert glove == pytest.approx({"text": 2 / 3, "audio": 1 / 6, "vision": 1 / 6}), "the glove game"


def shown_parts(dataset: Dataset, name: str, split: str) -> dict[str, np.ndarray]:
    """(N, 4) by modality, from the features alone: marker, u_0, u_m and p or q; 0 where there is no marker."""
    recipe = RECIPES[name]
    streams = np.random.SeedSequence([0, list(RECIPES).index(name)]).spawn(4)
    parts = {}
    for m, basis in zip(MODALITIES, synthetic._bases(recipe, np.random.default_rng(streams[3])), strict=True):
        z = dataset[split].features[m] @ basis.T * (len(basis) / basis.shape[1])
        at = np.abs(z[..., 0] - synthetic.MARKER).argmin(1)
        z = z[np.arange(len(z)), at, :4]
        parts[m] = np.where(np.abs(z[:, :1] - synthetic.MARKER) < 1e-4, z, 0)
    return parts


@pytest.mark.parametrize("name", RECIPES)
def test_features_show_all_that_the_oracle_knows(probed, name):
    """The best prediction can be computed from the features, so its error is reachable and not only stated."""
    recipe, truth = RECIPES[name], probed[name].truth.splits["test"]
    parts = shown_parts(probed[name], name, "test")
    shows = np.stack([parts[m][:, 0] > 0 for m in MODALITIES], 1)
    np.testing.assert_array_equal(shows, truth.reliable)
    u0 = np.stack([parts[m][:, 1] for m in MODALITIES], 1)
    o = np.sqrt(recipe.shared) * np.where(shows.any(1), u0[np.arange(len(u0)), shows.argmax(1)], 0)
    o += sum(np.sqrt(w) * parts[m][:, 2] for m, w in zip(MODALITIES, recipe.specific, strict=True))
    o += np.sqrt(recipe.interaction) * parts["text"][:, 3] * parts[recipe.partner][:, 3]
    np.testing.assert_allclose(o, truth.importance.sum(1), atol=1e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_salient_frames_are_a_fifth_of_the_reliable_utterances_frames(probed, name):
    streams = np.random.SeedSequence([0, list(RECIPES).index(name)]).spawn(4)
    basis = synthetic._bases(RECIPES[name], np.random.default_rng(streams[3]))[0]
    split, truth = probed[name].test, probed[name].truth.splits["test"]
    z = split.features["text"] @ basis.T[:, 0] * (len(basis) / basis.shape[1])
    salient = (np.abs(z - synthetic.MARKER) < 1e-4).sum(1)
    expected = np.maximum(1, np.rint(0.2 * split.lengths["text"])) * truth.reliable[:, 0]
    assert np.mean(salient == expected) > 0.995, "a distractor is close to the marker now and then"


@pytest.mark.parametrize("name", RECIPES)
def test_interaction_needs_both_modalities(probed, name):
    recipe, dataset = RECIPES[name], probed[name]
    parts = shown_parts(dataset, name, "test")
    p, q = parts["text"][:, 3], parts[recipe.partner][:, 3]
    both = (p != 0) & (q != 0)
    labels = dataset.test.labels[both].astype(np.float64)
    labels = (labels - labels.mean()) / labels.std()
    p, q = p[both], q[both]
    assert set(np.round(q, 3)) == {-1, 1}
    for alone in (p, q, np.abs(p), p**2):
        assert_mean(labels * (alone - alone.mean()), 0)
    assert np.mean(labels * p * q) > 0.7 * np.sqrt(recipe.interaction)
    explained = synthetic.explained_variance
    for m in ("text", recipe.partner):
        no_interaction = replace(recipe, interaction=0.0)
        assert explained(recipe, (m,)) == explained(no_interaction, (m,)), "alone it explains nothing"
    pair = ("text", recipe.partner)
    assert explained(recipe, pair) > explained(replace(recipe, interaction=0.0), pair)


def linear_r2(dataset: Dataset, modality: str) -> float:
    """R2 on test of ridge regression on the mean frame, fitted on train."""
    pooled = {
        s: dataset[s].features[modality].sum(1) / np.maximum(1, dataset[s].lengths[modality])[:, None]
        for s in ("train", "test")
    }
    ridge = Ridge(1.0).fit(pooled["train"], dataset.train.labels)
    return ridge.score(pooled["test"], dataset.test.labels)


@pytest.mark.parametrize("name", RECIPES)
def test_linear_probes_order_the_modalities_as_synthetic(probed, name):
    found = {m: linear_r2(probed[name], m) for m in MODALITIES}
    importance = probed[name].truth.importance
    assert sorted(MODALITIES, key=found.get) == sorted(MODALITIES, key=importance.get), found
    recipe = RECIPES[name]
    for m in MODALITIES:
        assert 0.1 < found[m] / synthetic.explained_variance(recipe, (m,)) < 1.02, (m, found)


@pytest.mark.parametrize("name", RECIPES)
def test_unreliable_modalities_show_nothing(probed, name):
    """A probe fitted on all explains nothing of the utterances whose modality fails."""
    m = max(MODALITIES, key=lambda m: 1 - RECIPES[name].reliability[MODALITIES.index(m)])
    dataset = probed[name]
    fails = np.flatnonzero(~dataset.truth.splits["test"].reliable[:, MODALITIES.index(m)])
    assert len(fails) > 200
    failing = replace(dataset, test=dataset.test.take(fails), truth=None)
    assert linear_r2(failing, m) < 0.03 < linear_r2(dataset, m)


def digests(dataset: Dataset) -> dict[str, str]:
    found = {}
    for s in SPLITS:
        split, hashed = dataset[s], hashlib.sha256()
        arrays = [*split.features.values(), *split.lengths.values(), split.labels, *split.unimodal_labels.values()]
        for array in arrays:
            hashed.update(np.ascontiguousarray(array).tobytes())
        hashed.update("".join(split.ids + split.raw_text).encode())
        found[s] = hashed.hexdigest()
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_same_seed_same_bytes(name):
    size = SyntheticSize((30, 10, 20), (6, 6, 6))
    first = synthetic.generate(name, size)
    assert digests(synthetic.generate(name, size)) == digests(first)
    other = synthetic.generate(name, size, seed=1)
    assert not set(digests(other).values()) & set(digests(first).values())
    assert other.card.sha256 != first.card.sha256
    longer = synthetic.generate(name, replace(size, utterances=(31, 10, 20)))
    assert digests(longer)["train"] != digests(first)["train"]
    assert {s: digests(longer)[s] for s in ("valid", "test")} == {s: digests(first)[s] for s in ("valid", "test")}
    assert longer.card.sha256 != first.card.sha256


def test_bytes_are_those_of_this_version():
    """Records are kept by `settings_sha256`: data that change need a new VERSION, and then new digests here."""
    found = synthetic.generate("sims", SyntheticSize((30, 10, 20), (6, 7, 8)))
    text = "".join(found.train.ids) + str(found.train.labels.tolist()) + str(found.train.lengths["vision"].tolist())
    assert (synthetic.VERSION, hashlib.sha256(text.encode()).hexdigest()[:12]) == (2, "f1fac036a1ef")


@pytest.mark.parametrize("name", RECIPES)
def test_published_form(name):
    recipe = RECIPES[name]
    dataset = synthetic.generate(name, SyntheticSize(utterances=(60, 20, 40)))
    card = dataset.card
    assert dataset.shapes == dict(zip(MODALITIES, recipe.shapes, strict=True))
    assert (card.name, card.family, card.source) == (name, recipe.family, "synthetic")
    assert card.title.endswith("(synthetic)") and "synthetic" in card.origin
    assert card.sha256 == synthetic.settings_sha256(name, SyntheticSize(utterances=(60, 20, 40)))
    assert card.alignment == ("unaligned" if name == "sims" else "aligned")
    assert set(dataset.train.unimodal_labels) == (set(MODALITIES) if name == "sims" else set())
    for s in SPLITS:
        for m in MODALITIES:
            x, length = dataset[s].features[m], dataset[s].lengths[m]
            filled = (x != 0).any(2)
            assert length.min() >= 1
            np.testing.assert_array_equal(filled, np.arange(x.shape[1]) < length[:, None])
        if card.alignment == "aligned":
            assert len({tuple(length) for length in dataset[s].lengths.values()}) == 1


def test_length_follows_the_recipe_and_frames_of_their_own_are_unaligned(one_frame):
    lengths = synthetic.generate("mosi", SyntheticSize((3000, 1, 1), (50, 50, 50))).train.lengths["text"]
    assert abs(lengths.mean() / 50 - RECIPES["mosi"].fill) < 0.02
    assert synthetic.generate("mosi", SyntheticSize((4, 2, 2), (4, 5, 6))).card.alignment == "unaligned"


@pytest.mark.parametrize("name", RECIPES)
def test_videos_are_shared_across_splits_only_as_in_the_real_data_set(name):
    dataset = synthetic.generate(name, SyntheticSize((200, 60, 60), (1, 1, 1)))
    ids = [i for s in SPLITS for i in dataset[s].ids]
    assert len(set(ids)) == len(ids)
    train, test = ({i.split("$_$")[0] for i in dataset[s].ids} for s in ("train", "test"))
    assert (test <= train) if name == "sims" else not (test & train)


def test_unimodal_labels_are_nearer_to_what_their_modality_shows(one_frame):
    labels = one_frame["sims"].train.unimodal_labels
    importance = one_frame["sims"].truth.splits["train"].importance
    for i, m in enumerate(MODALITIES):
        correlation = [np.corrcoef(labels[m], importance[:, j])[0, 1] for j in range(3)]
        assert np.argmax(correlation) == i and correlation[i] > 0.6


def test_unknown_names_and_empty_splits_are_refused():
    with pytest.raises(ValueError, match="no data set 'iemocap'; synthetic are mosi, mosei, sims"):
        synthetic.generate("iemocap")
    with pytest.raises(DataError, match="split valid of mosi is empty"):
        synthetic.generate("mosi", SyntheticSize((5, 0, 5), (2, 2, 2)))


# --- Worlds in which a modality misleads -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def misled() -> dict[str, Dataset]:
    size = SyntheticSize((MANY, 20, 20), (2, 2, 2), world=7)
    return {name: synthetic.generate(name, size) for name in MISLED}


@pytest.mark.parametrize("name", MISLED)
def test_at_most_one_modality_misleads_at_the_stated_rate(misled, name):
    reliable = misled[name].truth.splits["train"].reliable
    assert ((~reliable).sum(1) <= 1).all()
    for i, rate in enumerate(EVERY[name].misleading):
        assert_mean(~reliable[:, i], rate)
    np.testing.assert_array_equal(misled[name].train.reliable, reliable)


@pytest.mark.parametrize("name", MISLED)
def test_one_who_is_told_reaches_the_stated_error_and_the_others_content_is_no_use(misled, name):
    data = misled[name]
    truth, labels = data.truth.splits["train"], data.train.labels
    assert_mean(np.abs(labels - truth.best_value), data.truth.best_mae)
    assert_mean(metrics.classes5(labels, data.family) == truth.best_class, data.truth.best_acc5)
    for i, m in enumerate(MODALITIES):
        probe = [_content(data, m)[rows] for rows in (truth.reliable[:, i], ~truth.reliable[:, i])]
        r = [
            np.corrcoef(x, y)[0, 1]
            for x, y in zip(probe, (labels[truth.reliable[:, i]], labels[~truth.reliable[:, i]]), strict=True)
        ]
        assert abs(r[0]) > 0.6 and abs(r[1]) < 4 / np.sqrt(len(probe[1])), "as if it were another utterance's"
        assert np.std(probe[1]) == pytest.approx(np.std(probe[0]), rel=0.1), "shown as clearly"


def _content(data: Dataset, modality: str) -> np.ndarray:
    """What all modalities show, u_0, as the best linear probe of the salient frame finds it in reliable utterances."""
    name, i = data.card.name.split("-world")[0], MODALITIES.index(modality)
    *_, bases_rng = map(np.random.default_rng, np.random.SeedSequence([0, list(EVERY).index(name), 8]).spawn(4))
    basis = synthetic._bases(EVERY[name], bases_rng)[i]
    latent = data.train.features[modality] @ np.linalg.pinv(basis)  # (N, T, K): marker, u_0, u_m, ...
    marked = np.abs(latent[..., 0] - synthetic.MARKER).argmin(1)
    return latent[np.arange(len(latent)), marked, 1]


def test_a_cue_tells_what_misleads_and_without_one_nothing_does():
    size = SyntheticSize((4000, 20, 20), (8, 8, 8), world=7)
    for name in MISLED:
        data = synthetic.generate(name, size)
        reliable = data.train.reliable[:, 1]
        largest = np.abs(data.train.features["audio"]).max(1)
        score = (
            Ridge()
            .fit(np.hstack([largest, data.train.features["audio"].sum(1)]), reliable)
            .predict(np.hstack([largest, data.train.features["audio"].sum(1)]))
        )
        r = np.corrcoef(score, reliable)[0, 1]
        assert (r > 0.6) if EVERY[name].cued else (r < 0.2), (name, r)


def test_draws_of_a_misled_world_differ_and_old_hashes_stay():
    first, again, other = (synthetic.generate("misled", SyntheticSize((8, 4, 4), (4, 4, 4), w)) for w in (1, 1, 2))
    assert first.card.sha256 == again.card.sha256 != other.card.sha256
    assert not np.array_equal(first.train.labels, other.train.labels)
    assert synthetic.settings_sha256("mosi").startswith("dec4e887"), "as before there were such worlds"
