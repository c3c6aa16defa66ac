"""The token-disentangling mutual transformer (TMT) with an optional modality weighting (AMW).

  1. project      X_m = features of modality m -> (B, T_m, d)
  2. disentangle  [shared | text | audio | vision label tokens; X_text; X_audio; X_vision] through an encoder; the
                  label tokens' rows become I (shared) and S_m (specific), the frames' rows are dropped
  3. weight       S'_m = A_m * S_m (placement R1; A: `tmtlib.models.amw.AMW`)
  4. mutual       f1 = Cross_1(source I, target S'), f2 = Cross_2(source S', target I)
  5. predict      head(mean over tokens of f1 + mean over tokens of f2)
Axes: B batch, T frames, M modalities, k tokens, d width.
"""

from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tmtlib.common import MODALITIES
from tmtlib.models.amw import Oracle, Weighting, build_weighting, truth_of
from tmtlib.models.base import Batch, Model, ModelConfig, Trace, check_sizes, read_out
from tmtlib.models.bert import build_bert, text_encoded
from tmtlib.models.frames import masked_mean, weighted_frames, windowed
from tmtlib.models.layers import Block, Dropout, Source, Target
from tmtlib.models.losses import mmd, orthogonality
from tmtlib.models.reliability import Reliability


@dataclass(frozen=True)
class TMTConfig(ModelConfig):
    """Settings of `TMT`. Defaults: the AMW paper's size, masked, without a window.

    The AMW paper ("Implementation Details") gives width 128, four layers and eight heads; the rest follows the original
    TMT's released code, from which departures are fields (see `original`).
    """

    width: int = 128  # d
    encoder_layers: int = 4
    cross_layers: int = 4
    heads: int = 8
    head_width: int = 16
    encoder_hidden: int = 256  # feed-forward width of the disentangling encoder
    cross_hidden: int = 128  # feed-forward width of the mutual transformer
    shared_tokens: int = 6
    specific_tokens: int = 2  # per modality
    raw_dropout: float = 0.0  # on the features themselves, before projection
    embedding_dropout: float = 0.1
    dropout: float = 0.1  # after attention and in the feed-forward blocks
    token_std: float = 1.0  # label tokens ~ N(0, token_std^2)
    position_std: float = 0.02  # positional tables ~ N(0, position_std^2)
    masked: bool = True  # padded frames are hidden from attention and from means over time
    window: int | None = None  # keep this many frames a modality, after leading all-zero frames
    head_activation: str = "gelu"  # "gelu", or "none": two linear maps with nothing in between
    orthogonality: float = 0.001  # alpha: weight of the difference loss between token groups
    similarity: float = 0.1  # beta: weight of the MMD loss between modality and its tokens
    task_weight: float = 1.0  # delta
    weighting: str = "none"  # a name registered in tmtlib.models.amw
    # where the weights act: after disentanglement (R1, R1M; R2: summed), on the pooled result (R2p: the weighted sum is
    # added to it), before disentanglement (R3) or in its attention scores (attention)
    placement: str = "R1"
    weighting_init_std: float = 0.0  # W ~ N(0, std^2); 0 is uniform weights
    weighting_lr: float | None = None  # W's own learning rate; None: the training's
    temperature: float = 1.0  # softmax(W / temperature)
    mask_absent: bool = False  # a modality that an utterance lacks gets weight 0
    bert: str | None = None  # folder of a BERT to fine-tune from `text_bert`; None: the file's text features
    bert_lr: float = 5e-5

    choices = ModelConfig.choices | {"head_activation": ("gelu", "none")}
    choices |= {"placement": ("R1", "R1M", "R2", "R2p", "R3", "attention")}
    model_class = property(lambda self: TMT)

    @classmethod
    def original(cls, **changes) -> "TMTConfig":
        """The original TMT as released."""
        sizes = dict(width=256, encoder_layers=2, cross_layers=4, heads=8, head_width=64)
        sizes |= dict(encoder_hidden=512, cross_hidden=256, window=20, position_std=1.0)
        ways = dict(masked=False, raw_dropout=0.5, dropout=0.5, head_activation="none", task="classification")
        training = dict(mixup="original", schedule="warmup_cosine")
        losses = dict(orthogonality=0.01, similarity=1.0, task_weight=10.0)
        return cls(**sizes | ways | training | losses | changes)


GROUPS = ("shared", *MODALITIES)  # token groups, in their order
MUTUAL = ("specific_from_shared", "shared_from_specific")  # the two halves of the mutual transformer


class Mutual(nn.Module):
    """Half of the mutual transformer: target tokens query source tokens, layer by layer; the source is fixed."""

    def __init__(self, config: TMTConfig, targets: int, sources: int):
        super().__init__()
        c = config
        self.target_positions = nn.Parameter(c.position_std * torch.randn(1, targets, c.width))
        self.source_positions = nn.Parameter(c.position_std * torch.randn(1, sources, c.width))
        self.dropout = Dropout(c.embedding_dropout)
        self.layers = nn.ModuleList(
            Block(c.width, c.heads, c.head_width, c.cross_hidden, c.dropout) for _ in range(c.cross_layers)
        )

    def forward(self, target: Target, source: Source, maps: dict | None, name: str) -> Target:
        target = self.dropout(target + self.target_positions)
        source = self.dropout(source + self.source_positions)
        for i, layer in enumerate(self.layers):
            target = layer(target, source, None, maps, f"{name}.{i}")
        return target


class TMT(Model):
    """TMT. Raises ValueError for sizes below one, a weighting that is unknown or lacks gates for placement "attention",
    and mix-up with a BERT."""

    def __init__(self, config: TMTConfig, shapes: dict[str, tuple[int, int]], family: str):
        super().__init__(config, family)
        sizes = ("width", "encoder_layers", "heads", "head_width", "shared_tokens", "specific_tokens", "window")
        check_sizes(config, *sizes)
        c, d = config, config.width
        self.bert, widths = build_bert(c, shapes)
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
        self.summed = c.placement == "R2" and c.weighting != "none"
        specific = c.specific_tokens if self.summed else len(MODALITIES) * c.specific_tokens
        self.specific_from_shared = Mutual(c, targets=specific, sources=c.shared_tokens)
        self.shared_from_specific = Mutual(c, targets=c.shared_tokens, sources=specific)
        activation = [nn.GELU()] if c.head_activation == "gelu" else []
        self.head = nn.Sequential(nn.Linear(d, d // 2), *activation, nn.Linear(d // 2, self.outputs))
        # Last, so that one seed gives TMT the same parameters with and without a weighting
        self.weighting = build_weighting(c)
        if c.placement == "attention" and self.weighting is not None and not hasattr(self.weighting, "gates"):
            raise ValueError(f"weighting {c.weighting!r} has no gates, so it cannot act in placement 'attention'")

    def forward(self, batch: Batch, attention: bool = False) -> tuple[Tensor, Trace]:
        """Prediction, (B,), (B, 5) or (B, 6), and trace; attention maps on request."""
        trace = Trace()
        maps = trace.attention if attention else None
        batch = windowed(text_encoded(self.bert, batch), self.config.window)
        self._check(batch)
        signal = None
        if self.training and isinstance(self.weighting, Reliability):
            batch, signal = self.weighting.noised(batch)
        groups = [batch] if attention else batch.split()  # a map of all utterances, not of the last group

        # 1. project: X_m, (B, T_m, d)
        frames = [{m: self.project[m](self.raw_dropout(g.features[m])) for m in MODALITIES} for g in groups]
        trace.projected = self._means(frames, groups)
        if self.weighting is not None and self.config.placement == "R3":
            frames, trace.weights = self._weighted_frames(frames, groups, batch, trace.projected)

        gates = [None] * len(groups)
        if self.config.placement == "attention" and self.weighting is not None:
            log_gates, trace.lesson = self.weighting.gates(list(zip(frames, groups, strict=True)), signal)
            gates = log_gates.split([len(x["text"]) for x in frames])
            trace.weights = log_gates.softmax(1).nan_to_num(0)[..., None]  # g_m as shares

        # 2. disentangle: the label tokens become I, (B, k, d), and S, (B, M, k, d)
        parts = zip(frames, groups, gates, strict=True)
        tokens = torch.cat([self._disentangled(*part, maps) for part in parts])
        trace.tokens = dict(zip(GROUPS, tokens.split(list(self.sizes.values()), dim=1), strict=True))
        shared, specific = trace.tokens["shared"], torch.stack([trace.tokens[m] for m in MODALITIES], dim=1)

        joined = None
        # 3. weight: S'_m = A_m * S_m, where A sums to 1 over the modalities (R1M: M A_m, TMT itself at W = 0)
        if self.weighting is not None and self.config.placement not in ("R3", "attention"):
            A = self.weigh(specific, batch)
            trace.weights = A.mean(2)
            weighted = (len(MODALITIES) if self.config.placement == "R1M" else 1) * A * specific
            joined = weighted.mean(2).sum(1) if self.config.placement == "R2p" else None
            specific = specific if self.config.placement == "R2p" else weighted
        specific = specific.sum(1) if self.summed else specific.flatten(1, 2)  # R2: the weighted sum of the text

        # 4. mutual: each group of tokens attends to the other
        f1 = self.specific_from_shared(specific, shared, maps, MUTUAL[0])
        f2 = self.shared_from_specific(shared, specific, maps, MUTUAL[1])

        # 5. predict
        pooled = f1.mean(1) + f2.mean(1)
        return read_out(self.head, pooled if joined is None else pooled + joined, self.config.task), trace

    def weigh(self, tokens: Float[Tensor, "B M k d"], batch: Batch) -> Float[Tensor, "#B M #k d"]:
        """A of some tokens. Raises ValueError for weights of another shape, which would broadcast."""
        b, m, k, d = tokens.shape
        if isinstance(self.weighting, Weighting):
            told = truth_of(batch) if isinstance(self.weighting, Oracle) else batch.present
            weights = self.weighting(tokens, told).expand(-1, -1, -1, d)
            allowed = [(n, m, j, d) for n in (1, b) for j in (1, k)]
        else:  # another module, with weights by modality and feature
            weights = self.weighting(tokens)
            allowed = [(1, m, d), (b, m, d)]
        if weights.shape not in allowed:
            gave = f"weighting {self.config.weighting!r} gave weights of shape {tuple(weights.shape)}"
            raise ValueError(f"{gave}; wanted {' or '.join(map(str, dict.fromkeys(allowed)))}")
        return weights if weights.dim() == 4 else weights[:, :, None]

    def _check(self, batch: Batch) -> None:
        for m in MODALITIES:
            (_, t, d), most, width = batch.features[m].shape, self.frames[m], self.project[m].in_features
            if t > most or d != width:
                raise ValueError(f"{m} is {t} frames of {d} features; wanted at most {most} frames of {width} features")

    def _means(self, frames: list[dict], groups: list[Batch]) -> dict[str, Float[Tensor, "B d"]]:
        """Means of X_m over time: over valid frames, or over all where padding is not hidden."""
        pairs, masked = list(zip(frames, groups, strict=True)), self.config.masked
        return {m: torch.cat([masked_mean(x[m], g.valid(m) if masked else None) for x, g in pairs]) for m in MODALITIES}

    def _weighted_frames(
        self, frames: list[dict], groups: list[Batch], batch: Batch, means: dict[str, Float[Tensor, "B d"]]
    ) -> tuple[list[dict], Float[Tensor, "#B M d"]]:
        """Placement R3: A_m X_m by group, and A, from every frame (weightings by token) or from the means over time."""
        if getattr(self.weighting, "by_token", False):
            weighted = [weighted_frames(self.weighting, x, g) for x, g in zip(frames, groups, strict=True)]
            return [x for x, _ in weighted], torch.cat([w for _, w in weighted])
        tokens = torch.stack([means[m] for m in MODALITIES], dim=1)
        A = self.weigh(tokens[:, :, None], batch)[:, :, 0]
        parts = A.expand_as(tokens).split([len(x["text"]) for x in frames])
        weighted = [
            {m: w[:, i, None] * x[m] for i, m in enumerate(MODALITIES)} for w, x in zip(parts, frames, strict=True)
        ]
        return weighted, A

    def _disentangled(
        self, projected: dict, batch: Batch, gates: Float[Tensor, "B M"] | None, maps: dict | None
    ) -> Float[Tensor, "B k d"]:
        """The label tokens after the encoder, in whose last layer only they are queries, as the frames are dropped.
        Log gates, if any, are added to the attention scores of a modality's frames."""
        b, k = len(batch.lengths["text"]), self.tokens.shape[1]
        frames = [projected[m] + self.positions[m][:, : projected[m].shape[1]] for m in MODALITIES]
        x = torch.cat([(self.tokens + self.token_positions).expand(b, -1, -1), *frames], dim=1)
        x = self.embedding_dropout(x)
        valid = None
        if self.config.masked:  # all label tokens are valid, so attention is defined without any frame
            label_tokens = torch.ones(b, k, dtype=torch.bool, device=x.device)
            valid = torch.cat([label_tokens, *(batch.valid(m) for m in MODALITIES)], dim=1)
        if gates is not None:
            bias = [gates[:, i, None].expand(-1, projected[m].shape[1]) for i, m in enumerate(MODALITIES)]
            bias = torch.cat([bias[0].new_zeros(b, k), *bias], dim=1)
            valid = bias if valid is None else bias.masked_fill(~valid, -torch.inf)
        for i, layer in enumerate(self.encoder):
            last = i == len(self.encoder) - 1
            x = layer(x[:, :k] if last else x, x, valid, maps, f"encoder.{i}")
        return x

    def loss(self, prediction: Tensor, target: Tensor, trace: Trace) -> Float[Tensor, ""]:
        """delta * task + alpha * orthogonality + beta * similarity, on the unweighted tokens, and a weighting's own
        loss, if it has one."""
        c = self.config
        total = c.task_weight * self.task_loss(prediction, target)
        if trace.lesson is not None:
            total = total + self.weighting.loss(trace.lesson, target)
        mean = {g: x.float().mean(1) for g, x in trace.tokens.items()}
        if c.orthogonality:
            pairs = [("shared", m) for m in MODALITIES] + list(combinations(MODALITIES, 2))
            total = total + c.orthogonality * sum(orthogonality(mean[a], mean[b]) for a, b in pairs) / 3
        if c.similarity:
            total = total + c.similarity * sum(mmd(trace.projected[m].float(), mean[m]) for m in MODALITIES) / 3
        return total

    def own_rates(self, learning_rate: float) -> list[tuple[nn.Module, float]]:
        rate = learning_rate if self.config.weighting_lr is None else self.config.weighting_lr
        own = [] if self.weighting is None else [(self.weighting, rate)]
        return own + super().own_rates(learning_rate)
