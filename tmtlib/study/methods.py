"""The methods that the study compares: changes to the profile's TMT, and other models at the size of their papers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

from tmtlib.common import MODALITIES
from tmtlib.models.amw import WEIGHTINGS
from tmtlib.models.base import ModelConfig
from tmtlib.models.bert import BertTextConfig
from tmtlib.models.late_fusion import LateFusionConfig
from tmtlib.models.misa import MISAConfig
from tmtlib.models.mult import MulTConfig
from tmtlib.models.tmt import TMTConfig


@dataclass(frozen=True)
class Method:
    """A method; `title`, `colour` and `dash` are how tables and figures show it."""

    name: str
    title: str
    # main, weighting, slow, held, placement, variant, subset, 5-class, emotions, baseline, bert, mmsa, own;
    # reliability, oracle, placed and swept: for `analysis.misled`
    family: str
    change: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))  # fields of the model's config
    model: type[ModelConfig] = TMTConfig
    colour: str | None = None  # None: a hue of its own from the name
    dash: str = ":"  # matplotlib line style

    def config(self, tmt: TMTConfig) -> ModelConfig:
        """The config of the method's model where the profile's TMT is `tmt`."""
        if self.model is TMTConfig:
            return replace(tmt, **self.change)
        if self.family == "mmsa":  # at MMSA's sizes for CMU-MOSI, whatever the data
            return self.model.published("mosi", schedule=tmt.schedule, **self.change)
        return self.model.beside(tmt, **self.change)


AMW, UNIFORM, GATED, TOKEN = ({"weighting": name} for name in ("static", "uniform", "gated", "token"))
GATES, OPEN = ({"weighting": name, "placement": "attention"} for name in ("reliability", "reliability_open"))
TOLD, AVERAGE = {"weighting": "oracle"}, {"weighting": "oracle_static"}
FAST, FIVE_CLASS, EMOTIONS = {"weighting_lr": 1e-2}, {"task": "classification"}, {"task": "emotions"}
ROWS = (
    Method("tmt", "TMT", "main", {"weighting": "none"}, colour="#4D4D4D", dash="-"),
    Method("tmt_amw", "TMT+AMW", "main", AMW, colour="#AA3377", dash="-"),  # W learns at the training rate
    # W moves far within a profile's epochs
    Method("tmt_amw_fast", "TMT+AMW, fast W", "weighting", AMW | FAST, colour="#B83900", dash="--"),
    # the paper's rate, where a profile has another
    Method("tmt_amw_slow", "TMT+AMW, slow W", "slow", AMW | {"weighting_lr": 1e-4}, colour="#A26E48"),
    # controls: fixed weights
    Method("tmt_uniform", "TMT, uniform weights", "main", UNIFORM, colour="#3DADE3", dash="-."),
    Method("tmt_random", "TMT, random weights", "main", {"weighting": "random"}, colour="#D4B48D"),
    *(Method(f"tmt_mostly_{m}", f"TMT, mostly {m} (.8)", "held", {"weighting": f"mostly_{m}"}) for m in MODALITIES),
    # where A acts: times M (TMT itself at the start), summed as in the paper's text, before disentanglement
    Method("tmt_amw_r1m", "TMT+AMW, times M (R1M)", "placement", AMW | {"placement": "R1M"}),
    Method("tmt_amw_r2", "TMT+AMW, summed (R2)", "placement", AMW | {"placement": "R2"}),
    Method("tmt_amw_r3", "TMT+AMW, before (R3)", "placement", AMW | {"placement": "R3"}),
    Method("tmt_gated", "TMT, gated by the input", "weighting", GATED, colour="#387616"),
    Method("tmt_gated_fast", "TMT, gated by the input, fast", "weighting", GATED | FAST, colour="#A6C758"),
    Method("tmt_scalar", "TMT, a number a modality", "weighting", {"weighting": "scalar"}, colour="#CBB736"),
    Method("tmt_token", "TMT, gated token by token", "weighting", TOKEN, colour="#59B06A"),
    Method("tmt_lowrank", "TMT, rank-one W", "variant", {"weighting": "lowrank"}),
    Method("tmt_gated_scalar", "TMT, gated, one number", "variant", {"weighting": "gated_scalar"}),
    Method("tmt_attention", "TMT, attention over modalities", "variant", {"weighting": "attention"}),
    Method("tmt_temporal", "TMT, gated frame by frame", "variant", TOKEN | {"placement": "R3"}, colour="#009988"),
    # gates in the attention scores, and the same with gates held open
    Method("tmt_reliability", "TMT, reliability", "reliability", GATES, colour="#F33D83", dash="-"),
    Method("tmt_reliability_open", "TMT, reliability, gates open", "reliability", OPEN, colour="#BFBDBC", dash="--"),
    # controls that are told which modalities are reliable, by where they act
    Method("tmt_oracle", "told, in attention", "oracle", TOLD | {"placement": "attention"}, colour="#1A1A1A"),
    *(Method(f"tmt_oracle_{p.lower()}", f"told, {p}", "oracle", TOLD | {"placement": p}) for p in ("R1", "R2p", "R3")),
    Method("tmt_oracle_static", "told on average, R1", "oracle", AVERAGE),
    Method("tmt_oracle_static_r3", "told on average, R3", "oracle", AVERAGE | {"placement": "R3"}, colour="#7788CC"),
    Method("tmt_amw_r2p", "TMT+AMW, on the result (R2p)", "placed", AMW | {"placement": "R2p"}),
    Method("tmt_gated_r3", "TMT, gated, before (R3)", "placed", GATED | {"placement": "R3"}),
    # plain AMW otherwise: sharper or flatter, from a random W, with W's own learning rate
    *(Method(f"tmt_amw_t{t:g}", f"TMT+AMW, temperature {t:g}", "swept", AMW | {"temperature": t}) for t in (0.1, 10.0)),
    *(
        Method(f"tmt_amw_w{w:g}", f"TMT+AMW, W ~ N(0, {w:g}²)", "swept", AMW | {"weighting_init_std": w})
        for w in (1.0, 3.0)
    ),
    *(Method(f"tmt_amw_lr{r:g}", f"TMT+AMW, W at {r:g}", "swept", AMW | {"weighting_lr": r}) for r in (1e-4, 0.1)),
    Method("text_only", "TMT, text only", "subset", {"modalities": ("text",)}, colour="#015EAE"),
    *(Method(f"{m}_only", f"TMT, {m} only", "subset", {"modalities": (m,)}) for m in MODALITIES[1:]),
    *(
        Method(f"{m}_{n}", f"TMT, {m} and {n}", "subset", {"modalities": (m, n)})
        for m, n in combinations(MODALITIES, 2)
    ),
    Method("tmt_5class", "TMT, 5-class head", "5-class", FIVE_CLASS, colour="#A0A0A0"),
    Method("tmt_amw_5class", "TMT+AMW, 5-class head", "5-class", AMW | FIVE_CLASS, colour="#DD99BB"),
    Method("tmt_emotions", "TMT, emotions", "emotions", EMOTIONS, colour="#333333", dash="-"),
    Method("tmt_amw_emotions", "TMT+AMW, emotions", "emotions", AMW | EMOTIONS, colour="#6E1E4A", dash="-"),
    Method(
        *("tmt_uniform_emotions", "TMT, uniform weights, emotions", "emotions", UNIFORM | EMOTIONS),
        colour="#3388BB",
        dash="-.",
    ),
    Method("tmt_reliability_emotions", "TMT, reliability, emotions", "emotions", GATES | EMOTIONS, colour="#B01355"),
    Method("late_fusion", "late fusion", "baseline", model=LateFusionConfig, colour="#640948"),
    Method("mult", "MulT", "baseline", model=MulTConfig, colour="#2D2086"),
    Method("misa", "MISA", "baseline", model=MISAConfig, colour="#219F2D"),
    Method("bert_text", "BERT, text only", "bert", model=BertTextConfig),  # needs `text_bert` in the file
    Method("mult_mmsa", "MulT, as in MMSA", "mmsa", {"compat": "mmsa"}, model=MulTConfig),
    Method("misa_mmsa", "MISA, as in MMSA", "mmsa", {"compat": "mmsa"}, model=MISAConfig),
)
METHODS: dict[str, Method] = {method.name: method for method in ROWS}
TRIVIAL_BASELINES = {  # predictors without training, see `tmtlib.analysis.trivial_baselines`
    "constant": "constant (train median)",
    "train_mean": "constant (train mean)",
    **{f"linear_{m}": f"linear, {m} only" for m in MODALITIES},
    "linear_all": "linear, all modalities",
    "oracle": "best possible (oracle)",
    "majority": "majority (absent or present)",
    "always": "every emotion, always",
}


def family(*families: str) -> tuple[str, ...]:
    """Names of the methods of these families, family by family."""
    return tuple(name for wanted in families for name, method in METHODS.items() if method.family == wanted)


def method_named(name: str) -> Method:
    """A method by its name. Raises ValueError for an unknown one, with the nearest."""
    if name not in METHODS:
        near = get_close_matches(name, METHODS, 1, 0.7) or [n for n in METHODS if n == f"tmt_{name.lower()}"]
        meant = "".join(f"did you mean {n!r}? " for n in near)
        own = "; one of your own needs its file, --own"
        raise ValueError(f"method is {name!r}, which is none; {meant}`tmt methods` lists all {len(METHODS)}{own}")
    return METHODS[name]


def method_config(name: str, tmt: TMTConfig) -> ModelConfig:
    """The config of a method's model where the profile's TMT is `tmt`. Raises as `method_named`."""
    return method_named(name).config(tmt)


def method_title(name: str) -> str:
    """The title of a method or trivial baseline; an unknown name is its own."""
    return method_titles().get(name, name)


def method_titles() -> dict[str, str]:
    """Titles of methods and trivial baselines by name."""
    return {name: method.title for name, method in METHODS.items()} | TRIVIAL_BASELINES


def add_method(method: Method) -> None:
    """Adds a method to `METHODS`, or replaces the one of that name."""
    METHODS[method.name] = method


def methods_from(path: str | Path) -> list[str]:
    """Runs a Python file that registers weightings (method "tmt_<name>") or adds methods; returns the new methods'
    names. A second call with the file replaces them. Records are found by name: rename a weighting, or delete its runs,
    when its code changes. Raises FileNotFoundError where there is no such file, ValueError where it adds nothing."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} with weightings or methods of your own")
    for name in [n for n, made in WEIGHTINGS.items() if getattr(made, "from_file", None) == str(path)]:
        del WEIGHTINGS[name]
    weightings, methods = set(WEIGHTINGS), dict(METHODS)
    # As "__main__": worker processes are sent the classes and need not import this file
    exec(compile(path.read_bytes(), str(path), "exec"), {"__name__": "__main__"})
    for name in [n for n in WEIGHTINGS if n not in weightings]:
        WEIGHTINGS[name].from_file = str(path)
        add_method(Method(f"tmt_{name}", f"TMT, {name}", "own", {"weighting": name}))
    added = [name for name, method in METHODS.items() if methods.get(name) is not method]
    if not added:
        raise ValueError(
            f'{path} brings no method; decorate a weighting with @register("its name"), or add_method(...)'
        )
    return added
