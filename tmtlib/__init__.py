"""A reproducible study of Adaptive Modality Weighting (AMW) in the Token-disentangling Mutual Transformer (TMT).

The names most callers need are here and are imported on first use, so `import tmtlib` itself is quick:

    dataset = tmtlib.load_dataset("mosi")                      # or the path of a feature file
    model = tmtlib.build_model(tmtlib.TMTConfig(weighting="static"), dataset)
    runs = tmtlib.open_study("quick").runs("tmt", "tmt_amw")   # what to train
    frame = tmtlib.ensure(runs)                                # trains what is missing, one row a run
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "load_dataset": "tmtlib.data.loading",
    "build_model": "tmtlib.models",
    "fit": "tmtlib.training",
    "ensure": "tmtlib.runs",
    "open_study": "tmtlib.study",
    "encode_text": "tmtlib.text",
    "encode_transcripts": "tmtlib.text",
    "TMTConfig": "tmtlib.config",
    "Training": "tmtlib.config",
    "Run": "tmtlib.config",
    "PROFILES": "tmtlib.profiles",
}
__all__ = [*_HOMES, "metrics"]


def __getattr__(name: str):
    if name == "metrics":
        return import_module("tmtlib.metrics")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tmtlib' has no attribute {name!r}; it offers {', '.join(__all__)}")
