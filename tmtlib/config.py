"""What a result depends on, as frozen dataclasses: model, training, data, `Run` (one training) and `Profile` (a study).

Nothing here imports torch, so `tmt --help` stays quick. A `Run` is the only key to a result: its id is a hash of its
fields, so a finished run is found again and a changed one is trained anew. The device is no part of it and is
stated in the record: a run is trained once, wherever that is, and a table with runs of several devices says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import MappingProxyType

from tmtlib.baselines import BertTextConfig, LateFusionConfig, MISAConfig, MulTConfig
from tmtlib.corruption import REGIMES, Corruption
from tmtlib.model_config import EMOTIONS, MODALITIES, TASKS, ModelConfig, check_choice

__all__ = [
    "EMOTIONS",
    "MODALITIES",
    "TASKS",
    "BertTextConfig",
    "Corruption",
    "DataRef",
    "LateFusionConfig",
    "MISAConfig",
    "ModelConfig",
    "MulTConfig",
    "PlantedSize",
    "Profile",
    "Run",
    "TMTConfig",
    "Training",
    "as_json",
    "check_choice",
    "digest",
]


@dataclass(frozen=True)
class TMTConfig(ModelConfig):
    """The token-disentangling mutual transformer and its weighting. Defaults: the AMW paper's size, masked, unwindowed.

    The AMW paper ("Implementation Details") gives width 128, four layers and eight heads; all else follows the
    original TMT's released behaviour, where each departure of ours from it is a field (see `original`).
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
    weighting: str = "none"  # a name registered in tmtlib.models.weighting
    placement: str = "R1"  # where the weights act: R1, R1M, R2 (after disentanglement), R3 (before it)
    weighting_init_std: float = 0.0  # W ~ N(0, std^2); 0 is uniform weights
    weighting_lr: float | None = None  # W's own learning rate; None: the training's
    temperature: float = 1.0  # softmax(W / temperature)
    mask_absent: bool = False  # a modality that an utterance lacks gets weight 0 and the others share the whole
    bert: str | None = None  # folder of a BERT to fine-tune from `text_bert`; None: the file's text features
    bert_lr: float = 5e-5

    def __post_init__(self):
        super().__post_init__()
        check_choice("placement", self.placement, ("R1", "R1M", "R2", "R3"))
        check_choice("head_activation", self.head_activation, ("gelu", "none"))

    @classmethod
    def original(cls, **changes) -> TMTConfig:
        """The original TMT as released: 256 wide, 2 + 4 layers, 8 heads of 64, with all its choices."""
        return replace(
            cls(
                width=256,
                encoder_layers=2,
                cross_layers=4,
                heads=8,
                head_width=64,
                encoder_hidden=512,
                cross_hidden=256,
                raw_dropout=0.5,
                dropout=0.5,
                position_std=1.0,
                masked=False,
                window=20,
                head_activation="none",
                orthogonality=0.01,
                similarity=1.0,
                task_weight=10.0,
                mixup="original",
                schedule="warmup_cosine",
                task="classification",
            ),
            **changes,
        )


@dataclass(frozen=True)
class Training:
    """The optimisation protocol. Defaults: the AMW paper's ("Implementation Details and Training Protocols")."""

    learning_rate: float = 1e-4  # Adam, default betas, no weight decay
    batch_size: int = 64
    epochs: int = 30
    patience: int | None = 8  # epochs without improvement on validation before stopping; None: never stop early
    select_by: str = "accuracy"  # the best epoch on validation: "accuracy" (Acc-5; for emotions mean F1) or "loss"
    precision: str = "auto"  # "float32", "bfloat16" autocast, or "auto": bfloat16 on CUDA, float32 elsewhere

    def __post_init__(self):
        check_choice("select_by", self.select_by, ("accuracy", "loss"))
        check_choice("precision", self.precision, ("auto", "float32", "bfloat16"))


@dataclass(frozen=True)
class PlantedSize:
    """How large a planted data set is: utterances per split and frames per modality; None means as published."""

    utterances: tuple[int, int, int] | None = None
    frames: tuple[int, int, int] | None = None  # text, audio, vision
    world: int | None = None  # another truth, drawn by this number (tmtlib.data.worlds); None: the recipe's own


@dataclass(frozen=True)
class DataRef:
    """Names a data set so that a `Run` can load it: a file on disk, or the planted generator's settings."""

    name: str
    source: str = "planted"  # "planted" by this generator, or "real": from a file, which may say otherwise of itself
    sha256: str = ""  # of the file, or of the generator's settings
    path: str | None = field(default=None, metadata={"identity": False})  # a moved file is the same data
    planted: PlantedSize | None = None
    normalize: bool = True  # per-feature z-score from the training split's valid frames
    training_corruption: Corruption | None = None  # what train and valid have gone through; test is never changed

    @property
    def clean(self) -> DataRef:
        """The same data with nothing done to train and valid."""
        return replace(self, training_corruption=None)

    @property
    def regime(self) -> str:
        """What a model is trained on: "clean", "masked" (see `corruption.REGIMES`), or the corruption in words."""
        how = self.training_corruption
        known = {c: name for name, c in REGIMES.items()}
        strength = "" if how is None or how.level is None else f" {how.level:g}"
        return known[how] if how in known else f"{how.kind} {how.where}{strength}"


@dataclass(frozen=True)
class Run:
    """One training: everything that can change its numbers."""

    data: DataRef
    method: str
    model: ModelConfig
    training: Training
    seed: int

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the run's canonical JSON."""
        return digest(self)[:12]


@dataclass(frozen=True)
class Profile:
    """A whole study's size: which data sets, methods and seeds, declared before anything runs."""

    name: str
    seeds: tuple[int, ...]
    model: TMTConfig = TMTConfig()
    training: Training = Training()
    planted: Mapping[str, PlantedSize] = field(default_factory=lambda: MappingProxyType({}))
    datasets: tuple[str, ...] = ("mosi", "mosei", "sims")
    methods: tuple[str, ...] = ("tmt", "tmt_amw", "tmt_amw_fast", "tmt_uniform")  # on every data set
    ablations: tuple[str, ...] = ()  # on the first data set only
    five_class: tuple[str, ...] = ("sims",)  # data sets on which the 5-class twins of TMT and TMT+AMW run too
    normalize: bool = True
    masked: tuple[str, ...] = ()  # methods that are also trained with frames missing, on the first data set
    noisy_training: tuple[str, ...] = MODALITIES  # modalities with noise in which weightings are trained, one by one
    training_snr_db: tuple[float, ...] = (-10.0, -20.0)  # at these levels; planted text feels none above about 0
    snr_db: tuple[float, ...] = (20.0, 10.0, 5.0, 0.0, -5.0, -10.0)  # notebook 04's noise levels
    missing_rates: tuple[float, ...] = tuple(i / 10 for i in range(11))  # its rates of missing frames
    blocks: tuple[float, ...] = (0.2, 0.4, 0.6)  # its shares of frames in a missing block
    shifts: tuple[int, ...] = (2, 4, 8)  # its delays of a modality, in frames
    masks: int = 3  # how many times each random corruption is drawn, the same for every model
    worlds: int = 20  # planted worlds in which measures of importance are judged, of this size, one seed each
    world_size: PlantedSize = PlantedSize((1200, 300, 500), (20, 20, 20))
    jobs: int | None = None  # trainings at a time on a CPU, one thread each; None: one a core


def as_json(value: object, every_field: bool = True) -> object:
    """A dataclass as plain JSON types; without `every_field`, only the fields that can change a result."""
    if is_dataclass(value):
        kept = [f.name for f in fields(value) if every_field or f.metadata.get("identity", True)]
        return {"type": type(value).__name__} | {name: as_json(getattr(value, name), every_field) for name in kept}
    if isinstance(value, Mapping):
        return {str(k): as_json(v, every_field) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v, every_field) for v in value]
    return value


def digest(value: object) -> str:
    """SHA-256 of what in a dataclass can change a result, in hexadecimal."""
    return hashlib.sha256(json.dumps(as_json(value, every_field=False), sort_keys=True).encode()).hexdigest()
