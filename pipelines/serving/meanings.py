"""The questions that `serving.yaml` declares to differ, held against the semantic cache as it would look them up."""

from __future__ import annotations

from pipelines.core.source import Problem, Source
from pipelines.serving.config import Serving


def too_alike(serving: Serving, source: Source) -> list[Problem]:
    """Return a problem for every pair that would share an answer. Loads the embedding model: not for the gateway.

    Raises:
        ConfigError: The package that carries the model is not installed.
    """
    declared = serving.caches.semantic
    if declared is None:
        return []
    from pipelines.serving.likeness import features, may_share
    from pipelines.serving.minilm import MiniLM, TooLong

    model = MiniLM()
    problems = []
    for index, pair in enumerate(declared.must_differ):
        try:
            similarity = float(model.embed(pair.one) @ model.embed(pair.other))
        except TooLong:
            continue  # such a question is never looked up
        if similarity >= declared.min_similarity and may_share(features(pair.one), features(pair.other)):
            message = (
                f"these two would share an answer: their similarity is {similarity:.3f}; raise min_similarity "
                f"({declared.min_similarity:g}) above it"
            )
            problems.append(source.problem(("caches", "semantic", "must_differ", index), message))
    return problems
