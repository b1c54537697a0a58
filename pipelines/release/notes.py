"""What a version brings, for its page: the tag's message, and the subject of each commit since the version before."""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.core import git
from pipelines.core.markdown import block, inline
from pipelines.release.state import OVERLAYS

MOST_COMMITS = 50
MESSAGE_CHARACTERS = 4000
_SIGNATURE = re.compile(r"^-----BEGIN (?:PGP|SSH) SIGNATURE-----$.*\Z", re.MULTILINE | re.DOTALL)
_PULL_REQUEST = re.compile(r" \(#([1-9][0-9]{0,8})\)$")


def notes(root: Path, tag: str, tag_object: str, commit: str, before: str, url: str) -> str:
    """Return Markdown for a release page; every word of a person's is made safe.

    Args:
        root: The repository.
        tag: The tag's name.
        tag_object: The annotated tag, hex.
        commit: What it stands on, hex.
        before: Commit of the version before, hex; empty for a first release.
        url: Of the repository's page, where pull requests are linked; empty: they are only named.
    """
    message = message_of(root, tag_object)
    parts = [] if message in ("", f"Release {tag}", tag) else [block(message, MESSAGE_CHARACTERS)]
    subjects = subjects_between(root, before, commit)
    if subjects:
        parts.append("\n".join(f"- {_line(subject, url)}" for subject in subjects[:MOST_COMMITS]))
    if len(subjects) > MOST_COMMITS:
        parts.append(f"and {len(subjects) - MOST_COMMITS} more")
    return "\n\n".join(["## Changes", *(parts or ["The same files as before, or the first release."])])


def message_of(root: Path, tag_object: str) -> str:
    """Return an annotated tag's message without its signature."""
    text = git.git(root, "cat-file", "tag", tag_object).decode(errors="replace").replace("\r\n", "\n")
    return _SIGNATURE.sub("", text.partition("\n\n")[2]).strip()


def subjects_between(root: Path, before: str, commit: str) -> list[str]:
    """Return the first lines of people's commits, the newest first; the release bot's own are left out."""
    if not before:
        return []
    words = ("log", "--first-parent", "--format=%s", "--end-of-options", f"{before}..{commit}")
    outside = ("--", ".", f":(exclude){OVERLAYS}")
    return [line for line in git.git(root, *words, *outside).decode(errors="replace").split("\n") if line]


def _line(subject: str, url: str) -> str:
    found = _PULL_REQUEST.search(subject)
    if not found or not url:
        return inline(subject)
    return f"{inline(subject[: found.start()])} ([{found[1]}]({url}/pull/{found[1]}))"
