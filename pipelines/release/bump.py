"""Write the annotated tag of the next version, after the checks that a release will make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipelines.core import git
from pipelines.core.commit import head
from pipelines.core.errors import ConfigError, GateFailed
from pipelines.core.records import Record
from pipelines.release import tags
from pipelines.release.signing import Signing
from pipelines.release.state import read_state, release_path
from pipelines.release.store import Store
from pipelines.release.version import TAG, Part, Version, parse_tag


class Bumped(NamedTuple):
    """The tag.

    Attributes:
        tag: Its name.
        commit: What it stands on, hex.
        is_new: Whether this call made it.
        is_pushed: Whether the remote has it.
    """

    tag: str
    commit: str
    is_new: bool
    is_pushed: bool


def bump(
    store: Store,
    part: Part,
    record_of: Callable[[str], Record | None],
    *,
    message: str = "",
    is_signed: bool = False,
    does_push: bool = False,
    environment: str = "production",
) -> Bumped:
    """Tag the commit that is checked out as the next version.

    Args:
        store: The branch that the release will be made from.
        part: What is raised.
        record_of: Reads the record of an input digest.
        message: The tag's; by default one sentence.
        is_signed: Sign it as Git is configured.
        does_push: Push it too, which starts the release.
        environment: Whose newest version is counted from.

    Raises:
        ConfigError: There is no commit.
        GateFailed: The commit could not be released.
        ServiceError: The remote cannot be reached.
    """
    root, tip = store.root, store.tip()
    commit, _ = head(root)
    if commit == "unknown":
        raise ConfigError("there is no commit to tag; commit something first")
    path = release_path(environment)
    state = read_state(store.read(tip, path), path)
    newest = parse_tag(f"v{state.newest}") if state.newest else None
    known = _known(store)
    if again := _same(root, commit, known, newest, part):
        return Bumped(again.tag, commit, False, _push(store, again.tag) if does_push else again in known.there)
    highest = max([*known.here, *known.there, *([newest] if newest else [])], default=Version(0, 0, 0))
    version = highest.next(part)
    around = tags.Around(tip, newest, False, (), Signing(), record_of, store.remote)
    tags.check_commit(root, commit, version, around, shown="this commit")
    tags.decision_of(root, commit, record_of, shown="this commit")
    flag = "--sign" if is_signed else "--annotate"
    try:
        git.git(root, "tag", flag, "--message", message or f"Release {version.tag}", version.tag, commit)
    except git.GitFailed as error:
        raise ConfigError(f"{error}; set user.name and user.email, and a signing key where you sign") from None
    return Bumped(version.tag, commit, True, _push(store, version.tag) if does_push else False)


class _Known(NamedTuple):
    here: tuple[Version, ...]
    there: tuple[Version, ...]


def _known(store: Store) -> _Known:
    """Return every version that a tag names, here and on the remote."""
    here = git.git(store.root, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/tags").decode().split()
    there: list[str] = []
    if store.remote is not None:
        access = git.credentials(store.root, store.remote)
        words = ("ls-remote", "--tags", "--refs", "--end-of-options", store.remote)
        listed = git.git(store.root, *words, environment=access).decode().splitlines()
        there = [line.split("\t")[1].removeprefix("refs/tags/") for line in listed]
    return _Known(*(tuple(parse_tag(one) for one in names if TAG.fullmatch(one)) for names in (here, there)))


def _same(root: Path, commit: str, known: _Known, newest: Version | None, part: Part) -> Version | None:
    """Return the version that an earlier call gave this very commit and that was never released, or None."""
    for version in sorted({*known.here, *known.there}, reverse=True):
        if newest is not None and version <= newest:
            return None
        if git.commit_of(root, f"refs/tags/{version.tag}") == commit:
            others = [one for one in {*known.here, *known.there} if one != version]
            if version == max([*others, *([newest] if newest else [])], default=Version(0, 0, 0)).next(part):
                return version
            raise GateFailed(f"this commit is {version.tag} already; delete that tag or commit something")
    return None


def _push(store: Store, tag: str) -> bool:
    if store.remote is None:
        raise ConfigError(f"{tag}: there is no remote to push to; leave out --push")
    access = git.credentials(store.root, store.remote)
    reference = f"refs/tags/{tag}"
    words = ("push", "--quiet", "--no-verify", "--end-of-options", store.remote, f"{reference}:{reference}")
    git.git(store.root, *words, environment=access)
    return True
