"""Whether users were split as the weights say: if not, no comparison of the two sides can be trusted.

A Bayes factor of "the split has some other share" (Dirichlet around the declared one) against "it has the declared
share" is an e-process, so it may be looked at after every user (Lindon & Malek 2020, arXiv 2011.03567; the form of
optimizely/ssrm). Users are independent, their requests are not: only users are counted, each once per weight epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pipelines.release.evidence import log_sum

# How closely other shares lie around the declared one, in users: few for a broken split, many for a leak.
CONCENTRATIONS = (10.0, 100.0, 1_000.0, 10_000.0)


class Split(NamedTuple):
    """Distinct users of one weight epoch.

    Attributes:
        candidate: Users that the candidate answered.
        stable: Users that stable answered.
        share: The candidate's declared share, 0 to 1.
    """

    candidate: float
    stable: float
    share: float


def log_bayes_factor(split: Split) -> float:
    """Return the log Bayes factor against the declared share.

    It is the mean over several concentrations of the Dirichlet-multinomial, which for two sides is Beta-binomial.
    With concentration c, prior counts a = c * share and b = c * (1 - share), and x of x + y users with the candidate:
    B(a + x, b + y) / B(a, b) / (share^x * (1 - share)^y). A share of 0 or 1 is no split, and says nothing.
    """
    x, y, share = split
    if not 0 < share < 1:
        return 0.0
    terms = []
    for concentration in CONCENTRATIONS:
        a, b = concentration * share, concentration * (1 - share)
        ratio = _log_beta(a + x, b + y) - _log_beta(a, b) - x * math.log(share) - y * math.log1p(-share)
        terms.append(ratio - math.log(len(CONCENTRATIONS)))
    return log_sum(terms)


def p_value(splits: Sequence[Split], n_epochs: int) -> float:
    """Return the p-value that the declared weights split the users, valid at every look.

    A user who comes back in a later epoch keeps the same hash, so epochs are not independent and their factors must not
    be multiplied: the largest counts, times the number of epochs there can be (Bonferroni).

    Args:
        splits: One per epoch so far.
        n_epochs: Epochs that the rollout can have, at least as many.
    """
    strongest = max((log_bayes_factor(split) for split in splits), default=0.0)
    return min(1.0, max(n_epochs, len(splits)) * math.exp(-max(0.0, strongest)))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
