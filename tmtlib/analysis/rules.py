"""What the rules behind this room's verdicts share."""

import pandas as pd

from tmtlib.paper.verdicts import RULES

LEAST = 0.01  # of a weight, or of a normalised entropy: a smaller change counts as none


def with_rules(table: pd.DataFrame) -> pd.DataFrame:
    """A table of verdicts with a last column "rules": the version of the rules, and the date of their last change."""
    return table.assign(rules=RULES)
