"""The claims of the AMW paper as data: exact quotes, their places, and what counts for and against each.

Read them as `tmtlib.paper.facts.CLAIMS`; the rules that judge them are in `facts` and `verdicts`.
"""

from __future__ import annotations

from dataclasses import dataclass

COMPARISON = "Performance Comparison with Baseline TMT"
ANALYSIS = "Detailed Analysis on Each Dataset"
DISCUSSION = "Discussion of Experimental Findings"
TRAINING = "Implementation Details and Training Protocols"
FUSION = "Enhancement of Cross-modal Feature Fusion"
WEIGHTS = "Adaptive Modality Weight Calculation"
OVERVIEW = "Overview of the AMW Mechanism"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper and what would count for and against it.

    rule: "arithmetic" (decidable without training), "amw_gain:<data sets>:<metrics>" (paired seed differences, TMT+AMW
    minus TMT), "learned_gain:<data sets>:<metrics>" (the same over TMT and over each control, which weights without
    learning), where either part is "all" or names with commas, "noise" (robustness curves), "learned_noise" (those over
    TMT and each control), "weights_static" (the weights are a parameter, without input), "sharpness" (entropy of
    attention) or "parameters" (measured size and time). kind: "result", "mechanism", "explanation" or "cost".
    """

    key: str
    quote: str
    place: str
    kind: str
    rule: str
    supports: str
    contradicts: str


_BETTER = (
    "the 95 % t interval of the paired seed differences excludes zero, better, with an adjusted p below .05, "
    "and it does not lie within half of the printed change."
)
_WORSE = (
    "it excludes zero, worse, with an adjusted p below .05, or it lies within half of the printed change. "
    "Else: cannot tell."
)


def _gain(key: str, quote: str, place: str, cells: str) -> Claim:
    supports, contradicts = f"In every cell {_BETTER}", f"In at least one cell {_WORSE}"
    return Claim(key, quote, place, "result", f"amw_gain:{cells}", supports, contradicts)


def _learned(key: str, quote: str, place: str, cells: str, kind: str = "explanation") -> Claim:
    supports = f"Over TMT and over each control with weights that are not learned, in every cell {_BETTER}"
    contradicts = f"Over TMT or over a control, in at least one cell {_WORSE}"
    return Claim(key, quote, place, kind, f"learned_gain:{cells}", supports, contradicts)


def _static(key: str, quote: str, place: str) -> Claim:
    supports = "A definition in which the weights take the utterance as input."
    contradicts = "The weights are a softmax of a learned matrix alone: the same for every utterance."
    return Claim(key, quote, place, "mechanism", "weights_static", supports, contradicts)


def _read(key: str, quote: str, place: str, kind: str, supports: str, contradicts: str) -> Claim:
    return Claim(key, quote, place, kind, "arithmetic", supports, contradicts)


# fmt: off
_RESULTS = (
    _gain("gain_everywhere", "approach consistently enhances emotion recognition accuracy and F1-score "
          "while reducing mean absolute error compared to the baseline TMT model", "Abstract", "all:all"),
    _gain("gain_sims", "TMT +AMW improves Acc-5 from 0.4726 to 0.4770", COMPARISON, "sims:acc5"),
    _gain("gain_sims_f1", "in F1-score, from 0.5156 to 0.5173", ANALYSIS, "sims:f1"),
    _gain("gain_mosi", "Acc-5 improves from 0.430 to 0.435, F1-score from 0.489 to 0.492, and MAE decreases "
          "from 0.520 to 0.517", ANALYSIS, "mosi:all"),
    _gain("gain_mosei", "Acc-5 increases from 0.530 to 0.537, F1-score from 0.560 to 0.565, and MAE drops "
          "from 0.460 to 0.455", ANALYSIS, "mosei:all"),
    _gain("gain_again", "the integration of AMW consistently improves the performance of the TMT model across "
          "different datasets and metrics", ANALYSIS, "all:all"),
    _read("all_metrics", "demonstrated consistent performance improvements across all metrics", "Conclusion", "result",
          "In Table 1 all nine pairs of cells move towards better.",
          "At least one pair of cells moves towards worse."),
    _read("significant", "AMW-enhanced TMT significantly improves emotion recognition accuracy and robustness",
          "Introduction", "result",
          "On each data set the printed accuracy gain could reach p < .05 in an exact McNemar test.",
          "On at least one data set no pairing of the predictions could reach it."),
    _read("largest_on_mosei", "The most notable improvements are observed on the CMU-MOSEI dataset", ANALYSIS, "result",
          "In Table 1 each metric improves most on CMU-MOSEI.",
          "Some metric improves more on another data set."),
    _read("sims_mae", "the MAE also slightly rises from 0.4726 to 0.477", ANALYSIS, "result",
          "The two numbers are a MAE: they differ from the Acc-5 of the same rows.",
          "The MAE of the same runs does not rise. The same digits as Acc-5: cannot tell."),
    _read("earlier_methods", "The Token-disentangling Mutual Transformer (TMT) effectively improves multimodal emotion "
          "recognition", OVERVIEW, "result",
          "On each data set TMT's printed Acc-5 is above every model's mean over seeds in MMSA's list.",
          "On at least one data set some model's mean is above it."),
    Claim("noise_robust", "AMW enhanced classification accuracy, robustness to modality noise, and "
          "interpretability through explicit weight visualization", "Conclusion", "result", "noise",
          f"For the area under the MAE curve with noise, {_BETTER}", f"On at least one data set {_WORSE}"),
    Claim("overhead", "introduces additional parameters, which may slightly increase computational overhead",
          "Conclusion", "cost", "parameters",
          "AMW adds parameters, and the 95 % interval of its extra time per step lies above zero.",
          "AMW adds none, or that interval lies below zero. Else: cannot tell."),
)
_REASONS = (
    _learned("beats_fixed", "overcoming the limitations of fixed modality weighting", "Introduction", "all:all"),
    _learned("weighting_helps", "adaptive modality weighting helps the model dynamically emphasize more informative "
             "modalities, enhancing classification accuracy and robustness", COMPARISON, "all:acc5"),
    _learned("sims_finer", "the performance improvements in both classification accuracy and F1-score suggest that AMW "
             "provides a more robust representation through finer modality contribution modeling", ANALYSIS,
             "sims:acc5,f1"),
    _learned("single_sentence", "This result highlights the effectiveness of AMW in single-sentence sentiment analysis",
             ANALYSIS, "mosi:all"),
    _learned("precise_intensity", "The slight drop in MAE further confirms that the adaptive fusion strategy enhances "
             "precision in emotional intensity estimation", ANALYSIS, "mosi:mae"),
    _learned("adaptive_fusion", "demonstrating the advantage of adaptive modality fusion in diverse multimodal emotion "
             "recognition tasks", ANALYSIS, "all:all"),
    _learned("simple_effective", "a simple yet effective mechanism designed to improve multimodal emotion recognition",
             "Conclusion", "all:all", "result"),
    Claim("imbalance_noise", "the effectiveness of AMW lies in its ability to handle modality imbalance and noise",
          DISCUSSION, "explanation", "learned_noise",
          f"For the area under the MAE curve with noise, over TMT and over each control, {_BETTER}",
          f"Over TMT or over a control, on at least one data set {_WORSE}"),
    _read("scale_of_mosei", "Given the large scale and diversity of CMU-MOSEI, the positive impact of AMW is more "
          "prominent", ANALYSIS, "explanation",
          "Gains that grow with the size of samples of one data set.",
          "Gains that do not. One large and two small data sets that differ in much else: cannot tell."),
    _read("sims_mae_rise", "This marginal increase in error may be attributed to the relatively balanced "
          "nature of the CH-SIMS modalities", ANALYSIS, "explanation",
          "The CH-SIMS MAE column differs from all others, and a measured modality balance explains it.",
          "A measured CH-SIMS MAE that falls under AMW, with a 95 % interval that excludes zero."),
    _read("corr_omitted", "Since the datasets used for testing are identical to those used for training, "
          "correlation measures may not reflect the true generalization performance of the models", ANALYSIS,
          "explanation",
          "A reason that holds for Corr and not for Acc-5, F1 and MAE of the same predictions.",
          "The reason holds for all four metrics alike."),
    _read("tmt_equal", "Traditional TMT treats all modalities equally", DISCUSSION, "explanation",
          "In TMT each modality has the same influence on the output, whatever the input.",
          "TMT's attention weighs tokens of modalities by the input."),
    _read("others_equal", "existing Transformer-based approaches that typically assume uniform modality contributions",
          "Conclusion", "explanation",
          "The earlier methods that the paper names weigh modalities alike.",
          "The paper itself names earlier methods that weigh modalities by the input."),
)
_MECHANISM = (
    _read("sum_to_one", "for each feature dimension, the weights across all modalities sum to one", WEIGHTS,
          "mechanism",
          "The normalisation named is a softmax over the modality axis.",
          "The softmax runs over another axis."),
    _read("explicit", "a learnable modality weighting module that explicitly calibrates the relative importance of "
          "textual, acoustic, and visual modalities", "Conclusion", "mechanism",
          "The module's parameters are one weight for each modality and dimension.",
          "The weights are implied by other parameters, such as attention."),
    _read("end_to_end", "integrated AMW into the TMT pipeline without disrupting the original model architecture, "
          "enabling end-to-end training", "Conclusion", "mechanism",
          "A definition in which the weighted features take the place of TMT's, with gradients to all parameters.",
          "A definition that removes or adds parts of TMT. One vector for three modalities' tokens: cannot tell."),
    _read("emphasis", "reallocates emphasis toward more informative and reliable features while attenuating less "
          "relevant ones", "Abstract", "mechanism",
          "Printed weights that rank the modalities as a measure of their information does.",
          "Printed weights with another order, or that do not leave 1/3."),
    _read("interpretable", "the explicit weighting mechanism increases model interpretability by providing insights "
          "into modality importance across various scenarios", "Abstract", "mechanism",
          "Printed weights for at least two scenarios, and a check that they follow importance.",
          "Weights that do not follow measured importance. No printed weight: cannot tell."),
    Claim("sharper_attention", "AMW leads to sharper and more focused attention distributions across modalities",
          FUSION, "mechanism", "sharpness",
          "In both halves of the mutual transformer, on every data set, the 95 % interval of the paired difference in "
          "normalised attention entropy, AMW minus TMT, lies below zero, and not within 0.01 of it; and no weights "
          "that are not learned (uniform, random) bring it too.",
          "In at least one of them it lies above zero, or within 0.01 of it. Else: cannot tell."),
    _read("salient_regions", "AMW enables the model to focus more precisely on emotionally salient regions in the "
          "input", DISCUSSION, "mechanism",
          "A number or figure of where in the input a model with AMW looks, and one without.",
          "The same with the opposite outcome. Neither: cannot tell."),
    _read("attention_maps", "Both quantitative results and qualitative attention map analyses confirmed the "
          "effectiveness of the proposed method", "Conclusion", "result",
          "The paper shows an attention map, or says what one shows.",
          "It shows none and says of none what it shows."),
    _static("input_based", "dynamically learns modality importance based on input data and task context", OVERVIEW),
    _static("across_samples", "revealing the relative importance of each modality across samples", "Introduction"),
    _static("adapts_to_inputs", "enables the model to adapt to highly variable multimodal inputs and better generalize "
            "across samples with modality imbalance or noise", ANALYSIS),
    _static("dynamic_attention", "AMW offers the flexibility to dynamically adjust attention to dominant modalities",
            DISCUSSION),
    _static("audio_anecdote", "AMW correctly assigned higher weights to the audio stream", DISCUSSION),
    _static("silent_anecdote", "in silent or low-quality audio samples, AMW emphasized textual semantics and visual "
            "features", DISCUSSION),
    _static("per_sample", "AMW learns fixed weights per sample", "Conclusion"),
)
# fmt: on
CLAIMS: tuple[Claim, ...] = _RESULTS + _REASONS + _MECHANISM
