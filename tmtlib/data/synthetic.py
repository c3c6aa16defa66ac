r"""Synthetic data in the shapes of the three data sets, drawn from a latent model with known ground truth.

For utterance i, with independent standard normal u_0, u_text, u_audio, u_vision, p, e and a fair sign q:

    y = sqrt(w_0) u_0 + sum_m sqrt(w_m) u_m + sqrt(w_x) p q + sqrt(w_e) e,    all w summing to 1, so y ~ N(0, 1)
    label = Q(Phi(y)),    Q the quantile function of the real data set's label histogram

u_0 is shared by all modalities, u_m is specific to one, p q is an interaction (text shows p, its partner, vision or
audio, shows q), e is noise that no modality shows. Modality m is reliable for utterance i with probability rho_m, r_im
in {0, 1}. Its frames are x_t = B_m z_t, B_m (D, K) with orthonormal columns times sqrt(D / K), n ~ N(0, I), and

    z_t = (2, u_0, u_m, p or q or 0, 0.5 n)   at the salient fifth of the frames, when r_im = 1
    z_t = 0.5 n                               at all other frames, and everywhere when r_im = 0

Where the recipe says so, at most one modality of an utterance *misleads*: it shows its marker with an independent draw
of u_0 and u_m, and counts as not reliable. As the others agree on u_0 to the last digit, the features tell which it is;
where it is `cued`, so does one frame more of each modality: z_t = (0.5 n, 2, +-1 + 0.3 n), + where it is reliable.

With o the sum of the shown parts and v its variance, y given the features is symmetric about o:

    y | features ~ N(o, 1 - v), but where text shows p and its partner no q:  N(o -+ sqrt(w_x) p, 1 - v - w_x), evenly

so Q(Phi(o)) has the least expected absolute error, and the likeliest of the five classes the best Acc-5. Global
importance is the Shapley value of the variance of y that a subset of modalities explains; per-utterance importance
divides the shown parts among the modalities in the same way.

Synthetic CMU-MOSEI also has emotion labels. For emotion k, with z = (u_0, u_text, u_audio, u_vision, p q) and an
independent standard normal e_ik, v_ik = a_k . z_i + sqrt(1 - |a_k|^2) e_ik, so v ~ N(0, 1). The emotion is present if
v_ik is in the highest share r_k; with s in (0, 1) the relative position within that share, its strength is 9 s^2
rounded up, in thirds: 1/3, 2/3, ..., 3. Loadings a and rates r are chosen; rates resemble those of CMU-MOSEI.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from jaxtyping import Float, Float32
from scipy.special import ndtr, ndtri

from tmtlib.common import EMOTIONS, MODALITIES
from tmtlib.data.recipes import EMOTION_LOADINGS, EMOTION_RATES, RECIPES, Recipe, recipe_of
from tmtlib.data.schema import SPLITS, Card, Dataset, Split, SyntheticSize, world_name
from tmtlib.stats import metrics
from tmtlib.stats.statistics import shapley

VERSION = 2  # part of every synthetic data set's hash: raise it when the generator changes
SALIENT_SHARE = 0.2
MARKER = 2.0
LATENT = 12  # largest K: real features are correlated too, and a low rank is fast
NORMAL = ndtri((np.arange(400) + 0.5) / 400)  # standard normal values, equally likely, for expectations


@dataclass(frozen=True)
class SplitTruth:
    """Ground truth of one split. Axes: N utterances, M modalities."""

    reliable: np.ndarray  # (N, M) bool: which modalities show their parts
    importance: np.ndarray  # (N, M): each modality's part of o; sums to o over modalities
    best_value: np.ndarray  # (N,): the label value with the least expected absolute error
    best_class: np.ndarray  # (N,): the most probable class of Acc-5, 0..4


@dataclass(frozen=True)
class Truth:
    """The ground truth of a data set."""

    recipe: Recipe
    importance: dict[str, float]  # Shapley value of the explained variance, by modality; sums to `explained`
    explained: float  # share of the variance of y that the best prediction explains
    best_mae: float  # expected MAE of `best_value`, label units
    best_acc5: float  # expected Acc-5 of `best_class`, a fraction
    splits: dict[str, SplitTruth]


def settings_sha256(name: str, size: SyntheticSize | None = None, seed: int = 0) -> str:
    """SHA-256 of recipe, size, seed and the generator's version."""
    size = size or SyntheticSize()
    settings = {"version": VERSION, "recipe": asdict(recipe_of(name, size.world)), "size": asdict(size), "seed": seed}
    if size.world is None:  # keeps the hashes from before there were worlds
        del settings["size"]["world"]
    if not any(settings["recipe"]["misleading"]):  # and from before modalities misled
        del settings["recipe"]["misleading"], settings["recipe"]["cued"]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def generate(name: str, size: SyntheticSize | None = None, seed: int = 0) -> Dataset:
    """The synthetic data set of a name, at published size by default; the size of one split does not change another."""
    size = size or SyntheticSize()
    recipe = recipe_of(name, size.world)
    utterances = size.utterances or recipe.utterances
    frames = size.frames or tuple(t for t, _ in recipe.shapes)
    entropy = [seed, list(RECIPES).index(name)] + ([] if size.world is None else [size.world + 1])
    *rngs, bases_rng = map(np.random.default_rng, np.random.SeedSequence(entropy).spawn(4))
    bases = _bases(recipe, bases_rng)
    splits, truths = {}, {}
    for s, n, rng in zip(SPLITS, utterances, rngs, strict=True):
        splits[s], truths[s] = _split(recipe, s, n, frames, bases, rng, EMOTION_LOADINGS.get(name))
    alignment = "aligned" if len(set(frames)) == 1 else "unaligned"
    origin, sha256 = f"synthetic generator, version {VERSION}, seed {seed}", settings_sha256(name, size, seed)
    card = Card(world_name(name, size.world), recipe.family, alignment, "synthetic", origin, sha256)
    card = replace(card, emotions=EMOTIONS if name in EMOTION_LOADINGS else ())
    importance = shapley(lambda subset: explained_variance(recipe, subset))
    explained = explained_variance(recipe, MODALITIES)
    truth = Truth(recipe, importance, explained, best_mae(recipe), best_acc5(recipe), truths)
    return Dataset(card, truth=truth, **splits)


def quantile(recipe: Recipe, y: np.ndarray) -> np.ndarray:
    """Q(Phi(y)): labels of y."""
    return grid(recipe)[np.searchsorted(_edges(recipe), ndtr(y), side="right")]


def grid(recipe: Recipe) -> np.ndarray:
    """The label values, lowest first."""
    steps = np.arange(len(recipe.counts)) - len(recipe.counts) // 2
    return (recipe.step * steps).astype(np.float32)


def _edges(recipe: Recipe) -> np.ndarray:
    return np.cumsum(recipe.counts)[:-1] / np.sum(recipe.counts)


def explained_variance(recipe: Recipe, subset: tuple[str, ...]) -> float:
    """Share of the variance of y that the best prediction from a subset of modalities explains."""
    given = np.array([m in subset for m in MODALITIES])
    if any(recipe.misleading):  # to one who is told which modality misleads
        return _expected(lambda reliable: _shown_variance(recipe, reliable & given), recipe)
    rho = given * np.array(recipe.reliability)
    both = rho[0] * rho[MODALITIES.index(recipe.partner)]
    return float(recipe.shared * (1 - np.prod(1 - rho)) + rho @ recipe.specific + recipe.interaction * both)


def best_mae(recipe: Recipe) -> float:
    """Expected MAE of the best prediction, by quadrature over independent o ~ N(0, v) and y - o ~ N(0, 1 - v)."""

    def mae(reliable: np.ndarray) -> float:
        v = _shown_variance(recipe, reliable)
        o = np.sqrt(v) * NORMAL
        y = o[:, None] + np.sqrt(1 - v) * NORMAL
        return np.abs(quantile(recipe, y) - quantile(recipe, o)[:, None]).mean()

    return _expected(mae, recipe)


def best_acc5(recipe: Recipe) -> float:
    """Expected Acc-5 of the most probable class, by quadrature over (o, p)."""

    def accuracy(reliable: np.ndarray) -> float:
        p = NORMAL if _only_text_of_pair(recipe, reliable) else NORMAL[:1]
        o, p = (x.ravel() for x in np.meshgrid(np.sqrt(_shown_variance(recipe, reliable)) * NORMAL, p))
        return class_chances(recipe, np.tile(reliable, (len(o), 1)), o, p).max(1).mean()

    return _expected(accuracy, recipe)


def class_chances(recipe: Recipe, reliable: np.ndarray, o: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Probabilities (N, 5) of the classes of Acc-5, given reliability (N, M), o (N,) and p (N,)."""
    last = np.searchsorted(metrics.classes5(grid(recipe), recipe.family), np.arange(4), side="right") - 1
    cuts = ndtri(_edges(recipe)[last])  # y between each class and the next
    half = _only_text_of_pair(recipe, reliable)
    spread = np.sqrt(1 - _shown_variance(recipe, reliable) - recipe.interaction * half)
    swing = np.where(half, np.sqrt(recipe.interaction) * p, 0)
    below = sum(ndtr((cuts - (o + sign * swing)[:, None]) / spread[:, None]) for sign in (-1, 1)) / 2
    return np.diff(below, prepend=0, append=1)


def _expected(score: Callable[[np.ndarray], float], recipe: Recipe) -> float:
    """The mean of a score over the patterns of reliability (M,), each with its probability."""
    patterns, rho = np.array(list(np.ndindex(2, 2, 2)), bool), np.array(recipe.reliability)
    chances = np.where(patterns, rho, 1 - rho).prod(1).tolist()
    if any(recipe.misleading):
        patterns, chances = ~np.eye(4, 3, dtype=bool), [*recipe.misleading, 1 - sum(recipe.misleading)]
    return float(sum(chance * score(reliable) for reliable, chance in zip(patterns, chances, strict=True)))


def _only_text_of_pair(recipe: Recipe, reliable: np.ndarray) -> np.ndarray:
    """Whether text shows its factor p of the interaction but the partner does not show the sign; (..., M) to (...)."""
    return reliable[..., 0] & ~reliable[..., MODALITIES.index(recipe.partner)]


def _shown_variance(recipe: Recipe, reliable: np.ndarray) -> np.ndarray:
    both = reliable[..., 0] & reliable[..., MODALITIES.index(recipe.partner)]
    return recipe.shared * reliable.any(-1) + reliable @ np.array(recipe.specific) + recipe.interaction * both


def _bases(recipe: Recipe, rng: np.random.Generator) -> list[np.ndarray]:
    """B_m (K, D) by modality: orthonormal rows times sqrt(D / K), one draw for all splits."""
    sizes = [(d, min(LATENT, d)) for _, d in recipe.shapes]
    orthonormal = [np.linalg.qr(rng.standard_normal(size)).Q.T for size in sizes]
    return [(q * np.sqrt(d / k)).astype(np.float32, order="C") for q, (d, k) in zip(orthonormal, sizes, strict=True)]


def _split(recipe, split, n, frames, bases, rng, loadings=None) -> tuple[Split, SplitTruth]:
    u0, p, noise = rng.standard_normal((3, n))
    specific, q = rng.standard_normal((n, 3)), rng.choice([-1.0, 1.0], n)
    reliable, w = rng.random((n, 3)) < recipe.reliability, np.sqrt(recipe.specific)
    y = np.sqrt(recipe.shared) * u0 + specific @ w + np.sqrt(recipe.interaction) * p * q + np.sqrt(recipe.noise) * noise

    share = recipe.fill * np.exp(rng.normal(0, 0.5, n) - 0.125)  # of T; one clock for all modalities when aligned
    shown = np.zeros((n, 3, 3), np.float32)  # utterance, modality, (u_0, u_m, p or q)
    shown[:, :, 0], shown[:, :, 1] = u0[:, None], specific
    shown[:, 0, 2], shown[:, MODALITIES.index(recipe.partner), 2] = p, q
    shows = reliable
    if any(recipe.misleading):
        which = rng.choice(4, n, p=[*recipe.misleading, 1 - sum(recipe.misleading)])
        misled = which[:, None] == np.arange(3)
        shown[misled, :2] = rng.standard_normal((misled.sum(), 2))
        reliable = shows & ~misled
    features, lengths, unimodal, emotions = {}, {}, {}, None
    for i, m in enumerate(MODALITIES):
        lengths[m] = np.clip(np.rint(share * frames[i]), 1, frames[i]).astype(np.int64)
        cue = np.where(reliable[:, i], 1.0, -1.0) if recipe.cued else None
        features[m] = _frames(shown[:, i], shows[:, i], lengths[m], frames[i], bases[i], rng, cue)
        if recipe.family == "sims":
            part = np.sqrt(recipe.shared) * u0 + w[i] * specific[:, i]
            unimodal[m] = quantile(recipe, part / np.sqrt(recipe.shared + w[i] ** 2))
    if loadings is not None:  # a separate random stream, so that emotions change nothing else
        emotions = emotion_labels(loadings, np.column_stack([u0, specific, p * q]), rng.spawn(1)[0])
    ids, raw_text = _ids(recipe, split, n), tuple(f"synthetic utterance of {k} words" for k in lengths["text"])
    made = Split(
        features, lengths, quantile(recipe, y), ids, raw_text, unimodal, emotion_labels=emotions, reliable=reliable
    )
    return made, _split_truth(recipe, reliable, u0, specific, p, q)


def emotion_labels(
    loadings: Mapping[str, tuple[float, ...]], latents: Float[np.ndarray, "N 5"], rng: np.random.Generator
) -> Float32[np.ndarray, "N 6"]:
    """Strengths 0..3 in thirds, in the order of EMOTIONS, of latents z; see the module."""
    a, rate = np.array([loadings[k] for k in EMOTIONS]), np.array([EMOTION_RATES[k] for k in EMOTIONS])
    noise = rng.standard_normal((len(latents), len(EMOTIONS)))
    v = latents @ a.T + np.sqrt(1 - np.square(a).sum(1)) * noise
    s = (ndtr(v) - (1 - rate)) / rate
    return np.where(s > 0, np.ceil(9 * np.square(s)) / 3, 0).astype(np.float32)


def _split_truth(recipe, reliable, u0, specific, p, q) -> SplitTruth:
    """Shared parts are divided equally among the modalities that show them, the interaction between its two."""
    share = reliable / np.maximum(1, reliable.sum(1, keepdims=True))
    importance = np.sqrt(recipe.shared) * u0[:, None] * share + reliable * specific * np.sqrt(recipe.specific)
    partner = MODALITIES.index(recipe.partner)
    both = reliable[:, 0] & reliable[:, partner]
    importance[:, [0, partner]] += 0.5 * (np.sqrt(recipe.interaction) * p * q * both)[:, None]
    o = importance.sum(1)
    best_class = class_chances(recipe, reliable, o, p).argmax(1)
    return SplitTruth(reliable, importance, quantile(recipe, o), best_class)


def _frames(shown, reliable, length, t, basis, rng, cue=None) -> np.ndarray:
    """Features (n, t, D) of one modality, zero beyond each length."""
    n, k = len(shown), len(basis)
    valid = np.arange(t) < length[:, None]
    order = np.where(valid, rng.random((n, t), np.float32), 2).argsort(1).argsort(1)  # a random rank per valid frame
    salient = (order < np.maximum(1, np.rint(SALIENT_SHARE * length))[:, None]) & valid & reliable[:, None]
    z = 0.5 * rng.standard_normal((valid.sum(), k), np.float32)
    content = np.column_stack([np.full(n, MARKER, np.float32), shown])
    z[salient[valid], :4] = content[np.nonzero(salient)[0]]  # without noise, so that the best prediction is reachable
    if cue is not None:  # in the last frame of the random order, which is salient only where there is one frame
        frame = (order == length[:, None] - 1)[valid]
        z[frame, 4:6] = np.column_stack([np.full(n, MARKER), cue + 0.3 * rng.standard_normal(n)])
    features = np.zeros((n, t, basis.shape[1]), np.float32)
    # z @ basis, without BLAS: its rounding depends on the number of threads, and a training amplifies the difference
    features[valid] = np.einsum("fk,kd->fd", z, basis)
    return features


def _ids(recipe, split, n) -> tuple[str, ...]:
    """`video$_$clip`, about 20 clips a video; only CH-SIMS has the same videos in every split."""
    prefix = "synthetic" if recipe.videos_shared else f"synthetic_{split}"
    first = {"train": 0, "valid": 100_000, "test": 200_000}[split]  # clips stay unique across splits
    videos = max(1, n // 20)
    return tuple(f"{prefix}_{i % videos:04d}$_${first + i}" for i in range(n))
