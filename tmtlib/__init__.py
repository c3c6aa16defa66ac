"""A reproducible study of Adaptive Modality Weighting (AMW) in the Token-disentangling Mutual Transformer (TMT).

The names most callers need are here and are imported on first use, so `import tmtlib` itself is quick:

    data = tmtlib.load_dataset("mosi")                         # or the path of a feature file
    config, training = tmtlib.TMTConfig(weighting="static"), tmtlib.Training(epochs=10)
    fits = tmtlib.fit(config, training, data.train, data.valid, data.shape, seeds=(0, 1, 2))

    saved = tmtlib.train_model("mine.pkl", "tmt_amw", "model") # or a model to keep: a folder without pickles
    table = tmtlib.predict_file(saved, "new.pkl").table        # and a row for each new utterance

    study = tmtlib.open_study("quick")                         # or a whole study: what is missing is trained,
    frame = study.ensure("tmt", "tmt_amw")                     # one row a run
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "AMW": "tmtlib.models.amw",
    "Method": "tmtlib.study.methods",
    "PROFILES": "tmtlib.study.profiles",
    "Run": "tmtlib.study.runs",
    "TMTConfig": "tmtlib.models.tmt",
    "Training": "tmtlib.training.fit",
    "add_method": "tmtlib.study.methods",
    "build_model": "tmtlib.models",
    "encode_text": "tmtlib.data.text",
    "encode_transcripts": "tmtlib.data.text",
    "ensure": "tmtlib.study.runs",
    "explain_run": "tmtlib.analysis.utterance",
    "fit": "tmtlib.training.fit",
    "load_dataset": "tmtlib.data.loading",
    "open_model": "tmtlib.study.saved",
    "open_study": "tmtlib.study.study",
    "predict_file": "tmtlib.analysis.prediction",
    "train_model": "tmtlib.study.saved",
    "metrics": "tmtlib.stats.metrics",  # the module itself
}
__all__ = [*_HOMES]


def __getattr__(name: str):
    if name in _HOMES:
        module = import_module(_HOMES[name])
        return module if name == "metrics" else getattr(module, name)
    raise AttributeError(f"module 'tmtlib' has no attribute {name!r}; it offers {', '.join(__all__)}")
