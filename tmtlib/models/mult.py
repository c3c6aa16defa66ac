"""MulT, the multimodal transformer (Tsai et al., ACL 2019), from section 3 of the paper.

  1. convolve    X_m = Conv1D(features of modality m) -> (B, T_m, d)
  2. cross       Z_{s->m}: X_m attends to X_s, for both other modalities s (six transformers)
  3. memory      self-attention over [Z_{s->m}; Z_{s'->m}] (B, T_m, 2d), of which the last frame is kept
  4. predict     from the three last frames (B, 6d), through a residual layer
Axes: B batch, T frames, D features, d width, h heads, Q and K frames of target and source.

Each transformer begins with sinusoidal positions and ends in a norm. Residuals go around the norms (eq. 5 prints the
normed input instead).

`compat` "mmsa" computes what MMSA's MulT does (https://github.com/thuiar/MMSA, version 2.2.1, MIT): a transformer's
inputs times sqrt(d) and without positions, convolutions without padding, target frame q sees the source's frames up to
q + |K - Q| alone, and padded frames are read as any others, the last one too. Still different: no biases of queries,
keys and values; initial weights; one dropout of keys and values; features that are d wide are convolved as well; fewer
frames than a kernel, where MMSA fails, are filled up with zeros.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn
from torch.nn.functional import pad

from tmtlib.common import MODALITIES
from tmtlib.models.base import Batch, Model, ModelConfig, Trace, check_sizes, check_widths, read_out
from tmtlib.models.frames import masked_mean, without_padding
from tmtlib.models.layers import Attention, Dropout, Source, Target, Valid, feed_forward


@dataclass(frozen=True)
class MulTConfig(ModelConfig):
    """Settings of `MulT`. Defaults: the paper's for MOSI (appendix, Table 5). Triples are by modality."""

    width: int = 40
    heads: int = 10
    layers: int = 4  # of each of the six crossmodal transformers
    memory_layers: int = 4  # of each of the three self-attention transformers
    kernels: tuple[int, int, int] = (3, 3, 3)  # of the convolutions over time
    attention_dropout: tuple[float, float, float] = (0.2, 0.2, 0.2)  # by source; the memories take the text's
    relu_dropout: float = 0.2  # the paper has one rate for ReLU, residual and attention dropout
    residual_dropout: float = 0.2
    embedding_dropout: float = 0.0
    text_dropout: float = 0.2  # on the text's features themselves
    output_dropout: float = 0.1
    compat: str = "none"  # "mmsa": MMSA's version, as the module says

    choices = ModelConfig.choices | {"compat": ("none", "mmsa")}
    masked = property(lambda self: self.compat == "none")
    model_class = property(lambda self: MulT)

    @classmethod
    def beside(cls, tmt: ModelConfig, **changes) -> "MulTConfig":
        """At most as many layers as the study's TMT."""
        config = super().beside(tmt, **changes)
        layers = min(config.layers, tmt.encoder_layers)
        return replace(config, layers=layers, memory_layers=layers)


SOURCES = {m: tuple(s for s in MODALITIES if s != m) for m in MODALITIES}  # of each target, the two others


class Layer(nn.Module):
    """Pre-norm block (sec. 3.2, eq. 5): t <- t + Attn(LN t, LN s, LN s), then t <- t + FF(LN t). One LN for t and s."""

    def __init__(self, width: int, attention_dropout: float, config: MulTConfig):
        super().__init__()
        c = config
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, c.heads, width // c.heads, c.residual_dropout, attention_dropout)
        hidden = feed_forward(width, 4 * width, nn.ReLU(), c.relu_dropout, c.residual_dropout)
        self.feed_forward = nn.Sequential(nn.LayerNorm(width), *hidden)

    def forward(self, target: Target, source: Source, valid: Valid | None, maps: dict | None, name: str) -> Target:
        source = self.norm(source)
        target = target + self.attention(self.norm(target), source, source, valid, maps, name)
        return target + self.feed_forward(target)


class Transformer(nn.Module):
    """Layers in which the target attends to a fixed source or, if that is None, to itself."""

    def __init__(self, width: int, layers: int, attention_dropout: float, config: MulTConfig):
        super().__init__()
        self.mmsa, self.scale = config.compat == "mmsa", width**0.5
        self.dropout = Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(Layer(width, attention_dropout, config) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, target: Target, source: Source | None, valid: Valid | None, maps: dict | None, name: str
    ) -> Target:
        target = self._placed(target)
        source = None if source is None else self._placed(source)
        if self.mmsa:
            valid = past(target.shape[1], (target if source is None else source).shape[1], target.device)
        for i, layer in enumerate(self.layers):
            target = layer(target, target if source is None else source, valid, maps, f"{name}.{i}")
        return self.norm(target)

    def _placed(self, x: Float[Tensor, "B T d"]) -> Float[Tensor, "B T d"]:
        return self.dropout(self.scale * x if self.mmsa else x + sinusoids(x.shape[1], x.shape[2], x.device))


class MulT(Model):
    """MulT. Raises ValueError for a width that the heads do not divide, and for sizes below one."""

    def __init__(self, config: MulTConfig, shapes: dict[str, tuple[int, int]], family: str):
        super().__init__(config, family)
        check_sizes(config, "width", "heads", "layers", "memory_layers", "kernels")
        c, d = config, config.width
        if d % c.heads:
            raise ValueError(f"width is {d} with {c.heads} heads; wanted a multiple of the heads")
        self.widths = {m: shapes[m][1] for m in MODALITIES}
        self.text_dropout = Dropout(c.text_dropout)
        kernel = dict(zip(MODALITIES, c.kernels, strict=True))
        padding = "same" if c.masked else "valid"
        self.convolve = nn.ModuleDict(  # no bias: padding stays zero
            {m: nn.Conv1d(self.widths[m], d, kernel[m], padding=padding, bias=False) for m in MODALITIES}
        )
        rate = dict(zip(MODALITIES, c.attention_dropout, strict=True))
        self.cross = nn.ModuleDict(
            {f"{s}_to_{m}": Transformer(d, c.layers, rate[s], c) for m in MODALITIES for s in SOURCES[m]}
        )
        self.memory = nn.ModuleDict({m: Transformer(2 * d, c.memory_layers, rate["text"], c) for m in MODALITIES})
        e = 6 * d
        self.residual = nn.Sequential(nn.Linear(e, e), nn.ReLU(), Dropout(c.output_dropout), nn.Linear(e, e))
        self.head = nn.Linear(e, self.outputs)

    def forward(self, batch: Batch, attention: bool = False) -> tuple[Tensor, Trace]:
        """Prediction and trace; attention maps on request."""
        check_widths(batch, self.widths)
        trace = Trace()
        maps = trace.attention if attention else None
        batch = without_padding(batch) if self.config.masked else batch
        groups = [batch] if attention else batch.split()  # maps of groups would be of different sizes
        last, means = zip(*(self._remembered(group, maps) for group in groups), strict=True)
        last = torch.cat(last)
        trace.projected = {m: torch.cat([mean[m] for mean in means]) for m in MODALITIES}
        return read_out(self.head, last + self.residual(last), self.config.task), trace

    def _remembered(
        self, batch: Batch, maps: dict | None
    ) -> tuple[Float[Tensor, "B six_d"], dict[str, Float[Tensor, "B d"]]]:
        """The last frames of the three memories side by side, and the mean of each X_m over time."""
        valid = {m: batch.valid(m) if self.config.masked else None for m in MODALITIES}
        features = {**batch.features, "text": self.text_dropout(batch.features["text"])}
        if not self.config.masked:
            short = {m: max(0, conv.kernel_size[0] - features[m].shape[1]) for m, conv in self.convolve.items()}
            features = {m: pad(x, (0, 0, 0, short[m])) for m, x in features.items()}
        frames = {m: convolve(features[m].mT).mT for m, convolve in self.convolve.items()}
        last = torch.cat([self._last(m, frames, valid, batch, maps) for m in MODALITIES], dim=-1)
        return last, {m: masked_mean(x, valid[m]) for m, x in frames.items()}

    def _last(
        self, target: str, frames: dict, valid: dict, batch: Batch, maps: dict | None
    ) -> Float[Tensor, "B two_d"]:
        """The last frame of a modality's memory."""
        names = {s: f"{s}_to_{target}" for s in SOURCES[target]}
        crossed = [self.cross[name](frames[target], frames[s], valid[s], maps, name) for s, name in names.items()]
        memory = self.memory[target](torch.cat(crossed, dim=-1), None, valid[target], maps, f"memory_{target}")
        if not self.config.masked:
            return memory[:, -1]
        index = (batch.lengths[target] - 1)[:, None, None].expand(-1, 1, memory.shape[2])
        return memory.gather(1, index).squeeze(1)


def past(targets: int, sources: int, device: torch.device) -> Bool[Tensor, "1 Q K"]:
    """MMSA's mask: frame q of Q may see the frames up to q + |K - Q|."""
    return torch.ones(1, targets, sources, dtype=torch.bool, device=device).tril(abs(sources - targets))


def sinusoids(frames: int, width: int, device: torch.device) -> Float32[Tensor, "T d"]:
    """PE[t, 2j] = sin(t / 10000^(2j / d)), PE[t, 2j + 1] = cos(t / 10000^(2j / d)) (Vaswani et al. 2017)."""
    column = torch.arange(width, device=device)
    rate = 10000.0 ** (-(column - column % 2) / width)
    angle = torch.arange(frames, device=device)[:, None] * rate
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())
