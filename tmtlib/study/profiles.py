"""The sizes of the study: smoke (for tests), quick (minutes on two CPU cores), full (the reported one: quick's models
with twenty seeds, all weightings and all subsets of the modalities; hours) and paper (the paper's size and protocol,
ten seeds, on a GPU)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tmtlib.common import MODALITIES, check_choice, digest
from tmtlib.data.schema import DataRef, SyntheticSize
from tmtlib.models.tmt import TMTConfig
from tmtlib.study.methods import family, method_named
from tmtlib.training.fit import Training

MISLED = ("tmt", *family("oracle", "reliability"), "tmt_uniform", "tmt_amw", "tmt_amw_fast", "tmt_amw_r3")
MISLED += ("tmt_gated", "tmt_token", *family("placed", "swept"))


@dataclass(frozen=True)
class Profile:
    """The size of a study: data sets, methods, seeds, models, trainings and corruptions."""

    name: str
    seeds: tuple[int, ...]
    family_seeds: int | None = None  # the first so many for other methods than `methods`, and for corrupted test data
    few_seeds: int | None = None  # the first so many where each costs much; None: all
    model: TMTConfig = TMTConfig()
    training: Training = Training()
    synthetic: Mapping[str, SyntheticSize] = field(default_factory=lambda: MappingProxyType({}))
    datasets: tuple[str, ...] = ("mosi", "mosei", "sims")
    methods: tuple[str, ...] = ("tmt", "tmt_amw", "tmt_amw_fast", "tmt_uniform")  # on every data set
    ablations: tuple[str, ...] = ()  # on the first data set only
    five_class: tuple[str, ...] = ("sims",)  # data sets on which the 5-class twins of TMT and TMT+AMW run too
    normalize: bool = True
    masked: tuple[str, ...] = ()  # methods that are also trained with frames missing, on the first data set
    protocol: bool = True  # whether to run other settings, test selection, other and held weights, synthetic emotions
    tuned: tuple[str, ...] = ()  # methods tuned on the same grid, on the first data set (`analysis.tuning`)
    noisy_training: tuple[str, ...] = MODALITIES  # modalities to which training adds noise, one at a time
    training_snr_db: tuple[float, ...] = (-10.0, -20.0)  # its levels, see `adaptation.LEVELS`
    snr_db: tuple[float, ...] = (20.0, 10.0, 5.0, 0.0, -5.0, -10.0)  # notebook 04's noise levels
    missing_rates: tuple[float, ...] = tuple(i / 10 for i in range(11))  # its rates of missing frames
    blocks: tuple[float, ...] = (0.2, 0.4, 0.6)  # its shares of frames in a missing block
    shifts: tuple[int, ...] = (2, 4, 8)  # its delays of a modality, in frames
    masks: int = 3  # how many times each random corruption is drawn, the same for every model
    worlds: int = 30  # synthetic worlds in which measures of importance are judged, of this size, one seed each; or 0
    world_methods: tuple[str, ...] = ("tmt_amw", "tmt_amw_fast")  # the methods that are trained in them
    world_size: SyntheticSize = SyntheticSize((1200, 300, 500), (20, 20, 20))
    draws: int = 0  # of the two worlds in which a modality misleads (`analysis.misled`), of this size; or 0
    draw_methods: tuple[str, ...] = MISLED
    draw_size: SyntheticSize = SyntheticSize((1200, 300, 3000), (8, 8, 8))
    jobs: int | None = None  # trainings at a time on a CPU, one thread each; None: one a core


def synthetic_sizes(utterances: tuple, aligned: int, unaligned: tuple) -> dict[str, SyntheticSize]:
    """Sizes of synthetic data by data set; CH-SIMS alone has another T for each modality."""
    same = SyntheticSize(utterances, (aligned,) * 3)
    return {"mosi": same, "mosei": same, "sims": SyntheticSize(utterances, unaligned)}


SMALL = TMTConfig(
    width=64, encoder_layers=2, cross_layers=2, heads=4, head_width=16, encoder_hidden=128, cross_hidden=64
)
TUNED = ("tmt", "late_fusion", "mult", "misa")
MASKED = ("tmt", "tmt_amw", "tmt_uniform", "tmt_gated", "tmt_token", "text_only", "late_fusion", "mult", "misa")

QUICK = Profile(
    name="quick",
    seeds=(0, 1, 2),
    model=replace(SMALL, schedule="cosine"),  # few epochs end better with a falling learning rate
    training=Training(learning_rate=1e-3, batch_size=32, epochs=8, least_steps=300, patience=None, select_by="loss"),
    synthetic=synthetic_sizes((1200, 300, 500), aligned=20, unaligned=(20, 26, 24)),
    methods=("tmt", "tmt_amw"),
    ablations=("tmt_uniform", "tmt_random", "tmt_amw_fast", "tmt_gated", "text_only", "late_fusion"),
    five_class=(),
    protocol=False,
    noisy_training=(),
    training_snr_db=(-20.0,),
    snr_db=(10.0, 0.0, -10.0),
    missing_rates=(0.0, 0.25, 0.5, 0.75, 1.0),
    blocks=(0.4,),
    shifts=(4,),
    masks=1,
    worlds=0,
)
REPORTED = "full"  # the profile whose tables README and ledger state
PROFILES = {
    "smoke": replace(
        QUICK,
        name="smoke",
        seeds=(0, 1),
        model=replace(SMALL, width=16, heads=2, head_width=8, encoder_hidden=32, cross_hidden=16),
        training=Training(learning_rate=3e-3, epochs=2, patience=None),
        synthetic=synthetic_sizes((96, 32, 64), aligned=8, unaligned=(8, 12, 10)),
        methods=("tmt", "tmt_amw", "tmt_amw_fast", "tmt_uniform", "tmt_random", "tmt_gated", "text_only", "mult"),
        ablations=(),
        masked=("tmt", "tmt_amw"),
        masks=2,
        five_class=Profile.five_class,
        protocol=True,
        noisy_training=("text",),
        tuned=("tmt", "late_fusion"),
        snr_db=(10.0, 0.0),
        missing_rates=(0.0, 0.5, 1.0),
        shifts=(2,),
        worlds=2,
        world_methods=("tmt_amw_fast",),  # its W can move
        world_size=SyntheticSize((64, 32, 64), (8, 8, 8)),
        draws=1,
        draw_methods=("tmt", "tmt_oracle", "tmt_oracle_r3", "tmt_reliability", "tmt_reliability_open", "tmt_amw"),
        draw_size=SyntheticSize((64, 32, 64), (8, 8, 8)),
        jobs=1,
    ),
    "quick": QUICK,
    "paper": Profile(
        name="paper",
        seeds=tuple(range(10)),
        methods=family("main"),
        protocol=False,
        noisy_training=(),
        worlds=0,
    ),
    "full": replace(  # the reported study: quick's models and trainings, with seeds and test utterances that decide
        QUICK,
        name="full",
        seeds=tuple(range(20)),
        family_seeds=5,
        few_seeds=3,
        synthetic=synthetic_sizes((1200, 300, 6000), aligned=20, unaligned=(20, 26, 24)),
        methods=family("main"),
        ablations=family("weighting", "subset", "baseline", "placement", "variant", "mmsa"),
        masked=MASKED,
        protocol=True,
        tuned=TUNED,
        five_class=Profile.five_class,
        noisy_training=Profile.noisy_training,
        blocks=Profile.blocks,
        shifts=Profile.shifts,
        masks=2,
        worlds=Profile.worlds,
        world_size=SyntheticSize((1200, 150, 300), (4, 4, 4)),  # few frames, for speed
        draws=5,
    ),
}


def split_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """The names in "mosi,sims", or in a sequence."""
    return tuple(filter(None, (n.strip() for n in names.split(",")))) if isinstance(names, str) else tuple(names)


def beside(name: str, refs: Sequence[DataRef]) -> str:
    """The folder of a profile on these data: its name, and of files the data sets' names and the start of a hash, so
    that a study of other data is never written on top ("quick_mine-1a2b3c4d")."""
    if all(ref.source == "synthetic" for ref in refs):
        return name
    return f"{name}_{'+'.join(ref.name for ref in refs):.40}-{digest(tuple(refs))[:8]}"


def resized(
    profile: Profile,
    seeds: int | None = None,
    datasets: Sequence[str] = (),
    methods: Sequence[str] = (),
    own: Sequence[str] = (),
) -> Profile:
    """The profile with the first `seeds` seeds, some of its data sets, or other methods; its name says which.

    `methods` ("all": the whole family) run on every data set, beside the main ones, which the claims need; `own` ones
    are added to what the profile has. Raises ValueError for no seed, an unknown method, or a data set that the profile
    lacks.
    """
    if seeds is not None and seeds < 1:
        raise ValueError(f"seeds is {seeds}; wanted at least 1")
    for name in datasets:
        check_choice("data set", name, profile.datasets)
    every = family("main", "weighting", "placement", "variant", "subset", "baseline", "mmsa")
    wanted = tuple(n for name in methods for n in (every if name == "all" else (name,)))
    for name in wanted:
        method_named(name)
    changes = {"seeds": tuple(range(seeds))} if seeds else {}
    if datasets:
        changes["datasets"] = tuple(dict.fromkeys(datasets))
    if methods:
        changes |= {"methods": tuple(dict.fromkeys((*family("main"), *wanted))), "ablations": (), "tuned": ()}
    if own:
        changes["methods"] = tuple(dict.fromkeys((*changes.get("methods", profile.methods), *own)))
    parts = (profile.name, f"{seeds}seeds" if seeds else "", "+".join(datasets), "+".join((*methods, *own)))
    return replace(profile, name="_".join(filter(None, parts)), **changes)
