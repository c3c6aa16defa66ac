"""The baselines' hyper-parameters by data set, as MMSA tuned and published them (its `config_regression.json`).

Model and training apart: a table `*_MODEL` holds fields of the baseline's config, a table `*_TRAINING` fields of
`Training`. MMSA's protocol has more than `Training` has; what is left out of it is said beside the table.
"""

from __future__ import annotations

# Kernels and attention dropout by modality: text, audio, vision. MMSA's memory transformers have at least 3 layers.
MULT_MODEL = {
    "mosi": {
        "width": 50,
        "heads": 10,
        "layers": 4,
        "memory_layers": 4,
        "kernels": (5, 5, 5),
        "attention_dropout": (0.3, 0.2, 0.0),
        "relu_dropout": 0.0,
        "embedding_dropout": 0.2,
        "residual_dropout": 0.0,
        "text_dropout": 0.5,
        "output_dropout": 0.5,
    },
    "mosei": {
        "width": 30,
        "heads": 6,
        "layers": 4,
        "memory_layers": 4,
        "kernels": (5, 1, 3),
        "attention_dropout": (0.4, 0.0, 0.0),
        "relu_dropout": 0.0,
        "embedding_dropout": 0.0,
        "residual_dropout": 0.0,
        "text_dropout": 0.3,
        "output_dropout": 0.5,
    },
    "sims": {
        "width": 50,
        "heads": 10,
        "layers": 2,
        "memory_layers": 3,
        "kernels": (5, 1, 1),
        "attention_dropout": (0.2, 0.1, 0.0),
        "relu_dropout": 0.0,
        "embedding_dropout": 0.1,
        "residual_dropout": 0.2,
        "text_dropout": 0.3,
        "output_dropout": 0.1,
    },
    "simsv2": {
        "width": 30,
        "heads": 6,
        "layers": 4,
        "memory_layers": 4,
        "kernels": (5, 3, 1),
        "attention_dropout": (0.1, 0.2, 0.0),
        "relu_dropout": 0.1,
        "embedding_dropout": 0.2,
        "residual_dropout": 0.0,
        "text_dropout": 0.5,
        "output_dropout": 0.3,
    },
}

# Left out: gradients summed over 8 batches, clipped by value (0.6; SIMS v2 1.0), learning rate times 0.1 after
# 5, 20, 10, 10 epochs without a lower validation loss.
MULT_TRAINING = {
    "mosi": {"learning_rate": 2e-3, "batch_size": 16, "patience": 8, "select_by": "loss"},
    "mosei": {"learning_rate": 5e-4, "batch_size": 4, "patience": 8, "select_by": "loss"},
    "sims": {"learning_rate": 2e-3, "batch_size": 16, "patience": 8, "select_by": "loss"},
    "simsv2": {"learning_rate": 5e-4, "batch_size": 16, "patience": 8, "select_by": "loss"},
}

MISA_MODEL = {
    "mosi": {"width": 128, "dropout": 0.2, "difference": 0.1, "similarity": 0.3, "reconstruction": 1.0},
    "mosei": {"width": 128, "dropout": 0.5, "difference": 0.3, "similarity": 0.8, "reconstruction": 1.0},
    "sims": {"width": 128, "dropout": 0.0, "difference": 0.3, "similarity": 1.0, "reconstruction": 0.8},
    "simsv2": {"width": 64, "dropout": 0.5, "difference": 0.5, "similarity": 1.0, "reconstruction": 0.5},
}

# Left out: gradients summed over 2 batches, clipped by value (0.8; SIMS 1.0). BERT has the same learning rate there.
MISA_TRAINING = {
    "mosi": {"learning_rate": 1e-4, "batch_size": 16, "patience": 8, "select_by": "loss"},
    "mosei": {"learning_rate": 1e-4, "batch_size": 64, "patience": 8, "select_by": "loss"},
    "sims": {"learning_rate": 1e-4, "batch_size": 64, "patience": 8, "select_by": "loss"},
    "simsv2": {"learning_rate": 1e-4, "batch_size": 16, "patience": 8, "select_by": "loss"},
}
