"""Versions as tags name them: v1.2.0, three numbers without leading zeros (SemVer 2.0.0, releases only)."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pipelines.core.errors import ConfigError, one_line

Part = Literal["major", "minor", "patch"]
_NUMBER = "(0|[1-9][0-9]{0,8})"
TAG = re.compile(rf"v{_NUMBER}\.{_NUMBER}\.{_NUMBER}")


class Version(NamedTuple):
    """A released version; versions compare as SemVer says."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def tag(self) -> str:
        """Return the tag's name."""
        return f"v{self}"

    def next(self, part: Part) -> Version:
        """Return the version that follows when this part is raised."""
        if part == "major":
            return Version(self.major + 1, 0, 0)
        return Version(self.major, self.minor + 1, 0) if part == "minor" else self._replace(patch=self.patch + 1)


def parse_tag(tag: str) -> Version:
    """Return the version that a tag names.

    Raises:
        ConfigError: It names none.
    """
    found = TAG.fullmatch(tag)
    if found is None:
        raise ConfigError(f"tag {one_line(tag, 60)!r} is no version; name it like v1.2.0")
    return Version(*map(int, found.groups()))
