"""What `serving.yaml` names must be there and fit: upstreams, models, prices, prompts, guardrails, projects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipelines.core.declared import check, nearest
from pipelines.core.errors import ConfigError
from pipelines.core.gates import Gates
from pipelines.core.params import Params
from pipelines.core.source import Key, Problem, Source, parse
from pipelines.serving.config import Route, Serving
from pipelines.serving.config_upstreams import MlflowUpstream, ProcessUpstream, RequestPrice
from pipelines.serving.meanings import too_alike
from pipelines.serving.splitting import VARIANTS

LATENCY_METRICS = {"latency": "latency_bounds_s", "ttft": "ttft_bounds_s"}


class Declaration(NamedTuple):
    """`serving.yaml`, what could be understood of it, and what is wrong with it."""

    serving: Serving | None
    problems: list[Problem]


def load_checked(path: Path, root: Path) -> Serving:
    """Load `serving.yaml` for a gateway.

    Raises:
        ConfigError: Anything is wrong with it; the message is the first problem and says how many more there are.
    """
    found = find(path, root)
    if found.serving is None or found.problems:
        n_more = len(found.problems) - 1
        more = f" (and {n_more} more; run `python -m scripts.check`)" if n_more else ""
        raise ConfigError(f"{found.problems[0]}{more}")
    return found.serving


def problems(root: Path, params: Params | None, gates: Gates | None) -> list[str]:
    """Return what is wrong with a repository's `serving.yaml`, one line each."""
    try:
        found = find(root / "serving.yaml", root, shown="serving.yaml", params=params, gates=gates)
        alike = [] if found.serving is None else too_alike(found.serving, parse(root / "serving.yaml", "serving.yaml"))
    except ConfigError as error:
        return [str(error)]
    return list(map(str, [*found.problems, *alike]))


def find(
    path: Path, root: Path, *, shown: str | None = None, params: Params | None = None, gates: Gates | None = None
) -> Declaration:
    """Hold `serving.yaml` against its model, itself and the files that it names.

    Args:
        path: The file.
        root: Folder of the repository.
        shown: Name of the file in messages.
        params: `params.yaml`: prices and processes are held against it, where it is given.
        gates: `gates.yaml`: every latency limit must be a bound of a histogram.

    Raises:
        ConfigError: The file is missing or not YAML.
    """
    source = parse(path, shown)
    serving, problems = check(source, Serving)
    if serving is not None:
        problems = [*problems, *_cross(serving, source, root)]
        if params is not None:
            problems += _against_params(serving, source, params)
        if gates is not None:
            problems += _against_gates(serving, source, gates)
    return Declaration(serving, sorted(problems, key=lambda problem: problem.line or 0))


def _cross(serving: Serving, source: Source, root: Path) -> Iterator[Problem]:
    for name, upstream in serving.upstreams.items():
        if upstream.model not in serving.prices:
            hint = nearest(upstream.model, list(serving.prices))
            yield source.problem(("prices",), f"model '{upstream.model}' of upstream '{name}' has no price{hint}")
        elif isinstance(upstream, MlflowUpstream) != isinstance(serving.prices[upstream.model], RequestPrice):
            wanted = "request_usd" if isinstance(upstream, MlflowUpstream) else "prompt_usd and completion_usd"
            yield source.problem(("prices", upstream.model), f"upstream '{name}' needs {wanted}")
    ports = [upstream.port for upstream in serving.upstreams.values() if isinstance(upstream, ProcessUpstream)]
    ports += [serving.listen.port, serving.listen.private_port]
    for port in {port for port in ports if ports.count(port) > 1}:
        yield source.problem(("listen",), f"port {port} is used twice")
    for name, route in serving.routes.items():
        yield from _check_route(serving, source, root, name, route)
    if serving.rollout is not None:
        yield from _check_rollout(serving, source)
    for index, key in enumerate(serving.keys):
        if key.project not in serving.projects:
            hint = nearest(key.project, list(serving.projects))
            yield source.problem(("keys", index, "project"), f"unknown project '{key.project}'{hint}")
        if key.sha256 in [other.sha256 for other in serving.keys[:index]]:
            yield source.problem(("keys", index, "sha256"), "is another key's as well")
    for name, project in serving.projects.items():
        for index, allowed in enumerate(project.routes or ()):
            if allowed not in serving.routes:
                hint = nearest(allowed, list(serving.routes))
                yield source.problem(("projects", name, "routes", index), f"unknown route '{allowed}'{hint}")


def _check_route(serving: Serving, source: Source, root: Path, name: str, route: Route) -> Iterator[Problem]:
    at: tuple[Key, ...] = ("routes", name)
    named: list[tuple[tuple[Key, ...], str]] = [
        ((*at, "variants", variant, "upstream"), side.upstream) for variant, side in route.variants.items()
    ]
    named += [((*at, "tiers", index, "upstream"), tier.upstream) for index, tier in enumerate(route.tiers)]
    named += [((*at, "fallbacks", index), fallback) for index, fallback in enumerate(route.fallbacks)]
    kinds = set()
    for key, upstream in named:
        if upstream not in serving.upstreams:
            hint = nearest(upstream, list(serving.upstreams))
            yield source.problem(key, f"unknown upstream '{upstream}'{hint}")
        else:
            kinds.add(isinstance(serving.upstreams[upstream], MlflowUpstream))
    if len(kinds) > 1:
        yield source.problem(at, "classic models (mlflow) and language models cannot stand in for each other")
    prompts: list[tuple[tuple[Key, ...], str | None]] = [((*at, "prompt"), route.prompt)]
    prompts += [((*at, "variants", variant, "prompt"), side.prompt) for variant, side in route.variants.items()]
    for key, prompt in prompts:
        if prompt is not None and not (root / prompt).is_file():
            yield source.problem(key, f"no prompt file '{prompt}'")
    if route.guardrails is not None and route.guardrails not in serving.guardrails:
        hint = nearest(route.guardrails, list(serving.guardrails))
        yield source.problem((*at, "guardrails"), f"unknown guardrails '{route.guardrails}'{hint}")
    for level in ("exact", "semantic"):
        if route.cache is not None and getattr(route.cache, level) and getattr(serving.caches, level) is None:
            yield source.problem((*at, "cache"), f"uses the {level} cache, which `caches` does not declare")


def _check_rollout(serving: Serving, source: Source) -> Iterator[Problem]:
    split = [name for name, route in serving.routes.items() if route.variants.keys() >= VARIANTS]
    if not split:
        yield source.problem(("rollout",), "no route has the variants 'stable' and 'candidate', so nothing is split")
    for name in split:
        for other in sorted(serving.routes[name].variants.keys() - VARIANTS):
            message = "a route that a rollout splits has 'stable' and 'candidate' only"
            yield source.problem(("routes", name, "variants", other), message)


def _against_params(serving: Serving, source: Source, params: Params) -> Iterator[Problem]:
    for name, upstream in serving.upstreams.items():
        if not isinstance(upstream, ProcessUpstream):
            continue
        if upstream.model != "candidate" and upstream.model not in params.models:
            hint = nearest(upstream.model, [*params.models, "candidate"])
            yield source.problem(("upstreams", name, "model"), f"params.yaml has no model '{upstream.model}'{hint}")
        elif upstream.model in serving.prices and serving.prices[upstream.model] != params.price(upstream.model):
            yield source.problem(("prices", upstream.model), "differs from the price in params.yaml; make them equal")


def _against_gates(serving: Serving, source: Source, gates: Gates) -> Iterator[Problem]:
    for gate in gates.evaluation.gates:
        for metric, rule in gate.metrics.items():
            field = LATENCY_METRICS.get(metric.split("_")[0]) if metric.endswith("_ms") else None
            if field is None or rule.ceiling is None:
                continue
            if rule.ceiling / 1000 not in getattr(serving.metrics, field):
                message = f"lacks {rule.ceiling / 1000:g}, the limit of {metric} in gates.yaml (gate '{gate.name}')"
                yield source.problem(("metrics", field), message)
