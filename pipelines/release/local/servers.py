"""The model processes of this machine: one per model and fault, shared by slots that run the same version."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipelines.release.local import model_files
from pipelines.release.local.declared import RELEASED, DeclaredAt
from pipelines.release.local.model_server import ModelServer, Settings
from pipelines.serving.config_upstreams import ProcessUpstream

PHASES = {
    "merging": "merging adapter and base",
    "starting": "loading the model",
    "warming": "answering its first request",
    "ended": "ended, to be started again",
}


class Key(NamedTuple):
    """What makes two servers the same one.

    Attributes:
        digest: Of the model.
        fault: What fails in front of it.
        manifest: Of the version, for a released model: both sides of a rollout have a process of their own, though the
            model be the same. Empty for a base that nobody changed.
    """

    digest: str
    fault: str
    manifest: str


class ModelServers:
    """Makes a server where one is needed, and ends those that nobody needs.

    Args:
        root: The repository.
        folder: Where models are laid out, and logs.
        program: What serves a model; by default the `transformers` of this environment.
    """

    def __init__(self, root: Path, folder: Path, program: str) -> None:
        self._root, self._folder, self._program = root, folder, program
        self._running: dict[Key, ModelServer] = {}

    def of(self, declared: DeclaredAt, model: str) -> ModelServer:
        """Return the server of a version's model.

        Raises:
            ConfigError: The version has no such model.
            ServiceError: Its files are nowhere to be found.
        """
        key = _key(declared, model)
        if key not in self._running:
            self._running[key] = ModelServer(self._settings(declared, model, key.fault), program=self._program)
        return self._running[key]

    def keep(self, needed: Iterable[tuple[DeclaredAt, str]]) -> None:
        """End every server but these."""
        keys = {_key(declared, model) for declared, model in needed}
        for key in [key for key in self._running if key not in keys]:
            self._running.pop(key).stop()

    def doing(self) -> str:
        """Return what the servers that do not answer yet are doing, one line."""
        return ", ".join(
            f"{server.settings.name}: {PHASES[server.phase]}"
            for server in self._running.values()
            if server.phase != "ready"
        )

    def _settings(self, declared: DeclaredAt, model: str, fault: str) -> Settings:
        manifest = declared.manifest
        models = self._folder / "models"
        place = model_files.lay_out(self._root, manifest, model, models)
        model_files.forget(models, {place, *(server.settings.place for server in self._running.values())})
        one = next(one for one in declared.answering.values() if one.model == model)
        assert isinstance(one.upstream, ProcessUpstream), "only such have a model here"
        prompt = declared.prompt(one.prompt) if one.prompt else None
        return Settings(
            model=model,
            place=place,
            logs=self._folder / "logs",
            name=f"{manifest.tag}-{model}",
            arguments=one.upstream.arguments,
            threads=one.upstream.threads,
            temperature=prompt.model_parameters.temperature if prompt else 0.0,
            fault=fault,
            delay_ms=declared.delay_ms() if fault == "latency" else 0.0,
        )


def _key(declared: DeclaredAt, model: str) -> Key:
    manifest, is_released = declared.manifest, model == RELEASED
    digest = manifest.models[model].digest if model in manifest.models else ""
    return Key(
        digest, manifest.images.get("fault", "none") if is_released else "", manifest.name if is_released else ""
    )
