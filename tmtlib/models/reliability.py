"""Reliability weighting: gates that act in the attention scores, taught by corruptions that cost nothing.

For each utterance and modality a gate g_m in (0, 1); log g_m is added to the attention scores of that modality's frames
in the disentangling encoder, so the shared tokens read less of what is not reliable, which a factor on the specific
tokens (placement R1) comes too late for. The gates see, of each modality, a pooled embedding e_m of its projected
frames and the prediction y_m of a small unimodal head, and compare them: |y_i - y_j|, |e_i - e_j| and e_i e_j.

What teaches them, in training alone: `COPIES` copies of the batch's projected frames in which some utterances have one
modality of another utterance (no pass through the encoder), with "was it swapped" as label; and, for the batch itself,
how near a head's prediction is to the label, exp(-((y_m - label) / (2 median |y_m - label|))^2 / 2), as true-class
confidence is used by Corbiere et al. (2019). The heads learn the label with weight `HEADS`.

Axes: B utterances, T frames, M modalities, d width, P pairs of modalities.
"""

from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from tmtlib.common import MODALITIES
from tmtlib.models.amw import register
from tmtlib.models.base import Batch, ModelConfig

COPIES, RATE = 4, 0.7  # of the batch, and the share of utterances in each with one modality swapped
TAUGHT, HEADS = 0.7, 0.5  # weights of the gates' and of the heads' loss
INNER, EMBEDDING, HIDDEN = 32, 16, 64
SHARPNESS = 4  # of the gates: a small change of the scorer opens or closes them
PAIRS = tuple(combinations(range(len(MODALITIES)), 2))


@dataclass
class Lesson:
    """What `Reliability.loss` needs of a training batch."""

    heads: Float[Tensor, "B M"]  # unimodal predictions
    logits: Float[Tensor, "B M"]  # of the batch's own gates
    swapped: Bool[Tensor, "C M"]  # over all copies' utterances
    swapped_logits: Float[Tensor, "C M"]
    present: Bool[Tensor, "B M"]


class Pooled(nn.Module):
    """A modality's embedding (B, e) and its head's prediction (B,), from its projected frames."""

    def __init__(self, width: int):
        super().__init__()
        self.inner, self.score = nn.Linear(width, INNER), nn.Linear(INNER, 1)
        self.embed = nn.Linear(2 * INNER, EMBEDDING)
        self.head = nn.Sequential(nn.Linear(INNER, INNER), nn.GELU(), nn.Linear(INNER, 1))

    def forward(
        self, frames: Float[Tensor, "B T d"], valid: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B e"], Float[Tensor, " B"]]:
        valid = valid | ~valid.any(1, keepdim=True)  # an absent modality: over padding; its gate is closed anyway
        x = nn.functional.gelu(self.inner(frames))
        share = valid / valid.sum(1, keepdim=True)
        mean, most = (x * share[..., None]).sum(1), x.masked_fill(~valid[..., None], -torch.inf).amax(1)
        attention = self.score(x).squeeze(-1).masked_fill(~valid, -torch.inf).softmax(1)
        return self.embed(torch.cat([mean, most], -1)), self.head((x * attention[..., None]).sum(1)).squeeze(-1)


@register("reliability")
class Reliability(nn.Module):
    """Gates by utterance and modality; all .88 at the start. Raises ValueError for another task than regression, whose
    labels the heads learn, and for another placement than in the attention."""

    open = False  # a control: gates held open, with heads that learn all the same

    def __init__(self, config: ModelConfig):
        super().__init__()
        if config.task != "regression" or config.placement != "attention":
            found = f"task {config.task!r} and placement {config.placement!r}"
            raise ValueError(f"{found}; reliability weighting wants 'regression' and 'attention'")
        self.pooled = nn.ModuleDict({m: Pooled(config.width) for m in MODALITIES})
        inputs = len(MODALITIES) * (EMBEDDING + 1) + len(PAIRS) * (2 * EMBEDDING + 1)
        self.scorer = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, len(MODALITIES)))
        nn.init.zeros_(self.scorer[2].weight)
        nn.init.constant_(self.scorer[2].bias, 0.5)

    def logits(self, e: Float[Tensor, "B M e"], y: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Of the gates, from embeddings and unimodal predictions; no gradient flows into the heads."""
        y = y.detach()
        i, j = (list(side) for side in zip(*PAIRS, strict=True))
        parts = [e, (e[:, i] - e[:, j]).abs(), e[:, i] * e[:, j], y[..., None], (y[:, i] - y[:, j]).abs()[..., None]]
        return SHARPNESS * self.scorer(torch.cat([part.flatten(1) for part in parts], dim=1))

    def forward(self, groups: list[tuple[dict, Batch]]) -> tuple[Float[Tensor, "B M"], Lesson | None]:
        """Log gates, -inf of an absent modality, from projected frames (by modality) and batches of groups of
        utterances; and in training what `loss` needs."""
        pooled = [[self.pooled[m](x[m], group.valid(m)) for m in MODALITIES] for x, group in groups]
        e, y = (torch.cat([torch.stack(side, 1) for side in sides]) for sides in zip(*(zip(*p, strict=True) for p in pooled), strict=True))
        present = torch.cat([group.present for _, group in groups])
        logits = self.logits(e, y)
        gates = torch.zeros_like(logits) if self.open else nn.functional.logsigmoid(logits)
        gates = gates.masked_fill(~present, -torch.inf)
        if not self.training:
            return gates, None
        b, m = y.shape
        swapped = torch.zeros(COPIES * b, m, dtype=torch.bool, device=y.device)
        some = torch.rand(COPIES * b, device=y.device) < RATE
        swapped[torch.arange(COPIES * b), torch.randint(m, (COPIES * b,), device=y.device)] = some
        own = torch.arange(b, device=y.device).repeat(COPIES)
        other = (own + torch.randint(1, max(2, b), (COPIES * b,), device=y.device)) % b  # never its own
        source = torch.where(swapped, other[:, None], own[:, None])  # (C, M) utterances
        modality = torch.arange(m, device=y.device)
        lesson = Lesson(y, logits, swapped, self.logits(e[source, modality], y[source, modality]), present)
        return gates, lesson

    def loss(self, lesson: Lesson, target: Float[Tensor, " B"]) -> Float[Tensor, ""]:
        """The gates' and the heads' loss, over the modalities that an utterance has."""
        error = (lesson.heads - target[:, None]).abs()
        present = lesson.present
        near = torch.exp(-((error.detach() / (2 * error.detach()[present].median()).clamp_min(1e-6)) ** 2) / 2)
        own = binary_cross_entropy_with_logits(lesson.logits, near, weight=present.float())
        there = present.repeat(COPIES, 1).float()
        told = binary_cross_entropy_with_logits(lesson.swapped_logits, (~lesson.swapped).float(), weight=there)
        return HEADS * error[present].mean() + TAUGHT * (0 if self.open else (own + told) / 2)


@register("reliability_open")
class Open(Reliability):
    """Control: the same heads, with all gates at 1."""

    open = True
