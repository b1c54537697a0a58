"""Who is in the teams that CODEOWNERS names, asked ahead and kept in a file: a judge needs no token that may ask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.core.errors import ConfigError
from pipelines.core.files import read_json, write_json
from pipelines.core.github.api import Api, segment
from pipelines.core.github.replies import NotFound, Refused
from pipelines.review.approval import PLACES, parse

FILE = "teams.json"


class Teams(BaseModel):
    """`teams.json`.

    Attributes:
        teams: Logins by team as CODEOWNERS writes it (`@owner/team`); None where the token sees no such team.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    teams: dict[str, list[str] | None]


def ask_teams(api: Api, root: Path = Path()) -> Teams:
    """Ask GitHub for the members of every team in a checkout's CODEOWNERS.

    Args:
        api: The repository; its token needs the organisation's permission Members: read.
        root: A checkout of main.

    Raises:
        Refused: GitHub refuses for another reason than that the token may not see the team.
        Unreachable: GitHub gave no usable answer.
    """
    place = next((root / name for name in PLACES if (root / name).is_file()), None)
    text = place.read_text(encoding="utf-8", errors="replace") if place else ""
    owners = {owner for rule in parse(text) for owner in rule.owners}
    return Teams(teams={owner: _members(api, owner) for owner in sorted(owners) if _is_team(owner)})


def _is_team(owner: str) -> bool:
    return owner.startswith("@") and "/" in owner


def _members(api: Api, owner: str) -> list[str] | None:
    organisation, _, slug = owner[1:].partition("/")
    try:
        found = api.pages(f"/orgs/{segment(organisation)}/teams/{segment(slug)}/members")
        return sorted(str(one["login"]) for one in found)
    except NotFound:
        return None
    except Refused as error:
        if error.status != 403:
            raise
        return None


def write_teams(teams: Teams, folder: Path) -> None:
    """Write `teams.json` into a folder."""
    write_json(folder / FILE, teams.model_dump(mode="json"))


def read_teams(folder: Path) -> Mapping[str, list[str] | None]:
    """Read `teams.json` of a folder.

    Raises:
        ConfigError: It is missing, or not what `scripts.teams` wrote.
    """
    try:
        return Teams.model_validate(read_json(folder / FILE)).teams
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{folder / FILE}: {key}: {first['msg'].lower()}; run `python -m scripts.teams`") from None
