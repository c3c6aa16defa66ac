"""What reading the AMW paper settles: statements with their checks, and verdicts that need no number.

Data only; `tmtlib.paper.audit` makes tables of it. Verdicts that follow from Table 1 are computed there.
"""

from __future__ import annotations

# fmt: off
TEXT_CHECKS = (  # quote, what it was compared with, outcome; feature sizes are those of the MMSA files
    ("enhances emotion recognition accuracy and F1-score while reducing mean absolute error",
     "CH-SIMS rows of Table 1", "MAE is printed as rising, 0.4726 to 0.477"),
    ("Since the datasets used for testing are identical to those used for training",
     "checkpoint rule, other metrics", "a validation set is named; Acc-5, F1, MAE are kept, Corr is omitted"),
    ("this study utilized four widely-adopted evaluation metrics", "Table 1", "three metrics, without Corr"),
    ("yielding a 74-dimensional audio vector per frame",
     "audio features", "74 in CMU-MOSEI (COVAREP), 5 in CMU-MOSI, 33 in CH-SIMS (librosa)"),
    ("visual models such as VGG-16 or Vision Transformer (ViT)",
     "vision features", "20 in CMU-MOSI, 35 in CMU-MOSEI (FACET), 709 in CH-SIMS (OpenFace)"),
    ("providing aligned textual, acoustic, and visual features",
     "CH-SIMS features", "unaligned: 39 text, 400 audio, 55 vision frames"),
    ("each labeled with sentiment scores indicating positive or negative sentiment",
     "CMU-MOSI labels", "real numbers in [-3, 3]; 30 of 686 test labels are zero"),
    ("between multimodal feature extraction and multimodal emotion token disentanglement",
     "'inserted after the token disentanglement step'", "two places are given, before and after it"),
    ("dynamically learns modality importance based on input data",
     "'a learnable modality weight matrix' and its softmax", "no input enters the weights"),
    ("AMW learns fixed weights per sample",
     "'dynamically adjust modality contributions'", "fixed and dynamic are both stated"),
    ("where F_m represents the feature vector of the m -th modality",
     "TMT's two specific tokens per modality", "one vector is weighted; how two tokens are is open"),
    ("CH-SIMS, CMU-MOSI, and CMU-MOSEI [11-13]", "references 11 to 13",
     "11 is on skin lesions, 12 on workflow and strain measurement, 13 is CMU-MOSEI"),
    ("employed cross-modal attention mechanisms to align and fuse multimodal data effectively [8]",
     "reference 8", "a client-server system for emotional state assessment, by Zhu et al."),
    ("attention mechanisms to selectively fuse multimodal features [9]", "reference 9",
     "a network for image super-resolution"),
    ("qualitative attention map analyses confirmed the effectiveness",
     "captions of Figures 1 to 5", "none names an attention map"),
    ("Extensive experiments", "Table 1",
     "six rows, one number a cell; no ablation of place, initialisation or learned against fixed weights"),
    ("TMT inherently assumes equal importance across modalities",
     "TMT's attention (cug-ygh/TMT at e0c6a2b)",
     "its attention weights depend on the input; equal is the number of tokens, two a modality"),
    ("closely following the architecture of the original TMT",
     "the released TMT (cug-ygh/TMT at e0c6a2b)", "256 wide there, 128 here; whose baseline was run is open"),
    ("trained the model using the Adam optimizer for 30 epochs",
     "the released training loop (cug-ygh/TMT at e0c6a2b)",
     "200 epochs, warm-up and cosine, epochs chosen on the test split, each metric at its own best"),
    ("TMT +AMW improves Acc-5 from 0.4726 to 0.4770",
     "comments in the released train_acc5.py (cug-ygh/TMT at e0c6a2b)",
     "46.39 to 48.14 over five values of one loss weight, without AMW"),
    ("F1-score from 0.5156 to 0.5173", "a constant prediction of the most frequent CH-SIMS test class",
     "its 5-class F1 is .497 with exchanged arguments, .164 in the right order"),
    ("to ensure computational efficiency and reproducibility", "the text's other details",
     "the hardware is named; seeds, versions and code are not"),
    ("As shown in Table 1, the baseline across all datasets and metrics", "the sentence itself",
     "its verb is missing: what the baseline does is not said"),
)
READINGS = {  # claim: verdict, evidence
    "corr_omitted": ("not supported", "The reason would touch Acc-5, F1 and MAE of the same runs alike."),
    "scale_of_mosei": ("cannot tell", "Three data sets differ in size, language, labels and features; none was taken "
                       "in samples of several sizes."),
    "tmt_equal": ("not supported", "TMT's attention weighs tokens by the input; equal is only their number, two a "
                  "modality (cug-ygh/TMT at e0c6a2b)."),
    "others_equal": ("not supported", "Its Related Work says that attention-based approaches have been adopted to "
                     "dynamically assign modality weights."),
    "sum_to_one": ("supported", "A softmax over the modality axis sums to one for each dimension."),
    "explicit": ("supported", "The matrix has one weight for each modality and dimension, and nothing else sets it."),
    "end_to_end": ("cannot tell", "A softmax and a sum have gradients, so training end to end is possible; how one "
                   "weighted sum takes the place of three modalities' tokens is not said."),
    "interpretable": ("cannot tell", "No learned weight is printed or named in a figure's caption, for any scenario."),
    "salient_regions": ("cannot tell", "Nothing printed says where in the input a model looks; the weights have no "
                        "axis of time or place."),
    "attention_maps": ("not supported", "No caption of Figures 1 to 5 names an attention map, and no sentence says "
                       "what one shows."),
}
# fmt: on
