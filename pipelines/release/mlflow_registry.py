"""MLflow as the registry of releases: one model version per rollout, its prompts beside it, aliases as Git says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pipelines.core import git
from pipelines.core.errors import ServiceError, one_line
from pipelines.evaluation.track import LOCAL_ARTIFACTS, LOCAL_STORE, give_up_in_time
from pipelines.release.manifest import Manifest
from pipelines.release.registration import DIGEST, LOCK

ROLLOUT = "gatehouse.rollout_id"
PROMPT = "gatehouse.prompt_sha256"


class MlflowRegistry:
    """The registry that MLFLOW_TRACKING_URI names, or a SQLite file here."""

    def __init__(self, root: Path, name: str, experiment: str) -> None:
        """Keep where things are; nothing is asked yet.

        Args:
            root: The repository.
            name: The registered model's name.
            experiment: Where a run is made if no decision has left one.
        """
        self._root, self._name, self._experiment = root, name, experiment
        self._where = os.environ.get("MLFLOW_TRACKING_URI") or LOCAL_STORE

    def version_of(self, rollout_id: str) -> str:
        """Return the version that a rollout has, or nothing."""
        with self._told():
            found = self._tagged(ROLLOUT, rollout_id)
            return str(found[0].version) if found else ""

    def add(self, rollout_id: str, manifest: Manifest) -> str:
        """Make the version of a rollout, or take the one that its decision registered and no release has taken yet."""
        with self._told():
            self._register_prompts(manifest)
            tags = _tags(rollout_id, manifest)
            decided = self._tagged(DIGEST, manifest.input_digest)
            free = [one for one in decided if ROLLOUT not in one.tags]
            if free:
                for key, value in tags.items():  # the rollout's own last: with it the version is taken
                    self._client.set_model_version_tag(self._name, free[0].version, key, value)
                return str(free[0].version)
            source, run_id = self._source(decided, rollout_id, manifest)
            self._ensure_model()
            made = self._client.create_model_version(self._name, source, run_id, tags=tags)
            return str(made.version)

    def aliases(self) -> Mapping[str, str]:
        """Return the version of every alias."""
        with self._told():
            model = self._model()
            return {} if model is None else {str(alias): str(version) for alias, version in model.aliases.items()}

    def set_alias(self, alias: str, version: str) -> None:
        """Let an alias name a version."""
        with self._told():
            self._client.set_registered_model_alias(self._name, alias, version)

    def delete_alias(self, alias: str) -> None:
        """Take an alias away."""
        with self._told():
            self._client.delete_registered_model_alias(self._name, alias)

    @cached_property
    def _client(self) -> Any:
        give_up_in_time()
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        import mlflow

        return mlflow.MlflowClient(tracking_uri=self._where, registry_uri=self._where)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in one line what MLflow says in many."""
        give_up_in_time()
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:
            cause = one_line((str(error).splitlines() or [type(error).__name__])[0], 300)
            raise ServiceError(f"MLflow at {self._where}: {cause}; start the server and run again") from None

    def _tagged(self, key: str, value: str) -> list[Any]:
        """Return the versions that bear a tag, the first one first."""
        found = self._client.search_model_versions(f"name = '{self._name}' and tags.`{key}` = '{value}'")
        return sorted(found, key=lambda one: int(one.version))

    def _model(self) -> Any:
        return _or_none(lambda: self._client.get_registered_model(self._name))

    def _ensure_model(self) -> None:
        if self._model() is None:
            self._client.create_registered_model(self._name)

    def _source(self, decided: list[Any], rollout_id: str, manifest: Manifest) -> tuple[str, str]:
        """Return where the weights are and which run made them; without any, a run that holds the manifest."""
        if decided:
            return str(decided[0].source), str(decided[0].run_id)
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            location = (self._root / LOCAL_ARTIFACTS).resolve().as_uri() if self._where == LOCAL_STORE else None
            number = self._client.create_experiment(self._experiment, artifact_location=location)
        else:
            number = experiment.experiment_id
        runs = self._client.search_runs([number], f"tags.`{ROLLOUT}` = '{rollout_id}'")
        tags = {ROLLOUT: rollout_id, DIGEST: manifest.input_digest, "mlflow.source.git.commit": manifest.commit}
        run = runs[0] if runs else self._client.create_run(number, run_name=manifest.tag, tags=tags)
        self._client.log_text(run.info.run_id, manifest.as_file().decode(), "manifest.json")
        self._client.set_terminated(run.info.run_id)
        return f"{run.info.artifact_uri.rstrip('/')}/manifest.json", str(run.info.run_id)

    def _register_prompts(self, manifest: Manifest) -> None:
        """Give every prompt of the release its version in MLflow's prompt registry; a known text gets none."""
        for path, sha in manifest.prompts.items():
            name = Path(path).name.split(".")[0]
            uri = f"prompts:/{name}@{_alias(sha)}"
            known = _or_none(partial(self._client.load_prompt, uri))
            if known is not None:
                continue
            entry = git.files_of(self._root, manifest.commit)[path]
            text = git.text_of(self._root, entry.oid).decode(errors="replace")
            tags = {PROMPT: sha, "gatehouse.tag": manifest.tag, "gatehouse.path": path}
            made = self._client.register_prompt(name, text, commit_message=f"{path} of {manifest.tag}", tags=tags)
            self._client.set_prompt_alias(name, _alias(sha), int(made.version))


def _tags(rollout_id: str, manifest: Manifest) -> dict[str, str]:
    """Return what leads from a version back to its release; the rollout stands last."""
    approval = manifest.decision.approval
    prompts = {f"gatehouse.prompt.{Path(path).name.split('.')[0]}": sha for path, sha in manifest.prompts.items()}
    return {
        "gatehouse.version": manifest.version,
        "gatehouse.tag": manifest.tag,
        "gatehouse.git_commit": manifest.commit,
        "gatehouse.manifest": manifest.name,
        "gatehouse.model_digest": manifest.model_digest,
        DIGEST: manifest.input_digest,
        LOCK: manifest.dvc_lock_sha256,
        "gatehouse.verdict": manifest.decision.verdict,
        "gatehouse.approval": approval["user"] if approval else "none",
        **prompts,
        ROLLOUT: rollout_id,
    }


def _alias(sha: str) -> str:
    return f"sha256-{sha[:16]}"


def _or_none(ask: Callable[[], Any]) -> Any:
    """Return what MLflow has, or None where it has nothing of that name."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"):
            return None
        raise
