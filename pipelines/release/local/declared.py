"""What a manifest's commit declares about answering: its serving file, prompts, limits and rows, read from Git."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipelines.core import git
from pipelines.core.declared import Declared, check
from pipelines.core.errors import ConfigError
from pipelines.core.gates import Gates
from pipelines.core.params import Params
from pipelines.core.rows import read_rows
from pipelines.core.source import parse
from pipelines.llm.prompts import Prompt
from pipelines.release.local.traffic import Question
from pipelines.release.manifest import Manifest
from pipelines.serving.config import Route, Serving
from pipelines.serving.config_upstreams import ProcessUpstream, Upstream

Model = TypeVar("Model", bound=Declared)
RELEASED = "candidate"
"""The model that training makes, and so the one that every release brings."""
SLOWER = 1.25
"""What the fault `latency` adds, as a multiple of the limit."""
DELAY_MS = 8000.0
MOST_ROWS = 2000


class Answering(NamedTuple):
    """How one route is answered.

    Attributes:
        route: As declared.
        upstream: Whom it asks first.
        prompt: Path of its prompt, or None.
    """

    route: Route
    upstream: Upstream
    prompt: str | None

    @property
    def model(self) -> str:
        """Return the model whose process answers; empty where it runs elsewhere."""
        return self.upstream.model if isinstance(self.upstream, ProcessUpstream) else ""


class DeclaredAt:
    """The declared files of a manifest's commit.

    Args:
        root: The repository.
        manifest: The manifest.
    """

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self._root = root
        self.manifest = manifest

    @cached_property
    def serving(self) -> Serving:
        """Return the serving file.

        Raises:
            ConfigError: The commit has none, or it is wrong.
        """
        return self._read("serving.yaml", Serving)

    @cached_property
    def params(self) -> Params:
        """Return the parameters."""
        return self._read("params.yaml", Params)

    @cached_property
    def answering(self) -> dict[str, Answering]:
        """Return how each route is answered."""
        found = {}
        for name, route in self.serving.routes.items():
            if route.variants:
                side = route.variants.get("stable") or max(route.variants.values(), key=lambda one: one.weight)
                upstream, prompt = side.upstream, side.prompt or route.prompt
            else:
                upstream, prompt = route.tiers[0].upstream, route.prompt
            found[name] = Answering(route, self.serving.upstreams[upstream], prompt)
        return found

    def file(self, path: str) -> bytes:
        """Return a file of the commit.

        Raises:
            ConfigError: It has none.
        """
        entry = self._entries.get(path)
        if entry is None:
            raise ConfigError(f"{path}: commit {self.manifest.commit[:12]} ({self.manifest.tag}) has no such file")
        return git.text_of(self._root, entry.oid)

    def prompt(self, path: str) -> Prompt:
        """Return a prompt of the commit."""
        return self._read(path, Prompt)

    def delay_ms(self) -> float:
        """Return by how much the fault `latency` is slower than the limit allows."""
        canary = self._read("gates.yaml", Gates).canary
        rollout = canary.rollout("local") if canary else None
        rule = rollout.gates.latency_p95_ms if rollout else None
        return rule.ceiling * SLOWER if rule else DELAY_MS

    def questions(self, route: str) -> list[Question]:
        """Return the rows of the evaluation that a route's prompt was evaluated on.

        Raises:
            ConfigError: No suite uses its prompt, or the rows are not there.
        """
        prompt = self.answering[route].prompt
        suites = [suite for suite in self.params.suites.values() if suite.prompt == prompt]
        if not suites:
            raise ConfigError(f"params.yaml: suites: none uses {prompt}, so there are no rows to replay to {route!r}")
        questions = []
        for suite in suites:
            path = self._root / "data/prepared" / suite.dataset / f"{suite.split}.jsonl"
            if not path.is_file():
                raise ConfigError(f"{path.relative_to(self._root)}: no such file; `make run` prepares it")
            questions += [Question(route, row.inputs) for row in sorted(read_rows(path), key=lambda row: row.id)]
        return questions[:MOST_ROWS]

    @cached_property
    def _entries(self) -> dict[str, git.Entry]:
        return git.files_of(self._root, self.manifest.commit)

    def _read(self, path: str, model: type[Model]) -> Model:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / Path(path).name
            copy.write_bytes(self.file(path))
            value, problems = check(parse(copy, path), model)
        if value is None or problems:
            raise ConfigError(f"{problems[0]} (commit {self.manifest.commit[:12]}, {self.manifest.tag})")
        return value


def taking_part(stable: DeclaredAt, candidate: DeclaredAt | None) -> list[str]:
    """Return the routes that a release concerns: those of the released model, and those that differ otherwise.

    Args:
        stable: What serves.
        candidate: What is to serve, or None.
    """
    if candidate is None:
        return [name for name, one in stable.answering.items() if one.model == RELEASED]
    return [
        name
        for name, one in stable.answering.items()
        if name in candidate.answering
        and (RELEASED in (one.model, candidate.answering[name].model) or _differs(name, stable, candidate))
    ]


def _differs(name: str, stable: DeclaredAt, candidate: DeclaredAt) -> bool:
    return _identity(name, stable) != _identity(name, candidate)


def _identity(name: str, declared: DeclaredAt) -> tuple[Any, ...]:
    one = declared.answering[name]
    model = declared.manifest.models.get(one.model)
    prompt = declared.manifest.prompts.get(one.prompt or "")
    return one.upstream.model, model.digest if model else "", prompt
