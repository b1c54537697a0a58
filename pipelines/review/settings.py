"""The models of the repository's settings in `.github/`: rulesets, labels, environments and variables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from pipelines.core.declared import Declared, Misplaced, load, nearest
from pipelines.core.errors import ConfigError
from pipelines.core.files import read_text
from pipelines.review.rulesets import Ruleset

PLACEHOLDER = "@your-organisation/"  # in the template's CODEOWNERS, until somebody writes who decides
CODEOWNERS = Path(".github/CODEOWNERS")
FILES = {name: Path(f".github/{name}.yml") for name in ("labels", "environments", "variables")}
APP_VARIABLE = "GATEHOUSE_APP_ID"
KNOWN_VARIABLES = [
    APP_VARIABLE,
    "GATEHOUSE_LOCK",
    "GATEHOUSE_MAIN_RUNNER",
    "GATEHOUSE_PROMETHEUS",
    "GATEHOUSE_RELEASE_RUNNER",
    "GATEHOUSE_REMOTE",
    "GATEHOUSE_REQUIRE_SIGNED",
    "GATEHOUSE_RUNNER",
    "GATEHOUSE_SHARDS",
    "GATEHOUSE_TARGET",
    "GATEHOUSE_TEAMS",
    "GATEHOUSE_TIMEOUT_MINUTES",
    "GATEHOUSE_URL_STAGING",
]


class Label(Declared):
    """A label of issues and pull requests; GitHub finds it by name in any case."""

    name: Annotated[str, Field(min_length=1, max_length=50)]
    color: Annotated[str, Field(pattern=r"^[0-9a-f]{6}$", description="Six hex digits, in quotes.")]
    description: Annotated[str, Field(max_length=100)] = ""


class Labels(Declared):
    """`.github/labels.yml`; labels that are not listed stay as they are."""

    schema_version: Literal[1]
    labels: tuple[Label, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Labels:
        _no_twins([label.name.casefold() for label in self.labels], "labels", "name")
        return self


def _is_reviewer(value: str) -> str:
    if not re.fullmatch(r"@[A-Za-z0-9-]{1,39}(/[A-Za-z0-9_.-]{1,100})?", value):
        raise ValueError("@user or @organisation/team is needed")
    return value


Reviewer = Annotated[str, AfterValidator(_is_reviewer)]


class Environment(Declared):
    """What a job that names this environment waits for, and from where it may run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
    reviewers: Literal["CODEOWNERS"] | Annotated[tuple[Reviewer, ...], Field(max_length=6)] = Field(
        default=(), description="One of them must approve a job; CODEOWNERS: whoever owns `*` there. At most six."
    )
    prevent_self_review: bool = Field(default=False, description="Who started the job cannot approve it.")
    wait_minutes: Annotated[int, Field(ge=0, le=43_200)] = 0
    branches: tuple[str, ...] = Field(default=(), description="Patterns of branches that may use it.")
    tags: tuple[str, ...] = Field(default=(), description="Patterns of tags that may. Neither: every branch and tag.")

    @model_validator(mode="after")
    def _can_be_reviewed(self) -> Environment:
        if self.prevent_self_review and not self.reviewers:
            raise Misplaced("needs 'reviewers': GitHub refuses it without", "prevent_self_review")
        return self


class Environments(Declared):
    """`.github/environments.yml`; environments that are not listed stay as they are."""

    schema_version: Literal[1]
    environments: tuple[Environment, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Environments:
        _no_twins([one.name.casefold() for one in self.environments], "environments", "name")
        return self


class Variable(Declared):
    """What workflows read as `vars.NAME`."""

    description: str
    value: Annotated[str, Field(max_length=48_000)] | None = Field(
        default=None, description="null: not set, so that the workflows' own default holds."
    )


class Variables(Declared):
    """`.github/variables.yml`; a variable that is not listed stays as it is."""

    schema_version: Literal[1]
    variables: dict[str, Variable] = Field(min_length=1)

    @model_validator(mode="after")
    def _make_sense(self) -> Variables:
        for name, variable in self.variables.items():
            if not re.fullmatch(r"(?!GITHUB_)[A-Z_][A-Z0-9_]{0,254}", name):
                raise Misplaced("capitals, digits and _ are needed, and no GITHUB_ in front", "variables", name)
            if name.startswith("GATEHOUSE_") and name not in KNOWN_VARIABLES:
                raise Misplaced(f"no workflow reads it{nearest(name, KNOWN_VARIABLES)}", "variables", name)
            if variable.value is not None and (problem := _wrong_value(name, variable.value)):
                raise Misplaced(f"{problem}, found {variable.value[:80]!r}", "variables", name, "value")
        return self


MODELS: dict[str, type[Declared]] = {"labels": Labels, "environments": Environments, "variables": Variables}


class Settings(NamedTuple):
    """Everything that the files say about the repository."""

    rulesets: tuple[tuple[Path, Ruleset], ...]
    labels: tuple[Label, ...]
    environments: tuple[Environment, ...]
    variables: dict[str, Variable]
    owners: tuple[str, ...]

    @property
    def app_id(self) -> str | None:
        """The release bot's App, as variables.yml names it."""
        declared = self.variables.get(APP_VARIABLE)
        return declared.value if declared else None


def load_settings(root: Path) -> Settings:
    """Load the settings of the repository in `root`.

    Raises:
        ConfigError: A file is missing or wrong; the message names file, line and key.
    """
    rulesets = tuple((path, load(path, Ruleset)) for path in ruleset_files(root))
    if not rulesets:
        raise ConfigError(".github/rulesets: holds no *.json; without rulesets nothing is protected")
    _no_twins([ruleset.name.casefold() for _, ruleset in rulesets], ".github/rulesets", "name")
    return Settings(
        rulesets=rulesets,
        labels=load(root / FILES["labels"], Labels).labels,
        environments=load(root / FILES["environments"], Environments).environments,
        variables=load(root / FILES["variables"], Variables).variables,
        owners=code_owners(read_text(root / CODEOWNERS)),
    )


def ruleset_files(root: Path) -> list[Path]:
    """Return the rulesets' files in the order of their names."""
    return sorted((root / ".github/rulesets").glob("*.json"))


def code_owners(text: str) -> tuple[str, ...]:
    """Return who owns what nobody else owns: the owners in the last line for `*` of CODEOWNERS."""
    owners: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if words[:1] == ["*"]:
            owners = tuple(word for word in words[1:] if word.startswith("@"))
    return owners


def _no_twins(names: list[str], *key: str) -> None:
    for name in names:
        if names.count(name) > 1:
            where = key[0]
            message = f"{name!r} is there twice; GitHub tells no capitals from small letters"
            if where.startswith("."):
                raise ConfigError(f"{where}: {message}")
            raise Misplaced(message, where, len(names) - 1 - names[::-1].index(name), key[1])


def _wrong_value(name: str, value: str) -> str | None:
    """Say what is wrong with the value of a variable that the workflows read."""
    if name in ("GATEHOUSE_RUNNER", "GATEHOUSE_MAIN_RUNNER", "GATEHOUSE_RELEASE_RUNNER") and not _is_runner(value):
        return 'JSON is needed: a label in quotes, or a list such as ["self-hosted", "gpu"]'
    if name == "GATEHOUSE_LOCK" and value not in ("auto", "cpu", "cuda"):
        return "auto, cpu or cuda is needed"
    if name == "GATEHOUSE_TARGET" and not re.fullmatch(r"[a-z]+|[A-Za-z0-9_.]+:[A-Za-z0-9_]+", value):
        return "kubernetes, local, or package.module:function is needed"
    is_url = re.fullmatch(r"https?://[^\s/@]+(/[^\s]*)?", value)
    if name in ("GATEHOUSE_PROMETHEUS", "GATEHOUSE_URL_STAGING") and not is_url:
        return "an http:// or https:// URL without a password is needed"
    if name in ("GATEHOUSE_TEAMS", "GATEHOUSE_REQUIRE_SIGNED") and value not in ("true", "false"):
        return "true or false, in quotes, is needed"
    whole = {"GATEHOUSE_SHARDS": 256, "GATEHOUSE_TIMEOUT_MINUTES": 7200, APP_VARIABLE: 2**53}
    if name in whole and not (re.fullmatch(r"[1-9][0-9]{0,15}", value) and int(value) <= whole[name]):
        return f"a whole number from 1 to {whole[name]:,}, in quotes, is needed"
    return None


def _is_runner(value: str) -> bool:
    try:
        labels = json.loads(value)
    except ValueError:
        return False
    listed = labels if isinstance(labels, list) else [labels]
    return bool(listed) and all(isinstance(label, str) and label.strip() for label in listed)
