"""The token-disentangling mutual transformer (TMT) with an optional modality weighting (AMW).

The whole model, in the order of the computation:
  1. project      X_m = features of modality m -> (B, T_m, d)
  2. disentangle  [shared | text | audio | vision label tokens; X_text; X_audio; X_vision] through an encoder; the
                  label tokens' rows become I (shared) and S_m (specific), the frames' rows are dropped
  3. weight       S'_m = A_m * S_m, AMW's place in its primary reading R1 (see `weigh`)
  4. mutual       f1 = Cross_1(source I, target S'), f2 = Cross_2(source S', target I)
  5. predict      head(mean over tokens of f1 + mean over tokens of f2)
Axes: B batch, T frames, M modalities, k tokens, d width.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tmtlib.config import MODALITIES, TMTConfig
from tmtlib.models.base import Batch, Model, Trace
from tmtlib.models.dropout import Dropout
from tmtlib.models.layers import Block
from tmtlib.models.losses import mmd, orthogonality
from tmtlib.models.temporal import masked_mean, weighted_frames, windowed
from tmtlib.models.weighting import Weighting, build_weighting

GROUPS = ("shared", *MODALITIES)  # token groups, in their order


class Mutual(nn.Module):
    """Half of the mutual transformer: target tokens query source tokens, layer by layer; the source stays as it is."""

    def __init__(self, config: TMTConfig, targets: int, sources: int):
        super().__init__()
        c = config
        self.target_positions = nn.Parameter(c.position_std * torch.randn(1, targets, c.width))
        self.source_positions = nn.Parameter(c.position_std * torch.randn(1, sources, c.width))
        self.dropout = Dropout(c.embedding_dropout)
        self.layers = nn.ModuleList(
            Block(c.width, c.heads, c.head_width, c.cross_hidden, c.dropout) for _ in range(c.cross_layers)
        )

    def forward(
        self, target: Float[Tensor, "B Q d"], source: Float[Tensor, "B K d"], maps: dict | None, name: str
    ) -> Float[Tensor, "B Q d"]:
        target = self.dropout(target + self.target_positions)
        source = self.dropout(source + self.source_positions)
        for i, layer in enumerate(self.layers):
            target, map_ = layer(target, source, want_map=maps is not None)
            if maps is not None:
                maps[f"{name}.{i}"] = map_
        return target


class TMT(Model):
    """TMT as a model of the study. Build it with `tmtlib.build_model`.

    Args:
        config: every choice, see `TMTConfig`.
        shapes: (longest T, D) by modality.
        family: metric family of the labels, "mosi" or "sims".
    """

    def __init__(self, config: TMTConfig, shapes: dict[str, tuple[int, int]], family: str):
        super().__init__(config, family)
        check_config(config)
        c, d = config, config.width
        self.bert = build_bert(c.bert)
        widths = {m: shapes[m][1] for m in MODALITIES}
        if self.bert is not None:
            widths["text"] = self.bert.width
        self.frames = {m: min(shapes[m][0], c.window or shapes[m][0]) for m in MODALITIES}
        self.sizes = {"shared": c.shared_tokens} | dict.fromkeys(MODALITIES, c.specific_tokens)

        self.raw_dropout = Dropout(c.raw_dropout)
        self.project = nn.ModuleDict({m: nn.Linear(widths[m], d) for m in MODALITIES})
        self.tokens = nn.Parameter(c.token_std * torch.randn(1, sum(self.sizes.values()), d))
        self.token_positions = nn.Parameter(c.position_std * torch.randn(1, sum(self.sizes.values()), d))
        self.positions = nn.ParameterDict(
            {m: nn.Parameter(c.position_std * torch.randn(1, self.frames[m], d)) for m in MODALITIES}
        )
        self.embedding_dropout = Dropout(c.embedding_dropout)
        self.encoder = nn.ModuleList(
            Block(d, c.heads, c.head_width, c.encoder_hidden, c.dropout) for _ in range(c.encoder_layers)
        )
        summed = c.placement == "R2" and c.weighting != "none"
        specific = c.specific_tokens if summed else len(MODALITIES) * c.specific_tokens
        self.specific_from_shared = Mutual(c, targets=specific, sources=c.shared_tokens)
        self.shared_from_specific = Mutual(c, targets=c.shared_tokens, sources=specific)
        activation = [nn.GELU()] if c.head_activation == "gelu" else []
        self.head = nn.Sequential(nn.Linear(d, d // 2), *activation, nn.Linear(d // 2, self.outputs))
        # Last, so that the same seed gives TMT with and without a weighting the same parameters in all the rest
        self.weighting = build_weighting(c)

    def forward(self, batch: Batch, attention: bool = False) -> tuple[Tensor, Trace]:
        """Prediction, (B,), (B, 5) or (B, 6), and trace; attention maps are formed only when asked for."""
        trace = Trace()
        maps = trace.attention if attention else None
        batch = windowed(self._text_encoded(batch), self.config.window)
        self._check(batch)
        groups = [batch] if attention else batch.split()  # a map of all utterances, not of the last group
        projected = self._projected(groups, batch, trace)
        tokens = torch.cat([self._disentangled(x, group, maps) for x, group in zip(projected, groups, strict=True)])
        trace.tokens = dict(zip(GROUPS, tokens.split(list(self.sizes.values()), dim=1), strict=True))
        specific = self._specific(batch, trace)
        f1 = self.specific_from_shared(specific, trace.tokens["shared"], maps, "specific_from_shared")
        f2 = self.shared_from_specific(trace.tokens["shared"], specific, maps, "shared_from_specific")
        with torch.autocast(f1.device.type, enabled=False):  # a bfloat16 prediction is too coarse near class edges
            output = self.head(f1.mean(1) + f2.mean(1))
        return (output.squeeze(-1) if self.outputs == 1 else output), trace

    def _text_encoded(self, batch: Batch) -> Batch:
        if self.bert is None:
            return batch
        if batch.text_bert is None:
            raise ValueError("the config names a BERT to fine-tune, but the data hold no `text_bert` token ids")
        return replace(batch, features={**batch.features, "text": self.bert(batch.text_bert)})

    def _check(self, batch: Batch) -> None:
        for m in MODALITIES:
            (_, t, d), most, width = batch.features[m].shape, self.frames[m], self.project[m].in_features
            if t > most or d != width:
                raise ValueError(f"{m} is {t} frames of {d} features; wanted at most {most} frames of {width} features")

    def _projected(self, groups: list[Batch], batch: Batch, trace: Trace) -> list[dict[str, Float[Tensor, "B T d"]]]:
        """X_m of each group, in placement R3 weighted by their means over time, which the trace keeps, or by frame."""
        projected = [{m: self.project[m](self.raw_dropout(g.features[m])) for m in MODALITIES} for g in groups]
        for m in MODALITIES:
            means = [
                masked_mean(x[m], g.valid(m)) if self.config.masked else x[m].mean(1)
                for x, g in zip(projected, groups, strict=True)
            ]
            trace.projected[m] = torch.cat(means)
        if self.weighting is None or self.config.placement != "R3":
            return projected
        if getattr(self.weighting, "by_token", False):
            found = [weighted_frames(self.weighting, x, g) for x, g in zip(projected, groups, strict=True)]
            trace.weights = torch.cat([w for _, w in found])
            return [x for x, _ in found]
        means = torch.stack([trace.projected[m] for m in MODALITIES], dim=1)
        weights = self._weights(means[:, :, None], batch, trace)[:, :, 0].expand_as(means)
        weights = weights.split([len(x["text"]) for x in projected])
        return [
            {m: w[:, i, None] * x[m] for i, m in enumerate(MODALITIES)} for w, x in zip(weights, projected, strict=True)
        ]

    def _disentangled(self, projected: dict, batch: Batch, maps: dict | None) -> Float[Tensor, "B k d"]:
        """The label tokens after the encoder. Its last layer asks nothing of the frames, so only the label tokens
        query there: the same result to rounding, for less work."""
        b, k = len(batch.lengths["text"]), self.tokens.shape[1]
        frames = [projected[m] + self.positions[m][:, : projected[m].shape[1]] for m in MODALITIES]
        x = torch.cat([(self.tokens + self.token_positions).expand(b, -1, -1), *frames], dim=1)
        x = self.embedding_dropout(x)
        valid = self._valid(batch, k) if self.config.masked else None
        for i, layer in enumerate(self.encoder):
            last = i == len(self.encoder) - 1
            x, map_ = layer(x[:, :k] if last else x, x, valid, want_map=maps is not None)
            if maps is not None:
                maps[f"encoder.{i}"] = map_
        return x

    def _valid(self, batch: Batch, tokens: int) -> Bool[Tensor, "B K"]:
        """Label tokens are always attended to, so an utterance without any frame is still well defined."""
        always = torch.ones(len(batch.lengths["text"]), tokens, dtype=torch.bool, device=self.tokens.device)
        return torch.cat([always, *(batch.valid(m) for m in MODALITIES)], dim=1)

    def _specific(self, batch: Batch, trace: Trace) -> Float[Tensor, "B k d"]:
        """S', what the mutual transformer sees of the specific tokens S_m, by placement (A sums to 1 over m):

        R1  S'_m = A_m S_m, concatenated (primary reading);   R1M  S'_m = M A_m S_m: TMT itself at W = 0
        R2  S' = sum_m A_m S_m, the weighted sum of the paper's text;   R3 acted on X_m already (`_projected`)
        """
        specific = torch.stack([trace.tokens[m] for m in MODALITIES], dim=1)  # (B, M, k, d)
        if self.weighting is not None and self.config.placement != "R3":
            weights = self._weights(specific, batch, trace)
            scale = len(MODALITIES) if self.config.placement == "R1M" else 1
            specific = scale * weights * specific
            if self.config.placement == "R2":
                return specific.sum(1)
        return specific.flatten(1, 2)

    def _weights(self, tokens: Float[Tensor, "B M k d"], batch: Batch, trace: Trace) -> Float[Tensor, "#B M #k #d"]:
        """A, of the right shape: another would broadcast into something else without a word. The trace gets its mean
        over tokens."""
        b, m, k, d = tokens.shape
        if isinstance(self.weighting, Weighting):
            present = torch.stack([batch.lengths[m] > 0 for m in MODALITIES], dim=1)
            weights = self.weighting(tokens, present).expand(-1, -1, -1, d)
            allowed = [(n, m, j, d) for n in (1, b) for j in (1, k)]
        else:  # any module will do that gives a weight per modality and feature
            weights = self.weighting(tokens)
            allowed = [(1, m, d), (b, m, d)]
        if weights.shape not in allowed:
            found = f"weighting {self.config.weighting!r} gave weights of shape {tuple(weights.shape)}"
            raise ValueError(f"{found}; wanted {' or '.join(map(str, dict.fromkeys(allowed)))}")
        weights = weights if weights.dim() == 4 else weights[:, :, None]
        trace.weights = weights.mean(2)
        return weights

    def loss(self, prediction: Tensor, target: Tensor, trace: Trace) -> Float[Tensor, ""]:
        """delta * task + alpha * orthogonality + beta * similarity, on the unweighted tokens.

        So AMW changes the forward pass and nothing else.
        """
        c = self.config
        total = c.task_weight * self.task_loss(prediction, target)
        mean = {g: x.float().mean(1) for g, x in trace.tokens.items()}
        if c.orthogonality:
            pairs = [("shared", m) for m in MODALITIES] + list(combinations(MODALITIES, 2))
            total = total + c.orthogonality * sum(orthogonality(mean[a], mean[b]) for a, b in pairs) / 3
        if c.similarity:
            total = total + c.similarity * sum(mmd(trace.projected[m].float(), mean[m]) for m in MODALITIES) / 3
        return total

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """W and BERT have learning rates of their own when the config gives them."""
        c = self.config
        weighting = [] if self.weighting is None else list(self.weighting.parameters())
        bert = [] if self.bert is None else list(self.bert.parameters())
        own = {id(p) for p in weighting + bert}
        groups = [
            {"params": [p for p in self.parameters() if id(p) not in own], "lr": learning_rate},
            {"params": weighting, "lr": learning_rate if c.weighting_lr is None else c.weighting_lr},
            {"params": bert, "lr": c.bert_lr},
        ]
        return [g for g in groups if g["params"]]


def check_config(config: TMTConfig) -> None:
    """Raises ValueError for sizes that no model has, and for choices that exclude each other."""
    c = config
    for name in ("width", "encoder_layers", "heads", "head_width", "shared_tokens", "specific_tokens", "window"):
        value = getattr(c, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; wanted at least 1")
    if c.bert is not None and c.mixup != "off":
        raise ValueError(f"mixup is {c.mixup!r} with a BERT; wanted 'off', as token ids cannot be mixed")


def build_bert(folder: str | None) -> nn.Module | None:
    """A BERT to fine-tune from `text_bert`, or None. transformers is imported only when one is asked for."""
    if folder is None:
        return None
    from tmtlib.text import BertText

    return BertText(folder)
