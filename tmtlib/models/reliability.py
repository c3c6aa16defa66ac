"""Reliability weighting: gates that act in the attention scores, taught by corruptions that cost nothing.

For each utterance and modality a gate g_m in (0, 1); log g_m is added to the attention scores of that modality's frames
in the disentangling encoder (placement "attention"), so the shared tokens read less of what is not reliable, which a
factor on the specific tokens (placement R1) comes too late for. Of each modality the gates see its content, that is its
projected frames pooled by an attention of their own, as the prediction y_m of a small unimodal head and as a number z_m
on a scale that all modalities share; and they compare: |y_i - y_j|, |z_i - z_j|, log((z_i - z_j)^2 + 0.01).

What teaches them, in training alone:
  swaps     `COPIES` copies of the batch's y and z in which some utterances have one modality of another utterance (no
            pass through the encoder). Label: 0 if swapped, else 1, whatever noise there is in the batch.
  noise     some utterances of the batch get noise on one modality, or all its frames zero. Label: share of signal.
  labels    how near a head's prediction is, exp(-(loss / (2 median loss))^2 / 2), times the share of signal; in the
            manner of true-class confidence (Corbiere et al. 2019, NeurIPS).
  matching  z_i and z_j of one utterance are nearer than of two: cross-entropy of finding the partner in the batch by
            -(z_i - z_j)^2 (InfoNCE, van den Oord et al. 2018).

Axes: B utterances, T frames, M modalities, K outputs of the task, d width, C = COPIES * B.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, gelu, logsigmoid

from tmtlib.common import MODALITIES
from tmtlib.models.amw import register
from tmtlib.models.base import Batch, ModelConfig, utterance_loss

COPIES, SWAPPED = 4, 0.7  # of the batch, and the share of utterances in each with one modality swapped
NOISED, SNR_DB, BLANK = 0.2, 20.0, 0.25  # share of utterances with noise, its range (+-), and the share that lose all
TAUGHT, HEADS, MATCHED = 0.7, 0.5, 0.3  # weights of the gates', the heads' and the matching loss
INNER, HIDDEN, SHARPNESS = 32, 64, 4  # widths, and a factor on the scorer's outputs, which start at 0.5
DECIDED, DOUBT = 2.0, 1.0  # a gate is sigmoid(2 logit - 1): half open where the logit says a chance of .62
PAIRS = tuple(combinations(range(len(MODALITIES)), 2))
FIRST, SECOND = (list(side) for side in zip(*PAIRS, strict=True))


@dataclass
class Lesson:
    """What `Reliability.loss` needs of a training batch."""

    signal: Float[Tensor, "B M"]  # share of signal left by the noise
    present: Bool[Tensor, "B M"]
    y: Float[Tensor, "B M K"]
    z: Float[Tensor, "B M"]
    logits: Float[Tensor, "B M"]
    swapped: Bool[Tensor, "C M"]
    swapped_logits: Float[Tensor, "C M"]


class Content(nn.Module):
    """A modality's unimodal prediction y (B, K) and its number z (B,), from its projected frames."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.inner, self.score, self.number = nn.Linear(width, INNER), nn.Linear(INNER, 1), nn.Linear(INNER, 1)
        self.head = nn.Sequential(nn.Linear(INNER, INNER), nn.GELU(), nn.Linear(INNER, outputs))

    def forward(
        self, frames: Float[Tensor, "B T d"], valid: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B K"], Float[Tensor, " B"]]:
        valid = valid | ~valid.any(1, keepdim=True)  # an absent modality: over padding; its gate is closed anyway
        x = gelu(self.inner(frames))
        attention = self.score(x).squeeze(-1).masked_fill(~valid, -torch.inf).softmax(1)
        content = (x * attention[..., None]).sum(1)
        return self.head(content), self.number(content).squeeze(-1)


@register("reliability")
class Reliability(nn.Module):
    """Gates by utterance and modality, .95 at the start. Raises ValueError for a placement other than "attention"."""

    open = False  # of the control: gates held open, with heads that learn all the same

    def __init__(self, config: ModelConfig):
        super().__init__()
        if config.placement != "attention":
            raise ValueError(f"placement is {config.placement!r}; weighting 'reliability' wants 'attention'")
        self.task, outputs, m, pairs = config.task, config.outputs, len(MODALITIES), len(PAIRS)
        self.content = nn.ModuleDict({name: Content(config.width, outputs) for name in MODALITIES})
        inputs = m * (outputs + 1) + pairs * (outputs + 2)
        self.scorer = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, m))
        nn.init.zeros_(self.scorer[2].weight)
        nn.init.constant_(self.scorer[2].bias, 0.5)

    def noised(self, batch: Batch) -> tuple[Batch, Float[Tensor, "B M"]]:
        """The batch with noise on one modality of some utterances, and the share of signal in each modality."""
        b, device = len(batch.lengths["text"]), batch.lengths["text"].device
        hit = torch.randint(len(MODALITIES), (b, 1), device=device) == torch.arange(len(MODALITIES), device=device)
        hit &= (torch.rand(b, 1, device=device) < NOISED) & batch.present
        size = 10 ** (SNR_DB * (2 * torch.rand(b, device=device) - 1) / 20)  # of the noise, in standard deviations
        kept = (torch.rand(b, device=device) >= BLANK).float()
        features = {}
        for i, m in enumerate(MODALITIES):
            x, valid = batch.features[m], batch.valid(m)[..., None]
            n = valid.sum((0, 1)).clamp_min(1)
            deviation = (x - (x * valid).sum((0, 1)) / n) * valid
            scale = (deviation.square().sum((0, 1)) / n).sqrt()
            noisy = kept[:, None, None] * (x + size[:, None, None] * scale * torch.randn_like(x)) * valid
            features[m] = torch.where(hit[:, i, None, None], noisy, x)
        return replace(batch, features=features), torch.where(hit, (kept / (1 + size**2))[:, None], 1.0)

    def logits(
        self, y: Float[Tensor, "B M K"], z: Float[Tensor, "B M"], present: Bool[Tensor, "B M"]
    ) -> Float[Tensor, "B M"]:
        """Of a modality's being reliable; no gradient flows into the heads. What an absent modality would show is 0."""
        y, z = y.detach() * present[..., None], z * present
        both = present[:, FIRST] & present[:, SECOND]
        apart = (y[:, FIRST] - y[:, SECOND]).abs() * both[..., None], (z[:, FIRST] - z[:, SECOND]).abs() * both
        near = (apart[1].square() + 1e-2).log() * both
        seen = torch.cat([y.flatten(1), z, apart[0].flatten(1), apart[1], near], dim=1)
        return SHARPNESS * self.scorer(seen)

    def gates(
        self, groups: list[tuple[dict, Batch]], signal: Float[Tensor, "B M"] | None
    ) -> tuple[Float[Tensor, "B M"], Lesson | None]:
        """log g, -inf for an absent modality, from projected frames (by modality) and batches of groups of utterances;
        and in training, where `signal` is given, what `loss` needs."""
        exact = self.scorer[0].weight.dtype  # also under autocast: small differences matter here
        with torch.autocast(groups[0][0]["text"].device.type, enabled=False):
            parts = [[self.content[m](x[m].to(exact), group.valid(m)) for m in MODALITIES] for x, group in groups]
            return self._compared(parts, torch.cat([group.present for _, group in groups]), signal)

    def _compared(
        self, parts: list[list[tuple]], present: Bool[Tensor, "B M"], signal: Float[Tensor, "B M"] | None
    ) -> tuple[Float[Tensor, "B M"], Lesson | None]:
        """`gates` from the contents (y, z) of each modality, group by group."""
        y, z = (torch.cat([torch.stack([of_m[k] for of_m in part], 1) for part in parts]) for k in (0, 1))
        logits = self.logits(y, z, present)
        gates = torch.zeros_like(logits) if self.open else logsigmoid(DECIDED * logits - DOUBT)
        gates = gates.masked_fill(~present, -torch.inf)
        if signal is None:
            return gates, None
        (b, m), device = present.shape, present.device
        own, modality = torch.arange(b, device=device).repeat(COPIES), torch.arange(m, device=device)
        swapped = torch.randint(m, (len(own), 1), device=device) == modality
        swapped &= torch.rand(len(own), 1, device=device) < SWAPPED
        other = (own + torch.randint(1, max(2, b), own.shape, device=device)) % b  # another, where there is one
        source = torch.where(swapped, other[:, None], own[:, None])
        swapped_logits = self.logits(y[source, modality], z[source, modality], present[source, modality])
        return gates, Lesson(signal, present, y, z, logits, swapped, swapped_logits)

    def loss(self, lesson: Lesson, target: Tensor) -> Float[Tensor, ""]:
        """The heads', the matching and the gates' loss, over the modalities that an utterance has."""
        here = lesson.present.to(lesson.z.dtype)
        heads = torch.stack([utterance_loss(self.task, y, target) for y in lesson.y.unbind(1)], 1)
        total = HEADS * (heads * here * lesson.signal).sum() / (here * lesson.signal).sum().clamp_min(1e-6)
        total = total + MATCHED * matching(lesson.z, lesson.present)
        if self.open:
            return total
        error = heads.detach()
        usual = (2 * error[lesson.present].median().nan_to_num()).clamp_min(1e-6)  # NaN: nothing is present
        near = lesson.signal * torch.exp(-((error / usual) ** 2) / 2)
        own = binary_cross_entropy_with_logits(lesson.logits, near, weight=here)
        told = (~lesson.swapped).to(here.dtype)
        told = binary_cross_entropy_with_logits(lesson.swapped_logits, told, weight=here.repeat(COPIES, 1))
        return total + TAUGHT * (own + told) / 2


def matching(z: Float[Tensor, "B M"], present: Bool[Tensor, "B M"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of finding an utterance's z_j by its z_i, and the other way round, in the batch."""
    total = z.sum() * 0
    for i, j in PAIRS:
        both = present[:, i] & present[:, j]
        near = -(z[both, i, None] - z[both, j]).square()
        if len(near) > 1:
            own = torch.arange(len(near), device=near.device)
            total = total + (cross_entropy(near, own) + cross_entropy(near.T, own)) / (2 * len(PAIRS))
    return total


@register("reliability_open")
class Open(Reliability):
    """Control: the same corruptions and heads, with all gates at 1."""

    open = True
