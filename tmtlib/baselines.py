"""Configs of the models that TMT is compared with; like all of `tmtlib.config`, where they are found, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from tmtlib.hyperparameters import MISA_MODEL, MULT_MODEL
from tmtlib.model_config import ModelConfig, check_choice


@dataclass(frozen=True)
class Baseline(ModelConfig):
    """What the baselines share. `published` gives a data set's published hyper-parameters, where there are any."""

    @classmethod
    def published(cls, dataset: str, **changes) -> Baseline:
        """What is published for "mosi", "mosei", "sims" or "simsv2" (`tmtlib.hyperparameters`), and `changes`.

        Raises ValueError for another data set, or a model without any.
        """
        table = {MulTConfig: MULT_MODEL, MISAConfig: MISA_MODEL}.get(cls)
        if table is None:
            raise ValueError(f"no hyper-parameters by data set are published for a {cls.__name__}")
        check_choice("dataset", dataset, tuple(table))
        return cls(**table[dataset] | changes)

    @property
    def masked(self) -> bool:
        """Whether padding is hidden from the model; the trainer then leaves out what no utterance of a batch needs."""
        return getattr(self, "compat", "none") == "none"


@dataclass(frozen=True)
class MulTConfig(Baseline):
    """The multimodal transformer (Tsai et al., ACL 2019). Defaults: the paper's for MOSI (appendix, Table 5).

    Triples are by modality. The paper has one dropout rate for a whole crossmodal block: here its three.
    """

    width: int = 40
    heads: int = 10
    layers: int = 4  # of each of the six crossmodal transformers
    memory_layers: int = 4  # of each of the three self-attention transformers on what they give
    kernels: tuple[int, int, int] = (3, 3, 3)  # of the convolutions over time
    attention_dropout: tuple[float, float, float] = (0.2, 0.2, 0.2)  # by source; the memories take the text's
    relu_dropout: float = 0.2
    residual_dropout: float = 0.2
    embedding_dropout: float = 0.0
    text_dropout: float = 0.2  # on the text's features themselves
    output_dropout: float = 0.1
    compat: str = "none"  # "mmsa": no positions, no padding mask, reads the last frame even where it is padding

    def __post_init__(self):
        super().__post_init__()
        check_choice("compat", self.compat, ("none", "mmsa"))


@dataclass(frozen=True)
class MISAConfig(Baseline):
    """Modality-invariant and -specific representations (Hazarika et al., ACM MM 2020). Defaults: the paper's, MOSI."""

    width: int = 128
    lstm_width: int | None = None  # of each direction; None: as wide as the modality's features
    heads: int = 2  # of the transformer that fuses
    fusion_hidden: int = 2048  # its feed-forward width
    fusion_dropout: float = 0.1
    dropout: float = 0.5  # in the prediction head
    difference: float = 0.3  # beta
    similarity: float = 1.0  # alpha
    reconstruction: float = 1.0  # gamma
    task_loss: str = "mse"  # of regression: "mse" as published, or "l1" as TMT
    bert: str | None = None  # folder of a BERT to fine-tune from `text_bert`, as published; None: the file's features
    bert_lr: float = 5e-5
    compat: str = "none"  # "mmsa": audio and vision are read for as many frames as the text has

    def __post_init__(self):
        super().__post_init__()
        check_choice("task_loss", self.task_loss, ("mse", "l1"))
        check_choice("compat", self.compat, ("none", "mmsa"))


@dataclass(frozen=True)
class LateFusionConfig(Baseline):
    """Late fusion of three encoders, as MMSA's LF-DNN; the sizes are this study's. Triples are by modality."""

    widths: tuple[int, int, int] = (128, 32, 64)
    fusion_width: int = 64
    dropout: float = 0.2


@dataclass(frozen=True)
class BertTextConfig(Baseline):
    """A fine-tuned BERT on the text alone (Devlin et al., NAACL 2019, sec. 4.1)."""

    bert: str | None = None  # its folder; one must be given
    bert_lr: float = 2e-5
    pooling: str = "cls"  # the utterance is the first token's hidden state, "cls", or their "mean"
    dropout: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        check_choice("pooling", self.pooling, ("cls", "mean"))
