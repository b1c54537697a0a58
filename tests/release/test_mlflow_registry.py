"""Releases in a real MLflow registry: one version per rollout, prompts beside it, and aliases as Git says."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from pipelines.core.errors import ServiceError
from pipelines.release import manifest as manifests
from pipelines.release import registry as registries
from pipelines.release import tags
from pipelines.release.manifest import Manifest
from pipelines.release.mlflow_registry import MlflowRegistry
from pipelines.release.signing import Signing
from tests.release.site import Site, git

NAME = "support"


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/registry.db"


@pytest.fixture
def registry(where: str, built_with_remote: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowRegistry:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", where)
    return MlflowRegistry(built_with_remote.root, NAME, "releases")


def manifest(site: Site, tag: str) -> Manifest:
    world = site.world()
    around = tags.Around(world.store.tip(), None, True, (), Signing(), world.record_of, site.remote)
    return manifests.build(site.root, tags.verify(site.root, tag, around), {})


def test_a_rollout_is_one_version_with_its_lineage_and_its_prompts(
    registry: MlflowRegistry, built_with_remote: Site, where: str
) -> None:
    bound = manifest(built_with_remote, "v1.1.0")
    assert registry.version_of("r1") == ""
    first = registries.registered(registry, "r1", bound)
    assert registries.registered(registry, "r1", bound) == first == registry.version_of("r1")
    client = mlflow.MlflowClient(tracking_uri=where, registry_uri=where)
    version = client.get_model_version(NAME, first)
    assert version.tags["gatehouse.version"] == "1.1.0"
    assert version.tags["gatehouse.git_commit"] == git(built_with_remote.root, "rev-parse", "v1.1.0^{commit}")
    assert version.tags["gatehouse.manifest"] == bound.name
    sha = bound.prompts["prompts/triage.prompt.yml"]
    prompt = client.load_prompt(f"prompts:/triage@sha256-{sha[:16]}")
    assert "name: v1.1.0" in str(prompt.template)


def test_another_rollout_of_the_same_inputs_is_a_version_of_its_own_and_the_prompt_stays_one(
    registry: MlflowRegistry, built_with_remote: Site, where: str
) -> None:
    bound = manifest(built_with_remote, "v1.1.0")
    first, second = (registries.registered(registry, name, bound) for name in ("r1", "r2"))
    assert int(second) > int(first)
    client = mlflow.MlflowClient(tracking_uri=where, registry_uri=where)
    assert client.get_prompt_version("triage", 1) is not None
    assert client.load_prompt("prompts:/triage/2", allow_missing=True) is None


def test_the_version_that_a_decision_has_registered_becomes_the_releases(
    registry: MlflowRegistry, built_with_remote: Site, where: str
) -> None:
    bound = manifest(built_with_remote, "v1.0.0")
    client = mlflow.MlflowClient(tracking_uri=where, registry_uri=where)
    if not registry.aliases() and not registry.version_of("r1"):
        client.create_registered_model(NAME)
    run = client.create_run(client.create_experiment("decided"))
    made = client.create_model_version(
        NAME, f"{run.info.artifact_uri}/candidate", run.info.run_id, tags={"gatehouse.input_digest": bound.input_digest}
    )
    assert registries.registered(registry, "r3", bound) == str(made.version)
    assert client.get_model_version(NAME, made.version).tags["gatehouse.rollout_id"] == "r3"


def test_aliases_become_what_git_says_and_others_are_left_alone(
    registry: MlflowRegistry, built_with_remote: Site, where: str
) -> None:
    bound = manifest(built_with_remote, "v1.1.0")
    first, second = (registries.registered(registry, name, bound) for name in ("r1", "r2"))
    registry.set_alias("shadow", first)
    registries.point(registry, {"champion": first, "challenger": second})
    registries.point(registry, {"champion": second, "champion-1": first})
    assert dict(registry.aliases()) == {"champion": second, "champion-1": first, "shadow": first}


def test_a_registry_that_is_down_is_one_line(
    registry: MlflowRegistry, built_with_remote: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    down = MlflowRegistry(built_with_remote.root, NAME, "releases")
    with pytest.raises(ServiceError, match=r"^MLflow at http://127\.0\.0\.1:9: ") as caught:
        down.version_of("r1")
    assert "\n" not in str(caught.value)
