"""`k8s/overlays/<environment>/release.yaml`: what is released there, what is on its way, and what is held back."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Literal

import yaml

from pipelines.core.declared import Declared, check
from pipelines.core.errors import ConfigError, one_line
from pipelines.core.files import digest
from pipelines.core.source import parse

Step = Literal[
    "idle", "manifest", "register", "staging", "smoke", "deploy", "ab_test", "canary", "finalise", "rollback", "restore"
]
BEFORE_TRAFFIC: tuple[Step, ...] = ("manifest", "register", "staging", "smoke", "deploy")
"""Where no user meets the candidate yet: in a workflow, production's approval may still be due."""
OVERLAYS = "k8s/overlays"
HEADER = "# Written by the release bot; read docs/decisions/0031-release-state-in-git.md before you edit it.\n"
NUMERIC = re.compile(r"[-+.0-9]")
EARLIER = 2  # beside the champion itself: the last three stay restorable


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.2 reads as a number though PyYAML, which follows YAML 1.1, does not: 1234e5678."""


def _written(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if NUMERIC.match(text) else None)


_Dumper.add_representer(str, _written)


class Release(Declared):
    """One version in production, or on its way there.

    Attributes:
        version: SemVer, without the v.
        tag: The tag's name.
        tag_object: The annotated tag itself, hex.
        commit: What it stands on, hex.
        input_digest: Of that commit's tree.
        model_digest: Of all model files that the decision names.
        content_digest: Of what answers users: models, prompts, serving file and images.
        rollout_id: Of its way to production.
        manifest: SHA-256 of its manifest, and so its name; empty before there is one.
        registry_version: Number in the model registry; empty before it is registered.
    """

    version: str
    tag: str
    tag_object: str
    commit: str
    input_digest: str
    model_digest: str
    content_digest: str
    rollout_id: str
    manifest: str = ""
    registry_version: str = ""


class Held(Declared):
    """What was rolled back and may not come again until a person says so."""

    content_digest: str
    tag: str
    rollout_id: str
    why: str
    at: str


class Pause(Declared):
    """A person (or a stage that came to no verdict) stops the rollout where it is."""

    by: str
    at: str
    why: str


class State(Declared):
    """The whole file.

    Attributes:
        stable: What serves users; None before the first release.
        candidate: What is on its way, or back.
        leaving: What a person takes back after its release, until the version before it (now stable) is ready again.
        rollout_id: Of the release that was moved last.
        attempt: How often that one was begun.
        gates_sha256: Of the gates that the rollout goes by.
        step: What is done next.
        stage: Which canary stage, from 0.
        weight: Share of traffic that the candidate is to get, 0 to 1.
        since: When the step or stage began.
        blind_since: Since when nothing can be measured; empty where something can.
        pause: Who holds the rollout; without a candidate nothing may begin.
        earlier: What was stable before, the newest first.
        newest: The highest version that ever became stable.
        held: What was rolled back.
    """

    schema_version: Literal[1] = 1
    stable: Release | None = None
    candidate: Release | None = None
    leaving: Release | None = None
    rollout_id: str = ""
    attempt: int = 0
    gates_sha256: str = ""
    step: Step = "idle"
    stage: int = 0
    weight: float = 0.0
    since: str = ""
    blind_since: str = ""
    pause: Pause | None = None
    earlier: tuple[Release, ...] = ()
    newest: str = ""
    held: tuple[Held, ...] = ()

    def changed(self, **values: object) -> State:
        """Return a copy with other values."""
        return self.model_copy(update=values)

    def as_file(self) -> bytes:
        """Return the file's bytes."""
        text = yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
        return (HEADER + text).encode()


def release_path(environment: str) -> str:
    """Return where an environment's state lies."""
    return f"{_folder(environment)}/release.yaml"


def history_folder(environment: str) -> str:
    """Return the folder of an environment's histories."""
    return f"{_folder(environment)}/history"


def history_path(environment: str, rollout_id: str) -> str:
    """Return where a rollout's history lies."""
    return f"{history_folder(environment)}/{rollout_id}.json"


def manifest_path(environment: str, name: str) -> str:
    """Return where a manifest lies; its signature stands beside it with `.sig` at the end."""
    return f"{_folder(environment)}/manifests/{name}.json"


def _folder(environment: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9-]{0,40}", environment):
        raise ConfigError(f"environment {one_line(environment, 60)!r}: lower-case letters, digits and - are needed")
    return f"{OVERLAYS}/{environment}"


def rollout_id(tag: str, commit: str, model_digest: str) -> str:
    """Return the name of a rollout: the same tag, commit and model are the same rollout, however often it is run."""
    return digest({"tag": tag, "commit": commit, "model_digest": model_digest})[:16]


def read_state(data: bytes | None, shown: str) -> State:
    """Return the state that a file holds; without a file nothing was ever released.

    Raises:
        ConfigError: The file is broken; the message names line and key.
    """
    if data is None:
        return State()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "release.yaml"
        copy.write_bytes(data)
        state, problems = check(parse(copy, shown), State)
    if state is None or problems:
        raise ConfigError(f"{problems[0]}; restore the file from Git's history")
    return state
