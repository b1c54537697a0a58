"""Reproduce every figure that the gates' statistics rest on: measured beside stated.

    python -m benchmarks.statistics [--json]

Rates are summed exactly over all outcomes where that is possible (exact), else simulated with a fixed seed (sim).
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from pipelines.core.command import run
from pipelines.core.stats.halves import half_rates
from pipelines.core.stats.intervals import clopper_pearson, shrunken, wilson, z_score
from pipelines.core.stats.judges import Agreement, corrected_estimate
from pipelines.core.stats.limits import decide_limit
from pipelines.core.stats.paired import bonett_price, paired_gain, tango_z
from pipelines.core.stats.power import rows_to_detect
from pipelines.core.stats.quantiles import order_bounds, rows_needed
from pipelines.core.stats.rules import Scale

Floats = NDArray[np.float64]
RATE = Scale("higher", "binary", 0.0, 1.0)
SIZES = (20, 30, 40, 50, 60, 75, 100, 125, 150, 200, 250, 300, 400)
MARGINS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.1)
Z = z_score(0.05)


class Figure(NamedTuple):
    """One figure: what it is, what was stated (None: ours alone), what comes out here, and how."""

    what: str
    stated: float | None
    measured: float
    how: str


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.statistics", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = []
    for figure in all_figures():
        figures.append(figure._asdict())
        if not arguments.json:
            stated = "-" if figure.stated is None else f"{figure.stated:.4g}"
            print(f"{figure.what:<88} stated {stated:>7}   measured {figure.measured:>8.4g}   {figure.how}", flush=True)
    if arguments.json:
        print(json.dumps({"figures": figures}))


def all_figures() -> Iterator[Figure]:
    """Compute the figures one after the other."""
    yield from limits()
    yield from worst_cases()
    yield from ties()
    yield from needed_rows()
    yield from looks()
    yield from coverage()
    yield from tails()
    yield from few_clusters()
    yield from halves()


def limits() -> Iterator[Figure]:
    """Floors: what Wilson's upper bound does near 1, and how intervals cover at n = 50, p = 0.98."""
    floors = [(n, t) for n in range(20, 301) for t in (0.9, 0.95, 0.97, 0.98, 0.99, 0.995)]
    for name, stated, bound in (("Wilson", 0.20, wilson), ("Clopper-Pearson", 0.05, clopper_pearson)):
        worst = max(wrong_fails(n, t, bound) for n, t in floors)
        yield Figure(
            f"floor near 1: worst rate at which {name}'s bound fails a candidate on it", stated, worst, "exact"
        )
    n, p = 50, 0.98
    weights = stats.binom.pmf(np.arange(n + 1), n, p)
    covers: dict[str, Callable[[int], tuple[float, float]]] = {
        "t": lambda k: t_interval(k, n),
        "percentile bootstrap": lambda k: (stats.binom.ppf(0.025, n, k / n) / n, stats.binom.ppf(0.975, n, k / n) / n),
        "Wilson": lambda k: wilson(k, n, alpha=0.025),
    }
    for name, interval in covers.items():
        bounds = [interval(k) for k in range(n + 1)]
        covered = sum(w for w, (lower, upper) in zip(weights, bounds, strict=True) if lower <= p <= upper)
        stated = 0.92 if name == "Wilson" else 0.64
        yield Figure(f"n = 50, p = 0.98: coverage of the 95 % {name} interval", stated, float(covered), "exact")


def wrong_fails(n: int, floor: float, bound: Callable[..., tuple[float, float]]) -> float:
    """Return how often a candidate whose true rate is the floor has an upper bound below it."""
    k = n
    while k >= 0 and bound(k, n)[1] >= floor:
        k -= 1
    return float(special.bdtr(k, n, floor)) if k >= 0 else 0.0


def t_interval(k: int, n: int) -> tuple[float, float]:
    """Return the two-sided 95 % t interval of a rate."""
    half = stats.t.ppf(0.975, n - 1) * math.sqrt(k / n * (1 - k / n) / (n - 1))
    return k / n - half, k / n + half


def worst_cases() -> Iterator[Figure]:
    """Paired rates: the worst rate at which a candidate on the margin passes or fails, over all flip rates."""
    worst: dict[str, tuple[float, int, float]] = {}
    special_cases: dict[tuple[str, int, float], float] = {}
    for n in SIZES:
        for margin in MARGINS:
            for name, rate in rates_on_margin(n, margin).items():
                special_cases[name, n, margin] = rate
                worst[name] = max(worst.get(name, (0.0, 0, 0.0)), (rate, n, margin))
    yield Figure(
        "paired, d = 3 pp, n = 30: a t/CLT interval passes a candidate on the margin",
        0.40,
        special_cases["CLT passes", 30, 0.03],
        "exact",
    )
    for name, stated in (
        ("Bonett-Price passes", 0.106),
        ("Tango passes", None),
        ("Gatehouse passes", None),
        ("Bonett-Price fails", None),
        ("Tango fails", None),
        ("Gatehouse fails", None),
    ):
        rate, n, margin = worst[name]
        yield Figure(
            f"paired: worst case: {name} a candidate on the margin (n = {n}, d = {margin})", stated, rate, "exact"
        )
    yield Figure("paired: Gatehouse's power at n = 248, d = 5 pp, 10 % flips, no change", 0.80, power_of(248), "exact")


def rates_on_margin(n: int, margin: float) -> dict[str, float]:
    """Return the worst rate over the flip rates for each method, with a true difference of exactly -margin."""
    gains, losses = (
        counts[np.add.outer(np.arange(n + 1), np.arange(n + 1)) <= n] for counts in np.indices((n + 1, n + 1))
    )
    score = np.array([tango_z(int(b), int(c), n, -margin) for b, c in zip(gains, losses, strict=True)])
    bells = [bonett_price(int(b), int(c), n).bounds(0.05) for b, c in zip(gains, losses, strict=True)]
    lower, upper = np.array(bells).T
    difference = (gains - losses) / n
    error = np.sqrt(np.maximum((gains + losses) / n - difference**2, 0) / (n - 1))
    events = {
        "CLT passes": difference - Z * error > -margin,
        "Bonett-Price passes": lower > -margin,
        "Tango passes": score > Z,
        "Gatehouse passes": (lower > -margin) & (score > Z),
        "Bonett-Price fails": upper < -margin,
        "Tango fails": score < -Z,
        "Gatehouse fails": (upper < -margin) & (score < -Z),
    }
    near = np.linspace(margin, min(0.5, 4 * margin), 40)
    worst = dict.fromkeys(events, 0.0)
    for flips in np.concatenate([near, np.linspace(near[-1], 0.999, 12)]):
        weights = weights_of(gains, losses, n, (flips - margin) / 2, (flips + margin) / 2)
        for name, event in events.items():
            worst[name] = max(worst[name], float(weights[event].sum()))
    return worst


def weights_of(gains: NDArray[np.int64], losses: NDArray[np.int64], n: int, won: float, lost: float) -> Floats:
    """Return the probability of each (gains, losses) among n rows."""
    ties = n - gains - losses
    ways = special.gammaln(n + 1) - special.gammaln(gains + 1) - special.gammaln(losses + 1) - special.gammaln(ties + 1)
    logs = special.xlogy(gains, max(0.0, won)) + special.xlogy(losses, lost) + special.xlogy(ties, 1 - won - lost)
    return np.asarray(np.exp(ways + logs))


def power_of(n: int) -> float:
    """Return how often an unchanged candidate passes a margin of 5 points when 10 % of the rows flip."""
    gains, losses = (
        counts[np.add.outer(np.arange(n + 1), np.arange(n + 1)) <= n] for counts in np.indices((n + 1, n + 1))
    )
    weights = weights_of(gains, losses, n, 0.05, 0.05)
    likely = weights > 1e-12
    return sum(
        float(weight)
        for b, c, weight in zip(gains[likely], losses[likely], weights[likely], strict=True)
        if tango_z(int(b), int(c), n, -0.05) > Z and bonett_price(int(b), int(c), n).bounds(0.05).lower > -0.05
    )


def ties() -> Iterator[Figure]:
    """Scores with 94 % ties at n = 30, the rest lost whole: BCa beside pseudo-rows, on a margin of 6 points."""
    rng = np.random.default_rng(0)
    n_runs, passes = 1_000, {"BCa": 0, "pseudo-rows": 0}
    for _ in range(n_runs):
        candidate = np.where(rng.random(30) < 0.06, 0.0, 1.0)
        passes["BCa"] += bca_lower(candidate - 1, rng) > -0.06
        gain = paired_gain(candidate, np.ones(30), direction="higher", kind="continuous", low=0.0, high=1.0)
        passes["pseudo-rows"] += gain.lower > -0.06
    for name, stated in (("BCa", 0.16), ("pseudo-rows", None)):
        what = f"scores, n = 30, 94 % ties: {name} passes a candidate on the margin"
        yield Figure(what, stated, passes[name] / n_runs, f"sim, {n_runs:,} runs")


def bca_lower(differences: Floats, rng: np.random.Generator) -> float:
    """Return the one-sided 95 % BCa bound; rows that all agree have an interval of zero width."""
    if np.ptp(differences) == 0:
        return float(differences[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = stats.bootstrap((differences,), np.mean, n_resamples=999, confidence_level=0.9, random_state=rng)
    return float(found.confidence_interval.low)


def needed_rows() -> Iterator[Figure]:
    """How many rows a decision needs."""
    for effect, stated in ((0.10, 62), (0.05, 248), (0.03, 687), (0.02, 1546)):
        yield Figure(f"rows to see {effect:.0%} with 10 % flips", stated, rows_to_detect(effect, 0.1), "formula")
    for n, bound in ((30, 0.095), (100, 0.0295), (300, 0.010)):
        yield Figure(f"safety: upper bound with 0 of {n} flagged", bound, clopper_pearson(0, n).upper, "exact")
    for quantile, rows in ((0.95, 59), (0.99, 299)):
        yield Figure(f"rows that bound the {quantile:.0%} quantile", rows, rows_needed(quantile), "exact")


def looks() -> Iterator[Figure]:
    """Trying again until it is green; the true rate is on the floor."""
    rng = np.random.default_rng(1)
    n_runs, n, floor = 20_000, 200, 0.8
    rows = rng.random((n_runs, 3, n)) < floor
    counts = rows.sum(axis=2)
    bar = next(k for k in range(n + 1) if clopper_pearson(k, n).lower >= floor)
    exact_level = float(special.bdtrc(bar - 1, n, floor))
    yield Figure(
        f"three tries at {exact_level:.3f} (alpha 0.05) until one passes",
        0.14,
        float((counts >= bar).any(axis=1).mean()),
        f"sim, {n_runs:,} runs",
    )
    yield Figure("three tries at exactly 0.05 until one passes", 0.14, 1 - 0.95**3, "exact")


def coverage() -> Iterator[Figure]:
    """One-sided 95 % bounds of quantiles, clustered rates and judged rates."""
    rng = np.random.default_rng(2)
    n_runs = 2_000
    truth = math.exp(stats.norm.ppf(0.95))
    hits = sum(order_bounds(rng.lognormal(size=60), 0.95).upper >= truth for _ in range(n_runs))
    yield Figure("latency: the p95 bound of 60 log-normal times covers", 0.95, hits / n_runs, f"sim, {n_runs:,} runs")
    clusters = np.repeat(np.arange(30), 5)
    for name, used in (("as rows of their conversations", clusters), ("as if independent", None)):
        drawn = np.random.default_rng(3)
        passes = 0
        for _ in range(n_runs):
            rates = np.repeat(drawn.beta(1.6, 0.4, 30), 5)  # mean 0.8, correlation 1/3 inside a conversation
            values = (drawn.random(150) < rates).astype(float)
            passes += decide_limit(values, 0.8, is_floor=True, scale=RATE, clusters=used).verdict == "pass"
        stated = 0.05 if used is not None else None
        what = f"30 conversations of 5 rows on the floor, taken {name}: pass"
        yield Figure(what, stated, passes / n_runs, f"sim, {n_runs:,} runs")
    misses = 0
    for _ in range(n_runs):
        judged = rng.binomial(200, 0.7 * 0.9 + 0.3 * 0.15)
        agreement = Agreement(50, 50, int(rng.binomial(50, 0.85)), int(rng.binomial(50, 0.9)))
        misses += corrected_estimate(judged, 200, agreement).lower > 0.7
    yield Figure(
        "judge (q0 0.85, q1 0.9, 50 + 50 labels): bound above the truth", 0.05, misses / n_runs, f"sim, {n_runs:,} runs"
    )


def tails() -> Iterator[Figure]:
    """Amounts without a largest value: Student's t beside the largest value that a gate declares, on the limit."""
    rng, n_runs = np.random.default_rng(5), 2_000
    for sigma, stated in ((0.8, 0.081), (1.2, 0.15), (2.0, 0.28)):
        worst = {"Student's t, no largest value": 0.0, "a declared largest value": 0.0}
        for n in (20, 50, 100, 224, 1_000):
            for share in (0.99, 0.999, 0.9999):
                high = math.exp(sigma * stats.norm.ppf(share))
                truth = float(np.minimum(rng.lognormal(0, sigma, 1_000_000), high).mean())
                rows = rng.lognormal(0, sigma, (n_runs, n))
                below = {
                    "Student's t, no largest value": _t_upper(rows) <= math.exp(sigma**2 / 2),
                    "a declared largest value": _shrunken_upper(np.minimum(rows, high), high) <= truth,
                }
                worst = {name: max(rate, float(below[name].mean())) for name, rate in worst.items()}
        for name, rate in worst.items():
            what = f"amounts, log-normal sigma {sigma}, 20 to 1,000 rows, {name}: pass on the ceiling"
            yield Figure(what, stated if name.startswith("Student") else None, rate, f"sim, {n_runs:,} runs")
    yield from _explosions(rng, n_runs)


def _t_upper(rows: Floats) -> Floats:
    n = rows.shape[1]
    return np.asarray(rows.mean(axis=1) + special.stdtrit(n - 1, 0.95) * rows.std(axis=1, ddof=1) / math.sqrt(n))


def _shrunken_upper(rows: Floats, high: float) -> Floats:
    n = rows.shape[1]
    return np.array(
        [
            shrunken(mean, variance, n, 0.0, high).bounds(0.05).upper
            for mean, variance in zip(rows.mean(axis=1), rows.var(axis=1), strict=True)
        ]
    )


def _explosions(rng: np.random.Generator, n_runs: int) -> Iterator[Figure]:
    worst = {"Student's t": 0.0, "a declared largest value": 0.0}
    for share in (0.005, 0.01, 0.02, 0.03, 0.05):
        for n in (50, 100, 224):
            before = rng.uniform(0.5, 1.5, (n_runs, n))
            after = np.where(rng.random((n_runs, n)) < share, 100.0, before)
            margin = share * 99
            for name, high, has_tail in (("Student's t", None, False), ("a declared largest value", 100.0, True)):
                gains = (
                    paired_gain(now, then, direction="lower", kind="continuous", low=0.0, high=high, has_tail=has_tail)
                    for now, then in zip(after, before, strict=True)
                )
                worst[name] = max(worst[name], sum(gain.lower > -margin for gain in gains) / n_runs)
    for name, rate in worst.items():
        what = f"amounts, 0.5 to 5 % of 50 to 224 rows explode, {name}: pass on the margin"
        yield Figure(what, None, rate, f"sim, {n_runs:,} runs")


def few_clusters() -> Iterator[Figure]:
    """Clustered rows on a floor: the worst rate at which they pass, over rates and correlations."""
    n_runs = 1_000
    for n_clusters, size, stated in ((2, 50, 0.12), (6, 50, 0.20), (10, 20, None), (20, 20, 0.10), (30, 5, None)):
        worst, rng = 0.0, np.random.default_rng(6)
        clusters = np.repeat(np.arange(n_clusters), size)
        for rate in (0.5, 0.8, 0.9, 0.95):
            for correlation in (0.2, 0.33, 0.6, 0.99):
                weight, passes = 1 / correlation - 1, 0
                for _ in range(n_runs):
                    rates = np.repeat(rng.beta(rate * weight, (1 - rate) * weight, n_clusters), size)
                    values = (rng.random(len(rates)) < rates).astype(float)
                    passes += decide_limit(values, rate, is_floor=True, scale=RATE, clusters=clusters).verdict == "pass"
                worst = max(worst, passes / n_runs)
        what = (
            f"{n_clusters} conversations of {size} rows on the floor pass, worst case (stated: without pseudo-clusters)"
        )
        yield Figure(what, stated, worst, f"sim, {n_runs:,} runs")


def halves() -> Iterator[Figure]:
    """A/A: random halves of rows that one model answered, against each other."""
    rng = np.random.default_rng(4)
    for n in (170, 1_000):
        values = (rng.random(n) < 0.6).astype(float)
        rates = half_rates(values, 0.08, scale=RATE, rng=rng, n_rounds=2_000)
        for name, rate in (("fail", rates.fails), ("ask for review", rates.reviews)):
            yield Figure(f"A/A, {n} rows at 0.6, margin 8 pp: halves {name}", None, rate, "sim, 2,000 halves")


if __name__ == "__main__":
    run(main)
