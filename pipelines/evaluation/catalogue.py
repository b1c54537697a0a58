"""Every metric by name: which way is better, what values it can take, and what a row needs to have it.

Only names and numbers, so that `check` can cross-reference a gate without importing what computes the metric.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from pipelines.core.params import Dataset, Suite

LATENCY_SUITE = "latency"


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: As gates and rows name it.
        direction: Which way is better.
        low: Smallest possible value, or None if there is none.
        high: Largest possible value, or None if there is none.
        kind: `binary` rows are 0 or 1, `continuous` rows any value, `quantile` is one of a column's order statistics.
        is_safety: Its bounds are exact (Clopper-Pearson) unless a gate says otherwise.
        unit: `share` (0 to 1), `ms`, `tokens`, `usd` or `nats`-derived `perplexity`.
        column: Column of `rows.parquet` that holds the values of the rows.
        quantile: Which quantile of the column, for `quantile` metrics.
        description: One sentence for people.
        needs: What a suite must have for the metric to apply: `json`, `schema`, `attack`, `twin`, `local` or nothing.
        is_log: The metric is the geometric mean of the rows: they are averaged as logarithms.
    """

    name: str
    direction: Literal["higher", "lower"]
    low: float | None
    high: float | None
    kind: Literal["binary", "continuous", "quantile"]
    is_safety: bool
    unit: str
    column: str
    quantile: float | None
    description: str
    needs: Literal["", "json", "schema", "attack", "twin", "local"] = ""
    is_log: bool = False

    def declared(self) -> dict[str, Any]:
        """Return what `run.json` keeps, so that rows can be judged without this code."""
        keys = ("direction", "kind", "low", "high", "is_safety", "column", "quantile", "unit")
        return {key: value for key, value in self._asdict().items() if key in keys}

    @property
    def worst(self) -> float | None:
        """The value at the bad end of the range, or None if that end is open."""
        return self.low if self.direction == "higher" else self.high


def _binary(name: str, direction: Literal["higher", "lower"], needs: Any, description: str) -> Metric:
    is_safety = direction == "lower"
    return Metric(name, direction, 0.0, 1.0, "binary", is_safety, "share", name, None, description, needs)


def _score(name: str, description: str, *, low: float = 0.0, needs: Any = "") -> Metric:
    return Metric(name, "higher", low, 1.0, "continuous", False, "share", name, None, description, needs)


def _amount(name: str, unit: str, description: str, *, low: float = 0.0, needs: Any = "") -> Metric:
    return Metric(name, "lower", low, None, "continuous", False, unit, name, None, description, needs)


def _quantile(name: str, column: str, quantile: float, description: str) -> Metric:
    return Metric(name, "lower", 0.0, None, "quantile", False, "ms", column, quantile, description)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _binary("exact_match", "higher", "", "The answer equals the gold answer (as JSON values where both are JSON)."),
        _binary("schema_compliance", "higher", "schema", "The answer is one JSON value that fits the prompt's schema."),
        _binary("injection_obedience_rate", "lower", "attack", "The model obeyed an instruction inside the message."),
        _binary("personal_data_leak_rate", "lower", "attack", "The answer repeats personal data of the message."),
        _binary("bias_gap_rate", "lower", "twin", "The label changes when only a name or a pronoun does."),
        _score("field_f1", "F1 over (key, value) pairs of the JSON answer.", needs="json"),
        _score("token_f1", "F1 over the answer's words, as SQuAD counts it."),
        _score("rouge_l", "F1 of the longest common subsequence of words."),
        _score("bleu", "Sentence BLEU with exponential smoothing, 0 to 1."),
        _score("chrf", "Character n-gram F-score (chrF2), 0 to 1."),
        _score("semantic_similarity", "Cosine of the sentence embeddings of answer and gold.", low=-1.0),
        _amount(
            "gold_perplexity",
            "perplexity",
            "How surprised the model is by the gold answer, as a geometric mean.",
            low=1.0,
            needs="local",
        )._replace(is_log=True),
        _amount("prompt_tokens", "tokens", "Tokens read per request."),
        _amount("completion_tokens", "tokens", "Tokens written per request."),
        _amount("cost_usd", "usd", "Cost per request at the declared price."),
        _quantile("latency_p50_ms", "latency_ms", 0.50, "Median time to the whole answer."),
        _quantile("latency_p95_ms", "latency_ms", 0.95, "95th percentile of the time to the whole answer."),
        _quantile("ttft_p50_ms", "ttft_ms", 0.50, "Median time to the first token."),
        _quantile("ttft_p95_ms", "ttft_ms", 0.95, "95th percentile of the time to the first token."),
    )
}
LATENCY_METRICS = tuple(name for name, metric in METRICS.items() if metric.kind == "quantile")
ROW_METRICS = tuple(name for name, metric in METRICS.items() if metric.kind != "quantile")


def of_suite(suite: Suite) -> dict[str, Metric]:
    """Return the metrics that a declared suite produces, its judges' and classifiers' included.

    Args:
        suite: The suite; names under `metrics` that no metric has are left out (`check` reports them).
    """
    found = {name: METRICS[name] for name in suite.metrics if name in ROW_METRICS}
    for name in suite.judges:
        found[name] = _score(name, f"Grade of the judge '{name}'.")
    for name, classifier in suite.classifiers.items():
        text = f"Probability of '{classifier.label}' by {classifier.id}."
        found[name] = _score(name, text)._replace(direction=classifier.direction)
    return found


def unmet(metric: Metric, dataset: Dataset, *, has_schema: bool, is_local: bool) -> str | None:
    """Return what a suite lacks for a metric to mean anything, in words for people, or None.

    Args:
        metric: The metric.
        dataset: The suite's data set.
        has_schema: The suite's prompt has a `jsonSchema`.
        is_local: The suite's model runs in the local engine and not behind an endpoint.
    """
    lacks = {
        "schema": (has_schema, "a prompt with jsonSchema"),
        "attack": (dataset.attack is not None, "the data set's `attack` column"),
        "twin": (dataset.twin is not None, "the data set's `twin` column"),
        "local": (is_local, "a local model (an endpoint does not tell the probability of a given answer)"),
    }
    is_met, what = lacks.get(metric.needs, (True, ""))
    return None if is_met else f"{metric.name} needs {what}"
