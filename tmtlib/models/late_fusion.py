"""Late fusion as the LF-DNN of MMSA (Yu et al., "CH-SIMS", ACL 2020): modalities are encoded separately.

Axes: B batch, T frames, D features, d_m width of a modality.
"""

from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tmtlib.common import MODALITIES
from tmtlib.models.base import Batch, Model, ModelConfig, Trace, check_sizes, check_widths, read_out
from tmtlib.models.frames import lstm_states, masked_mean, without_padding
from tmtlib.models.layers import Dropout


@dataclass(frozen=True)
class LateFusionConfig(ModelConfig):
    """Settings of `LateFusion`; the sizes are this study's. Triples are by modality."""

    widths: tuple[int, int, int] = (128, 32, 64)
    fusion_width: int = 64
    dropout: float = 0.2

    model_class = property(lambda self: LateFusion)


def perceptron(dropout: float, *widths: int) -> nn.Sequential:
    """Dropout, then linear maps between consecutive widths, each followed by a ReLU."""
    maps = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
    return nn.Sequential(Dropout(dropout), *chain(*maps))


class LateFusion(Model):
    """An LSTM for the text, means and perceptrons for audio and vision. Raises ValueError for sizes below one."""

    def __init__(self, config: LateFusionConfig, shapes: dict[str, tuple[int, int]], family: str):
        super().__init__(config, family)
        check_sizes(config, "widths", "fusion_width")
        c = config
        self.widths = {m: shapes[m][1] for m in MODALITIES}
        text, audio, vision = c.widths
        self.lstm = nn.LSTM(self.widths["text"], text, batch_first=True)
        self.text = perceptron(c.dropout, text, text)
        means = {"audio": audio, "vision": vision}
        self.means = nn.ModuleDict({m: perceptron(c.dropout, self.widths[m], d, d) for m, d in means.items()})
        fusion = perceptron(c.dropout, sum(c.widths), c.fusion_width, c.fusion_width)
        self.head = nn.Sequential(*fusion, nn.Linear(c.fusion_width, self.outputs))

    def forward(self, batch: Batch, attention: bool = False) -> tuple[Tensor, Trace]:
        """Prediction and trace, with each modality's encoding as `projected`; no attention maps."""
        check_widths(batch, self.widths)
        batch = without_padding(batch)
        _, text = lstm_states(self.lstm, batch.features["text"], batch.lengths["text"])
        projected: dict[str, Float[Tensor, "B d_m"]] = {"text": self.text(text)}
        projected |= {m: net(masked_mean(batch.features[m], batch.valid(m))) for m, net in self.means.items()}
        hidden = torch.cat([projected[m] for m in MODALITIES], dim=-1)
        return read_out(self.head, hidden, self.config.task), Trace(projected=projected)
