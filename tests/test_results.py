"""The committed results are whole, and profile quick learns most of what can be learned of planted data."""

import json
import re

import pandas as pd
import pytest

from tmtlib import paths, runs, tables, truth
from tmtlib.config import Run
from tmtlib.data.loading import resolve
from tmtlib.profiles import PROFILES

QUICK = PROFILES["quick"]
STUDIES = sorted((paths.ROOT / "results").glob("**/quick/table1.csv"))


@pytest.fixture(params=STUDIES, ids=lambda path: path.relative_to(paths.ROOT / "results").parts[0])
def study(request):
    return request.param.parent


def test_planted_and_four_real_studies_are_committed():
    assert [path.relative_to(paths.ROOT / "results").parts[0] for path in STUDIES] == [
        "mosei_video893",
        "mosi_dev229_aligned",
        "mosi_glove_covarep",
        "quick",
        "simsv2_expert_scores",
    ]


def test_tables_have_the_promised_columns_and_spread(study):
    table = pd.read_csv(study / "table1.csv")
    assert list(table.columns) == tables.TABLE1_COLUMNS
    trained = table[table["method"].isin(QUICK.methods)]
    assert (trained["n"] == len(QUICK.seeds)).all() and trained["sd"].notna().all()
    claims = pd.read_csv(study / "claims.csv")
    assert {"claim", "quote", "place", "verdict", "evidence"} <= set(claims.columns) and len(claims) >= 15
    pd.testing.assert_frame_equal(
        table[table["n"] > 1].drop(columns="paper").reset_index(drop=True),
        tables.table1(pd.read_csv(study / "runs.csv")).drop(columns="paper"),
        atol=1e-5,  # both were rounded when they were written
    )


def test_provenance_is_whole_and_names_no_place(study):
    text = (study / "provenance.json").read_text()
    found = json.loads(text)
    rows = pd.read_csv(study / "runs.csv")
    assert {d["sha256"] for d in found["data"]} == set(rows["data_sha256"])
    assert not found["commit"].endswith("-dirty") and not rows["commit"].str.endswith("-dirty").any()
    assert set(rows["source"]) == {"planted" if study.parent.name == "results" else "real"}
    assert not re.search(r'"(/|[A-Z]:\\)', text)
    assert not [path for path in study.glob("**/*") if path.suffix in (".pkl", ".npz", ".pt", ".npy")]


def test_committed_tmt_explains_sixty_percent_of_what_the_oracle_does():
    share = pd.read_csv(paths.ROOT / "results" / "quick" / "explained_share.csv")
    assert set(share["dataset"]) == set(QUICK.datasets)
    assert (share.groupby("dataset")["share"].mean() >= 0.6).all()


@pytest.mark.parametrize("name", QUICK.datasets)
def test_one_training_of_profile_quick_reaches_it_too(name, own_results):
    run = Run(resolve(name, planted_size=QUICK.planted[name]), "tmt", QUICK.model, QUICK.training, seed=1)
    runs.ensure([run], "cpu", jobs=1, progress=False)
    assert truth.explained_share([run])["share"].item() >= 0.6
