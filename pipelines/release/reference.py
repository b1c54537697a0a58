"""Container images as they are named here: always by digest, since a tag can be moved."""

from __future__ import annotations

import re
from typing import NamedTuple

from pipelines.core.errors import ConfigError, one_line

# Host with an optional port, then lower-case parts, as the distribution specification has it.
NAME = re.compile(
    r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)+"
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MOST_CHARACTERS = 255


class Reference(NamedTuple):
    """An image.

    Attributes:
        name: Registry and repository.
        digest: `sha256:` and 64 hex digits.
    """

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}"


def check_name(text: str, asked: str) -> str:
    """Return the name of an image.

    Args:
        text: What was given.
        asked: What it was given for, as it is called in messages.

    Raises:
        ConfigError: It is no name, or names a tag or a digest as well.
    """
    if len(text) > MOST_CHARACTERS or not NAME.fullmatch(text):
        found = one_line(repr(text), 80)
        raise ConfigError(f"{asked} {found} is no image; write registry/name in small letters, without tag or digest")
    return text


def parse_reference(text: str, asked: str) -> Reference:
    """Return an image with its digest.

    Raises:
        ConfigError: There is no digest, or no name.
    """
    name, _, digest = text.partition("@")
    if not DIGEST.fullmatch(digest):
        found = one_line(repr(text), 120)
        raise ConfigError(f"{asked} {found} names no digest; write NAME@sha256:... as actions/image prints it")
    return Reference(check_name(name, asked), digest)
